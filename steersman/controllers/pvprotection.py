"""Volumes that are bound to a claim are kept until they are not.

Owns the finalizer kubernetes.io/pv-protection. Source: kubernetes' pkg/controller/volume/pvprotection.
"""

from __future__ import annotations

from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMES, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result

_FINALIZER = "kubernetes.io/pv-protection"


async def reconcile(context: Context, key: Key) -> Result:
    """Put the finalizer on one volume, or take it off one that is being deleted and not bound."""
    volume = context.informer(PERSISTENTVOLUMES).get(*key)
    if volume is None:
        return DONE
    have = volume["metadata"].get("finalizers") or []
    if not volume["metadata"].get("deletionTimestamp"):
        if _FINALIZER not in have:
            await _write(context, volume, [*have, _FINALIZER])
    elif _FINALIZER in have and (volume.get("status") or {}).get("phase") != "Bound":
        await _write(context, volume, [each for each in have if each != _FINALIZER])
    return DONE


async def _write(context: Context, volume: Object, finalizers: list[str]) -> None:
    changed = {**volume, "metadata": {**volume["metadata"], "finalizers": finalizers}}
    try:
        await context.client.update(PERSISTENTVOLUMES, changed)
    except ApiError as error:
        if error.code != 404:
            raise


CONTROLLER = Controller("persistentvolume-protection-controller", reconcile, (For(PERSISTENTVOLUMES),), workers=1)
