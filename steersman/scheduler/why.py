"""Why a pod is where it is, or nowhere: per node the plugin that refused it and its words, or every plugin's score.

Owns the memory of the latest decisions and their telling. Called by the loop, which hands over what it has worked out
anyway, and by the scheduler's debugging endpoint. A decision that is forgotten, or made for other nodes than there are
now, is worked out once more from the columns, and the answer says so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Scores, Verdict, refusal, run_filters, run_scores
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.profiles import Profile

_NO_MORE = {"plugin": "", "reason": "it did not suit then, and does now"}
_REMEMBERED = 16  # decisions: arrays over all nodes each
Parts = Sequence[tuple[str, int, Scores]]
"""The plugins that had an opinion: name, weight, and the score of every node."""


class Worked(NamedTuple):
    """What one decision was made of. `nodes` is the columns' count of nodes that came and went before it."""

    verdict: Verdict
    parts: Parts
    node: str
    nodes: int


class Memory:
    """The latest decisions, by pod."""

    def __init__(self) -> None:
        self._decisions: OrderedDict[str, Worked] = OrderedDict()

    def keep(self, uid: str, worked: Worked) -> None:
        """Remember a decision; the oldest is forgotten."""
        self._decisions.pop(uid, None)
        self._decisions[uid] = worked
        if len(self._decisions) > _REMEMBERED:
            self._decisions.popitem(last=False)

    def find(self, uid: str, columns: Columns) -> Worked | None:
        """A decision that still speaks of the nodes that there are."""
        worked = self._decisions.get(uid)
        return worked if worked is not None and worked.nodes == columns.comings else None


def work_out(columns: Columns, pod: PodInfo, profile: Profile, node: str) -> Worked:
    """The decision once more, as if the pod were not there yet; the columns are left as they were."""
    there = columns.pod(pod.uid, node) if node else None
    if there is not None:
        columns.remove_pod(pod.uid)
    try:
        verdict = run_filters(profile.filters, columns, pod)
        parts: list[tuple[str, int, Scores]] = []
        if verdict.feasible.any():
            run_scores(profile.scores, columns, pod, verdict.feasible, parts)
        return Worked(verdict, parts, node, columns.comings)
    finally:
        if there is not None:
            columns.add_pod(there, node)


def tell(columns: Columns, pod: PodInfo, worked: Worked, *, remembered: bool) -> dict[str, Any]:
    """A decision as JSON: nodes in the order of their names."""
    verdict = worked.verdict
    told: dict[str, Any] = {
        "pod": pod.key,
        "scheduler": pod.scheduler,
        "node": worked.node,
        "basis": "decision" if remembered else "now",
    }
    if not verdict.feasible.any():
        told["message"] = refusal(len(columns), verdict)
    if verdict.outright is not None:
        told["refusedBy"] = {"plugin": verdict.outright[0], "reason": verdict.outright[1]}
        return told
    reasons: dict[int, dict[str, str]] = {}
    for plugin, rejection in verdict.refusals:
        for row in np.flatnonzero(rejection.nodes):
            reasons.setdefault(int(row), {"plugin": plugin, "reason": rejection.reason})
    told["nodes"] = [
        {"name": name, **(_scored(worked.parts, row) if verdict.feasible[row] else reasons.get(row, _NO_MORE))}
        for name, row in sorted(columns.rows.items())
    ]
    return told


def _scored(parts: Parts, row: int) -> dict[str, Any]:
    scores = {name: {"score": int(np.floor(of[row])), "weight": weight} for name, weight, of in parts}
    return {"score": sum(each["score"] * each["weight"] for each in scores.values()), "scores": scores}
