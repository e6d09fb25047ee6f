"""Pods alike, one after the other: what has not changed since the last one is not worked out anew.

Owns, for the latest kinds of pod, what nodes and resources say of every node, brought up to date for the nodes on which
pods have come or gone since. Whatever else has a say (neighbours, ports, volumes, plugins of others) is asked in full.
Called by the loop before `decide`; the answer is the same, which a test compares. Compare KEP-5598, which does it for
pods of equal signature.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from random import Random
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from steersman.scheduler.columns import Columns, Ints, Mask
from steersman.scheduler.framework import Scores
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.profiles import Profile

_KINDS = 32  # of pods that are remembered
_MOST_ROWS = 64  # of changed nodes: with more, everything is worked out anew
_FEW_ROWS = 8  # so many are cheaper in plain numbers than as arrays
_MOVING = ("NodeResourcesFit", "NodeResourcesBalancedAllocation")  # whose say changes with the pods of a node
_STILL = ("NodeUnschedulable", "NodeName", "TaintToleration", "NodeAffinity")  # whose refusals change with nodes alone
_STILL_SCORES = ("ImageLocality",)


class Rows:
    """Some rows of the columns, for plugins that look at resources alone."""

    def __init__(self, columns: Columns, rows: npt.NDArray[np.int64]) -> None:
        self._rows = rows
        self._columns = columns
        self.live = columns.live[rows]
        self.allocatable = columns.allocatable
        self.requested = columns.requested
        self.nonzero = columns.nonzero
        self.devices = columns.devices

    def resource(self, table: dict[str, Ints], name: str) -> Ints:
        """One resource's amounts on these rows."""
        return self._columns.resource(table, name)[self._rows]


Part = tuple[str, int, Scores]


@dataclass(slots=True)
class _Kind:
    """One kind of pod: `still` is what does not change with pods, `total` is -1 where it does not fit."""

    nodes: int
    upto: int
    suits: Mask
    still: Scores
    total: Scores
    parts: list[Part]  # what the total is made of


class Choice(NamedTuple):
    """The best node, all that would do, and every plugin's score with its weight."""

    node: str
    feasible: Mask
    parts: list[Part]
    filtered: float = 0.0  # when filters were done, by the clock that was given


