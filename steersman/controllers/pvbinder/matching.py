"""Which volume a claim gets, and why the one that it asked for cannot be it.

Pure. Source: kubernetes' pkg/controller/volume/persistentvolume (index.go, checkVolumeSatisfyClaim) and
component-helpers' storage/volume (FindMatchingVolume).
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from steersman.api import labels
from steersman.api.resource import Object
from steersman.client.volumematch import capacity, class_of, is_for, wanted

_VAC = "volumeAttributesClassName"


def best(claim: Object, volumes: Iterable[Object], *, delayed: bool = False) -> Object | None:
    """The volume for a claim: of those with the fewest access modes the one reserved for it, else the smallest free.

    `delayed`: the scheduler chooses; only a reserved volume counts.
    """
    asked = set(claim["spec"].get("accessModes") or ())
    groups: dict[tuple[int, tuple[str, ...]], list[Object]] = {}
    for volume in volumes:
        modes = tuple(sorted(volume["spec"].get("accessModes") or ()))
        if asked <= set(modes):
            groups.setdefault((len(modes), modes), []).append(volume)
    for _, group in sorted(groups.items(), key=itemgetter(0)):
        if (found := _of_group(claim, group, delayed)) is not None:
            return found
    return None


def _of_group(claim: Object, volumes: Iterable[Object], delayed: bool) -> Object | None:
    chosen = claim["spec"].get("selector")
    selector = labels.from_object(chosen) if chosen is not None else labels.EVERYTHING
    free: list[Object] = []
    for volume in volumes:
        reserved = is_for(volume, claim)
        if (volume["spec"].get("claimRef") and not reserved) or not _could_hold(volume, claim):
            continue
        if reserved:
            return volume
        available = (volume.get("status") or {}).get("phase") == "Available" and class_of(volume) == class_of(claim)
        if not delayed and available and selector.matches(volume["metadata"].get("labels")):
            free.append(volume)
    free.sort(key=lambda each: (capacity(each).nanos, str(each["metadata"]["name"])))
    return free[0] if free else None


def _could_hold(volume: Object, claim: Object) -> bool:
    same_attributes = (volume["spec"].get(_VAC) or "") == (claim["spec"].get(_VAC) or "")
    dying = volume["metadata"].get("deletionTimestamp")
    return not dying and same_attributes and same_mode(volume, claim) and not capacity(volume) < wanted(claim)


def same_mode(volume: Object, claim: Object) -> bool:
    """Whether both are file systems, or both are block devices."""
    return bool(
        volume["spec"].get("volumeMode", "Filesystem") == claim["spec"].get("volumeMode", "Filesystem"),
    )


def mismatch(volume: Object, claim: Object) -> str:
    """Why the volume that a claim names cannot hold it; empty when it can."""
    spec, asked = volume["spec"], claim["spec"]
    if volume["metadata"].get("deletionTimestamp"):
        return f'the volume is marked for deletion "{volume["metadata"]["name"]}"'
    if capacity(volume) < wanted(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if (spec.get(_VAC) or "") != (asked.get(_VAC) or ""):
        return f"{_VAC} does not match"
    if not same_mode(volume, claim):
        return "incompatible volumeMode"
    if not set(asked.get("accessModes") or ()) <= set(spec.get("accessModes") or ()):
        return "incompatible accessMode"
    return ""
