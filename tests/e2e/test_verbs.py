"""kubectl's verbs on workloads, Services and nodes, with real pods."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from tests.e2e.conftest import Steer
from tests.e2e.kubectl import Kubectl

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

CRONJOB = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: "nginx:1.7.9", command: [sh, -c, "echo done"]}]
"""


SETS = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, labels: {app: db}}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "nginx:1.7.9"}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, labels: {app: agent}}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: c, image: "nginx:1.7.9"}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db}
spec: {maxUnavailable: 0, selector: {matchLabels: {app: db}}}
"""


def read(kubectl: Kubectl, *what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("get", *what, "-o", "json"))
    return found


def container(kubectl: Kubectl, name: str) -> dict[str, Any]:
    found: dict[str, Any] = read(kubectl, "deployment", name)["spec"]["template"]["spec"]["containers"][0]
    return found


def rolled_out(kubectl: Kubectl, name: str) -> None:
    text = kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s", timeout=70)
    assert f'deployment "{name}" successfully rolled out' in text


@pytest.fixture
def web(steer: Steer, kubectl: Kubectl) -> Any:
    """A Deployment of two pods, anew for each kubectl."""
    kubectl("create", "deployment", "web", "--image=nginx:1.7.9", "--replicas=2")
    rolled_out(kubectl, "web")
    yield kubectl
    kubectl("delete", "deployment,service", "-l", "app=web", "--wait=true", "--grace-period=1")


def test_rollout_and_set(web: Kubectl) -> None:
    assert "deployment.apps/web image updated" in web("set", "image", "deployment/web", "nginx=nginx:1.14.2")
    rolled_out(web, "web")
    assert container(web, "web")["image"] == "nginx:1.14.2"
    history = [line.split()[0] for line in web("rollout", "history", "deployment/web").splitlines()[2:] if line]
    assert history == ["1", "2"]
    assert "rolled back" in web("rollout", "undo", "deployment/web")
    rolled_out(web, "web")
    assert container(web, "web")["image"] == "nginx:1.7.9"
    assert "paused" in web("rollout", "pause", "deployment/web")
    assert "env updated" in web("set", "env", "deployment/web", "COLOR=blue")
    assert "resource requirements updated" in web("set", "resources", "deployment/web", "--requests=cpu=10m")
    assert "serviceaccount updated" in web("set", "serviceaccount", "deployment/web", "default")
    assert not read(web, "deployment", "web")["status"].get("updatedReplicas"), "paused: nothing is rolled out yet"
    assert "resumed" in web("rollout", "resume", "deployment/web")
    rolled_out(web, "web")
    changed = container(web, "web")
    assert changed["env"] == [{"name": "COLOR", "value": "blue"}]
    assert changed["resources"] == {"requests": {"cpu": "10m"}}
    assert "restarted" in web("rollout", "restart", "deployment/web")
    rolled_out(web, "web")
    sets = read(web, "replicasets", "-l", "app=web")["items"]
    assert sorted(each["spec"]["replicas"] for each in sets)[-2:] == [0, 2]


def test_scale_and_autoscale(web: Kubectl) -> None:
    assert "scaled" in web("scale", "deployment/web", "--current-replicas=2", "--replicas=3")
    rolled_out(web, "web")
    refused = web.run("scale", "deployment/web", "--current-replicas=2", "--replicas=4")
    assert refused.returncode == 1
    assert "Expected replicas to be 2, was 3" in refused.stderr
    assert "autoscaled" in web("autoscale", "deployment", "web", "--min=1", "--max=5", "--cpu-percent=80")
    spec = read(web, "hpa", "web")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"], spec["scaleTargetRef"]["name"]) == (1, 5, "web")
    web("delete", "hpa", "web")


def test_expose_gives_an_address_that_answers(steer: Steer, web: Kubectl) -> None:
    web("expose", "deployment", "web", "--port=80", "--type=LoadBalancer")
    address = "jsonpath={.status.loadBalancer.ingress[0].ip}"  # the oldest kubectl waits for no field without a value
    steer.kubectl()("wait", "service/web", f"--for={address}", "--timeout=30s")
    address = read(web, "service", "web")["status"]["loadBalancer"]["ingress"][0]["ip"]
    assert address in web("get", "service", "web")
    with urllib.request.urlopen(f"http://{address}/", timeout=10) as answer:
        assert answer.status == 200
    assert "selector updated" in web("set", "selector", "service/web", "app=other")
    assert read(web, "service", "web")["spec"]["selector"] == {"app": "other"}
    web("delete", "service", "web", "--wait=true")


def test_create_job_from_cronjob(steer: Steer, kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", given=CRONJOB)
    assert "job.batch/now created" in kubectl("create", "job", "now", "--from=cronjob/nightly")
    kubectl("wait", "job/now", "--for=condition=complete", "--timeout=60s", timeout=70)
    assert kubectl("logs", "job/now").strip() == "done"
    job = read(kubectl, "job", "now")
    assert job["metadata"]["annotations"]["cronjob.kubernetes.io/instantiate"] == "manual"
    kubectl("delete", "cronjob", "nightly", "--wait=true")
    kubectl("wait", "job/now", "--for=delete", "--timeout=60s", timeout=70)


def test_cordon_drain_and_taint(web: Kubectl) -> None:
    name = read(web, "nodes")["items"][0]["metadata"]["name"]
    assert "cordoned" in web("cordon", name)
    assert "SchedulingDisabled" in web("get", "node", name)
    before = {pod["metadata"]["uid"] for pod in read(web, "pods", "-l", "app=web")["items"]}
    drained = web(
        "drain", name, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--grace-period=1", timeout=90
    )
    assert f"node/{name} drained" in drained
    after = read(web, "pods", "-l", "app=web")["items"]
    assert not before & {pod["metadata"]["uid"] for pod in after}
    assert {pod["status"]["phase"] for pod in after} == {"Pending"}
    assert "uncordoned" in web("uncordon", name)
    rolled_out(web, "web")

    before = {pod["metadata"]["name"] for pod in read(web, "pods", "-l", "app=web")["items"]}
    assert "tainted" in web("taint", "node", name, "dedicated=db:NoExecute")
    web("wait", *(f"pod/{each}" for each in sorted(before)), "--for=delete", "--timeout=60s", timeout=70)
    assert "untainted" in web("taint", "node", name, "dedicated-")
    rolled_out(web, "web")


def test_rollouts_of_sets_and_a_drain_that_a_budget_holds_up(steer: Steer) -> None:
    kubectl = steer.kubectl()
    kubectl("create", "-f", "-", given=SETS)
    for kind, name in (("statefulset", "db"), ("daemonset", "agent")):
        where = f"{kind}/{name}"
        kubectl("rollout", "status", where, "--timeout=60s", timeout=70)
        kubectl("set", "image", where, "c=nginx:1.14.2")
        kubectl("rollout", "status", where, "--timeout=60s", timeout=70)
        pods = read(kubectl, "pods", "-l", f"app={name}")["items"]
        assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"nginx:1.14.2"}
        history = [line.split()[0] for line in kubectl("rollout", "history", where).splitlines()[2:] if line]
        assert history == ["1", "2"]
        assert "rolled back" in kubectl("rollout", "undo", where)
        kubectl("rollout", "status", where, "--timeout=60s", timeout=70)
        assert read(kubectl, kind, name)["spec"]["template"]["spec"]["containers"][0]["image"] == "nginx:1.7.9"
    assert "scaled" in kubectl("scale", "statefulset/db", "--replicas=1")
    kubectl("wait", "pod/db-1", "--for=delete", "--timeout=30s", timeout=40)
    node = read(kubectl, "nodes")["items"][0]["metadata"]["name"]
    held = kubectl.run("drain", node, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=8s")
    assert held.returncode == 1
    assert "Cannot evict pod as it would violate the pod's disruption budget." in held.stderr
    assert [pod["metadata"]["name"] for pod in read(kubectl, "pods", "-l", "app=db")["items"]] == ["db-0"]
    kubectl("uncordon", node)
    kubectl("delete", "statefulset/db", "daemonset/agent", "pdb/db", "--wait=true", timeout=60)


def test_leaders_have_leases(steer: Steer) -> None:
    kubectl = steer.kubectl()
    for name in ("kube-controller-manager", "kube-scheduler"):
        lease = read(kubectl, "lease", name, "-n", "kube-system")
        assert lease["spec"]["holderIdentity"]
        assert lease["spec"]["leaseDurationSeconds"] == 15
