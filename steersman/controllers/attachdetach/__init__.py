"""Attach and detach: CSI volumes go to the nodes whose pods need them, and leave when no pod does.

Owns VolumeAttachments and `status.volumesAttached` of nodes; the driver's external attacher does the work and says so
in the VolumeAttachment's status. One key is one volume. Settings: `disable-force-detach-on-timeout` ("true"),
`attach-detach-reconcile-sync-period`.
Source: kubernetes' pkg/controller/volume/attachdetach; reasons and messages are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object, Resource
from steersman.client.children import in_doubt
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch
from steersman.client.nodefit import BY_NODE, file_by_node
from steersman.client.workqueue import WorkQueue
from steersman.controllers.attachdetach import counts
from steersman.controllers.attachdetach.volumes import (
    FORCE_AFTER,
    OUT_OF_SERVICE,
    Facts,
    Place,
    attachment,
    claims_of,
    in_use,
    is_managed,
    multi_attach_text,
    needs,
    reported,
    shareable,
    unique_name,
)
from steersman.lib.backoff import Backoff

VOLUMEATTACHMENTS = Resource("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", namespaced=False)
CSIDRIVERS = Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False)

_BY_VOLUME, _BY_CLAIM = "csi volume", "claim of a volume"
_PATIENCE = 120.0  # seconds that the external attacher has
_AGAIN = 1.0  # seconds until a node is asked again that still uses a volume


@dataclass(slots=True)
class _Waits:
    """What only time tells of one volume, by node. Losing it makes waits longer, nothing else."""

    unwanted: dict[str, float] = field(default_factory=dict)  # since when nobody needs it there
    asked: dict[str, float] = field(default_factory=dict)  # since when the attacher works
    due: dict[str, float] = field(default_factory=dict)  # until when not to try or complain again
    backoff: Backoff[str] = field(default_factory=lambda: Backoff(0.5, 122.0))
    complained: set[str] = field(default_factory=set)  # of a multi-attach error
    unsure: str = ""  # the VolumeAttachment that was asked for without an answer

    def keep(self, nodes: set[str]) -> None:
        """Nothing waits on any other node."""
        for node in {*self.unwanted, *self.asked, *self.due, *self.complained} - nodes:
            self.forget(node)

    def forget(self, node: str) -> None:
        """Whatever went on there is over."""
        for table in (self.unwanted, self.asked, self.due):
            table.pop(node, None)
        self.backoff.forget(node)
        self.complained.discard(node)


@dataclass(slots=True)
class _Memory:
    """What is known of things that are gone, and what waits."""

    waits: dict[str, _Waits] = field(default_factory=dict)  # by volume
    mounted: dict[str, set[str]] = field(default_factory=dict)  # by node, what it used when last seen
    names: dict[str, str] = field(default_factory=dict)  # of volumes, by PersistentVolume
    sources: dict[str, set[str]] = field(default_factory=dict)  # the PersistentVolumes of each volume


def _memory(context: Context) -> _Memory:
    found: _Memory = context.memory.setdefault("attachdetach", _Memory())
    return found


async def reconcile(context: Context, key: Key) -> Result:
    """Bring one volume to the nodes where it is needed, and from those where it is not."""
    memory = _memory(context)
    waits = memory.waits.setdefault(key.name, _Waits())
    await _settle(context, key.name, waits)
    if not context.expectations.fulfilled(key.name, context.informer(VOLUMEATTACHMENTS)):
        return DONE
    found = sorted(context.informer(PERSISTENTVOLUMES).by_index(_BY_VOLUME, key.name), key=_name)
    places = _places(context, key.name, found)
    if not places and not found:
        memory.waits.pop(key.name, None)
        for name in memory.sources.pop(key.name, ()):
            memory.names.pop(name, None)
        context.expectations.forget([key.name])
        return DONE
    waits.keep(set(places))
    left = [await _leave(context, key.name, waits, place) for place in places.values() if not place.pods]
    for place in places.values():
        if place.pods and found:
            waits.unwanted.pop(place.node, None)
            others = [each for each in places.values() if each is not place and each.attachment is not None]
            left.append(await _arrive(context, waits, found[0], place, others))
    return Result(min((wait for wait in left if wait > 0), default=0.0))


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _places(context: Context, volume: str, found: list[Object]) -> dict[str, Place]:
    """Every node where the volume is, or shall be, by name."""
    places: dict[str, Place] = {}
    for name in sorted(_memory(context).sources.get(volume, ())):
        for each in context.informer(VOLUMEATTACHMENTS).by_index(_BY_VOLUME, name):
            places[each["spec"]["nodeName"]] = Place(each["spec"]["nodeName"], attachment=each)
    for node in context.informer(NODES).by_index(_BY_VOLUME, volume):
        places.setdefault(_name(node), Place(_name(node)))
    for pod in _users(context, found):
        node_name = pod["spec"]["nodeName"]
        node = context.informer(NODES).get("", node_name)
        if node_name in places or (node is not None and is_managed(node)):
            places.setdefault(node_name, Place(node_name)).pods.append(pod)
    for place in places.values():
        _look(context, volume, place)
    return places


def _users(context: Context, found: Iterable[Object]) -> list[Object]:
    """The pods on nodes that need the volume."""
    out: list[Object] = []
    for volume in found:
        if not _attaches(context, volume):
            continue
        reference = volume["spec"].get("claimRef") or {}
        at = (reference.get("namespace", ""), reference.get("name", ""))
        claim = context.informer(PERSISTENTVOLUMECLAIMS).get(*at)
        if claim is None or claim["metadata"]["uid"] != reference.get("uid"):
            continue
        bound = (claim.get("status") or {}).get("phase") == "Bound"
        if bound and claim["spec"].get("volumeName") == _name(volume):
            users = context.informer(PODS).by_index(_BY_CLAIM, "/".join(at))
            out += sorted((pod for pod in users if needs(pod, claim)), key=_name)
    return out


def _attaches(context: Context, volume: Object) -> bool:
    """A driver may say that it needs no attaching; one that says nothing does need it."""
    driver = context.informer(CSIDRIVERS).get("", volume["spec"]["csi"]["driver"])
    return driver is None or (driver.get("spec") or {}).get("attachRequired") is not False


def _look(context: Context, volume: str, place: Place) -> None:
    """What the place's node says. A node that is gone is believed what it said last."""
    mounted = _memory(context).mounted
    node = context.informer(NODES).get("", place.node)
    if node is None:
        place.mounted = place.node not in mounted or volume in mounted[place.node]
        return
    mounted[place.node] = in_use(node)
    place.known = True
    place.mounted = volume in mounted[place.node]
    place.ready = (pods.condition(node, "Ready") or {}).get("status") == "True"
    place.out_of_service = any(each["key"] == OUT_OF_SERVICE for each in node["spec"].get("taints") or ())
    place.told = any(each["name"] == volume for each in reported(node))


