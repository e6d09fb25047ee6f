package clients

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

const mostPods = 10

// operator makes a Deployment for each Widget, and tells in its status how many pods there are.
type operator struct{ client.Client }

func (o *operator) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var widget Widget
	if err := o.Get(ctx, request.NamespacedName, &widget); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	deployment := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: widget.Name, Namespace: widget.Namespace}}
	_, err := controllerutil.CreateOrUpdate(ctx, o.Client, deployment, func() error {
		labels := map[string]string{"widget": widget.Name}
		deployment.Spec.Replicas = &widget.Spec.Size
		deployment.Spec.Selector = &metav1.LabelSelector{MatchLabels: labels}
		deployment.Spec.Template.Labels = labels
		deployment.Spec.Template.Spec.Containers = []corev1.Container{{Name: "main", Image: "nginx"}}
		return controllerutil.SetControllerReference(&widget, deployment, o.Scheme())
	})
	if err != nil || widget.Status.Pods == deployment.Status.Replicas {
		return ctrl.Result{}, err
	}
	widget.Status.Pods = deployment.Status.Replicas
	return ctrl.Result{}, o.Status().Update(ctx, &widget)
}

// manners are the webhooks: a size where none is given, and none that is too large.
type manners struct{}

func (manners) Default(_ context.Context, widget *Widget) error {
	if widget.Spec.Size == 0 {
		widget.Spec.Size = 2
	}
	return nil
}

func (manners) ValidateCreate(_ context.Context, widget *Widget) (admission.Warnings, error) {
	if widget.Spec.Size > mostPods {
		return nil, fmt.Errorf("size %d is more than %d", widget.Spec.Size, mostPods)
	}
	return nil, nil
}

func (m manners) ValidateUpdate(ctx context.Context, _, widget *Widget) (admission.Warnings, error) {
	return m.ValidateCreate(ctx, widget)
}

func (manners) ValidateDelete(context.Context, *Widget) (admission.Warnings, error) {
	return nil, nil
}

func setUp(manager ctrl.Manager) error {
	if err := ctrl.NewWebhookManagedBy(manager, &Widget{}).WithDefaulter(manners{}).WithValidator(manners{}).Complete(); err != nil {
		return err
	}
	return ctrl.NewControllerManagedBy(manager).For(&Widget{}).Owns(&appsv1.Deployment{}).
		Complete(&operator{manager.GetClient()})
}
