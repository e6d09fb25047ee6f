"""Two nodes on one machine: traffic among pods, Services and the outside, and what kubectl does on the second."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import Steer
from tests.e2e.kubectl import Kubectl
from tests.e2e.machine import traces

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]

OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"
SECOND = "steer-m02"
_ECHO = """
import http.server
class Echo(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(self.client_address[0].encode())
    def log_message(self, *a): pass
server = http.server.HTTPServer(("0.0.0.0", 8080), Echo)
print("up", flush=True)
server.serve_forever()
"""


def pod(name: str, node: str, *, host_network: bool = False) -> dict[str, object]:
    spec: dict[str, object] = {"nodeName": node, "containers": [{"name": "web", "image": "nginx:1.7.9"}]}
    if host_network:
        spec["hostNetwork"] = True
        spec["containers"] = [{"name": "web", "image": "nginx:1.7.9", "command": ["sleep", "3600"]}]
    labels = {"app": "web", "pod": name} if not host_network else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def service(name: str, kind: str, **selector: str) -> dict[str, object]:
    spec = {"type": kind, "selector": selector, "ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


@contextmanager
def outsider() -> Iterator[None]:
    """A machine beyond this one that knows no way to pods; it answers with the address that it was asked from."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    # A namespace of the process alone: a named one would leave iproute2's own mount, which `traces` would see.
    command = ["unshare", "--net", sys.executable, "-c", _ECHO]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None and server.stdout.readline() == "up\n"
            ip("link", "add", "outside0", "type", "veth", "peer", "name", "eth0", "netns", str(server.pid))
            ip("address", "add", f"{UPLINK}/24", "dev", "outside0")
            ip("link", "set", "outside0", "up")
            inside = ["nsenter", f"--net=/proc/{server.pid}/ns/net", "ip"]
            subprocess.run([*inside, "address", "add", f"{OUTSIDE}/24", "dev", "eth0"], check=True)
            subprocess.run([*inside, "link", "set", "eth0", "up"], check=True)
            yield
        finally:
            subprocess.run(["ip", "link", "delete", "outside0"], check=False)
            server.terminate()


class Two:
    """The cluster, its pods `a` and `b` on the first and the second node, and questions to them."""

    def __init__(self, kubectl: Kubectl) -> None:
        self.kubectl = kubectl

    def get(self, *words: str) -> str:
        return self.kubectl("get", *words)

    def address(self, name: str) -> str:
        return self.get("pod", name, "-o", "jsonpath={.status.podIP}")

    def node_address(self, name: str) -> str:
        return self.get("node", name, "-o", "jsonpath={.status.addresses[0].address}")

    def node_port(self, name: str) -> str:
        return self.get("service", name, "-o", "jsonpath={.spec.ports[0].nodePort}")

    def cluster_ip(self, name: str) -> str:
        return self.get("service", name, "-o", "jsonpath={.spec.clusterIP}")

    def ask(self, asker: str, where: str) -> str:
        """What `where` answers a pod; the second try is for rules that are not in the kernel yet."""
        once = f"busybox timeout 5 wget -qO- http://{where}/"
        script = f"{once} || {once}"
        return self.kubectl("exec", asker, "--", "sh", "-c", script).strip()


def from_machine(where: str) -> str:
    with urllib.request.urlopen(f"http://{where}/", timeout=5) as answer:
        return str(answer.read().decode().strip())


@pytest.fixture(scope="module")
def two(make_steer: Callable[[], Steer], registry: str) -> Iterator[Two]:
    steer = make_steer()
    before = traces()
    steer("up", "--nodes", "2", "--registry-mirror", f"http://{registry}")
    kubectl = steer.kubectl()
    kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=20s")
    things = [
        pod("a", "steer"),
        pod("b", SECOND),
        pod("host-b", SECOND, host_network=True),
        service("only-a", "NodePort", pod="a"),
        service("only-b", "NodePort", pod="b"),
    ]
    kubectl("create", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": things}))
    kubectl("wait", "--for=condition=Ready", "pod/a", "pod/b", "pod/host-b", "--timeout=60s")
    yield Two(kubectl)
    steer("delete")
    after = traces()
    assert {sort: sorted(after[sort] - before[sort]) for sort in after} == {sort: [] for sort in after}


@pytest.mark.parametrize(("asker", "asked"), [("a", "b"), ("b", "a"), ("b", "b"), ("host-b", "a"), ("host-b", "b")])
def test_pods_reach_each_other(two: Two, asker: str, asked: str) -> None:
    assert two.ask(asker, two.address(asked)) == asked


def test_the_machine_reaches_pods_of_both_nodes(two: Two) -> None:
    assert [from_machine(two.address(name)) for name in "ab"] == ["a", "b"]


@pytest.mark.parametrize("asker", ["a", "b", "host-b"])
@pytest.mark.parametrize("behind", ["a", "b"])
def test_services_lead_across_nodes(two: Two, asker: str, behind: str) -> None:
    name = f"only-{behind}"
    assert two.ask(asker, two.cluster_ip(name)) == behind
    assert two.ask(asker, f"{name}.default.svc.cluster.local" if asker != "host-b" else two.cluster_ip(name)) == behind
    for node in ("steer", SECOND):
        assert two.ask(asker, f"{two.node_address(node)}:{two.node_port(name)}") == behind


@pytest.mark.parametrize("behind", ["a", "b"])
def test_the_machine_reaches_services_on_both_nodes(two: Two, behind: str) -> None:
    assert from_machine(two.cluster_ip(f"only-{behind}")) == behind
    for node in ("steer", SECOND):
        assert from_machine(f"{two.node_address(node)}:{two.node_port(f'only-{behind}')}") == behind


def test_pods_of_both_nodes_go_out_as_the_machine(two: Two) -> None:
    with outsider():
        assert [two.ask(name, f"{OUTSIDE}:8080") for name in ("a", "b", "host-b")] == [UPLINK] * 3


def test_kubectl_works_on_the_second_node(two: Two) -> None:
    two.ask("a", two.address("b"))
    assert "GET / HTTP/1.1" in two.kubectl("logs", "b")
    assert two.kubectl("exec", "b", "--", "hostname").strip() == "b"
    with two.kubectl.start("port-forward", "pod/b", ":80") as forward:
        assert forward.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
        assert found is not None
        assert from_machine(f"127.0.0.1:{found[1]}") == "b"
        forward.terminate()


def test_nodes_do_not_share_a_port(two: Two) -> None:
    listed = json.loads(two.get("nodes", "-o", "json"))["items"]
    addresses = {each["metadata"]["name"]: each["status"]["addresses"][0]["address"] for each in listed}
    assert sorted(addresses) == ["steer", SECOND]
    assert len(set(addresses.values())) == 2


def test_a_claim_is_the_same_directory_on_both_nodes(two: Two) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }

    def user(name: str, node: str, script: str, *, readonly: bool) -> dict[str, object]:
        mount = {"name": "data", "mountPath": "/data"}
        main = {"name": "main", "image": "nginx:1.7.9", "command": ["sh", "-c", script], "volumeMounts": [mount]}
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": readonly}}
        spec = {"nodeName": node, "restartPolicy": "Never", "containers": [main], "volumes": [volume]}
        spec["securityContext"] = {"runAsUser": 1000}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}

    writer = user("writer", SECOND, "echo hello > /data/file", readonly=False)
    two.kubectl("create", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": [claim, writer]}))
    two.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/writer", "--timeout=60s")
    reader = user("reader", "steer", "cat /data/file; echo more > /data/file || echo refused", readonly=True)
    two.kubectl("create", "-f", "-", given=json.dumps(reader))
    two.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/reader", "--timeout=60s")
    said = two.kubectl("logs", "reader").splitlines()
    assert {"hello", "refused"} <= set(said)  # what the shell says of the refusal comes by a stream of its own
    volume = json.loads(two.get("pv", "-o", "json"))["items"][0]
    two.kubectl("delete", "pod", "writer", "reader", "--now")
    two.kubectl("delete", "pvc", "data")
    two.kubectl("wait", "--for=delete", f"pv/{volume['metadata']['name']}", "--timeout=30s")
    assert not Path(volume["spec"]["hostPath"]["path"]).exists()
