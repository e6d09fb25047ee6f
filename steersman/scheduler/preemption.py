"""Preemption: which pods must go so that a more important one finds room, and on which node.

Owns the choice: the victims of each candidate node, as few and as unimportant as can be, budgets respected where
possible, and the best candidate. Called by the loop when a pod fits nowhere. It changes the columns while it tries and
leaves them as they were. Source: kube-scheduler's pkg/scheduler/framework/preemption and the documentation of pod
priority and preemption.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from random import Random
from typing import Any

import numpy as np

from steersman.api import labels
from steersman.api.resource import Object
from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.framework import Plugin, Verdict, run_filters
from steersman.scheduler.podinfo import PodInfo

_FIT = "NodeResourcesFit"
_KINDS = 16  # of preemptors that are remembered


@dataclass(frozen=True, slots=True)
class Candidates:
    """How many nodes are compared: minCandidateNodesAbsolute, or that share of all nodes where it is more."""

    least: int = 100
    share: float = 0.1


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget as preemption needs it."""

    namespace: str
    selector: labels.Selector
    allowed: int
    disrupted: frozenset[str]


@dataclass(frozen=True)
class Victims:
    """What one node would cost: its pods that go, the most important first, and how many against a budget."""

    node: str
    pods: tuple[PodInfo, ...]
    violations: int

    @cached_property
    def cost(self) -> tuple[Any, ...]:
        """Smaller is better, in the original's order of criteria."""
        started = min((_started(pod) for pod in self.pods if pod.priority == self.pods[0].priority), default="")
        latest = tuple(-ord(letter) for letter in started)  # of equals, those that started last
        total = sum(pod.priority + 2**31 for pod in self.pods)
        return (self.violations, self.pods[0].priority, total, len(self.pods), latest)


@dataclass(slots=True)
class _Kind:
    """What rows would cost one kind of preemptor; None where its room cannot be made."""

    nodes: int
    upto: int
    rows: dict[int, Victims | None]
    hopeless: Mask  # of those rows

    def learn(self, row: int, victims: Victims | None) -> None:
        """What a row costs."""
        self.rows[row] = victims
        self.hopeless[row] = victims is None

    def forget(self, row: int) -> None:
        """Somebody came or went there."""
        self.rows.pop(row, None)
        self.hopeless[row] = False


