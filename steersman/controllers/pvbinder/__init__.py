"""Binding: claims get volumes, volumes know whose they are, and what is released is reclaimed.

Owns the phases of PersistentVolumes and PersistentVolumeClaims, and the two references between them. It provisions
nothing: that is the work of provisioners, which it names in an annotation. What waits is looked at again every
`pvclaimbinder-sync-period`, and its event told again, as in the original.
Source: kubernetes' pkg/controller/volume/persistentvolume.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.volumematch import class_of, suits
from steersman.client.workqueue import WorkQueue
from steersman.controllers.pvbinder import claims, counts, volumes
from steersman.controllers.pvbinder.claims import BY_CLAIM, FREE, STORAGECLASSES
from steersman.controllers.pvbinder.operations import Operations
from steersman.controllers.pvbinder.writes import COMPLETED
from steersman.lib.tasks import Tasks

_WAITING, _OF_VOLUME, _UNSETTLED = "waiting of class", "volume", "unsettled"
_MOST = 100  # waiting claims that one new volume is held against; the others see it at the next round


async def reconcile(context: Context, key: Key) -> Result:
    """A key with a namespace is a claim's, one without is a volume's. Raises ApiError."""
    if key.namespace:
        claim = context.informer(PERSISTENTVOLUMECLAIMS).get(*key)
        if claim is not None:
            await claims.sync(context, claim)
    else:
        volume = context.informer(PERSISTENTVOLUMES).get(*key)
        if volume is not None:
            await volumes.sync(context, volume)
    return DONE


async def _feed(context: Context, queue: WorkQueue[Key]) -> None:
    """Look again at what waits; runs what takes its time, too."""
    period = float(context.config.get("pvclaimbinder-sync-period", "15"))
    context.metrics.ask("pv_collector", lambda: counts.collect(context))
    async with Tasks() as tasks:
        context.memory[Operations] = Operations(context.clock, tasks)
        while True:
            for resource in (PERSISTENTVOLUMES, PERSISTENTVOLUMECLAIMS):
                for each in context.informer(resource).by_index(_UNSETTLED, ""):
                    queue.add(key_of(each))
            await context.clock.sleep(period)


def _file_claimed(volume: Object) -> Iterable[str]:
    if reference := volume["spec"].get("claimRef"):
        yield f"{reference.get('namespace', '')}/{reference['name']}"


def _file_free(volume: Object) -> Iterable[str]:
    if not volume["spec"].get("claimRef"):
        yield class_of(volume)


def _file_unsettled(obj: Object) -> Iterable[str]:
    """Claims that are not bound, and volumes whose reclaiming has not ended."""
    phase, spec = (obj.get("status") or {}).get("phase"), obj["spec"]
    if "accessModes" in spec and "capacity" not in spec:
        settled = phase in ("Bound", "Lost")
    else:
        settled = phase not in ("Released", "Failed") or spec.get("persistentVolumeReclaimPolicy") == "Retain"
    if not settled:
        yield ""


def _file_waiting(claim: Object) -> Iterable[str]:
    noted = claim["metadata"].get("annotations") or {}
    if not claim["spec"].get("volumeName") and COMPLETED not in noted:
        yield class_of(claim)


def _file_by_volume(claim: Object) -> Iterable[str]:
    if name := claim["spec"].get("volumeName"):
        yield name


def _claims_of(pod: Object) -> Iterable[str]:
    for each in pod["spec"].get("volumes") or ():
        if claim := each.get("persistentVolumeClaim"):
            yield f"{pod['metadata']['namespace']}/{claim['claimName']}"


def _claims_for(context: Context, volume: Object) -> Iterable[Key]:
    """The claim that the volume names, those that name it, or else the first that it suits."""
    informer = context.informer(PERSISTENTVOLUMECLAIMS)
    yield from map(key_of, informer.by_index(_OF_VOLUME, volume["metadata"]["name"]))
    if reference := volume["spec"].get("claimRef"):
        yield Key(reference.get("namespace", ""), reference["name"])
    elif (volume.get("status") or {}).get("phase") == "Available":
        waiting = informer.by_index(_WAITING, class_of(volume))[:_MOST]
        yield from [key_of(claim) for claim in waiting if suits(volume, claim)][:1]


def _volume_of(_: Context, claim: Object) -> Iterable[Key]:
    if name := claim["spec"].get("volumeName"):
        yield Key("", name)


def _of_class(context: Context, storage_class: Object) -> Iterable[Key]:
    """Claims of the class that wait, or have none yet."""
    informer = context.informer(PERSISTENTVOLUMECLAIMS)
    for name in (storage_class["metadata"]["name"], ""):
        yield from map(key_of, informer.by_index(_WAITING, name))


CONTROLLER = Controller(
    "persistentvolume-binder-controller",
    reconcile,
    (
        For(PERSISTENTVOLUMES),
        For(PERSISTENTVOLUMECLAIMS),
        Watch(PERSISTENTVOLUMES, _claims_for),
        Watch(PERSISTENTVOLUMECLAIMS, _volume_of),
        Watch(STORAGECLASSES, _of_class),
    ),
    workers=1,
    feed=_feed,
    counts=claims.given_later,
    indexes={
        PODS: {BY_CLAIM: _claims_of},
        PERSISTENTVOLUMES: {BY_CLAIM: _file_claimed, FREE: _file_free, _UNSETTLED: _file_unsettled},
        PERSISTENTVOLUMECLAIMS: {
            _OF_VOLUME: _file_by_volume,
            _WAITING: _file_waiting,
            _UNSETTLED: _file_unsettled,
        },
    },
    component="persistentvolume-controller",
)
