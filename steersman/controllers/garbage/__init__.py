"""The garbage collector: objects whose owners are all gone go too, and owners wait for dependents or leave them.

Owns the finalizers `foregroundDeletion` and `orphan`. It follows the metadata of everything that can be listed,
watched and deleted, custom resources too, and asks what is served again when a definition changes. With the setting
`collect-only-seen-owners` an owner is gone only if it was seen.
Source: kubernetes' pkg/controller/garbagecollector, and the documentation of owners and dependents.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from functools import partial

from steersman.api.errors import ApiError
from steersman.api.resource import APISERVICES, CUSTOMRESOURCEDEFINITIONS, Object, Resource
from steersman.client.controller import DONE, Context, Controller, Key, Result
from steersman.client.discovery import discover
from steersman.client.informer import Informer
from steersman.client.metrics import Metrics
from steersman.client.workqueue import WorkQueue
from steersman.controllers.garbage.graph import FOREGROUND, ORPHAN, Graph, Node, same
from steersman.lib.metrics import Value

log = logging.getLogger(__name__)

_IGNORED = frozenset({("", "events"), ("events.k8s.io", "events")})
_NEEDED = frozenset({"list", "watch", "delete"})
_ASK_AGAIN = 30.0  # seconds, when discovery failed for all or some
_UNSERVED = 300.0  # seconds until an owner of a kind that is not served is looked for again
_UNSEEN = 10.0  # seconds until an owner is asked for again that is not seen yet
_ABSENT = 500  # owners that are remembered to be gone, as in the original


@dataclass(slots=True)
class _Known:
    """What the collector remembers."""

    graph: Graph
    informers: dict[Resource, Informer] = field(default_factory=dict)
    kinds: dict[tuple[str, str], Resource] = field(default_factory=dict)
    ready: bool = False
    absent: dict[tuple[str, ...], None] = field(default_factory=dict)  # owners that are gone for good, oldest first


async def feed(context: Context, queue: WorkQueue[Key]) -> None:
    """Follow everything that is served, and what is served."""
    known = _Known(Graph(lambda uid: queue.add(Key("", uid))))
    context.memory["known"] = known
    asked = asyncio.Event()
    asked.set()
    for changes in (CUSTOMRESOURCEDEFINITIONS, APISERVICES):
        context.informers.informer(changes).add_handler(lambda *_: asked.set())
    wait: float | None = None
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await asked.wait()
        asked.clear()
        try:
            wait = None if await _follow(context, known) else _ASK_AGAIN
        except (ApiError, OSError, TimeoutError) as error:
            log.warning("cannot discover what is served: %s", error)
            _counts(context.metrics).inc()
            wait = _ASK_AGAIN


def _counts(metrics: Metrics) -> Value:
    name = "garbagecollector_controller_resources_sync_error_total"
    return metrics.counter(name, "Failures to learn what is served.").labels()


async def _follow(context: Context, known: _Known) -> bool:
    """Start informers for what is new, stop those for what is gone; whether everybody has said what they serve."""
    found = await discover(context.client)
    served = {
        each.resource
        for each in found.resources
        if each.verbs >= _NEEDED and (each.resource.group, each.resource.plural) not in _IGNORED
    }
    known.kinds = {(each.resource.group, each.resource.kind): each.resource for each in found.resources}
    served |= {each for each in known.informers if (each.group, each.version) in found.stale}  # not gone, only silent
    for gone in set(known.informers) - served:
        informer = known.informers.pop(gone)
        context.informers.forget(informer)
        for obj in informer.list():
            known.graph.changed(gone, obj, None)
    for resource in sorted(served - set(known.informers), key=lambda each: (each.group, each.plural)):
        informer = context.informers.informer(resource, metadata_only=True)
        known.informers[resource] = informer
        informer.add_handler(partial(known.graph.changed, resource))
    for informer in list(known.informers.values()):
        try:
            async with asyncio.timeout(_ASK_AGAIN):
                await informer.synced()
        except TimeoutError:
            log.warning("cannot read %s, going on without", informer.resource.plural)
    known.ready = True
    return not found.stale


async def reconcile(context: Context, key: Key) -> Result:
    """Look at one object and do what its owners' fate asks for."""
    known: _Known = context.memory["known"]
    if not known.ready:
        return Result(0.2)
    node = known.graph.nodes.get(key.name)
    if node is None:
        return DONE
    if node.orphans:
        await _orphan(context, known, node)
    elif node.waits_for_dependents:
        await _wait_for_dependents(context, known, node)
    elif not node.being_deleted and not await _judge(context, known, node):
        return Result(_UNSERVED)
    elif any(_unseen(known, reference) for reference in node.owners):
        return Result(_UNSEEN)
    return DONE


def _unseen(known: _Known, reference: Object) -> bool:
    """Whether an owner is there, but only by the API server's word: it may go before it is seen, and nothing tells."""
    if reference["uid"] in known.graph.nodes:
        return False
    return known.kinds.get((reference["apiVersion"].rpartition("/")[0], reference["kind"])) in known.informers


async def _orphan(context: Context, known: _Known, node: Node) -> None:
    """Take the owner off every dependent, then let it go."""
    for uid in list(node.dependents):
        dependent = known.graph.nodes.get(uid)
        if dependent is not None:
            await _drop_owners(context, dependent, {node.uid})
    await _drop_finalizer(context, node, ORPHAN)