async def _leave(context: Context, volume: str, waits: _Waits, place: Place) -> float:
    """Detach what nobody needs here; returns seconds until the next look, 0 when something will tell."""
    now = context.clock.monotonic()
    if place.attachment is None:
        waits.forget(place.node)
        if place.told:
            await _report(context, volume, place.node, attached=False)
        return 0.0
    if place.leaving:
        return 0.0
    since = waits.unwanted.setdefault(place.node, now)
    limit = None if context.config.get("disable-force-detach-on-timeout") == "true" else FORCE_AFTER
    forced = place.forced(now - since, limit)
    if place.mounted and not forced:
        return max(since + FORCE_AFTER - now, 0.0)
    node = await _report(context, volume, place.node, attached=False)
    if not forced and node is not None and volume in in_use(node):
        return _AGAIN
    meta = place.attachment["metadata"]
    try:
        await context.client.delete(VOLUMEATTACHMENTS, meta["name"], uid=meta["uid"])
    except ApiError as error:
        if error.code not in (404, 409):
            raise
    if forced and place.mounted:
        name = "attach_detach_controller_attachdetach_controller_forced_detaches"
        family = context.metrics.counter(name, "Volumes detached although they may be mounted.", ("reason",))
        family.labels("out-of-service" if place.out_of_service else "timeout").inc()
    place.attachment = {**place.attachment, "metadata": {**meta, "deletionTimestamp": "now"}}
    return 0.0


