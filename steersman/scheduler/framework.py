"""How plugins decide: masks and scores over all nodes at once, and the words for why not.

Owns the `Plugin` record, running a list of plugins, and the message of a pod that fits nowhere. Called by the loop.
Pure: it changes nothing. Source: the Kubernetes scheduling framework (filter, score, normalize, weight).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from steersman.api.resource import Object
from steersman.client.client import Client
from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.podinfo import PodInfo

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Nodes that one plugin refuses, and its words. `resolvable`: removing pods from the node could help."""

    nodes: Mask
    reason: str
    resolvable: bool = True


Filter = Callable[[Columns, PodInfo], Sequence[Rejection]]
"""Every node that does not suit the pod, by reason; rows that are not live do not matter."""
Score = Callable[[Columns, PodInfo, Mask], Scores | None]
"""0 to 100 per row, of which only feasible ones matter; None when the plugin has no opinion."""


FilterRow = Callable[[Columns, PodInfo, int], bool]
"""Whether one node suits: what `filter` says of that row, in plain numbers."""
ScoreRow = Callable[[Columns, PodInfo, int], float | None]
"""What `score` says of one row. An array of one costs ten times as much."""


Kind = Literal[
    "node added", "node resources", "node labels", "node taints", "node features", "node removed",
    "pod came", "pod freed", "pod changed",
    "claim", "volume", "class", "node limits", "attachment", "capacity", "device claim", "device class", "devices",
]  # fmt: skip


_LABELS: Mapping[Kind, str] = {
    "node added": "NodeAdd",
    "node removed": "NodeDelete",
    "node resources": "NodeUpdateNodeAllocatable",
    "node labels": "NodeUpdateNodeLabel",
    "node taints": "NodeUpdateNodeTaint",
    "node features": "NodeUpdateNodeDeclaredFeature",
    "pod came": "AssignedPodAdd",
    "pod freed": "AssignedPodDelete",
    "pod changed": "AssignedPodUpdate",
}
_OF: Mapping[Kind, str] = {
    "claim": "PersistentVolumeClaim",
    "volume": "PersistentVolume",
    "class": "storage.k8s.io/StorageClass",
    "node limits": "storage.k8s.io/CSINode",
    "attachment": "storage.k8s.io/VolumeAttachment",
    "capacity": "storage.k8s.io/CSIStorageCapacity",
    "device claim": "resource.k8s.io/ResourceClaim",
    "device class": "resource.k8s.io/DeviceClass",
    "devices": "resource.k8s.io/ResourceSlice",
}


class Event(NamedTuple):
    """Something that happened in the cluster. Of a node or another object: `old` and `new`, None where there is none.

    Of a pod: `pod` as it is or was, `node` where it is or was; `was` before it changed. `awaited`: uids of pods that
    are nominated to that node.
    """

    kind: Kind
    old: Object | None = None
    new: Object | None = None
    pod: PodInfo | None = None
    was: PodInfo | None = None
    node: str = ""
    awaited: Collection[str] = ()

    @property
    def label(self) -> str:
        """What the original's metrics call it."""
        if (found := _LABELS.get(self.kind)) is not None:
            return found
        return _OF[self.kind] + ("Add" if self.old is None else "Delete" if self.new is None else "Update")


Hint = Callable[[Columns, PodInfo, Event], bool]
"""Whether an event may let in a pod that the plugin refused."""


