"""Who may ask the kubelet, and what is answered at once."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.kubelet.authorize import Attributes, Caller, attributes, masters_only
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
        ("/stats/summary", b'{"node":{"nodeName":"node-a"},"pods":[]}'),
        ("/metrics", b""),
    ],
)
async def test_plain_answers(world: World, path: str, body: bytes) -> None:
    assert await world.get(path) == (200, body)


async def test_pods_and_running_pods(world: World) -> None:
    pods = json.loads((await world.get("/pods"))[1])
    assert (pods["kind"], pods["items"][0]["metadata"]["name"]) == ("PodList", "web")
    running = json.loads((await world.get("/runningpods/"))[1])
    assert running["items"][0]["metadata"] == {"name": "web", "namespace": "default", "uid": "u1"}
    assert running["items"][0]["spec"]["containers"][0]["name"] == "main"


@pytest.mark.parametrize(
    "path", ["/", "/exec", "/exec/a/b", "/containerLogs/a/b", "/portForward/a", "/stats/x", "/../pods"]
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
    assert masters_only(Attributes(Caller("anyone", ["system:masters"]), "get", ["proxy"]))
    assert not masters_only(Attributes(Caller("system:masters", ["system:nodes"]), "get", ["proxy"]))
