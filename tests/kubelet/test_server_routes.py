"""Who may ask the kubelet, and what is answered at once."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.kubelet.authorize import Attributes, Caller, api_server_only, attributes
from steersman.kubelet.usage import resource_metrics
from steersman.lib.http.messages import Request
from tests.kubelet.serving import World, serving


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as made:
        yield made


@pytest.mark.parametrize("path", ["/pods", "/healthz", "/exec/default/web/main?output=1&command=ls", "/nonsense"])
async def test_who_may_not(world: World, path: str) -> None:
    assert await world.get(path, "") == (401, b"Unauthorized\n")
    status, text = await world.get(path, "scheduler")
    assert (status, text.startswith(b"Forbidden (user=system:kube-scheduler, verb=get, resource=nodes")) == (403, True)


async def test_a_certificate_of_somebody_else_does_not_connect(world: World, tmp_path: Path) -> None:
    async with serving(tmp_path / "other") as other:
        client = other.client()
        client.address.tls.load_verify_locations(world.pki / "ca.crt")  # type: ignore[union-attr]
        client.address = type(client.address)("127.0.0.1", world.port, client.address.tls)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await client.request("GET", "/pods")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/healthz", b"ok"),
        ("/metrics/cadvisor", b"machine_cpu_cores 2\n"),
        ("/metrics/probes", b"prober_probe_total 1\n"),
        (
            "/configz",
            b'{"kubeletconfig":{"kind":"KubeletConfiguration","apiVersion":"kubelet.config.k8s.io/v1beta1",'
            b'"maxPods":110}}',
        ),
        ("/stats/summary", b'{"node":{"nodeName":"node-a"},"pods":[]}'),
    ],
)
async def test_plain_answers(world: World, path: str, body: bytes) -> None:
    assert await world.get(path) == (200, body)


async def test_metrics_count_what_runs(world: World) -> None:
    status, text = await world.get("/metrics")
    lines = text.decode().splitlines()
    assert status == 200
    assert 'kubelet_node_name{node="node-a"} 1' in lines
    assert "kubelet_running_pods 1" in lines
    assert 'kubelet_running_containers{container_state="running"} 1' in lines
    await world.runtime.stop_container(world.pods.container.id, 0)
    lines = (await world.get("/metrics"))[1].decode().splitlines()
    assert 'kubelet_running_containers{container_state="running"} 0' in lines
    assert 'kubelet_running_containers{container_state="exited"} 1' in lines


async def test_resource_metrics_are_served(world: World) -> None:
    status, text = await world.get("/metrics/resource")
    assert (status, b"resource_scrape_error 0" in text.splitlines()) == (200, True)


def test_resource_metrics_are_the_summarys() -> None:
    usage = {"cpu": {"usageCoreNanoSeconds": 2_500_000_000}, "memory": {"workingSetBytes": 4096}}
    containers = [{"name": "main", **usage}, {"name": "new"}]
    pod = {"podRef": {"name": "web", "namespace": "default", "uid": "u1"}, "containers": containers, **usage}
    text = resource_metrics({"node": {"nodeName": "node-a", **usage}, "pods": [pod]}, {("u1", "main"): 1767225600.5})
    assert [line for line in text.splitlines() if not line.startswith("#")] == [
        'container_cpu_usage_seconds_total{container="main",namespace="default",pod="web"} 2.5',
        'container_memory_working_set_bytes{container="main",namespace="default",pod="web"} 4096',
        'container_start_time_seconds{container="main",namespace="default",pod="web"} 1.7672256005e+09',
        "node_cpu_usage_seconds_total 2.5",
        "node_memory_working_set_bytes 4096",
        'pod_cpu_usage_seconds_total{namespace="default",pod="web"} 2.5',
        'pod_memory_working_set_bytes{namespace="default",pod="web"} 4096',
        "resource_scrape_error 0",
    ]


async def test_pods_and_running_pods(world: World) -> None:
    pods = json.loads((await world.get("/pods"))[1])
    assert (pods["kind"], pods["items"][0]["metadata"]["name"]) == ("PodList", "web")
    running = json.loads((await world.get("/runningpods/"))[1])
    assert running["items"][0]["metadata"] == {"name": "web", "namespace": "default", "uid": "u1"}
    assert running["items"][0]["spec"]["containers"][0]["name"] == "main"


@pytest.mark.parametrize(
    "path", ["/", "/exec", "/exec/a/b", "/containerLogs/a/b", "/portForward/a", "/stats/x", "/metrics/x", "/../pods"]
)
async def test_what_is_not_there(world: World, path: str) -> None:
    assert (await world.get(path))[0] == 404


async def test_methods(world: World) -> None:
    for method, path in (("POST", "/pods"), ("DELETE", "/containerLogs/a/b/c"), ("PUT", "/exec/a/b/c")):
        answer = await world.client().request(method, path)
        assert (answer.status, await answer.read()) == (405, b"405: Method Not Allowed\n")


@pytest.mark.parametrize(
    ("method", "path", "verb", "subresources"),
    [
        ("GET", "/pods", "get", ("pods", "proxy")),
        ("GET", "/runningpods/", "get", ("pods", "proxy")),
        ("GET", "/healthz/log", "get", ("healthz", "proxy")),
        ("GET", "/stats/summary", "get", ("stats",)),
        ("GET", "/metrics/cadvisor", "get", ("metrics",)),
        ("GET", "/metricsx", "get", ("proxy",)),
        ("POST", "/exec/a/b/c", "create", ("proxy",)),
        ("DELETE", "/logs/x", "delete", ("log",)),
    ],
)
def test_attributes_are_the_originals(method: str, path: str, verb: str, subresources: tuple[str, ...]) -> None:
    found = attributes(Request(method, path), Caller("u", ()))
    assert (found.verb, tuple(found.subresources)) == (verb, subresources)


def test_the_rule_without_rbac() -> None:
    assert api_server_only(Attributes(Caller("anyone", ["system:masters"]), "get", ["proxy"]))
    assert api_server_only(
        Attributes(Caller("kube-apiserver-kubelet-client", ["kubeadm:cluster-admins"]), "get", ["proxy"])
    )
    assert not api_server_only(Attributes(Caller("someone", ["kube-apiserver-kubelet-client"]), "get", ["proxy"]))
    assert not api_server_only(Attributes(Caller("system:masters", ["system:nodes"]), "get", ["proxy"]))


@pytest.fixture
def system(world: World) -> Path:
    """The machine's logs, with a way out that is not to be taken."""
    root = world.pki / "system"
    (root / "apt").mkdir(parents=True)
    (root / "apt" / "term.log").write_text("installed\n")
    (root / "a <b>.log").write_text("x" * 200_000)
    (root / "out").symlink_to(world.pki / "ca.key")
    (root / "in").symlink_to(root / "apt" / "term.log")
    return root


