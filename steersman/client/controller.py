"""The loop that every controller runs in: watch, queue keys, reconcile, back off.

Owns the wiring from informers to one work queue and the workers on it. A controller is a value: a name, what it
watches and `reconcile`, which is told a key and never what happened. Called by `controllers.run`.
Source: the reconcile contract of controller-runtime; queue and retries as client-go's.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

from steersman.api.errors import ApiError
from steersman.api.resource import Object, Resource
from steersman.client.accounts import Accounts
from steersman.client.client import Client
from steersman.client.cloud import Cloud
from steersman.client.events import EventRecorder
from steersman.client.expectations import Expectations
from steersman.client.informer import Informer, Informers
from steersman.client.metrics import Metrics
from steersman.client.pace import Paced, bucket_of
from steersman.client.workqueue import RETRY_FIRST, RETRY_MOST, WorkQueue
from steersman.lib.clock import Clock
from steersman.lib.tasks import Tasks, turn

log = logging.getLogger(__name__)

_TURN = 200  # objects between which others have theirs


class Key(NamedTuple):
    """The object to reconcile."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True)
class Result:
    """`requeue_after`: seconds after which to look again although nothing happened; 0 means when something does."""

    requeue_after: float = 0.0


DONE = Result()


class Context:
    """What a controller works with. `config` holds its settings by name; `cloud` is for those of a cloud provider.

    `metrics` are its own where nobody prints them. `accounts`: who controllers are, where each is somebody of its own.
    """

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        recorder: EventRecorder,
        random: Random,
        config: Mapping[str, str] | None = None,
        cloud: Cloud | None = None,
        metrics: Metrics | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self.client = client
        self.informers = informers
        self.clock = clock
        self.recorder = recorder
        self.random = random
        self.config = config or {}
        self.cloud = cloud or Cloud()
        self.metrics = metrics or Metrics(clock.monotonic)
        self.accounts = accounts
        self.expectations = Expectations(clock)
        self.memory: dict[Any, Any] = {}  # what one controller remembers between calls; gone when it restarts

    def informer(self, resource: Resource) -> Informer:
        """The shared informer of a whole collection."""
        return self.informers.informer(resource)

    def own(self, component: str, agent: str = "", *, root: bool = False) -> Context:
        """The same with expectations, memory and pace of its own, for one controller whose events name `component`.

        `agent` is how its requests name it, at the end of their user agent, and the account that they come from;
        `root`: it has none.
        """
        recorder, agent = self.recorder.named(component), agent or component
        client = self.client.named(agent)
        if self.accounts is not None and not root:
            client = self.accounts.client(self.client, agent)
        if (bucket := bucket_of(self.config, self.clock)) is not None:
            client = copy.copy(client)
            client.transport = Paced(client.transport, bucket)
        return Context(client, self.informers, self.clock, recorder, self.random, self.config, self.cloud, self.metrics)


Reconcile = Callable[[Context, Key], Awaitable[Result]]
KeysOf = Callable[[Context, Object], Iterable[Key]]


@dataclass(frozen=True, slots=True)
class Watch:
    """A collection (or a part of it) whose changes matter, and the keys to reconcile for each of its objects.

    `delay` names the setting that says how many seconds keys wait for more changes; none where it is not set.
    """

    resource: Resource
    keys: KeysOf
    namespace: str = ""
    fields: str = ""
    optional: bool = False  # releases may lack it
    delay: str = ""

    def informer(self, context: Context) -> Informer:
        """The shared informer of what is watched."""
        return context.informers.informer(self.resource, namespace=self.namespace, fields=self.fields)


def key_of(obj: Object) -> Key:
    """An object's own key."""
    meta = obj["metadata"]
    return Key(meta.get("namespace") or "", meta["name"])


def For(resource: Resource) -> Watch:
    """Reconcile the object itself."""
    return Watch(resource, lambda _, obj: (key_of(obj),))


def Owns(resource: Resource, owner: Resource) -> Watch:
    """Reconcile the object's controlling owner, when that is of the kind `owner`."""

    def keys(_: Context, obj: Object) -> Iterable[Key]:
        for reference in obj["metadata"].get("ownerReferences") or ():
            if (
                reference.get("controller")
                and reference.get("kind") == owner.kind
                and reference.get("apiVersion", "").rpartition("/")[0] == owner.group
            ):
                yield Key(obj["metadata"].get("namespace") or "" if owner.namespaced else "", reference["name"])

    return Watch(resource, keys)


