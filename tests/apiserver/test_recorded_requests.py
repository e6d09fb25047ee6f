"""Odd requests, each as kube-apiserver 1.36.3 answered it: methods, paths, queries, media types, broken bodies.

A line of `recorded_requests.jsonl` holds method, target, headers, body (as Latin-1), and of the answer its status, its
Content-Type and its message. Nothing is changed by any of them: writes are dry runs or refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steersman.api.resource import (
    CONFIGMAPS,
    CUSTOMRESOURCEDEFINITIONS,
    DEPLOYMENTS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICEACCOUNTS,
    SERVICES,
    Object,
    Resource,
)
from steersman.cluster.plane import ControlPlane

LINES = (Path(__file__).parent / "recorded_requests.jsonl").read_text().splitlines()
FOOS = Resource("example.com", "v1", "foos", "Foo")
POD: Object = {"containers": [{"name": "c", "image": "i"}]}
TEMPLATE: Object = {"metadata": {"labels": {"a": "b"}}, "spec": POD}
SCHEMA: Object = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
VERSION: Object = {"name": "v1", "served": True, "storage": True, "schema": SCHEMA, "subresources": {"status": {}}}
DEFINITION: Object = {
    "metadata": {"name": "foos.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo"},
        "versions": [VERSION],
    },
}


async def furnish(plane: ControlPlane) -> None:
    """What there was when the answers were recorded."""
    client = plane.client
    await client.create(NAMESPACES, {"metadata": {"name": "probe"}})
    config: Object = {"metadata": {"name": "c1", "labels": {"a": "b"}}, "data": {"k": "v"}}
    await client.create(CONFIGMAPS, config, "default")
    await client.create(CONFIGMAPS, {**config, "metadata": {"name": "c2", "labels": {"a": "b"}}}, "probe")
    await client.create(CONFIGMAPS, {"metadata": {"name": "cx"}}, "default")
    await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    await client.create(NODES, {"metadata": {"name": "n1"}})
    await client.create(PODS, {"metadata": {"name": "p1"}, "spec": POD}, "default")
    ports = {"ports": [{"port": 80, "name": "http"}]}
    await client.create(SERVICES, {"metadata": {"name": "s1"}, "spec": ports}, "default")
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
    await client.create(DEPLOYMENTS, {"metadata": {"name": "d1"}, "spec": spec}, "default")
    await client.create(CUSTOMRESOURCEDEFINITIONS, DEFINITION)
    name = "metadata.name=foos.example.com"
    async for event in client.watch(CUSTOMRESOURCEDEFINITIONS, "", resource_version="0", fields=name):
        if any(each["type"] == "Established" for each in (event.object.get("status") or {}).get("conditions") or ()):
            break
    foo: Object = {"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "f1"}}
    await client.create(FOOS, foo, "default")


async def test_odd_requests_are_answered_as_by_the_original(tmp_path: Path) -> None:
    wrong: list[Any] = []
    async with ControlPlane(tmp_path, listen=None, controllers=(), release="1.36") as plane:
        await furnish(plane)
        for line in LINES:
            method, target, headers, body, status, media, message = json.loads(line)
            sent = [(name.lower(), value) for name, value in headers.items()]
            answer = await plane.client.transport.request(method, target, sent, (body or "").encode("latin-1"))
            said = await answer.read()
            text = "" if method == "HEAD" else _message(answer.status, said)
            found = answer.status, answer.header("content-type") or "", text
            if found != (status, media, message):
                wrong.append((method, target, headers, body, (status, media, message), found))
    assert not wrong, f"{len(wrong)} of {len(LINES)}: {wrong[:3]}"


def _message(status: int, said: bytes) -> str:
    if said[:1] == b"{":
        return str(json.loads(said).get("message", ""))
    return said.decode(errors="replace").strip() if status >= 400 and b"\0" not in said else ""