class Memory:
    """What pods alike were told of nodes on which nobody came or went since: of a hundred candidates a few change."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[tuple[object, ...], _Kind] = OrderedDict()

    def of(self, columns: Columns, pod: PodInfo) -> _Kind:
        """What still holds for pods of these requests and this priority; it may be added to."""
        key = (pod.priority, *sorted(pod.requests.items()))
        kind = self._kinds.pop(key, None)
        changed = None if kind is None or kind.nodes != columns.changes else columns.touched_since(kind.upto)
        if kind is None or changed is None:
            kind = _Kind(columns.changes, 0, {}, np.zeros(len(columns.live), np.bool_))
        for row in changed or ():
            kind.forget(row)
        kind.upto = columns.touched_upto
        self._kinds[key] = kind
        if len(self._kinds) > _KINDS:
            self._kinds.popitem(last=False)
        return kind


def read_budget(obj: Object) -> Budget:
    """The facts of a PodDisruptionBudget."""
    status, selector = obj.get("status") or {}, (obj.get("spec") or {}).get("selector")
    disrupted = frozenset(status.get("disruptedPods") or ())
    return Budget(
        obj["metadata"]["namespace"], labels.from_object(selector), status.get("disruptionsAllowed", 0), disrupted
    )


def ineligible(pod: PodInfo, nominated: str, columns: Columns) -> str:
    """Why a pod must not preempt at all; empty when it may."""
    if pod.pod["spec"].get("preemptionPolicy") == "Never":
        return "not eligible due to preemptionPolicy=Never."
    row = columns.rows.get(nominated)
    if row is not None and any(each.deleting and each.priority < pod.priority for each in columns.pods[row].values()):
        return "not eligible due to a terminating pod on the nominated node."
    return ""


def choose(
    columns: Columns,
    pod: PodInfo,
    plugins: Sequence[Plugin],
    verdict: Verdict,
    budgets: Sequence[Budget],
    random: Random,
    candidates: Candidates = Candidates(),
) -> Victims | None:
    """The cheapest candidate; None when nothing helps."""
    return best(find(columns, pod, plugins, verdict, budgets, random, candidates))


_cost = attrgetter("cost")


def best(found: Sequence[Victims]) -> Victims | None:
    """The cheapest, if there is any."""
    return min(found, key=_cost) if found else None


def find(
    columns: Columns,
    pod: PodInfo,
    plugins: Sequence[Plugin],
    verdict: Verdict,
    budgets: Sequence[Budget],
    random: Random,
    candidates: Candidates,
    memory: Memory | None = None,
) -> list[Victims]:
    """What each node would cost, of as many nodes as the original looks at."""
    rows = np.flatnonzero(verdict.resolvable() & columns.live)
    if not len(rows):
        return []
    simple = _room_is_all(columns, pod, plugins, verdict)
    wanted = max(candidates.least, int(len(columns) * candidates.share))
    known = (memory if memory is not None and not budgets else Memory()).of(columns, pod)
    first = rows[random.randrange(len(rows))]
    if simple is not None:
        rows = rows[~(simple & known.hopeless)[rows]]
    found: list[Victims] = []
    for row in np.roll(rows, -int(np.searchsorted(rows, first))).tolist():
        room = simple is not None and bool(simple[row])
        if room and row in known.rows:
            victims = known.rows[row]
        else:
            victims = _of_row(columns, pod, plugins, row, budgets, room=room)
            if room:
                known.learn(row, victims)
        if victims is not None:
            found.append(victims)
            if len(found) >= wanted:
                break
    return found


def _of_row(
    columns: Columns, pod: PodInfo, plugins: Sequence[Plugin], row: int, budgets: Sequence[Budget], *, room: bool
) -> Victims | None:
    """What one node would cost; `room`: that is all it lacks."""
    there = columns.pods[row].values()
    lower = [each for each in there if each.priority < pod.priority and each.uid not in columns.nominated]
    if not lower:
        return None
    trial = _Room(columns, pod, row) if room else _Filters(columns, pod, plugins, row)
    return _victims(trial, columns.names[row], lower, budgets)


def _room_is_all(columns: Columns, pod: PodInfo, plugins: Sequence[Plugin], verdict: Verdict) -> Mask | None:
    """Nodes where everything but room is settled, whoever leaves; None for a pod that needs others to stay.

    Those before it in the order have let pass what it refused; those after it have not been asked.
    """
    if pod.affinity.near or any(constraint.hard for constraint in pod.spread):
        return None
    names = [plugin.name for plugin in plugins]
    after = plugins[names.index(_FIT) + 1 :] if _FIT in names else plugins
    short = [rejection.nodes for name, rejection in verdict.refusals if name == _FIT]
    if not short:
        return None
    settled: Mask = np.logical_or.reduce(short) & run_filters(after, columns, pod).feasible
    return settled


class _Room:
    """One node by arithmetic: only what is asked for and what there is."""

    def __init__(self, columns: Columns, pod: PodInfo, row: int) -> None:
        self._asked = {name: amount for name, amount in pod.requests.items() if amount}
        self._free = {
            name: int(columns.resource(columns.allocatable, name)[row] - columns.resource(columns.requested, name)[row])
            for name in self._asked
        }

    def remove(self, pod: PodInfo) -> None:
        for name in self._free:
            self._free[name] += pod.requests.get(name, 0)

    def put_back(self, pod: PodInfo) -> None:
        for name in self._free:
            self._free[name] -= pod.requests.get(name, 0)

    def fits(self) -> bool:
        return all(amount <= self._free[name] for name, amount in self._asked.items())

    def restore(self, pods: Iterable[PodInfo]) -> None:
        """Nothing was touched."""


class _Filters:
    """One node by every filter: pods really leave the columns, and come back."""

    def __init__(self, columns: Columns, pod: PodInfo, plugins: Sequence[Plugin], row: int) -> None:
        self._columns, self._pod, self._plugins, self._row = columns, pod, plugins, row
        self._node = columns.names[row]

    def remove(self, pod: PodInfo) -> None:
        self._columns.remove_pod(pod.uid)

    def put_back(self, pod: PodInfo) -> None:
        self._columns.add_pod(pod, self._node)

    def fits(self) -> bool:
        return bool(run_filters(self._plugins, self._columns, self._pod).feasible[self._row])

    def restore(self, pods: Iterable[PodInfo]) -> None:
        """Every pod is where it was."""
        for pod in pods:
            self._columns.add_pod(pod, self._node)


def _victims(trial: _Room | _Filters, node: str, lower: Sequence[PodInfo], budgets: Sequence[Budget]) -> Victims | None:
    """All less important pods go, then as many as possible come back, those under a spent budget first."""
    for each in lower:
        trial.remove(each)
    try:
        if not trial.fits():
            return None
        ordered = sorted(lower, key=lambda each: (-each.priority, _started(each)))
        guarded, free = _by_budget(ordered, budgets)
        gone, violations = [], 0
        for each, counts in [*((one, 1) for one in guarded), *((one, 0) for one in free)]:
            trial.put_back(each)
            if not trial.fits():
                trial.remove(each)
                gone.append(each)
                violations += counts
        gone.sort(key=lambda each: (-each.priority, _started(each)))
        return Victims(node, tuple(gone), violations) if gone else None
    finally:
        trial.restore(lower)


def _by_budget(pods: Sequence[PodInfo], budgets: Sequence[Budget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """Pods whose going would break a budget that has nothing left, and the others."""
    left = [budget.allowed for budget in budgets]
    guarded, free = [], []
    for pod in pods:
        broken = False
        for i, budget in enumerate(budgets):
            if budget.namespace != pod.namespace or pod.name in budget.disrupted:
                continue
            if pod.labels and not budget.selector.everything and budget.selector.matches(pod.labels):
                left[i] -= 1
                broken |= left[i] < 0
        (guarded if broken else free).append(pod)
    return guarded, free


def _started(pod: PodInfo) -> str:
    """RFC 3339, which sorts as text; a pod that has not started counts as starting last."""
    return (pod.pod.get("status") or {}).get("startTime") or "9999"
