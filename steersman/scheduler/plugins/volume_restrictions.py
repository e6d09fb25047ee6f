"""VolumeRestrictions: a claim for one pod alone (ReadWriteOncePod, KEP-2485) is used by one pod alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Event, Hint, Kind, Plugin, Rejection
from steersman.scheduler.podinfo import PodInfo

_IN_USE = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)


def make(args: Mapping[str, Any]) -> Plugin:
    """It has no arguments."""
    hints: dict[Kind, Hint] = {"pod freed": shares, "claim": own_claim}
    return Plugin("VolumeRestrictions", admit=admit, filter=filter, hints=hints)


def admit(columns: Columns, pod: PodInfo) -> str | None:
    """Claims that the pod names must be there."""
    for name, ephemeral in pod.claims:
        if not ephemeral and (pod.namespace, name) not in columns.volumes.claims:
            return f'persistentvolumeclaim "{name}" not found'
    return None


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse every node while somebody has a claim that is for one pod alone."""
    for name, ephemeral in pod.claims:
        claim = columns.volumes.claims.get((pod.namespace, name))
        alone = claim is not None and "ReadWriteOncePod" in (claim["spec"].get("accessModes") or ())
        if alone and not ephemeral and columns.volumes.users.get((pod.namespace, name)):
            return (Rejection(columns.live, _IN_USE),)
    return ()


def shares(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """The pod that is gone used one of the claims."""
    gone = event.pod
    if gone is None or gone.namespace != pod.namespace:
        return False
    return not {name for name, _ in gone.claims}.isdisjoint(name for name, _ in pod.claims)


def own_claim(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """The claim that changed is one of the pod's."""
    meta = (event.new or event.old or {}).get("metadata") or {}
    return meta.get("namespace") == pod.namespace and any(name == meta.get("name") for name, _ in pod.claims)