@dataclass(frozen=True, slots=True)
class Controller:
    """One control loop. `name` is kube-controller-manager's, as `--controllers` spells it; events name `component`.

    `feed` is for what no watch can tell: it may add keys until it is cancelled. `asked_for` says whether the settings
    want the controller at all, and raises ValueError for settings that cannot be. `retry`: seconds until what failed is
    tried again for the first time, and at most. `queue`: what metrics call the queue, and `agent`: what
    requests call the controller, where that is not the name. `counts` asks for the metrics that are printed before
    anything was counted: those without labels, as in the original. `root`: it is the component itself, even where
    others are service accounts.
    """

    name: str
    reconcile: Reconcile
    watches: tuple[Watch, ...]
    workers: int = 5
    feed: Callable[[Context, WorkQueue[Key]], Awaitable[None]] | None = None
    component: str = ""
    asked_for: Callable[[Mapping[str, str]], bool] = lambda _: True
    indexes: Mapping[Resource, Mapping[str, Callable[[Object], Iterable[str]]]] = field(default_factory=dict)
    retry: tuple[float, float] = (RETRY_FIRST, RETRY_MOST)
    queue: str = ""
    agent: str = ""
    counts: Callable[[Metrics], object] = lambda _: None
    root: bool = False


async def run(controller: Controller, context: Context) -> None:
    """Run one controller until cancelled."""
    component, agent = controller.component or controller.name, controller.agent or controller.name
    context = context.own(component, agent, root=controller.root)
    controller.counts(context.metrics)
    queue: WorkQueue[Key] = WorkQueue(
        context.clock, context.metrics.queue(controller.queue or controller.name), controller.retry
    )
    for resource, indexes in controller.indexes.items():
        for name, keys in indexes.items():
            context.informer(resource).add_index(name, keys)
    for watch in controller.watches:
        watch.informer(context).add_handler(_enqueuer(watch, context, queue))
    for watch in controller.watches:
        informer = watch.informer(context)
        await (informer.settled() if watch.optional else informer.synced())
    for resource in controller.indexes:
        await context.informer(resource).synced()
    async with Tasks() as tasks:
        tasks.spawn(_look_again(controller, context, queue), f"{controller.name} again")
        for number in range(controller.workers):
            tasks.spawn(_work(controller, context, queue), f"{controller.name} {number}")
        if controller.feed is not None:
            await controller.feed(context, queue)
        await asyncio.get_running_loop().create_future()


async def _look_again(controller: Controller, context: Context, queue: WorkQueue[Key]) -> None:
    """After a gap in what was heard, look at everything as at the start.

    Somebody may have deleted what we made before it was ever seen here, and then nothing tells that it is missing.
    """
    missed = asyncio.Event()
    for watch in controller.watches:
        watch.informer(context).on_relist(missed.set)
    for resource in controller.indexes:
        context.informer(resource).on_relist(missed.set)
    while True:
        await missed.wait()
        missed.clear()
        for watch in controller.watches:
            for number, obj in enumerate(watch.informer(context).list()):
                for key in watch.keys(context, obj):
                    queue.add(key)
                if number % _TURN == 0:
                    await turn()


def _enqueuer(watch: Watch, context: Context, queue: WorkQueue[Key]) -> Callable[[Object | None, Object | None], None]:
    """Both the old and the new object count: an owner that lost a child must hear of it."""
    delay = float(context.config.get(watch.delay, "0"))

    def changed(old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            if obj is not None:
                for key in watch.keys(context, obj):
                    queue.add_after(key, delay)

    return changed


async def _work(controller: Controller, context: Context, queue: WorkQueue[Key]) -> None:
    while True:
        key = await queue.get()
        try:
            result = await controller.reconcile(context, key)
        except (ApiError, OSError, TimeoutError) as error:
            level = logging.INFO if isinstance(error, ApiError) and error.code in (404, 409) else logging.WARNING
            log.log(level, "%s: cannot reconcile %s: %s", controller.name, key, error)
            queue.retry(key)
        except Exception:
            log.exception("%s: reconciling %s failed", controller.name, key)
            queue.retry(key)
        else:
            queue.forget(key)
            if result.requeue_after > 0:
                queue.add_after(key, result.requeue_after)
        finally:
            queue.done(key)
