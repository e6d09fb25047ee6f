"""TaintToleration: taints that a pod does not tolerate keep it away, or cost it score (PreferNoSchedule)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steersman.api.resource import Object
from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.framework import Event, Hint, Kind, Plugin, Rejection, Scores, normalized
from steersman.scheduler.podinfo import PodInfo, Taint


def matches(toleration: Mapping[str, Any], taint: Taint) -> bool:
    """Whether one toleration tolerates one taint (core/v1 Toleration.ToleratesTaint)."""
    if toleration.get("effect") and toleration["effect"] != taint.effect:
        return False
    if toleration.get("key") and toleration["key"] != taint.key:
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    if operator in ("Lt", "Gt"):
        return _compares(operator, toleration.get("value", ""), taint.value)
    return bool((toleration.get("value") or "") == taint.value)


def _compares(operator: str, wanted: str, found: str) -> bool:
    try:
        return int(found) < int(wanted) if operator == "Lt" else int(found) > int(wanted)
    except ValueError:
        return False


def tolerates(pod: PodInfo, taint: Taint) -> bool:
    """Whether any of the pod's tolerations tolerates the taint."""
    return any(matches(toleration, taint) for toleration in pod.tolerations)


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes with a hard taint that is not tolerated. Judged once per distinct set of taints."""
    refused = np.array(
        [
            any(taint.effect in ("NoSchedule", "NoExecute") and not tolerates(pod, taint) for taint in taints)
            for taints in columns.taint_sets
        ]
    )
    if not refused.any():
        return ()
    return (Rejection(refused[columns.taints], "node(s) had untolerated taint(s)", resolvable=False),)


def score(columns: Columns, pod: PodInfo, feasible: Mask) -> Scores | None:
    """Fewer soft taints that are not tolerated are better."""
    counts = [
        sum(taint.effect == "PreferNoSchedule" and not tolerates(pod, taint) for taint in taints)
        for taints in columns.taint_sets
    ]
    if not any(counts):
        return None
    return normalized(np.array(counts, np.float64)[columns.taints], feasible, reverse=True)


def make(args: Mapping[str, Any]) -> Plugin:
    """It has no arguments."""
    hints: dict[Kind, Hint] = {"node added": _tolerable, "node taints": _tolerable}
    return Plugin("TaintToleration", filter=filter, score=score, hints=hints)


def _tolerable(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A node's taints, which kept the pod away, do so no more."""
    return not _repels(event.new, pod) and (event.old is None or _repels(event.old, pod))


def _repels(node: Object | None, pod: PodInfo) -> bool:
    taints = ((node or {}).get("spec") or {}).get("taints") or ()
    hard = [each for each in taints if each.get("effect") in ("NoSchedule", "NoExecute")]
    return any(not tolerates(pod, Taint(each["key"], each.get("value", ""), each["effect"])) for each in hard)