async def _wait_for_dependents(context: Context, known: _Known, node: Node) -> None:
    """Delete the dependents; when none is left that blocks, let the owner go."""
    dependents = [each for uid in node.dependents if (each := known.graph.nodes.get(uid)) is not None]
    if not any(each.blocks(node.uid) for each in dependents):
        await _drop_finalizer(context, node, FOREGROUND)
        return
    for each in dependents:
        if not each.being_deleted:
            await _judge(context, known, each)


async def _judge(context: Context, known: _Known, node: Node) -> bool:
    """Delete an object without any owner left, or drop its references to those that are gone.

    False when nothing can be said because an owner's kind is not served.
    """
    if not node.owners:
        return True
    judged = node.meta
    solid, dangling, waiting = [], [], []
    for reference in node.owners:
        owner = await _owner(context, known, node, reference)
        if owner is _UNKNOWN:
            return False
        if owner is _NEVER:
            return True
        if owner is None:
            dangling.append(reference["uid"])
        elif owner.get("deletionTimestamp") and FOREGROUND in (owner.get("finalizers") or ()):
            waiting.append(reference["uid"])
        else:
            solid.append(reference["uid"])
    if node.meta is not judged:  # changed while somebody was asked: it may have no owners any more
        return await _judge(context, known, node)
    if solid:
        if dangling or waiting:
            await _drop_owners(context, node, {*dangling, *waiting})
        return True
    if waiting and node.dependents:
        if any((each := known.graph.nodes.get(uid)) and each.waits_for_dependents for uid in node.dependents):
            await _unblock(context, node)  # a circle: nobody may wait for anybody
        policy = "Foreground"
    elif node.has_finalizer(ORPHAN):
        policy = "Orphan"
    else:
        policy = "Foreground" if node.has_finalizer(FOREGROUND) else "Background"
    await delete(context, node, policy)
    return True


_UNKNOWN: Object = {"unknown": True}
_NEVER: Object = {"never": True}


async def _owner(context: Context, known: _Known, node: Node, reference: Object) -> Object | None:
    """The owner's metadata, None when it is gone, `_UNKNOWN` when that cannot be said, `_NEVER`: it cannot be one."""
    seen = known.graph.nodes.get(reference["uid"])
    if seen is not None and same(reference, seen, node):
        return seen.meta
    if seen is not None and seen.namespace and seen.namespace != node.namespace and seen.uid not in node.told:
        node.told.add(seen.uid)
        _complain(context, node, reference)
    if reference["uid"] not in known.graph.gone and context.config.get("collect-only-seen-owners") == "true":
        return _NEVER
    resource = known.kinds.get((reference["apiVersion"].rpartition("/")[0], reference["kind"]))
    if resource is None:
        return _UNKNOWN  # a kind that is not served (yet): its objects may still exist
    if resource.namespaced and not node.namespace:
        return _NEVER
    namespace = node.namespace if resource.namespaced else ""
    which = (reference["uid"], reference["apiVersion"], reference["kind"], reference["name"], namespace)
    if which in known.absent:
        return None  # a thousand dependents need not ask for it a thousand times
    try:
        there = await context.client.get(resource, reference["name"], namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        there = None
    if there is not None and there["metadata"]["uid"] == reference["uid"]:
        meta: Object = there["metadata"]
        return meta
    known.absent[which] = None  # no uid comes back
    if len(known.absent) > _ABSENT:
        del known.absent[next(iter(known.absent))]
    return None


def _complain(context: Context, node: Node, reference: Object) -> None:
    api, namespace = reference["apiVersion"], node.namespace
    which = f"[{api}/{reference['kind']}, namespace: {namespace}, name: {reference['name']}, uid: {reference['uid']}]"
    text = f'ownerRef {which} does not exist in namespace "{namespace}"'
    context.recorder.event(_reference(node), "Warning", "OwnerRefInvalidNamespace", text)


def _reference(node: Node) -> Object:
    return {
        "apiVersion": node.resource.api_version,
        "kind": node.resource.kind,
        "namespace": node.namespace,
        "name": node.meta["name"],
        "uid": node.uid,
    }


async def delete(context: Context, node: Node, policy: str) -> None:
    """Delete exactly the version that was judged: a newer one may have another owner, or none. Raises ApiError."""
    version = str(node.meta["resourceVersion"])
    name, uid = node.meta["name"], node.uid
    try:
        await context.client.delete(
            node.resource, name, node.namespace, propagation=policy, uid=uid, resource_version=version
        )
    except ApiError as error:
        if error.code != 404:
            raise


async def _drop_owners(context: Context, node: Node, owners: set[str]) -> None:
    left = [each for each in node.owners if each["uid"] not in owners]
    await _patch(context, node, {"ownerReferences": left or None})


async def _unblock(context: Context, node: Node) -> None:
    await _patch(context, node, {"ownerReferences": [{**each, "blockOwnerDeletion": False} for each in node.owners]})


async def _drop_finalizer(context: Context, node: Node, name: str) -> None:
    left = [each for each in node.meta.get("finalizers") or () if each != name]
    await _patch(context, node, {"finalizers": left or None})


async def _patch(context: Context, node: Node, meta: Object) -> None:
    """Merge patch against the very version that was judged; a conflict means that an event is on its way."""
    body = {"metadata": {"uid": node.uid, "resourceVersion": node.meta["resourceVersion"], **meta}}
    try:
        await context.client.patch(node.resource, node.meta["name"], node.namespace, body)
    except ApiError as error:
        if error.code != 404:
            raise


CONTROLLER = Controller(
    "garbage-collector-controller",
    reconcile,
    (),
    workers=20,
    feed=feed,
    counts=_counts,
    asked_for=lambda config: config.get("enable-garbage-collector") != "false",
)