def always(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """The hint of those who cannot tell."""
    return True


Admit = Callable[[Columns, PodInfo], str | None]
"""Why a pod can be on no node at all, whatever they are like; None when it can."""


class PluginError(Exception):
    """A plugin cannot judge: the attempt ends, and the pod is tried again later."""

    def __init__(self, plugin: str, text: str) -> None:
        super().__init__(f'running "{plugin}" filter plugin: {text}')


Narrow = Callable[[Columns, PodInfo, Mask], Sequence[Rejection]]
"""A filter that costs something for every node, and is told which nodes are left. Raises PluginError."""


@dataclass(frozen=True, slots=True)
class Rescue:
    """What a plugin says of a pod that fits nowhere, and what it would write so that it may fit later."""

    text: str
    write: Callable[[Client], Awaitable[None]] | None = None


class Reserved(Exception):
    """What was reserved for a pod cannot be had; the text is for the event."""


class Reservation(Protocol):
    """Something that a pod has taken with its node."""

    async def settle(self, client: Client, tell: Callable[[str, str], None]) -> None:
        """Make it true before the pod is bound; `tell` records an event. Raises Reserved, ApiError, OSError."""
        ...

    def undo(self) -> None:
        """Give it back: the pod is not bound."""
        ...

    async def release(self, client: Client) -> None:
        """After `undo`: take back what was written, where others could have it. Raises ApiError, OSError."""
        ...


Reserve = Callable[[Columns, PodInfo, str], Reservation | None]
"""What the pod takes with the node that was chosen; None when nothing."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """One rule. `weight` multiplies its score. `admit` is asked before all filters, `narrow` in place of `filter`.

    `hold`: why the pod is not to be tried yet, of which nobody is told. `hints`: which events may help those that it
    refused; None: all of them. `filter_row`, `score_row`: the same for one node, of those that have it.
    """

    name: str
    filter: Filter | None = None
    score: Score | None = None
    weight: int = 1
    admit: Admit | None = None
    reserve: Reserve | None = None
    hints: Mapping[Kind, Hint] | None = None
    hold: Admit | None = None
    narrow: Narrow | None = None
    rescue: Callable[[Columns, PodInfo], Rescue] | None = None
    filter_row: FilterRow | None = None
    score_row: ScoreRow | None = None
    alike: Callable[[PodInfo], Hashable] | None = None

    def refuses(self, columns: Columns, pod: PodInfo, left: Mask) -> Sequence[Rejection]:
        """Nodes that it refuses, at least of those that are left. Raises PluginError."""
        if self.narrow is not None:
            return self.narrow(columns, pod, left)
        return self.filter(columns, pod) if self.filter is not None else ()


@dataclass(slots=True)
class Verdict:
    """Why each node was refused: the first plugin that did, as the original stops there."""

    feasible: Mask
    refusals: list[tuple[str, Rejection]] = field(default_factory=list)
    outright: tuple[str, str] | None = None  # the plugin that wants the pod on no node, and why

    def plugins(self) -> set[str]:
        """Who refused a node."""
        return {name for name, _ in self.refusals} | ({self.outright[0]} if self.outright else set())

    def histogram(self) -> dict[str, int]:
        """How many nodes gave each reason."""
        counts: dict[str, int] = {}
        for _, rejection in self.refusals:
            counts[rejection.reason] = counts.get(rejection.reason, 0) + int(np.count_nonzero(rejection.nodes))
        return {reason: count for reason, count in counts.items() if count and reason}

    def resolvable(self) -> Mask:
        """Nodes that were refused only for reasons that removing pods could mend."""
        if self.outright is not None:
            return np.zeros(len(self.feasible), np.bool_)
        hopeless = self.feasible.copy()
        touched = self.feasible.copy()
        for _, rejection in self.refusals:
            touched |= rejection.nodes
            if not rejection.resolvable:
                hopeless |= rejection.nodes
        return touched & ~hopeless


def run_filters(plugins: Sequence[Plugin], columns: Columns, pod: PodInfo) -> Verdict:
    """Ask every plugin in order; a node is judged by the first that refuses it. Raises PluginError."""
    for plugin in plugins:
        if plugin.admit is not None and (reason := plugin.admit(columns, pod)) is not None:
            return Verdict(np.zeros(len(columns.live), np.bool_), outright=(plugin.name, reason))
    left = columns.live.copy()
    verdict = Verdict(left)
    for plugin in plugins:
        refused = np.zeros(len(left), np.bool_)
        for rejection in plugin.refuses(columns, pod, left):
            mine = rejection.nodes & left
            if mine.any():
                verdict.refusals.append((plugin.name, Rejection(mine, rejection.reason, rejection.resolvable)))
                refused |= mine
        left &= ~refused
    return verdict


def run_scores(
    plugins: Sequence[Plugin],
    columns: Columns,
    pod: PodInfo,
    feasible: Mask,
    parts: list[tuple[str, int, Scores]] | None = None,
) -> Scores:
    """The weighted sum of all plugins' scores; rows that are not feasible are -1. `parts` gets what it is made of."""
    total = np.zeros(len(feasible), np.float64)
    for plugin in plugins:
        if plugin.score is not None and (scores := plugin.score(columns, pod, feasible)) is not None:
            total += plugin.weight * np.floor(scores)
            if parts is not None:
                parts.append((plugin.name, plugin.weight, scores))
    total[~feasible] = -1
    return total


def normalized(raw: Scores, feasible: Mask, *, reverse: bool = False) -> Scores:
    """Scale so that the best feasible node has 100 (with `reverse`: the worst has 0 and 0 has 100)."""
    highest = float(raw[feasible].max(initial=0))
    if highest <= 0:
        return np.full(len(raw), 100.0 if reverse else 0.0)
    scaled = np.floor(raw * 100 / highest)
    return 100 - scaled if reverse else scaled


def refusal(total: int, verdict: Verdict) -> str:
    """Why a pod fits nowhere."""
    if verdict.outright is not None and total:
        return f"0/{total} nodes are available: {verdict.outright[1]}."
    return fit_error(total, verdict.histogram())


def fit_error(total: int, histogram: dict[str, int], preemption: str = "") -> str:
    """The text of FailedScheduling, as the original's FitError writes it."""
    message = f"0/{total} nodes are available:"
    if total == 0 and not histogram:
        return "no nodes available to schedule pods"
    if histogram:
        message += " " + ", ".join(sorted(f"{count} {reason}" for reason, count in histogram.items())) + "."
    return f"{message} {preemption}" if preemption else message
