"""Claims that ask for more than they have: who will grow them is said, and written down where the driver looks for it.

Owns the annotation volume.kubernetes.io/storage-resizer and the event ExternalExpanding. Every volume is grown by an
external resizer: no in-tree plugin that could is left. Source: kubernetes' pkg/controller/volume/expand.
"""

from __future__ import annotations

from steersman.api.errors import ApiError
from steersman.api.quantity import compare
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result
from steersman.client.migrated import migrated

_RESIZER = "volume.kubernetes.io/storage-resizer"
_BEFORE = "volume.alpha.kubernetes.io/pre-resize-capacity"


def grows(claim: Object, volume: Object) -> bool:
    """Whether the claim asks for more than it has, or an earlier growth was not finished."""
    asked = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0")
    has = ((claim.get("status") or {}).get("capacity") or {}).get("storage", "0")
    return compare(asked, has) > 0 or _BEFORE in (volume["metadata"].get("annotations") or {})


async def reconcile(context: Context, key: Key) -> Result:
    """Say who will grow one claim's volume."""
    claim = context.informer(PERSISTENTVOLUMECLAIMS).get(*key)
    if claim is None or (claim.get("status") or {}).get("phase") != "Bound":
        context.memory.pop(key, None)
        return DONE
    if context.memory.get(key) == (sizes := _sizes(claim)):
        return DONE
    volume = await context.client.get(PERSISTENTVOLUMES, claim["spec"]["volumeName"])
    reference = volume["spec"].get("claimRef") or {}
    if (reference.get("namespace"), reference.get("uid")) != (key.namespace, claim["metadata"]["uid"]):
        raise ApiError(409, "Conflict", f"persistent Volume is not bound to PVC being updated : {key}")
    if grows(claim, volume):
        await _announce(context, claim, volume)
    context.memory[key] = sizes
    return DONE


async def _announce(context: Context, claim: Object, volume: Object) -> None:
    tell = context.recorder.event
    if (names := migrated(volume)) is None:
        text = "waiting for an external controller to expand this PVC"
        tell(claim, "Normal", "ExternalExpanding", text)
    else:
        text = f"CSI migration enabled for {names[0]}; waiting for external resizer to expand the pvc"
        tell(claim, "Normal", "ExternalExpanding", text)
        if (claim["metadata"].get("annotations") or {}).get(_RESIZER) != names[1]:
            await _name_resizer(context, claim, names[1])


def _sizes(claim: Object) -> tuple[str, object, object]:
    """What must change before there is something new to say."""
    spec, status = claim["spec"], claim.get("status") or {}
    return claim["metadata"]["uid"], (spec.get("resources") or {}).get("requests"), status.get("capacity")


async def _name_resizer(context: Context, claim: Object, driver: str) -> None:
    meta = claim["metadata"]
    body = {"metadata": {"annotations": {_RESIZER: driver}}}
    try:
        await context.client.patch(
            PERSISTENTVOLUMECLAIMS, meta["name"], meta["namespace"], body, type="strategic", subresource="status"
        )
    except ApiError as error:
        text = f"error setting resizer annotation to pvc {meta['namespace']}/{meta['name']}, with error {error.message}"
        context.recorder.event(claim, "Warning", "ExternalExpanding", text)
        raise


CONTROLLER = Controller(
    "persistentvolume-expander-controller", reconcile, (For(PERSISTENTVOLUMECLAIMS),), component="volume_expand"
)
