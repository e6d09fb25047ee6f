"""One volume: available, bound to the claim that it names, or released and reclaimed.

Called by the binder's `reconcile`. Source: kubernetes' pv_controller.go (syncVolume).
"""

from __future__ import annotations

from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, Object
from steersman.client.controller import Context, Key
from steersman.controllers.pvbinder.claims import sync as sync_claim
from steersman.controllers.pvbinder.matching import same_mode
from steersman.controllers.pvbinder.reclaim import reclaim
from steersman.controllers.pvbinder.writes import (
    PROVISIONED_BY,
    note_migration,
    notes,
    set_volume,
    unbind,
)


async def sync(context: Context, volume: Object) -> None:
    """Bring one volume forward. Raises ApiError."""
    volume = await note_migration(context, PERSISTENTVOLUMES, volume)
    reference = volume["spec"].get("claimRef")
    if not reference or not reference.get("uid"):
        await set_volume(context, volume, "Available")
        return
    claim = await _claim_of(context, reference)
    name = volume["metadata"]["name"]
    if claim is None:
        await _release(context, volume)
    elif not (asked := claim["spec"].get("volumeName")):
        if same_mode(volume, claim):
            await sync_claim(context, claim)
            return
        start, end = "Cannot bind PersistentVolume", "due to incompatible volumeMode."
        text = f'{start} to requested PersistentVolumeClaim "{claim["metadata"]["name"]}" {end}'
        context.recorder.event(volume, "Warning", "VolumeMismatch", text)
        text = f'{start} "{name}" to requested PersistentVolumeClaim {end}'
        context.recorder.event(claim, "Warning", "VolumeMismatch", text)
    elif asked == name:
        await set_volume(context, volume, "Bound")
    elif PROVISIONED_BY in notes(volume) and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
        await _release(context, volume)
    else:
        await unbind(context, volume)


async def _release(context: Context, volume: Object) -> None:
    if (volume.get("status") or {}).get("phase") not in ("Released", "Failed"):
        volume = await set_volume(context, volume, "Released")
    await reclaim(context, volume)


async def _claim_of(context: Context, reference: Object) -> Object | None:
    """The claim that a volume names; a volume must not be released because our copy is behind. Raises ApiError."""
    key = Key(reference.get("namespace", ""), reference["name"])
    claim = context.informer(PERSISTENTVOLUMECLAIMS).get(*key)
    if claim is None or claim["metadata"]["uid"] != reference["uid"]:
        try:
            claim = await context.client.get(PERSISTENTVOLUMECLAIMS, key.name, key.namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            return None
    return claim if claim["metadata"]["uid"] == reference["uid"] else None
