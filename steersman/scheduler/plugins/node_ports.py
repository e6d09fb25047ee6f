"""NodePorts: a host port is given once per address and protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Event, Plugin, Rejection, always
from steersman.scheduler.podinfo import HostPort, PodInfo

_ANY = "0.0.0.0"
_REASON = "node(s) didn't have free ports for the requested pod ports"


def conflict(a: HostPort, b: HostPort) -> bool:
    """Whether two pods with these ports cannot share a node."""
    return a.port == b.port and a.protocol == b.protocol and (a.ip == b.ip or _ANY in (a.ip, b.ip))


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes where a wanted port is taken."""
    if not pod.ports or not columns.ports:
        return ()
    taken = np.zeros(len(columns.live), np.bool_)
    for used, rows in columns.ports.items():
        if any(conflict(used, wanted) for wanted in pod.ports):
            taken[list(rows)] = True
    return (Rejection(taken, _REASON),)


def make(args: Mapping[str, Any]) -> Plugin:
    """It has no arguments."""
    return Plugin("NodePorts", filter=filter, hints={"node added": always, "pod freed": _given_back})


def _given_back(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A pod that had one of the ports is gone."""
    gone = event.pod.ports if event.pod is not None else ()
    return any(conflict(mine, other) for mine in pod.ports for other in gone)
