"""PodTopologySpread: pods of a kind are spread over the domains of a node label (KEP-895, KEP-3022, KEP-3094).

Pods without constraints get those of the profile (KEP-1258), for the pods that belong together with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steersman.api.labels import NOTHING
from steersman.api.resource import Object
from steersman.scheduler.columns import ABSENT, Columns, Mask
from steersman.scheduler.framework import Event, Hint, Kind, Plugin, Rejection, Scores
from steersman.scheduler.plugins import node_affinity, taint_toleration
from steersman.scheduler.podinfo import Peers, PodInfo, Spread

_SKEW = "node(s) didn't match pod topology spread constraints"
_LABEL = f"{_SKEW} (missing required label)"
_HOSTNAME, _ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
_SYSTEM = ({"topologyKey": _HOSTNAME, "maxSkew": 3}, {"topologyKey": _ZONE, "maxSkew": 5})


@dataclass(frozen=True, slots=True)
class Defaults:
    """What pods without constraints get. `system`: a node that lacks one of the labels is judged by the other."""

    constraints: Sequence[Mapping[str, Any]] = _SYSTEM
    system: bool = True

    def of(self, columns: Columns, pod: PodInfo, *, hard: bool) -> Sequence[Spread]:
        """The pod's own hard or soft constraints, or the profile's for it."""
        if pod.spread:
            return [each for each in pod.spread if each.hard == hard]
        chosen = [each for each in self.constraints if (each.get("whenUnsatisfiable") == "DoNotSchedule") == hard]
        selector = columns.owners.selector(pod) if chosen else None
        if selector is None or selector.everything:
            return ()
        peers = Peers(frozenset([pod.namespace]), NOTHING, selector)
        return [_made(each, hard, peers) for each in chosen]


_USUAL = Defaults()


def _made(given: Mapping[str, Any], hard: bool, peers: Peers) -> Spread:
    return Spread(
        key=given["topologyKey"],
        max_skew=given["maxSkew"],
        hard=hard,
        min_domains=given.get("minDomains") or 1,
        honors_affinity=given.get("nodeAffinityPolicy", "Honor") == "Honor",
        honors_taints=given.get("nodeTaintsPolicy", "Ignore") == "Honor",
        peers=peers,
    )


def make(args: Mapping[str, Any]) -> Plugin:
    """With the constraints for pods that have none."""
    if args["defaultingType"] == "System":
        return Plugin("PodTopologySpread", filter=filter, score=score, hints=_hints(_USUAL))
    defaults = Defaults(tuple(args.get("defaultConstraints") or ()), system=False)
    return Plugin(
        "PodTopologySpread",
        filter=lambda columns, pod: filter(columns, pod, defaults),
        score=lambda columns, pod, feasible: score(columns, pod, feasible, defaults),
        hints=_hints(defaults),
    )


def _hints(defaults: Defaults) -> Mapping[Kind, Hint]:
    def pods(columns: Columns, pod: PodInfo, event: Event) -> bool:
        """A pod that counts came, went, or counts no more."""
        hard = defaults.of(columns, pod, hard=True)
        now = event.pod
        if now is None or now.namespace != pod.namespace:
            return False
        if event.was is not None:
            return any(
                each.peers.pods.matches(event.was.labels) != each.peers.pods.matches(now.labels) for each in hard
            )
        return any(each.peers.pods.matches(now.labels) for each in hard)

    def nodes(columns: Columns, pod: PodInfo, event: Event) -> bool:
        """A node came to a domain or left it."""
        keys = [each.key for each in defaults.of(columns, pod, hard=True)]
        old, new = _labels(event.old), _labels(event.new)
        was, now = (
            old is not None and all(key in old for key in keys),
            new is not None and all(key in new for key in keys),
        )
        if was != now or old is None or new is None:
            return was or now
        return now and (event.kind == "node taints" or any(old[key] != new[key] for key in keys))

    node_events: tuple[Kind, ...] = ("node added", "node labels", "node taints", "node removed")
    pod_events: tuple[Kind, ...] = ("pod came", "pod freed", "pod changed")
    return {**dict.fromkeys(node_events, nodes), **dict.fromkeys(pod_events, pods)}


def _labels(node: Object | None) -> Mapping[str, str] | None:
    return None if node is None else node["metadata"].get("labels") or {}


def _labelled(columns: Columns, constraints: Sequence[Spread]) -> Mask:
    """Nodes that have every constraint's label."""
    return columns.labelled(constraint.key for constraint in constraints)


