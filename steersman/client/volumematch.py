"""Whether a volume suits a claim.

Pure. Source: component-helpers' storage/volume and the documentation of persistent volumes.
"""

from __future__ import annotations

from steersman.api import quantity
from steersman.api.quantity import Quantity
from steersman.api.resource import Object

CLASS = "volume.beta.kubernetes.io/storage-class"


def class_of(obj: Object) -> str:
    """The storage class of a claim or a volume; an old annotation counts first."""
    annotations = obj["metadata"].get("annotations") or {}
    return str(annotations.get(CLASS, obj["spec"].get("storageClassName") or ""))


def capacity(volume: Object) -> Quantity:
    """The volume's size."""
    return quantity.parse((volume["spec"].get("capacity") or {}).get("storage", "0"))


def wanted(claim: Object) -> Quantity:
    """The least size for the claim."""
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return quantity.parse(requests.get("storage", "0"))


def is_for(volume: Object, claim: Object) -> bool:
    """Whether the volume's claimRef means this claim: this very one, or any of its name."""
    reference = volume["spec"].get("claimRef")
    if not reference:
        return False
    meta = claim["metadata"]
    same = (reference.get("namespace"), reference.get("name")) == (meta["namespace"], meta["name"])
    return same and reference.get("uid", "") in ("", meta["uid"])


def suits(volume: Object, claim: Object) -> bool:
    """Whether the volume could hold the claim, whoever has it now."""
    spec, asked = volume["spec"], claim["spec"]
    if volume["metadata"].get("deletionTimestamp") or class_of(volume) != class_of(claim):
        return False
    if spec.get("volumeMode", "Filesystem") != asked.get("volumeMode", "Filesystem"):
        return False
    if (spec.get("volumeAttributesClassName") or "") != (asked.get("volumeAttributesClassName") or ""):
        return False
    if not set(asked.get("accessModes") or ()) <= set(spec.get("accessModes") or ()):
        return False
    return not capacity(volume) < wanted(claim)
