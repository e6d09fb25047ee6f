"""NodeName: a pod that names its node goes nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Event, Plugin, Rejection
from steersman.scheduler.podinfo import PodInfo


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse every node but the one named."""
    if not pod.node_name:
        return ()
    names = columns.names_column()
    other = names.codes != names.values.get(pod.node_name, len(names.values))
    return (Rejection(other, "node(s) didn't match the requested node name", resolvable=False),)


def make(args: Mapping[str, Any]) -> Plugin:
    """It has no arguments."""
    return Plugin("NodeName", filter=filter, hints={"node added": _named})


def _named(columns: Columns, pod: PodInfo, event: Event) -> bool:
    return event.new is not None and event.new["metadata"]["name"] == pod.node_name
