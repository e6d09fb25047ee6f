"""What comes and goes while a watch has lost its place, and what a controller makes of not having heard of it."""

from __future__ import annotations

from random import Random

from steersman.api.resource import CONFIGMAPS, SECRETS
from steersman.client.client import Client
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, run
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster
from steersman.testing.objects import config_map

from .test_informer import Broken


async def test_a_controller_looks_at_everything_again_after_a_gap(cluster: ApiCluster, tasks: Tasks) -> None:
    """It keeps a ConfigMap for each Secret; one that it made is deleted before its informer ever saw it."""
    broken = Broken(cluster.transport)
    client = Client(broken, clock=cluster.clock, user_agent="t")  # type: ignore[arg-type]
    informers = Informers(client, clock=cluster.clock, tasks=tasks, random=Random(1))
    recorder = EventRecorder(client, cluster.clock, tasks, component="t")
    context = Context(client, informers, cluster.clock, recorder, Random(1))
    made: list[int] = []

    async def reconcile(context: Context, key: Key) -> Result:
        if context.informer(CONFIGMAPS).get(*key) is None:
            made.append(1)
            if len(made) == 1:
                broken.expired = True
                await broken.cut()
            await cluster.client.create(CONFIGMAPS, config_map(key.name), key.namespace)
            if len(made) == 1:
                await cluster.client.delete(CONFIGMAPS, key.name, key.namespace)
        return DONE

    watches = (For(SECRETS), For(CONFIGMAPS))
    tasks.spawn(run(Controller("test", reconcile, watches), context), "controller")
    await cluster.clock.sleep(1)
    await cluster.client.create(SECRETS, {"metadata": {"name": "a"}}, "default")
    await cluster.clock.sleep(60)
    assert len(made) == 2
    assert len((await cluster.client.list(CONFIGMAPS, "default")).items) == 1


async def test_whoever_reads_a_collection_again_says_so(cluster: ApiCluster, tasks: Tasks) -> None:
    broken = Broken(cluster.transport)
    client = Client(broken, clock=cluster.clock, user_agent="t")  # type: ignore[arg-type]
    informer = Informers(client, clock=cluster.clock, tasks=tasks, random=Random(1)).informer(CONFIGMAPS)
    told: list[int] = []
    informer.on_relist(lambda: told.append(len(informer.list())))
    await informer.synced()
    await broken.cut()
    await cluster.client.create(CONFIGMAPS, config_map("a"), "default")
    await cluster.clock.sleep(60)
    assert told == [], "neither the first list nor a watch that goes on is a gap"
    broken.expired = True
    await broken.cut()
    await cluster.clock.sleep(60)
    assert told == [1], "and everything is known by then"
