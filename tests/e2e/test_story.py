"""The story, with every kubectl: a Deployment of nginx behind a Service, read, entered, changed, broken, mended."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Steer
from tests.e2e.kubectl import Kubectl

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: nginx-deployment}
spec:
  replicas: 2
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: nginx
        image: nginx:1.7.9
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
"""


class Story:
    """One kubectl in a namespace of its own."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self.kubectl = kubectl
        self.namespace = namespace

    def __call__(self, *words: str, given: str = "", timeout: float = 60) -> str:
        return self.kubectl("-n", self.namespace, *words, given=given, timeout=timeout)

    def pods(self) -> list[dict[str, object]]:
        return json.loads(self("get", "pods", "-l", "app=nginx", "-o", "json"))["items"]  # type: ignore[no-any-return]

    def names(self) -> list[str]:
        listing = self("get", "pods", "-l", "app=nginx", "--field-selector", "status.phase=Running", "-o", "name")
        return [line.removeprefix("pod/") for line in listing.split()]

    def ready(self) -> None:
        self("rollout", "status", "deployment/nginx-deployment", "--timeout=60s", timeout=70)


@pytest.fixture
def story(kubectl: Kubectl, request: pytest.FixtureRequest) -> Iterator[Story]:
    name = f"story-{abs(hash(request.node.name)) % 100_000}"
    kubectl("create", "namespace", name)
    told = Story(kubectl, name)
    told("create", "-f", "-", given=DEPLOYMENT)
    told.ready()
    yield told
    kubectl("delete", "namespace", name, "--wait=true", timeout=60)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode().strip()  # type: ignore[no-any-return]


def test_a_service_balances_over_both_pods(story: Story) -> None:
    story("expose", "deployment", "nginx-deployment", "--port=80", "--type=NodePort")
    service = json.loads(story("get", "service", "nginx-deployment", "-o", "json"))["spec"]
    story("wait", "--for=condition=Ready", "pod", "-l", "app=nginx", "--timeout=30s")
    names = story.names()
    answers = Counter(fetch(f"http://{service['clusterIP']}/") for _ in range(100))
    assert set(answers) == set(names)
    inside = story(
        "exec", names[0], "--", "sh", "-c", f"for i in $(seq 100); do wget -qO- http://{service['clusterIP']}/; done"
    )
    assert set(inside.split()) == set(names)
    assert fetch(f"http://127.0.0.1:{service['ports'][0]['nodePort']}/") in names
    by_name = story("exec", names[0], "--", "wget", "-qO-", "http://nginx-deployment/")
    assert by_name.strip() in names
    full = "kubernetes.default.svc.cluster.local"
    looked_up = story("exec", names[0], "--", "sh", "-c", f"nslookup -type=a {full} || true")
    assert (
        json.loads(story("get", "-n", "default", "service", "kubernetes", "-o", "json"))["spec"]["clusterIP"]
        in looked_up
    )


def test_what_a_person_looks_at(story: Story) -> None:
    wide = story("get", "pods", "-o", "wide").splitlines()
    assert wide[0].split()[:6] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"]
    assert [line.split()[1:4] for line in wide[1:]] == [["1/1", "Running", "0"]] * 2
    described = story("describe", "pod", story.names()[0])
    assert "Successfully assigned" in described
    assert "QoS Class:" in described
    assert "nginx:1.7.9" in story("get", "deployment", "-o", "wide")
    assert "NewReplicaSet:" in story("describe", "deployment", "nginx-deployment")


def test_logs_exec_cp_and_port_forward(story: Story, tmp_path: Path) -> None:
    name = story.names()[0]
    address = json.loads(story("get", "pod", name, "-o", "json"))["status"]["podIP"]
    follower = story.kubectl.start("-n", story.namespace, "logs", "-f", name)
    assert follower.stdout is not None
    assert fetch(f"http://{address}/marked") == name
    assert any("/marked" in line for line in iter(follower.stdout.readline, "") if "marked" in line)
    follower.terminate()
    assert story("exec", "-i", name, "--", "cat", given="through the stream") == "through the stream"
    failed = story.kubectl.run("-n", story.namespace, "exec", name, "--", "sh", "-c", "exit 7")
    assert failed.returncode == 7
    (tmp_path / "file").write_text("copied")
    story("cp", str(tmp_path / "file"), f"{name}:/tmp/file")
    assert story("exec", name, "--", "cat", "/tmp/file") == "copied"
    story("cp", f"{name}:/tmp/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "copied"
    forward = story.kubectl.start("-n", story.namespace, "port-forward", f"pod/{name}", ":80")
    assert forward.stdout is not None
    port = forward.stdout.readline().split("127.0.0.1:")[1].split()[0]
    assert fetch(f"http://127.0.0.1:{port}/") == name
    forward.terminate()
    for process in (follower, forward):
        process.communicate()


def test_exec_at_a_terminal(story: Story) -> None:
    code, shown = story.kubectl.typed(
        "-n", story.namespace, "exec", "-it", story.names()[0], "--", "sh",
        keys="[ -t 0 ] && echo a terminal: $((6 * 7))\nexit 3\n",
    )  # fmt: skip
    assert "a terminal: 42" in shown
    assert code == 3


def test_scale_update_and_roll_back(story: Story) -> None:
    story("scale", "deployment/nginx-deployment", "--replicas=3")
    story.ready()
    assert len(story.names()) == 3
    story("set", "image", "deployment/nginx-deployment", "nginx=nginx:1.14.2")
    story.ready()
    assert "nginx:1.14.2" in story("get", "deployment", "nginx-deployment", "-o", "wide")
    history = story("rollout", "history", "deployment/nginx-deployment")
    assert [line.split()[0] for line in history.splitlines()[2:] if line.strip()] == ["1", "2"]
    story("rollout", "undo", "deployment/nginx-deployment")
    story.ready()
    assert "nginx:1.7.9" in story("get", "deployment", "nginx-deployment", "-o", "wide")


def test_what_dies_comes_back(story: Story) -> None:
    name = story.names()[0]
    story.kubectl.run("-n", story.namespace, "exec", name, "--", "kill", "1")
    story("wait", "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", f"pod/{name}", "--timeout=30s")
    story("delete", "pod", name)
    story.ready()
    names = story.names()
    assert name not in names
    assert len(names) == 2


def test_a_bad_image_says_why(story: Story) -> None:
    story("create", "deployment", "bad", "--image=nginx:nope")
    story("wait", "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ImagePullBackOff",
          "pod", "-l", "app=bad", "--timeout=60s", timeout=70)  # fmt: skip
    events = story("get", "events", "--field-selector", "reason=Failed", "-o", "jsonpath={.items[*].message}")
    assert "not found" in events
    assert "Error: ErrImagePull" in events


def test_the_token_of_a_pod_reaches_the_api(story: Story, steer: Steer) -> None:
    name = story.names()[0]
    token = story("exec", name, "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
    status = json.loads(story("create", "-o", "json", "-f", "-", given=json.dumps(review)))["status"]
    assert status["user"]["username"] == f"system:serviceaccount:{story.namespace}:default"
    authority = steer.home / "profiles" / "steer" / "pki" / "ca.crt"
    api = story.kubectl("get", "service", "kubernetes", "-o", "jsonpath={.spec.clusterIP}")
    answer = subprocess.run(
        ["curl", "-s", "--cacert", str(authority), "-H", f"Authorization: Bearer {token}",
         f"https://{api}/api/v1/namespaces/default/secrets"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(answer.stdout)["reason"] == "Forbidden"
