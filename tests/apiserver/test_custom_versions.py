"""Versions of a custom kind with schemas of their own and no webhook: what kube-apiserver 1.36.3 answers.

A request is held to its own version's schema; what the stored version does not know is lost; defaults are those of the
version that was asked first, then of the stored one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CUSTOMRESOURCEDEFINITIONS, Object
from steersman.cluster.plane import ControlPlane

TEXT = {"type": "string"}


def version(name: str, spec: Object, **more: Any) -> Object:
    status = {"type": "object", "properties": {f"s{name}": {**TEXT, "default": f"d{name}"}}}
    schema = {"type": "object", "properties": {"spec": {"type": "object", **spec}, "status": status}}
    return {
        "name": name, "served": True, "storage": name == "v1", "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema}, **more,
    }  # fmt: skip


FIRST = version("v1", {"properties": {"a": TEXT, "c": {**TEXT, "default": "c1"}}, "required": ["a"]})
SECOND = version(
    "v2", {"properties": {"b": {**TEXT, "maxLength": 3}, "c": {**TEXT, "default": "c2"}, "d": {"type": "integer"}}}
)
NAME = "things.x.example.com"
DEFINITION: Object = {
    "metadata": {"name": NAME},
    "spec": {
        "group": "x.example.com",
        "scope": "Cluster",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [FIRST, SECOND],
    },
}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path, listen=None, controllers=()) as made:
        await made.client.create(CUSTOMRESOURCEDEFINITIONS, DEFINITION)
        events = made.client.watch(CUSTOMRESOURCEDEFINITIONS, "", resource_version="0", fields=f"metadata.name={NAME}")
        async for event in events:
            if any(each["type"] == "Established" for each in (event.object.get("status") or {}).get("conditions", ())):
                break
        yield made


def path(version: str, name: str = "", more: str = "") -> str:
    return f"/apis/x.example.com/{version}/things" + (f"/{name}" if name else "") + more


async def create(plane: ControlPlane, version: str, name: str, spec: Object, more: str = "") -> Object:
    body = {"apiVersion": f"x.example.com/{version}", "kind": "Thing", "metadata": {"name": name}, "spec": spec}
    return dict(await plane.client.call("POST", path(version, more=more), body))


async def patch(plane: ControlPlane, version: str, name: str, body: Object, more: str = "") -> Object:
    merge = "application/merge-patch+json"
    return dict(await plane.client.call("PATCH", path(version, name, more), body, content_type=merge))


async def seen(plane: ControlPlane, version: str, name: str) -> tuple[Any, Any]:
    found = await plane.client.call("GET", path(version, name))
    assert found["apiVersion"] == f"x.example.com/{version}"
    return found["spec"], found.get("status")


@pytest.mark.parametrize("more", ["", "?dryRun=All"])
async def test_a_version_keeps_what_both_know(plane: ControlPlane, more: str) -> None:
    made = await create(plane, "v2", "o", {"a": "zz", "b": "bb", "d": 3}, more)
    assert (made["apiVersion"], made["spec"]) == ("x.example.com/v2", {"c": "c2"})
    if not more:
        assert await seen(plane, "v1", "o") == await seen(plane, "v2", "o") == ({"c": "c2"}, None)


async def test_a_version_does_not_show_what_only_the_stored_one_knows(plane: ControlPlane) -> None:
    made = await create(plane, "v1", "o", {"a": "a", "b": "bbbbb"})
    assert made["spec"] == {"a": "a", "c": "c1"}
    assert await seen(plane, "v2", "o") == ({"c": "c1"}, None)
    listed = await plane.client.call("GET", path("v2"))
    assert [each["spec"] for each in listed["items"]] == [{"c": "c1"}]


async def test_each_version_judges_its_own_requests(plane: ControlPlane) -> None:
    with pytest.raises(ApiError) as caught:
        await create(plane, "v2", "o", {"b": "bbbbb", "d": "x"})
    causes = [(each["field"], each["message"]) for each in caught.value.details["causes"]]
    assert causes == [
        ("spec.b", "Too long: may not be more than 3 bytes"),
        ("spec.d", 'Invalid value: "string": spec.d in body must be of type integer: "string"'),
    ]
    with pytest.raises(ApiError, match=r"spec\.a: Required value"):
        await create(plane, "v1", "o", {"b": "bb"})


async def test_changes_by_both(plane: ControlPlane) -> None:
    await create(plane, "v2", "o", {"b": "bb"})
    changed = await patch(plane, "v2", "o", {"spec": {"b": "ccc"}})
    assert (changed["spec"], changed["metadata"]["generation"]) == ({"c": "c2"}, 2)
    changed = await patch(plane, "v2", "o", {"status": {"sv2": "x", "sv1": "y"}}, "/status")
    assert (changed["status"], changed["metadata"]["generation"]) == ({}, 2)
    with pytest.raises(ApiError, match=r"spec\.b: Too long"):
        await patch(plane, "v2", "o", {"spec": {"b": "cccccc"}})
    assert await seen(plane, "v1", "o") == ({"c": "c2"}, {"sv1": "dv1"})
    with pytest.raises(ApiError, match=r"spec\.a: Required value"):
        await patch(plane, "v1", "o", {"spec": {"c": "q"}})
    assert (await patch(plane, "v1", "o", {"spec": {"a": "q"}}))["spec"] == {"a": "q", "c": "c2"}
    assert await seen(plane, "v2", "o") == ({"c": "c2"}, {})


async def test_fields_owned_in_a_version_that_is_no_more(plane: ControlPlane) -> None:
    """Nobody can apply until somebody takes such an entry away, as in the original."""
    body = {"apiVersion": "x.example.com/v2", "kind": "Thing", "metadata": {"name": "o"}, "spec": {"c": "x"}}
    apply, more = "application/apply-patch+yaml", "?fieldManager=m&force=true"
    await plane.client.call("PATCH", path("v2", "o", more), body, content_type=apply)
    alone = {**DEFINITION["spec"], "versions": [FIRST]}
    merge = "application/merge-patch+json"
    where = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{NAME}"
    await plane.client.call("PATCH", where, {"spec": alone}, content_type=merge)
    body = {**body, "apiVersion": "x.example.com/v1", "spec": {"a": "x"}}
    with pytest.raises(ApiError, match=r"request to convert CR to an invalid group/version: x\.example\.com/v2"):
        async with asyncio.timeout(10):
            while True:  # the kind is served anew a moment after its definition changed
                await plane.client.call("PATCH", path("v1", "o", "?fieldManager=n"), body, content_type=apply)
                await asyncio.get_running_loop().run_in_executor(None, lambda: None)