async def _arrive(context: Context, waits: _Waits, source: Object, place: Place, others: list[Place]) -> float:
    """Attach what pods need here; returns seconds until the next look, 0 when something will tell."""
    now = context.clock.monotonic()
    if place.told and not place.attached:
        await _report(context, unique_name(source), place.node, attached=False)
    if place.attachment is None:
        if others and not shareable(source):
            _complain(context, waits, source, place, others)
            return 0.0
        if (left := waits.due.get(place.node, 0.0) - now) > 0:
            return left
        await _ask(context, unique_name(source), waits, attachment(source, place.node))
        waits.asked[place.node] = now
        return _PATIENCE
    status = place.attachment.get("status") or {}
    if place.leaving:
        return _failed(context, waits, source, place, "volume attachment is being deleted")
    if place.attached:
        waits.forget(place.node)
        if place.told or not await _confirmed(context, place):
            return 0.0
        if await _report(context, unique_name(source), place.node, attached=True) is not None:
            text = f"AttachVolume.Attach succeeded for {_for(source)} "
            _tell(context, place, "Normal", "SuccessfulAttachVolume", text)
        return 0.0
    if status.get("attachError"):
        return _failed(context, waits, source, place, status["attachError"].get("message") or "")
    if (left := waits.asked.setdefault(place.node, now) + _PATIENCE - now) > 0:
        return left
    csi = source["spec"]["csi"]
    driver, handle = csi["driver"], csi["volumeHandle"]
    text = f"timed out waiting for external-attacher of {driver} CSI driver to attach volume {handle}"
    waits.asked[place.node] = now
    return _failed(context, waits, source, place, text)


async def _ask(context: Context, volume: str, waits: _Waits, body: Object) -> None:
    """Make a VolumeAttachment; whether it is there is asked where the answer is lost."""
    waits.unsure = body["metadata"]["name"]
    try:
        made = await context.client.create(VOLUMEATTACHMENTS, body)
    except ApiError as error:
        if error.reason == "AlreadyExists":
            await _settle(context, volume, waits)
            return
        if not in_doubt(error):
            waits.unsure = ""
        raise
    waits.unsure = ""
    context.expectations.created(volume, made)


async def _settle(context: Context, volume: str, waits: _Waits) -> None:
    """Find out what became of a write without an answer."""
    if waits.unsure and (there := await _fresh(context, waits.unsure)) is not None:
        context.expectations.created(volume, there)
    waits.unsure = ""


async def _fresh(context: Context, name: str) -> Object | None:
    """A VolumeAttachment as it is now."""
    try:
        return await context.client.get(VOLUMEATTACHMENTS, name)
    except ApiError as error:
        if error.code != 404:
            raise
        return None


async def _confirmed(context: Context, place: Place) -> bool:
    """Whether it is still attached: the kubelet mounts what it is told of, and what we see may be old."""
    assert place.attachment is not None
    there = await _fresh(context, place.attachment["metadata"]["name"])
    return there is not None and Place(place.node, attachment=there).usable


def _for(source: Object) -> str:
    return f'volume "{_name(source)}"'


def _tell(context: Context, place: Place, type: Literal["Normal", "Warning"], reason: str, text: str) -> None:
    for pod in place.pods:
        context.recorder.event(pod, type, reason, text)


def _failed(context: Context, waits: _Waits, source: Object, place: Place, why: str) -> float:
    """Say so, ever more rarely while it stays so."""
    now = context.clock.monotonic()
    if (left := waits.due.get(place.node, 0.0) - now) > 0:
        return left
    _tell(context, place, "Warning", "FailedAttachVolume", f"AttachVolume.Attach failed for {_for(source)} : {why}")
    wait = waits.backoff.next(place.node)
    waits.due[place.node] = now + wait
    return wait


def _complain(context: Context, waits: _Waits, source: Object, place: Place, others: list[Place]) -> None:
    """Another node has it: said once, and only when nobody is about to let go."""
    blocking = [each for each in others if each.attached]
    if place.node in waits.complained or not blocking or any(each.leaving for each in others):
        return
    waits.complained.add(place.node)
    users = [pod for each in blocking for pod in each.pods]
    for pod in place.pods:
        context.recorder.event(pod, "Warning", "FailedAttachVolume", multi_attach_text(source, pod, users))


