"""NodeUnschedulable: cordoned nodes take only pods that tolerate it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api.resource import Object
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Event, Plugin, Rejection
from steersman.scheduler.plugins.taint_toleration import tolerates
from steersman.scheduler.podinfo import PodInfo, Taint

_TAINT = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse cordoned nodes."""
    if not columns.unschedulable.any() or tolerates(pod, _TAINT):
        return ()
    return (Rejection(columns.unschedulable, "node(s) were unschedulable", resolvable=False),)


def make(args: Mapping[str, Any]) -> Plugin:
    """It has no arguments."""
    return Plugin("NodeUnschedulable", filter=filter, hints={"node added": _opened, "node taints": _opened})


def _opened(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A node takes pods that did not."""
    return not _closed(event.new) and (event.old is None or _closed(event.old))


def _closed(node: Object | None) -> bool:
    return bool(((node or {}).get("spec") or {}).get("unschedulable"))
