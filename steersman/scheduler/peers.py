"""Pods on nodes, counted by what they are to other pods: selected by a term, or carrying a term of their own.

Owns the counts that pod affinity and spreading ask for, one number a node, kept as single pods come and go. Pods
with the same namespace and labels are one group: a selector is matched once a group, and a pod that comes costs as
many additions as there are selectors that mean it. Called by `columns`; the plugins read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from steersman.api.labels import NOTHING
from steersman.scheduler.podinfo import Peers, PodInfo, Term
from steersman.scheduler.tally import Era, Tally

K = TypeVar("K")
_COUNTERS = 512  # selectors that are kept counted; the one longest unasked for goes first
_Signature = tuple[str, frozenset[tuple[str, str]], bool]


@dataclass(slots=True)
class _Group:
    """Pods that no selector can tell apart: how many on each row, and the counters that count them."""

    namespace: str
    labels: Mapping[str, str]
    deleting: bool
    rows: dict[int, int] = field(default_factory=dict)
    counted_by: list[_Counter] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Counter:
    """How many pods each row has that all of `peers` mean."""

    peers: tuple[Peers, ...]
    deleting: bool
    counts: Tally


class PodIndex:
    """See the module. Rows are those of the columns."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._groups: dict[_Signature, _Group] = {}
        self._counters: dict[tuple[tuple[Peers, ...], bool], _Counter] = {}
        self._far: dict[Term, Tally] = {}
        self._near: dict[Term, Tally] = {}
        self._wished: dict[tuple[Term, int], Tally] = {}
        self.era = Era()

    def grow(self, rows: int) -> None:
        """There are more rows now."""
        more = rows - self._rows
        for counter in self._counters.values():
            counter.counts.grow(more)
        for table in (self._far, self._near, self._wished):
            for tally in table.values():
                tally.grow(more)
        self._rows = rows

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """A namespace's labels; None when it is gone. Counts by namespace labels are made anew when asked for."""
        if self._namespaces.get(name) == labels:
            return
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        stale = [key for key in self._counters if any(peers.by_labels != NOTHING for peers in key[0])]
        for key in stale:
            self._drop(key)

    def _drop(self, key: tuple[tuple[Peers, ...], bool]) -> None:
        counter = self._counters.pop(key)
        for group in self._groups.values():
            if counter in group.counted_by:
                group.counted_by.remove(counter)

    def means(self, peers: Peers, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a pod of this namespace with these labels is meant."""
        inside = namespace in peers.namespaces or peers.by_labels.matches(self._namespaces.get(namespace, {}))
        return inside and peers.pods.matches(labels)

    def count(self, row: int, info: PodInfo, sign: int) -> None:
        """A pod came to a row (sign 1) or left it (-1)."""
        signature = (info.namespace, frozenset(info.labels.items()), info.deleting)
        group = self._groups.get(signature)
        if group is None:
            group = self._groups[signature] = _Group(info.namespace, info.labels, info.deleting)
            group.counted_by = [each for each in self._counters.values() if self._counts(each, group)]
        for counter in group.counted_by:
            counter.counts.add(row, sign)
        left = group.rows.get(row, 0) + sign
        if left:
            group.rows[row] = left
        else:
            group.rows.pop(row, None)
            if not group.rows:
                del self._groups[signature]
        self._count_wishes(row, info, sign)

    def _count_wishes(self, row: int, info: PodInfo, sign: int) -> None:
        """Its own terms: others must heed its required anti-affinity, and it is glad or sorry of their coming."""
        affinity = info.affinity
        for term in affinity.far:
            self._add(self._far, term, row, sign)
        for term in affinity.near:
            self._add(self._near, term, row, sign)
        for wish in affinity.preferred:
            self._add(self._wished, wish, row, sign)

    def _add(self, table: dict[K, Tally], key: K, row: int, sign: int) -> None:
        tally = table.get(key)
        if tally is None:
            tally = table[key] = Tally(self._rows, self.era)
        tally.add(row, sign)
        if sign < 0 and not tally.rows.any():
            del table[key]

    def _counts(self, counter: _Counter, group: _Group) -> bool:
        return (counter.deleting or not group.deleting) and all(
            self.means(peers, group.namespace, group.labels) for peers in counter.peers
        )

    def counts(self, *peers: Peers, deleting: bool = True) -> Tally:
        """How many pods each row has that all of `peers` mean; `deleting`: also those that are ending."""
        key = (peers, deleting)
        counter = self._counters.pop(key, None)
        if counter is None:
            counter = _Counter(peers, deleting, Tally(self._rows, self.era))
            for group in self._groups.values():
                if self._counts(counter, group):
                    group.counted_by.append(counter)
                    for row, number in group.rows.items():
                        counter.counts.add(row, number)
            if len(self._counters) >= _COUNTERS:
                self._drop(next(iter(self._counters)))
        self._counters[key] = counter  # last is the latest asked for
        return counter.counts

    def kept_away(self, pod: PodInfo) -> Iterator[tuple[Term, Tally]]:
        """Required anti-affinity terms of pods on nodes that mean `pod`, with how many pods of each row have them."""
        for term, tally in self._far.items():
            if self.means(term.peers, pod.namespace, pod.labels):
                yield term, tally

    def wished(self, pod: PodInfo, hard: int = 1) -> Iterator[tuple[str, int, Tally]]:
        """Terms of pods on nodes that mean `pod`: topology key, weight, and how many pods of each row have them.

        `hard` is what their required affinity weighs; 0 leaves it out.
        """
        for term, tally in self._near.items() if hard else ():
            if self.means(term.peers, pod.namespace, pod.labels):
                yield term.key, hard, tally
        for (term, weight), tally in self._wished.items():
            if self.means(term.peers, pod.namespace, pod.labels):
                yield term.key, weight, tally
