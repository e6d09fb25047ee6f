"""What the binder writes: phases, both references of a binding, and the annotations that tell of them.

Owns the order of a binding's four steps, each of which is done only where it is missing. Called by `claims`,
`volumes` and `reclaim`. Source: kubernetes' pkg/controller/volume/persistentvolume/pv_controller.go.
"""

from __future__ import annotations

from steersman.api.quantity import compare
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, Object, Resource
from steersman.client.controller import Context
from steersman.client.events import EventType
from steersman.client.migrated import DRIVERS
from steersman.client.volumematch import is_for

COMPLETED, BY_US = "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"
PROVISIONER, OLD_PROVISIONER = (
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)
PROVISIONED_BY, MIGRATED_TO = "pv.kubernetes.io/provisioned-by", "pv.kubernetes.io/migrated-to"
IN_TREE, EXTERNAL = "kubernetes.io/pv-controller", "external-provisioner.volume.kubernetes.io/finalizer"
_BEFORE_RESIZE = "volume.alpha.kubernetes.io/pre-resize-capacity"


def notes(obj: Object) -> Object:
    """A copy of the object's annotations."""
    return {**(obj["metadata"].get("annotations") or {})}


async def bind(context: Context, claim: Object, volume: Object) -> None:
    """Bind both to each other: the volume's reference and phase, then the claim's."""
    volume = await set_volume(context, await _refer(context, volume, claim), "Bound")
    noted, name = notes(claim), volume["metadata"]["name"]
    named = claim["spec"].get("volumeName") == name
    if not named or COMPLETED not in noted:
        if not named:
            noted.setdefault(BY_US, "yes")
        noted.setdefault(COMPLETED, "yes")
        claim = await _annotate(context, PERSISTENTVOLUMECLAIMS, claim, noted, volumeName=name)
    await set_claim(context, claim, "Bound", volume)


async def _refer(context: Context, volume: Object, claim: Object) -> Object:
    meta, noted = claim["metadata"], notes(volume)
    reference = volume["spec"].get("claimRef") or {}
    ours = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": meta["namespace"]}
    ours |= {"name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    same = all(reference.get(part) == ours[part] for part in ("namespace", "name", "uid"))
    by_us = not is_for(volume, claim) and BY_US not in noted
    if by_us:
        noted[BY_US] = "yes"
    if same and not by_us:
        return volume
    return await _annotate(context, PERSISTENTVOLUMES, volume, noted, claimRef=reference if same else ours)


async def unbind(context: Context, volume: Object) -> None:
    """Free a volume: the whole reference when we made it, else only the uid in it."""
    noted, reference = notes(volume), volume["spec"]["claimRef"]
    left = None if noted.pop(BY_US, None) is not None else {**reference, "uid": ""}
    freed = await _annotate(context, PERSISTENTVOLUMES, volume, noted, claimRef=left)
    await set_volume(context, freed, "Available")


async def _annotate(context: Context, resource: Resource, obj: Object, noted: Object, **spec: object) -> Object:
    meta = {**obj["metadata"], "annotations": noted}
    changed = {**obj, "metadata": meta, "spec": {**obj["spec"], **spec}}
    return await context.client.update(resource, changed)


async def set_claim(context: Context, claim: Object, phase: str, volume: Object | None = None) -> Object:
    """Write a claim's phase and what it has of its volume, if anything of it changes. Raises ApiError."""
    old = claim.get("status") or {}
    status = {**old, "phase": phase}
    if volume is None:
        for name in ("accessModes", "capacity", "currentVolumeAttributesClassName"):
            status.pop(name, None)
    else:
        status["accessModes"] = volume["spec"].get("accessModes")
        if old.get("phase") != phase:
            status["capacity"] = _capacity(volume, old.get("capacity") or {})
        if old.get("phase") == "Pending" and phase == "Bound":
            status["currentVolumeAttributesClassName"] = volume["spec"].get("volumeAttributesClassName")
    status = {name: value for name, value in status.items() if value is not None}
    if status == old:
        return claim
    return await context.client.update(PERSISTENTVOLUMECLAIMS, {**claim, "status": status}, subresource="status")


def _capacity(volume: Object, old: Object) -> Object:
    has: Object = volume["spec"].get("capacity") or {}
    if before := notes(volume).get(_BEFORE_RESIZE):
        return {**old, "storage": before}
    same = "storage" in old and compare(has.get("storage", "0"), old["storage"]) == 0
    return old if same else has


async def lose_claim(context: Context, claim: Object, reason: str, text: str) -> None:
    """Say once that a claim is Lost."""
    if (claim.get("status") or {}).get("phase") != "Lost":
        context.recorder.event(await set_claim(context, claim, "Lost"), "Warning", reason, text)


async def set_volume(context: Context, volume: Object, phase: str, message: str = "") -> Object:
    """Write a volume's phase if it is another one. Raises ApiError."""
    old = volume.get("status") or {}
    if old.get("phase") == phase:
        return volume
    status = {key: value for key, value in old.items() if key != "message"} | {"phase": phase}
    if message:
        status["message"] = message
    return await context.client.update(PERSISTENTVOLUMES, {**volume, "status": status}, subresource="status")


async def tell_volume(context: Context, volume: Object, phase: str, type: EventType, reason: str, message: str) -> None:
    """Write a volume's phase and say why, once."""
    if (volume.get("status") or {}).get("phase") != phase:
        context.recorder.event(await set_volume(context, volume, phase, message), type, reason, message)


async def note_migration(context: Context, resource: Resource, obj: Object) -> Object:
    """Say which driver serves what an in-tree plugin was asked for, and who guards a volume's end. Raises ApiError."""
    noted, meta = notes(obj), obj["metadata"]
    finalizers = list(meta.get("finalizers") or ())
    if resource is PERSISTENTVOLUMES:
        provisioner = noted.get(PROVISIONED_BY)
        finalizers = guards(obj)
    else:
        provisioner = noted.get(PROVISIONER, noted.get(OLD_PROVISIONER))
    if provisioner is None:
        return obj
    if provisioner in DRIVERS:
        noted[MIGRATED_TO] = DRIVERS[provisioner]
    else:
        noted.pop(MIGRATED_TO, None)
    if noted == notes(obj) and finalizers == list(meta.get("finalizers") or ()):
        return obj
    return await context.client.update(
        resource, {**obj, "metadata": {**meta, "annotations": noted, "finalizers": finalizers}}
    )


def guards(volume: Object) -> list[str]:
    """The finalizers that a provisioned volume shall have."""
    found = list(volume["metadata"].get("finalizers") or ())
    provisioner = notes(volume).get(PROVISIONED_BY, "")
    if provisioner in DRIVERS:
        return [each for each in found if each != IN_TREE]
    if not provisioner.startswith("kubernetes.io/"):
        return found
    policy = volume["spec"].get("persistentVolumeReclaimPolicy")
    if policy == "Delete" and IN_TREE not in found:
        found.append(IN_TREE)
    return [each for each in found if each != EXTERNAL and (each != IN_TREE or policy == "Delete")]
