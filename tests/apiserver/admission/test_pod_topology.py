"""PodTopologyLabels, through the whole server: who is bound to a node gets its zone and region."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steersman.api.resource import NODES, PODS, SERVICEACCOUNTS, Object
from steersman.client.client import Client
from tests.apiserver.guarded import Guarded, status

ZONE, REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
WHERE = {ZONE: "z1", REGION: "r1"}


async def ready(guarded: Guarded) -> Client:
    admin = guarded.client("admin")
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    for name, labels in (("near", {**WHERE, "topology.kubernetes.io/rack": "k", "a": "b"}), ("plain", {"a": "b"})):
        await admin.create(NODES, {"metadata": {"name": name, "labels": labels}})
    return admin


async def made(admin: Client, labels: Object | None = None, **spec: Any) -> Object:
    meta: Object = {"name": "p", "labels": labels} if labels else {"name": "p"}
    spec["containers"] = [{"name": "c", "image": "i"}]
    return await admin.create(PODS, {"metadata": meta, "spec": spec}, "default")


def bond(node: str, kind: str = "Node", **meta: Any) -> Object:
    return {"metadata": {"name": "p", **meta}, "target": {"kind": kind, "name": node}}


async def bound(admin: Client, binding: Object) -> Object:
    await admin.create(PODS, binding, "default", name="p", subresource="binding")
    pod = await admin.get(PODS, "p", "default")
    assert pod["spec"]["nodeName"] == binding["target"]["name"]
    return dict(pod["metadata"].get("labels") or {})


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        (bond("near"), {"app": "a", **WHERE}),
        (bond("near", labels={ZONE: "false", "more": "1"}), {"app": "a", "more": "1", **WHERE}),
        (bond("near", kind=""), {"app": "a", ZONE: "mine"}),
        (bond("plain"), {"app": "a", ZONE: "mine"}),
        (bond("nowhere"), {"app": "a", ZONE: "mine"}),
    ],
)
async def test_binding_gives_labels(guarded: Guarded, binding: Object, expected: Object) -> None:
    admin = await ready(guarded)
    await made(admin, {"app": "a", ZONE: "mine"})
    assert await bound(admin, binding) == expected


async def test_a_pod_that_is_made_on_a_node_has_them(guarded: Guarded) -> None:
    admin = await ready(guarded)
    assert (await made(admin, {ZONE: "mine"}, nodeName="near"))["metadata"]["labels"] == WHERE
    change = {"metadata": {"labels": {ZONE: "other"}}}
    patched = await admin.patch(PODS, "p", "default", change, type="merge")
    assert patched["metadata"]["labels"] == {**WHERE, ZONE: "other"}


async def test_who_waits_or_is_bound_by_the_older_way_has_none(guarded: Guarded) -> None:
    admin = await ready(guarded)
    assert "labels" not in (await made(admin))["metadata"]
    code, text = await status(admin, "POST", "/api/v1/namespaces/default/bindings", bond("near", labels={"own": "1"}))
    assert (code, text) == (201, "")
    assert (await admin.get(PODS, "p", "default"))["metadata"]["labels"] == {"own": "1"}


@pytest.mark.parametrize("target", [None, {}, {"kind": "Node"}, {"kind": "Pod", "name": "near"}])
async def test_a_binding_to_nothing_is_still_refused(guarded: Guarded, target: Object | None) -> None:
    admin = await ready(guarded)
    await made(admin)
    path = f"{PODS.path('default')}/p/binding"
    code, text = await status(admin, "POST", path, {"metadata": {"name": "p"}, "target": target})
    assert code == 500 and "target." in text
    assert "nodeName" not in (await admin.get(PODS, "p", "default"))["spec"]


async def test_older_releases_have_it_off(tmp_path: Path) -> None:
    async with Guarded(tmp_path, release="1.34") as guarded:
        admin = await ready(guarded)
        await made(admin)
        assert await bound(admin, bond("near", labels={"own": "1"})) == {}


async def test_it_can_be_left_out(tmp_path: Path) -> None:
    async with Guarded(tmp_path, {"disable-admission-plugins": "PodTopologyLabels"}) as guarded:
        admin = await ready(guarded)
        await made(admin)
        assert await bound(admin, bond("near", labels={"own": "1"})) == {"own": "1"}