def _counted(columns: Columns, pod: PodInfo, constraint: Spread, labelled: Mask) -> Mask:
    """Nodes whose pods count for a constraint, by its two node policies."""
    mask = labelled
    if constraint.honors_affinity and (matching := node_affinity.matching(columns, pod)) is not None:
        mask = mask & matching
    if constraint.honors_taints:
        for rejection in taint_toleration.filter(columns, pod):
            mask = mask & ~rejection.nodes
    return mask


def _sums(columns: Columns, constraint: Spread, counted: Mask) -> tuple[np.ndarray, Mask]:
    """By domain: pods in it, and whether it has a node that counts; at the end 0 and False, for nodes in none."""
    column = columns.label(constraint.key)
    tally = columns.peers.counts(constraint.peers, deleting=False)
    everywhere = columns.labelled([constraint.key])
    if counted is everywhere or np.count_nonzero(counted) == np.count_nonzero(everywhere):  # it is part of it
        return columns.domains(constraint.key, tally), column.populated(columns.live)
    codes, size = column.codes + 1, len(column.values) + 1
    sums = np.bincount(codes, weights=tally.rows * counted, minlength=size)
    seen = np.bincount(codes, weights=counted, minlength=size) > 0
    sums[0], seen[0] = 0, False
    return np.roll(sums, -1), np.roll(seen, -1)


def filter(columns: Columns, pod: PodInfo, defaults: Defaults = _USUAL) -> Sequence[Rejection]:
    """Refuse nodes where this pod would make the skew too large."""
    hard = defaults.of(columns, pod, hard=True)
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
        crowded = sums + itself - least > constraint.max_skew
        refused |= labelled & columns.label(constraint.key).to_rows(crowded)
    return Rejection(~labelled, _LABEL, resolvable=False), Rejection(refused, _SKEW)


def score(columns: Columns, pod: PodInfo, feasible: Mask, defaults: Defaults = _USUAL) -> Scores | None:
    """Fewer pods of the kind in a node's domains are better; rare domains weigh less than many."""
    soft = defaults.of(columns, pod, hard=False)
    if not soft:
        return None
    judged = feasible & _labelled(columns, soft) if pod.spread or not defaults.system else feasible
    if not judged.any():
        return np.zeros(len(feasible), np.float64)
    total = np.zeros(len(feasible), np.float64)
    everywhere = _labelled(columns, soft) if pod.spread or not defaults.system else columns.live
    for constraint in soft:
        codes = columns.label(constraint.key).codes
        present = codes != ABSENT
        if constraint.key == _HOSTNAME:
            here = columns.peers.counts(constraint.peers, deleting=False).rows.astype(np.float64)
            size = int(np.count_nonzero(judged))
        else:
            counted = _counted(columns, pod, constraint, everywhere) & present
            sums, _ = _sums(columns, constraint, counted)
            here = columns.label(constraint.key).to_rows(sums)
            size = int(np.count_nonzero(np.bincount(codes[judged] + 1)))
        total += np.where(present, here * np.log(size + 2) + (constraint.max_skew - 1), 0.0)
    total = np.floor(total + 0.5)
    least, most = total[judged].min(), total[judged].max()
    scores = np.full(len(total), 100.0) if most == 0 else np.floor(100 * (most + least - total) / most)
    scores[~judged] = 0
    return scores