async def _report(context: Context, volume: str, name: str, *, attached: bool) -> Object | None:
    """Write into a node's status whether the volume is attached; returns the node as it is now, None when gone."""
    try:
        node = await context.client.get(NODES, name)
        have = reported(node)
        others = [each for each in have if each["name"] != volume]
        wanted = [*others, {"name": volume, "devicePath": ""}] if attached else others
        if len(wanted) == len(have):
            return node
        body = {
            "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
            "status": {"volumesAttached": wanted or None},
        }
        return await context.client.patch(NODES, name, "", body, subresource="status")
    except ApiError as error:
        if error.code == 404:
            return None
        raise


# Which volumes a change concerns.


def _key(context: Context, volume: Object) -> Iterable[Key]:
    if name := unique_name(volume):
        memory = _memory(context)
        memory.names[_name(volume)] = name
        memory.sources.setdefault(name, set()).add(_name(volume))
        yield Key("", name)


def _of_claim(context: Context, claim: Object) -> Iterable[Key]:
    volume = context.informer(PERSISTENTVOLUMES).get("", claim["spec"].get("volumeName") or "")
    yield from _key(context, volume) if volume is not None else ()


def _of_pod(context: Context, pod: Object) -> Iterable[Key]:
    if pod["spec"].get("nodeName"):
        for name, _ in claims_of(pod):
            claim = context.informer(PERSISTENTVOLUMECLAIMS).get(pod["metadata"]["namespace"], name)
            yield from _of_claim(context, claim) if claim is not None else ()


def _of_attachment(context: Context, each: Object) -> Iterable[Key]:
    name = each["spec"]["source"].get("persistentVolumeName") or ""
    if known := _memory(context).names.get(name):
        yield Key("", known)


def _of_node(context: Context, node: Object) -> Iterable[Key]:
    """The volumes whose state on a node is not what it was; all of them when the node itself is not."""
    memory: dict[str, Facts] = context.memory.setdefault("nodes", {})
    name = _name(node)
    there = context.informer(NODES).get("", name)
    old, new = memory.get(name, Facts()), Facts() if there is None else Facts.of(there)
    memory[name] = new
    if there is None:
        del memory[name]
    yield from {Key("", volume) for _, volume in old.volumes ^ new.volumes}
    if old.general == new.general:
        return
    yield from {Key("", volume) for _, volume in new.volumes}
    for each in context.informer(VOLUMEATTACHMENTS).by_index(BY_NODE, name):
        yield from _of_attachment(context, each)
    for pod in context.informer(PODS).by_index(BY_NODE, name):
        yield from _of_pod(context, pod)


async def _feed(context: Context, queue: WorkQueue[Key]) -> None:
    """Every volume is looked at again each `attach-detach-reconcile-sync-period`, unless that is switched off."""
    context.metrics.ask("attachdetach_controller", lambda: _count(context))
    if context.config.get("disable-attach-detach-reconcile-sync") == "true":
        return
    period = float(context.config.get("attach-detach-reconcile-sync-period", "60"))
    while True:
        await context.clock.sleep(period)
        for name in _memory(context).sources:
            queue.add(Key("", name))


def _count(context: Context) -> None:
    volumes = (each for each in context.informer(PERSISTENTVOLUMES).list() if unique_name(each))
    attachments = context.informer(VOLUMEATTACHMENTS).list()
    counts.collect(context.metrics, volumes, attachments, lambda volume: _users(context, [volume]))


CONTROLLER = Controller(
    "persistentvolume-attach-detach-controller",
    reconcile,
    (
        Watch(PERSISTENTVOLUMES, _key),
        Watch(PERSISTENTVOLUMECLAIMS, _of_claim),
        Watch(VOLUMEATTACHMENTS, _of_attachment),
        Watch(PODS, _of_pod),
        Watch(NODES, _of_node),
        Watch(CSIDRIVERS, lambda *_: ()),
    ),
    feed=_feed,
    component="attachdetach-controller",
    indexes={
        PERSISTENTVOLUMES: {_BY_VOLUME: lambda volume: [unique_name(volume)] if unique_name(volume) else ()},
        PODS: {
            _BY_CLAIM: lambda pod: [f"{pod['metadata']['namespace']}/{name}" for name, _ in claims_of(pod)],
            BY_NODE: file_by_node,
        },
        VOLUMEATTACHMENTS: {
            _BY_VOLUME: lambda each: [each["spec"]["source"].get("persistentVolumeName") or ""],
            BY_NODE: file_by_node,
        },
        NODES: {_BY_VOLUME: lambda node: [each["name"] for each in reported(node)]},
    },
)
