"""InterPodAffinity: pods that want to be near other pods or far from them, and those that others want far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from steersman.scheduler.columns import Columns, Ints, Mask
from steersman.scheduler.framework import Event, Hint, Kind, Plugin, Rejection, Scores, always
from steersman.scheduler.podinfo import PodInfo, Term
from steersman.scheduler.tally import Tally

_NEAR = "node(s) didn't match pod affinity rules"
_FAR = "node(s) didn't match pod anti-affinity rules"
_OTHERS = "node(s) didn't satisfy existing pods anti-affinity rules"


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes without the pods that this one needs, with those it shuns, or with those that shun it."""
    return list(_rejections(columns, pod))


def _rejections(columns: Columns, pod: PodInfo) -> Iterator[Rejection]:
    if pod.affinity.near:
        yield Rejection(~_near(columns, pod), _NEAR, resolvable=False)
    if pod.affinity.far:
        refused = np.zeros(len(columns.live), np.bool_)
        for term in pod.affinity.far:
            refused |= columns.somebody(term.key, columns.peers.counts(term.peers))
        yield Rejection(refused, _FAR)
    shunned: Mask | None = None
    for term, carriers in columns.peers.kept_away(pod):
        refused = columns.somebody(term.key, carriers)
        shunned = refused if shunned is None else shunned | refused
    if shunned is not None:
        yield Rejection(shunned, _OTHERS)


def _near(columns: Columns, pod: PodInfo) -> Mask:
    """Nodes in whose domains, by every term, is a pod that all terms mean; the first of its kind is free to begin."""
    terms = pod.affinity.near
    counts = columns.peers.counts(*(term.peers for term in terms))
    suits, anybody = columns.live.copy(), False
    for term in terms:
        suits &= columns.somebody(term.key, counts)
        anybody |= bool(columns.domains(term.key, counts).any())
    if anybody:
        return suits
    itself = all(columns.peers.means(term.peers, pod.namespace, pod.labels) for term in terms)
    return columns.labelled(term.key for term in terms) if itself else suits


def make(args: Mapping[str, Any]) -> Plugin:
    """With what a required affinity of a pod that is there weighs, and whether others' wishes count at all."""
    hard, own_only = args["hardPodAffinityWeight"], args["ignorePreferredTermsOfExistingPods"]

    def judged(columns: Columns, pod: PodInfo, feasible: Mask) -> Scores | None:
        return None if own_only and not pod.affinity.preferred else score(columns, pod, feasible, hard)

    return Plugin("InterPodAffinity", filter=filter, score=judged, hints=_HINTS)


def _came(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A pod that all the required terms mean is somewhere now."""
    return event.pod is not None and _all_mean(columns, pod.affinity.near, event.pod)


def _went(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A pod that this one shuns is gone, or one that shuns this one."""
    gone = event.pod
    if gone is None:
        return False
    return _all_mean(columns, pod.affinity.far, gone) or _all_mean(columns, gone.affinity.far, pod)


def _relabelled(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A pod is now one to be near, or no longer one to shun."""
    now, was = event.pod, event.was
    if now is None or was is None:
        return False
    near, far = pod.affinity.near, pod.affinity.far
    came = _all_mean(columns, near, now) and not _all_mean(columns, near, was)
    return came or (_all_mean(columns, far, was) and not _all_mean(columns, far, now))


def _moved(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A node is in another domain of one of the terms, or in none: the first of its kind is free to begin."""
    new = ((event.new or {}).get("metadata") or {}).get("labels") or {}
    if event.old is None:
        return bool(pod.affinity.far) or any(term.key in new for term in pod.affinity.near) or not pod.affinity.near
    old = event.old["metadata"].get("labels") or {}
    return any(old.get(term.key) != new.get(term.key) for term in pod.affinity.near) or any(
        term.key in old and old[term.key] != new.get(term.key) for term in pod.affinity.far
    )


def _all_mean(columns: Columns, terms: Sequence[Term], pod: PodInfo) -> bool:
    return bool(terms) and all(columns.peers.means(term.peers, pod.namespace, pod.labels) for term in terms)


_HINTS: Mapping[Kind, Hint] = {
    "pod came": _came,
    "pod freed": _went,
    "pod changed": _relabelled,
    "node added": _moved,
    "node labels": _moved,
    "node removed": always,  # with those on it
}


def score(columns: Columns, pod: PodInfo, feasible: Mask, hard: int = 1) -> Scores | None:
    """Preferences of this pod and of those that are there already, scaled from the worst node to the best.

    `hard`: what a required affinity of those that are there weighs.
    """
    wishes = [(term.key, weight, columns.peers.counts(term.peers)) for term, weight in pod.affinity.preferred]
    wishes += columns.peers.wished(pod, hard)
    if not wishes:
        return None
    sums = {key: _summed(columns, wishes, key) for key in dict.fromkeys(key for key, _, _ in wishes)}
    rows = np.flatnonzero(feasible)
    total = sum(columns.label(key).at(rows, of) for key, of in sums.items())
    least, most = np.min(total), np.max(total)
    if most == least:
        return np.zeros(len(feasible), np.float64)
    if len(sums) == 1:  # few domains are cheaper than many rows
        [(key, of)] = sums.items()
        return columns.label(key).to_rows(np.floor(100 * (of - least) / (most - least)))
    scores = np.zeros(len(feasible), np.float64)
    scores[rows] = np.floor(100 * (total - least) / (most - least))
    return scores


def _summed(columns: Columns, wishes: Sequence[tuple[str, int, Tally]], key: str) -> Ints:
    """What all wishes about one label come to, by its values."""
    return np.sum([weight * columns.domains(key, tally) for of, weight, tally in wishes if of == key], axis=0)
