// What programs written with client-go do, against the cluster of $KUBECONFIG.
package clients

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	coreapply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/remotecommand"
)

const patience = 20 * time.Second

func connect(t *testing.T) (*rest.Config, *kubernetes.Clientset) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	return config, kubernetes.NewForConfigOrDie(config)
}

// namespace makes one for a test, and deletes it at its end.
func namespace(t *testing.T, api *kubernetes.Clientset) string {
	t.Helper()
	made, err := api.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "go-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.CoreV1().Namespaces().Delete(context.Background(), made.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return made.Name
}

// receive waits for one value.
func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(patience):
		t.Fatalf("never: %s", what)
		panic("unreachable")
	}
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"key": value}}
}

func TestInformersSeeEveryChange(t *testing.T) {
	_, api := connect(t)
	where := namespace(t, api)
	seen := make(chan string, 10)
	factory := informers.NewSharedInformerFactoryWithOptions(api, 0, informers.WithNamespace(where))
	informer := factory.Core().V1().ConfigMaps().Informer()
	tell := func(verb string, obj any) {
		if found, ok := obj.(*corev1.ConfigMap); ok && found.Name == "told" {
			seen <- verb + " " + found.Data["key"]
		}
	}
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { tell("added", obj) },
		UpdateFunc: func(_, obj any) { tell("updated", obj) },
		DeleteFunc: func(obj any) { tell("deleted", obj) },
	}); err != nil {
		t.Fatal(err)
	}
	factory.Start(t.Context().Done())
	if !cache.WaitForCacheSync(t.Context().Done(), informer.HasSynced) {
		t.Fatal("the cache did not fill")
	}
	maps := api.CoreV1().ConfigMaps(where)
	if _, err := maps.Create(t.Context(), configMap("told", "one"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, seen, "a creation"); got != "added one" {
		t.Fatal(got)
	}
	if _, err := maps.Update(t.Context(), configMap("told", "two"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, seen, "an update"); got != "updated two" {
		t.Fatal(got)
	}
	if err := maps.Delete(t.Context(), "told", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, seen, "a deletion"); got != "deleted two" {
		t.Fatal(got)
	}
}

func TestPatchesAndAppliesWithConflicts(t *testing.T) {
	_, api := connect(t)
	where := namespace(t, api)
	maps := api.CoreV1().ConfigMaps(where)
	wanted := coreapply.ConfigMap("applied", where).WithData(map[string]string{"key": "one"})
	if _, err := maps.Apply(t.Context(), wanted, metav1.ApplyOptions{FieldManager: "first"}); err != nil {
		t.Fatal(err)
	}
	wanted.WithData(map[string]string{"key": "two"})
	if _, err := maps.Apply(t.Context(), wanted, metav1.ApplyOptions{FieldManager: "second"}); !apierrors.IsConflict(err) {
		t.Fatalf("another manager's field was taken: %v", err)
	}
	forced, err := maps.Apply(t.Context(), wanted, metav1.ApplyOptions{FieldManager: "second", Force: true})
	if err != nil || forced.Data["key"] != "two" {
		t.Fatal(forced, err)
	}
	patch := []byte(`[{"op": "test", "path": "/data/key", "value": "two"}, {"op": "add", "path": "/data/more", "value": "x"}]`)
	patched, err := maps.Patch(t.Context(), "applied", types.JSONPatchType, patch, metav1.PatchOptions{})
	if err != nil || patched.Data["more"] != "x" {
		t.Fatal(patched, err)
	}
	stale := patched.DeepCopy()
	stale.ResourceVersion = forced.ResourceVersion
	if _, err := maps.Update(t.Context(), stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Fatalf("a stale object was stored: %v", err)
	}
}

func TestTheDynamicClientKnowsNoTypes(t *testing.T) {
	config, api := connect(t)
	where := namespace(t, api)
	maps := dynamic.NewForConfigOrDie(config).
		Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(where)
	changes, err := maps.Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=dynamic"})
	if err != nil {
		t.Fatal(err)
	}
	defer changes.Stop()
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "dynamic"},
	}}
	made, err := maps.Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	told := receive(t, changes.ResultChan(), "a watch event")
	if found := told.Object.(*unstructured.Unstructured); told.Type != "ADDED" || found.GetUID() != made.GetUID() {
		t.Fatal(told)
	}
}

func TestOneLeaderAtATime(t *testing.T) {
	_, api := connect(t)
	where := namespace(t, api)
	leading := make(chan string, 2)
	start := func(name string) context.CancelFunc {
		ctx, cancel := context.WithCancel(t.Context())
		go leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta:  metav1.ObjectMeta{Name: "lead", Namespace: where},
				Client:     api.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: name},
			},
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leading <- name },
				OnStoppedLeading: func() {},
			},
		})
		return cancel
	}
	stop := start("first")
	if got := receive(t, leading, "a leader"); got != "first" {
		t.Fatal(got)
	}
	defer start("second")()
	stop()
	if got := receive(t, leading, "another leader"); got != "second" {
		t.Fatal(got)
	}
}

func TestACommandInAContainer(t *testing.T) {
	pod := os.Getenv("POD")
	if pod == "" {
		t.Fatal("POD names no pod of the namespace default")
	}
	config, api := connect(t)
	request := api.CoreV1().RESTClient().Post().Resource("pods").Namespace("default").Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: []string{"cat"}, Stdin: true, Stdout: true}, scheme.ParameterCodec)
	spdy, err := remotecommand.NewSPDYExecutor(config, "POST", request.URL())
	if err != nil {
		t.Fatal(err)
	}
	websocket, err := remotecommand.NewWebSocketExecutor(config, "GET", request.URL().String())
	if err != nil {
		t.Fatal(err)
	}
	for name, executor := range map[string]remotecommand.Executor{"SPDY": spdy, "WebSocket": websocket} {
		var out bytes.Buffer
		given := bytes.NewBufferString("hello by " + name)
		if err := executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: given, Stdout: &out}); err != nil {
			t.Fatal(name, err)
		}
		if out.String() != "hello by "+name {
			t.Fatalf("%s: %q", name, out.String())
		}
	}
}
