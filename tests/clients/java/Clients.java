import io.fabric8.kubernetes.api.model.ConfigMap;
import io.fabric8.kubernetes.api.model.ConfigMapBuilder;
import io.fabric8.kubernetes.api.model.NamespaceBuilder;
import io.fabric8.kubernetes.client.KubernetesClient;
import io.fabric8.kubernetes.client.KubernetesClientBuilder;
import io.fabric8.kubernetes.client.Watcher;
import io.fabric8.kubernetes.client.WatcherException;
import io.fabric8.kubernetes.client.dsl.ExecWatch;
import io.fabric8.kubernetes.client.extended.leaderelection.LeaderCallbacks;
import io.fabric8.kubernetes.client.extended.leaderelection.LeaderElectionConfigBuilder;
import io.fabric8.kubernetes.client.extended.leaderelection.resourcelock.LeaseLock;
import io.fabric8.kubernetes.client.informers.ResourceEventHandler;
import java.io.ByteArrayOutputStream;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/** What programs written with fabric8's client do, against the cluster of $KUBECONFIG and its pod $POD. */
public class Clients {
  public static void main(String[] words) throws Exception {
    try (KubernetesClient client = new KubernetesClientBuilder().build()) {
      var namespace = client.resource(new NamespaceBuilder().withNewMetadata().withGenerateName("java-").endMetadata().build())
          .create().getMetadata().getName();
      changes(client, namespace);
      leader(client, namespace);
      command(client, System.getenv("POD"));
      client.namespaces().withName(namespace).delete();
    }
    System.out.println("done");
    System.exit(0); // threads of the HTTP client would go on
  }

  static void changes(KubernetesClient client, String namespace) throws Exception {
    var maps = client.configMaps().inNamespace(namespace);
    var watched = new CompletableFuture<String>();
    var informed = new CompletableFuture<Map<String, String>>();
    try (var watch = maps.withName("seen").watch(new Watcher<ConfigMap>() {
      public void eventReceived(Action action, ConfigMap map) {
        watched.complete(action.name());
      }

      public void onClose(WatcherException cause) {
        watched.completeExceptionally(cause);
      }
    });
        var informer = maps.inform(new ResourceEventHandler<ConfigMap>() {
          public void onAdd(ConfigMap map) {
            if (map.getMetadata().getName().equals("seen")) {
              informed.complete(map.getData());
            }
          }

          public void onUpdate(ConfigMap old, ConfigMap map) {}

          public void onDelete(ConfigMap map, boolean unknown) {}
        })) {
      var map = new ConfigMapBuilder().withNewMetadata().withName("seen").endMetadata().addToData("key", "one").build();
      maps.resource(map).create();
      check("ADDED", soon(watched));
      check(Map.of("key", "one"), soon(informed));
    }
    maps.withName("seen").edit(map -> new ConfigMapBuilder(map).addToData("key", "two").build());
    check("two", maps.withName("seen").get().getData().get("key"));
    var applied = new ConfigMapBuilder().withNewMetadata().withName("seen").endMetadata().addToData("more", "x").build();
    check("x", maps.resource(applied).forceConflicts().serverSideApply().getData().get("more"));
    check(true, maps.list().getItems().stream().anyMatch(map -> map.getMetadata().getName().equals("seen")));
    maps.withName("seen").delete();
    check(null, maps.withName("seen").get());
  }

  static void leader(KubernetesClient client, String namespace) throws Exception {
    var leading = new CompletableFuture<String>();
    var config = new LeaderElectionConfigBuilder().withName("test").withReleaseOnCancel(true)
        .withLeaseDuration(Duration.ofSeconds(4)).withRenewDeadline(Duration.ofSeconds(3)).withRetryPeriod(Duration.ofSeconds(1))
        .withLock(new LeaseLock(namespace, "lead", "me"))
        .withLeaderCallbacks(new LeaderCallbacks(() -> leading.complete("leading"), () -> {}, who -> {})).build();
    var running = client.leaderElector().withConfig(config).build().start();
    check("leading", soon(leading));
    running.cancel(true);
  }

  static void command(KubernetesClient client, String pod) throws Exception {
    var out = new ByteArrayOutputStream();
    try (ExecWatch exec = client.pods().inNamespace("default").withName(pod).writingOutput(out).exec("echo", "hello")) {
      check(0, soon(exec.exitCode()));
    }
    check("hello\n", out.toString());
  }

  static <T> T soon(CompletableFuture<T> future) throws Exception {
    return future.get(20, TimeUnit.SECONDS);
  }

  static void check(Object wanted, Object got) {
    if (wanted == null ? got != null : !wanted.equals(got)) {
      throw new AssertionError("wanted " + wanted + ", got " + got);
    }
  }
}