async def test_the_machines_own_logs(world: World, system: Path) -> None:
    status, page = await world.get("/logs/")
    assert status == 200
    assert page.decode().splitlines()[2:5] == [
        '<a href="a%20%3Cb%3E.log">a &lt;b&gt;.log</a>',
        '<a href="apt/">apt/</a>',
        '<a href="in">in</a>',
    ]
    assert await world.get("/logs/apt/term.log") == (200, b"installed\n")
    assert await world.get("/logs/in") == (200, b"installed\n")
    assert await world.get("/logs/a%20%3Cb%3E.log") == (200, b"x" * 200_000)
    assert (await world.get("/logs/", "scheduler"))[0] == 403


@pytest.mark.parametrize(
    "path", ["out", "..", "../ca.key", "..%2Fca.key", "apt/../../ca.key", "none", "apt//term.log", "%00"]
)
async def test_nothing_beside_the_machines_logs(world: World, system: Path, path: str) -> None:
    assert (await world.get(f"/logs/{path}"))[0] == 404


@pytest.mark.parametrize(("path", "to"), [("/logs", "logs/"), ("/logs/apt", "apt/"), ("/logs/in/", "../in")])
async def test_listings_end_in_a_slash_and_files_do_not(world: World, system: Path, path: str, to: str) -> None:
    response = await world.client().request("GET", path)
    assert (response.status, response.header("location")) == (301, to)


async def test_a_machine_without_logs(world: World) -> None:
    assert (await world.get("/logs/"))[0] == 404
