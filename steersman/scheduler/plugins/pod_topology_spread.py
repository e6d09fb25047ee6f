"""PodTopologySpread: pods of a kind are spread over the domains of a node label (KEP-895, KEP-3022, KEP-3094)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.framework import Rejection, Scores
from steersman.scheduler.plugins import node_affinity, taint_toleration
from steersman.scheduler.podinfo import PodInfo, Spread

_SKEW = "node(s) didn't match pod topology spread constraints"
_LABEL = f"{_SKEW} (missing required label)"
_HOSTNAME = "kubernetes.io/hostname"


def _labelled(columns: Columns, constraints: Sequence[Spread]) -> Mask:
    """Nodes that have every constraint's label."""
    mask = columns.live.copy()
    for constraint in constraints:
        mask &= columns.has_label(constraint.key)
    return mask


def _counted(columns: Columns, pod: PodInfo, constraint: Spread, labelled: Mask) -> Mask:
    """Nodes whose pods count for a constraint, by its two node policies."""
    mask = labelled
    if constraint.honors_affinity and (matching := node_affinity.matching(columns, pod)) is not None:
        mask = mask & matching
    if constraint.honors_taints:
        for rejection in taint_toleration.filter(columns, pod):
            mask = mask & ~rejection.nodes
    return mask


def _sums(columns: Columns, constraint: Spread, counted: Mask) -> tuple[np.ndarray, np.ndarray]:
    """By domain: pods in it, and whether it has a node that counts."""
    column = columns.label(constraint.key)
    codes, size = column.codes[counted], len(column.values)
    pods = columns.peers.counts(constraint.peers, deleting=False)[counted]
    return np.bincount(codes, weights=pods, minlength=size), np.bincount(codes, minlength=size) > 0


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes where this pod would make the skew too large."""
    hard = [constraint for constraint in pod.spread if constraint.hard]
    if not hard:
        return ()
    labelled = _labelled(columns, hard)
    refused = np.zeros(len(labelled), np.bool_)
    for constraint in hard:
        sums, seen = _sums(columns, constraint, _counted(columns, pod, constraint, labelled))
        if not seen.any():
            continue
        least = 0.0 if np.count_nonzero(seen) < constraint.min_domains else sums[seen].min()
        itself = columns.peers.means(constraint.peers, pod.namespace, pod.labels)
        here = sums[columns.label(constraint.key).codes]  # garbage where the label is absent, which `labelled` hides
        refused |= labelled & (here + itself - least > constraint.max_skew)
    return Rejection(~labelled, _LABEL, resolvable=False), Rejection(refused, _SKEW)


def score(columns: Columns, pod: PodInfo, feasible: Mask) -> Scores | None:
    """Fewer pods of the kind in a node's domains are better; rare domains weigh less than many."""
    soft = [constraint for constraint in pod.spread if not constraint.hard]
    if not soft:
        return None
    labelled = _labelled(columns, soft)
    judged = feasible & labelled
    if not judged.any():
        return np.zeros(len(feasible), np.float64)
    total = np.zeros(len(feasible), np.float64)
    for constraint in soft:
        codes = columns.label(constraint.key).codes
        if constraint.key == _HOSTNAME:
            here = columns.peers.counts(constraint.peers, deleting=False).astype(np.float64)
            size = int(np.count_nonzero(judged))
        else:
            sums, _ = _sums(columns, constraint, _counted(columns, pod, constraint, labelled))
            here, size = sums[codes], len(np.unique(codes[judged]))
        total += here * np.log(size + 2) + (constraint.max_skew - 1)
    total = np.round(total)
    least, most = total[judged].min(), total[judged].max()
    scores = np.full(len(total), 100.0) if most == 0 else np.floor(100 * (most + least - total) / most)
    scores[~judged] = 0
    return scores
