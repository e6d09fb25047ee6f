"""Controllers that work on everything that is served: the other server's objects too, and without it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from steersman.api.resource import CONFIGMAPS, NAMESPACES
from steersman.apiserver.aggregation.backend import Patience
from steersman.client.controller import Context
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.controllers.run import run_controllers
from steersman.lib.tasks import Tasks
from tests.apiserver.aggregation.extension import FLUNDERS, GROUP, Aggregated, aggregated


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Aggregated]:
    async with aggregated(tmp_path, Patience(resync=0.05, refresh=0.0)) as made, Tasks() as tasks:
        recorder = EventRecorder(made.client, made.cluster.clock, tasks, component="test")
        informers = Informers(made.client, clock=made.cluster.clock, tasks=tasks)
        context = Context(made.client, informers, made.cluster.clock, recorder, Random(1), {})
        names = ("namespace-controller", "garbage-collector-controller")
        tasks.spawn(run_controllers(context, names), "controllers")
        await made.register()
        await made.condition("Passed")
        yield made


async def test_a_namespace_stays_while_its_content_cannot_be_known(both: Aggregated) -> None:
    await both.client.create(NAMESPACES, {"metadata": {"name": "doomed"}})
    await both.client.create(CONFIGMAPS, {"metadata": {"name": "c", "namespace": "doomed"}})
    both.extension.twist = "fails"
    await both.freshness("Stale")
    await both.client.delete(NAMESPACES, "doomed")
    where = f"{GROUP}/v1alpha1"
    async with both.patience():
        while not (found := await _failure(both)):
            await both.changed()
    assert found["reason"] == "DiscoveryFailed"
    assert found["message"] == (
        "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
        f"{where}: stale GroupVersion discovery: {where}"
    )
    assert (await both.client.list(CONFIGMAPS, "doomed")).items == []
    both.extension.twist = ""
    async with both.patience():
        while any(each["metadata"]["name"] == "doomed" for each in (await both.client.list(NAMESPACES)).items):
            await both.changed()


async def _failure(both: Aggregated) -> dict[str, str]:
    namespace = await both.client.get(NAMESPACES, "doomed")
    for each in (namespace.get("status") or {}).get("conditions") or ():
        if (each["type"], each["status"]) == ("NamespaceDeletionDiscoveryFailure", "True"):
            return each  # type: ignore[no-any-return]
    return {}


async def test_the_other_servers_objects_go_with_their_owners(both: Aggregated) -> None:
    owner = await both.client.create(CONFIGMAPS, {"metadata": {"name": "owner", "namespace": "default"}})
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    meta = {"name": "one", "namespace": "default", "uid": "u1", "resourceVersion": "2", "ownerReferences": [reference]}
    await both.watched()
    await both.ask("POST", FLUNDERS, {"apiVersion": f"{GROUP}/v1alpha1", "kind": "Flunder", "metadata": meta})
    await both.client.delete(CONFIGMAPS, "owner", "default")
    async with both.patience():
        while both.extension.deleted != ["one"]:
            await both.changed()