class _Split:
    """A profile's plugins by what they are to repetition; `own`: filters and scores that are asked for every pod."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.admits = [plugin.admit for plugin in profile.filters if plugin.admit is not None]
        self.own = [plugin for plugin in profile.filters if plugin.name not in (*_STILL, *_MOVING)]
        self.own_scores = [plugin for plugin in profile.scores if plugin.name not in (*_MOVING, *_STILL_SCORES)]
        self.moving = [plugin for plugin in profile.filters if plugin.name in _MOVING]
        self.moving_scores = [plugin for plugin in profile.scores if plugin.name in _MOVING]
        self.by_row = all(plugin.filter is None or plugin.filter_row is not None for plugin in self.moving) and all(
            plugin.score_row is not None for plugin in self.moving_scores
        )


class Repeats:
    """See the module."""

    def __init__(self, columns: Columns, now: Callable[[], float] = lambda: 0.0) -> None:
        """`now` is asked once a decision."""
        self._columns = columns
        self._now = now
        self._kinds: OrderedDict[bytes, _Kind] = OrderedDict()
        self._splits: dict[int, _Split] = {}  # of the latest profiles, by identity

    def _parted(self, profile: Profile) -> _Split:
        split = self._splits.get(id(profile))
        if split is None or split.profile is not profile:
            if len(self._splits) >= _KINDS:
                self._splits.clear()
            split = self._splits[id(profile)] = _Split(profile)
        return split

    def decide(self, pod: PodInfo, profile: Profile, random: Random) -> Choice | None:
        """The best node for a pod; None where it fits nowhere, and `decide` should say why."""
        columns, split = self._columns, self._parted(profile)
        if any(admit(columns, pod) is not None for admit in split.admits):
            return None
        kind = self._kind(pod, split)
        total = kind.total
        feasible = total >= 0
        refused = False
        for plugin in split.own:
            for rejection in plugin.refuses(columns, pod, feasible):
                feasible &= ~rejection.nodes
                refused = True
        if not feasible.any():
            return None
        filtered = self._now()
        awaited = columns.rows.get(pod.nominated)
        if awaited is not None and feasible[awaited]:  # room was made for it there
            return Choice(pod.nominated, feasible, [], filtered)
        parts = [(name, weight, scores.copy()) for name, weight, scores in kind.parts]
        for plugin in split.own_scores:
            if plugin.score is not None and (scores := plugin.score(columns, pod, feasible)) is not None:
                total = total + plugin.weight * np.floor(scores)
                parts.append((plugin.name, plugin.weight, scores))
        if refused or total is not kind.total:
            total = np.where(feasible, total, -1.0)
        best = np.flatnonzero(total == total.max())
        return Choice(columns.names[int(best[random.randrange(len(best))])], feasible, parts, filtered)

    def _kind(self, pod: PodInfo, split: _Split) -> _Kind:
        """What nodes and resources say of this kind of pod."""
        columns, key = self._columns, _key(pod)
        kind = self._kinds.pop(key, None)
        changed = None if kind is None or kind.nodes != columns.changes else columns.touched_since(kind.upto)
        if kind is None or changed is None or len(changed) > _MOST_ROWS:
            kind = self._work_out(pod, split)
        elif len(changed) <= _FEW_ROWS and split.by_row:
            for row in changed:
                _renew(columns, pod, split, kind, row)
        elif changed:
            rows = np.fromiter(changed, np.int64, len(changed))
            kind.total[rows], moved = _total(Rows(columns, rows), pod, split, kind.suits[rows], kind.still[rows])
            for (_, _, scores), (_, _, now) in zip(kind.parts[len(kind.parts) - len(moved) :], moved, strict=True):
                scores[rows] = now
        kind.upto = columns.touched_upto
        self._kinds[key] = kind
        if len(self._kinds) > _KINDS:
            self._kinds.popitem(last=False)
        return kind

    def _work_out(self, pod: PodInfo, split: _Split) -> _Kind:
        columns, profile = self._columns, split.profile
        suits = columns.live.copy()
        still = np.zeros(len(suits), np.float64)
        parts: list[Part] = []
        for plugin in profile.filters:
            if plugin.filter is not None and plugin.name in _STILL:
                for rejection in plugin.filter(columns, pod):
                    suits &= ~rejection.nodes
        for plugin in profile.scores:
            if plugin.name in _STILL_SCORES and plugin.score is not None:
                scores = plugin.score(columns, pod, suits)
                if scores is not None:
                    still += plugin.weight * np.floor(scores)
                    parts.append((plugin.name, plugin.weight, scores))
        total, moving = _total(columns, pod, split, suits, still)
        return _Kind(columns.changes, columns.touched_upto, suits, still, total, parts + moving)


def _total(
    columns: Columns | Rows, pod: PodInfo, split: _Split, suits: Mask, still: Scores
) -> tuple[Scores, list[Part]]:
    """All scores of some rows, -1 where the pod does not fit, and those that change with pods one by one."""
    fits, total = suits.copy(), still.copy()
    parts: list[Part] = []
    for plugin in split.moving:
        for rejection in plugin.filter(columns, pod) if plugin.filter is not None else ():  # type: ignore[arg-type]
            fits &= ~rejection.nodes
    for plugin in split.moving_scores:
        if plugin.score is not None and (scores := plugin.score(columns, pod, fits)) is not None:  # type: ignore[arg-type]
            total += plugin.weight * np.floor(scores)
            parts.append((plugin.name, plugin.weight, scores))
    total[~fits] = -1
    return total, parts


def _renew(columns: Columns, pod: PodInfo, split: _Split, kind: _Kind, row: int) -> None:
    """One row of a kind once more, as `_total` would."""
    fits = bool(kind.suits[row])
    for plugin in split.moving:
        fits = fits and (plugin.filter_row is None or plugin.filter_row(columns, pod, row))
    total, scores = kind.still.item(row), {}
    for plugin in split.moving_scores:
        if plugin.score_row is not None and (score := plugin.score_row(columns, pod, row)) is not None:
            total += plugin.weight * floor(score)
            scores[plugin.name] = score
    kind.total[row] = total if fits else -1
    for name, _, column in kind.parts:
        if name in scores:
            column[row] = scores[name]


def _key(pod: PodInfo) -> bytes:
    """What tells kinds of pod apart."""
    spec = pod.pod["spec"]
    images = [each.get("image") for each in (*(spec.get("initContainers") or ()), *spec["containers"])]
    said = (spec.get("affinity"), spec.get("nodeSelector"), spec.get("tolerations"), images)
    return msgspec.json.encode((pod.scheduler, pod.node_name, pod.requests, pod.nonzero, said))
