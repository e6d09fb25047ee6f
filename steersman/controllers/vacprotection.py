"""Classes of volume attributes that claims or volumes name are kept until none does.

Owns the finalizer kubernetes.io/vac-protection, which admission puts on. Source: kubernetes'
pkg/controller/volume/vacprotection (KEP-3751).
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, Object, Resource
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch

CLASSES = Resource("storage.k8s.io", "v1", "volumeattributesclasses", "VolumeAttributesClass", namespaced=False)
_FINALIZER = "kubernetes.io/vac-protection"
_BY_CLASS = "class"


def classes_of(user: Object) -> list[str]:
    """The classes that a claim or a volume names, the one that it is leaving among them."""
    spec, status = user.get("spec") or {}, user.get("status") or {}
    modify = (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName")
    named = (spec.get("volumeAttributesClassName"), status.get("currentVolumeAttributesClassName"), modify)
    return [name for name in dict.fromkeys(named) if name]


async def reconcile(context: Context, key: Key) -> Result:
    """Take the finalizer off a class that is being deleted and that nothing names."""
    found = context.informer(CLASSES).get(*key)
    if found is None or not found["metadata"].get("deletionTimestamp"):
        return DONE
    have = found["metadata"].get("finalizers") or []
    used = any(
        context.informer(users).by_index(_BY_CLASS, key.name) for users in (PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES)
    )
    if _FINALIZER in have and not used:
        kept = [each for each in have if each != _FINALIZER]
        try:
            await context.client.update(CLASSES, {**found, "metadata": {**found["metadata"], "finalizers": kept}})
        except ApiError as error:
            if error.code != 404:
                raise
    return DONE


def _named(_: Context, user: Object) -> Iterable[Key]:
    return (Key("", name) for name in classes_of(user))


CONTROLLER = Controller(
    "volumeattributesclass-protection-controller",
    reconcile,
    (For(CLASSES), Watch(PERSISTENTVOLUMECLAIMS, _named), Watch(PERSISTENTVOLUMES, _named)),
    workers=1,
    indexes={users: {_BY_CLASS: classes_of} for users in (PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES)},
)
