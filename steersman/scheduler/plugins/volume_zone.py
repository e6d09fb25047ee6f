"""VolumeZone: a volume that is labelled with a zone or region is used there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.framework import Hint, Kind, Plugin, Rejection, always
from steersman.scheduler.plugins.volume_restrictions import own_claim
from steersman.scheduler.podinfo import PodInfo

_GA = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
}
_LABELS = (*_GA, *_GA.values())
_REASON = "node(s) had no available volume zone"


def make(args: Mapping[str, Any]) -> Plugin:
    """It has no arguments."""
    hints: dict[Kind, Hint] = {
        "claim": own_claim,
        "volume": always,
        "class": always,
        "node added": always,
        "node labels": always,
    }
    return Plugin("VolumeZone", admit=admit, filter=filter, hints=hints)


def admit(columns: Columns, pod: PodInfo) -> str | None:
    """The volumes that claims are bound to must be there."""
    volumes = columns.volumes
    for name, _ in pod.claims:
        claim = volumes.claims.get((pod.namespace, name))
        bound = "" if claim is None else claim["spec"].get("volumeName") or ""
        if bound and bound not in volumes.volumes:
            return f'persistentvolume "{bound}" not found'
    return None


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes elsewhere than the volumes; nodes without any such label are everywhere."""
    refused: Mask | None = None
    for name, _ in pod.claims:
        claim = columns.volumes.claims.get((pod.namespace, name))
        volume = None if claim is None else columns.volumes.volumes.get(claim["spec"].get("volumeName") or "")
        labels = {} if volume is None else volume["metadata"].get("labels") or {}
        for key, value in labels.items():
            if key in _LABELS:
                elsewhere = ~_within(columns, key, frozenset(value.split("__")))
                refused = elsewhere if refused is None else refused | elsewhere
    if refused is None:
        return ()
    placed = np.logical_or.reduce([columns.has_label(key) for key in _LABELS])
    return (Rejection(refused & placed, _REASON, resolvable=False),)


def _within(columns: Columns, key: str, values: frozenset[str]) -> Mask:
    """Nodes whose label has one of the values; the older spelling of a label may be the newer on the node."""
    column = columns.label(key)
    inside = np.isin(column.codes, [code for value, code in column.values.items() if value in values])
    if key in _GA:
        inside |= ~columns.has_label(key) & _within(columns, _GA[key], values)
    return inside
