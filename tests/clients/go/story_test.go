package clients

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// work is what the operator's user does, and what they see.
func work(t *testing.T, ctx context.Context, api client.Client) {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "work"}}
	if err := api.Create(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: "work"} }
	err := api.Create(ctx, &Widget{ObjectMeta: meta("large"), Spec: WidgetSpec{Size: mostPods + 1}})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "size 11 is more than 10") {
		t.Fatalf("not refused by the webhook: %v", err)
	}
	widget := &Widget{ObjectMeta: meta("small")}
	if err := api.Create(ctx, widget); err != nil {
		t.Fatal(err)
	}
	if widget.Spec.Size != 2 {
		t.Fatalf("the webhook set no size: %v", widget.Spec)
	}
	pods := func() int {
		var found corev1.PodList
		if err := api.List(ctx, &found, client.InNamespace("work"), client.MatchingLabels{"widget": "small"}); err != nil {
			t.Fatal(err)
		}
		return len(found.Items)
	}
	key := client.ObjectKeyFromObject(widget)
	until(t, "controllers make two pods, and the status tells", func() bool {
		return api.Get(ctx, key, widget) == nil && widget.Status.Pods == 2 && pods() == 2
	})
	if err := api.Delete(ctx, widget); err != nil {
		t.Fatal(err)
	}
	until(t, "what the widget owns goes with it", func() bool {
		return apierrors.IsNotFound(api.Get(ctx, key, &appsv1.Deployment{})) && pods() == 0
	})
	if err := api.Delete(ctx, namespace); err != nil {
		t.Fatal(err)
	}
	until(t, "the namespace ends", func() bool {
		return apierrors.IsNotFound(api.Get(ctx, client.ObjectKeyFromObject(namespace), &corev1.Namespace{}))
	})
}
