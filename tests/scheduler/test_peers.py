"""Pod affinity and spreading against scalar versions of themselves, on clusters that Hypothesis makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api.resource import Object
from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import run_filters
from steersman.scheduler.plugins import inter_pod_affinity, pod_topology_spread
from steersman.scheduler.podinfo import PodInfo, Term

KEYS = ["zone", "kubernetes.io/hostname"]
NAMESPACES: dict[str, dict[str, str]] = {"one": {"team": "a"}, "two": {"team": "b"}}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y"]), max_size=2)
selectors = st.one_of(
    st.fixed_dictionaries({"matchLabels": labels}),
    st.fixed_dictionaries(
        {"matchExpressions": st.just([{"key": "app", "operator": "NotIn", "values": ["x"]}])}  # also what lacks it
    ),
)
terms = st.fixed_dictionaries(
    {"topologyKey": st.sampled_from(KEYS), "labelSelector": selectors},
    optional={
        "namespaces": st.lists(st.sampled_from(list(NAMESPACES)), min_size=1, max_size=2),
        "namespaceSelector": st.sampled_from([{}, {"matchLabels": {"team": "b"}}]),
        "matchLabelKeys": st.just(["tier"]),
    },
)
spreads = st.fixed_dictionaries(
    {
        "topologyKey": st.sampled_from(KEYS),
        "labelSelector": selectors,
        "maxSkew": st.integers(1, 2),
        "whenUnsatisfiable": st.sampled_from(["DoNotSchedule", "ScheduleAnyway"]),
    },
    optional={"minDomains": st.integers(1, 3), "nodeAffinityPolicy": st.sampled_from(["Honor", "Ignore"])},
)
pods = st.fixed_dictionaries(
    {
        "namespace": st.sampled_from(list(NAMESPACES)),
        "labels": labels,
        "near": st.lists(terms, max_size=2),
        "far": st.lists(terms, max_size=1),
        "spread": st.lists(spreads, max_size=2),
        "zone": st.none() | st.sampled_from(["a", "b"]),
        "ending": st.booleans(),
    }
)
nodes = st.lists(st.none() | st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5)  # each node's zone
clusters = st.tuples(nodes, st.lists(st.tuples(pods, st.integers(0, 4)), max_size=8), pods)


def node(number: int, zone: str | None) -> Object:
    found = {"kubernetes.io/hostname": f"n{number}"} | ({"zone": zone} if zone else {})
    return {"metadata": {"name": f"n{number}", "labels": found}, "status": {"allocatable": {"pods": "99"}}}


def pod(number: int, drawn: dict[str, Any]) -> PodInfo:
    affinity = {"podAffinity": {REQUIRED: drawn["near"]}, "podAntiAffinity": {REQUIRED: drawn["far"]}}
    spec: Object = {"containers": [], "affinity": affinity, "topologySpreadConstraints": drawn["spread"]}
    if drawn["zone"]:
        spec["nodeSelector"] = {"zone": drawn["zone"]}
    meta = {"uid": f"u{number}", "name": f"p{number}", "namespace": drawn["namespace"], "labels": drawn["labels"]}
    if drawn["ending"]:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return podinfo.read({"metadata": meta, "spec": spec})


def means(term: Term, other: PodInfo) -> bool:
    peers = term.peers
    inside = other.namespace in peers.namespaces or peers.by_labels.matches(NAMESPACES[other.namespace])
    return inside and peers.pods.matches(other.labels)


class Naive:
    """The rules, node by node and pod by pod."""

    def __init__(self, zones: list[str | None], placed: list[tuple[PodInfo, int]]) -> None:
        self.nodes = [node(number, zone)["metadata"]["labels"] for number, zone in enumerate(zones)]
        self.placed = placed

    def near(self, here: int, key: str) -> list[PodInfo]:
        value = self.nodes[here].get(key)
        return [one for one, at in self.placed if value is not None and self.nodes[at].get(key) == value]

    def affinity(self, new: PodInfo, here: int) -> bool:
        wanted = new.affinity.near
        for term in new.affinity.far:
            if any(means(term, one) for one in self.near(here, term.key)):
                return False
        for one, at in self.placed:
            for term in one.affinity.far:
                value = self.nodes[at].get(term.key)
                if means(term, new) and value is not None and self.nodes[here].get(term.key) == value:
                    return False
        suits = [one for one, _ in self.placed if all(means(term, one) for term in wanted)]
        if any(one in self.near(at, term.key) for term in wanted for one in suits for at in range(len(self.nodes))):
            return all(any(one in suits for one in self.near(here, term.key)) for term in wanted)
        itself = all(means(term, new) for term in wanted)
        return itself and all(term.key in self.nodes[here] for term in wanted) if wanted else True

    def spread(self, new: PodInfo, here: int) -> bool:
        hard = [each for each in new.spread if each.hard]
        labelled = [at for at, found in enumerate(self.nodes) if all(each.key in found for each in hard)]
        if here not in labelled and hard:
            return False
        for each in hard:
            counted = [
                at
                for at in labelled
                if not each.honors_affinity or all(self.nodes[at].get(k) == v for k, v in new.node_selector.items())
            ]
            sums = {self.nodes[at][each.key]: 0 for at in counted}
            for one, at in self.placed:
                if at in counted and not one.deleting and one.namespace == new.namespace:
                    sums[self.nodes[at][each.key]] += each.peers.pods.matches(one.labels)
            if not sums:
                continue
            least = 0 if len(sums) < each.min_domains else min(sums.values())
            if sums.get(self.nodes[here][each.key], 0) + each.peers.pods.matches(new.labels) - least > each.max_skew:
                return False
        return True


def build(zones: list[str | None], placed: list[tuple[PodInfo, int]]) -> Columns:
    columns = Columns()
    for name, found in NAMESPACES.items():
        columns.peers.set_namespace(name, found)
    for number, zone in enumerate(zones):
        columns.set_node(node(number, zone))
    for one, at in placed:
        columns.add_pod(one, f"n{at}")
    return columns


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(clusters)
def test_masks_agree_with_the_naive_scheduler(drawn: Any) -> None:
    zones, others, new = drawn
    placed = [(pod(number, one), at % len(zones)) for number, (one, at) in enumerate(others)]
    wanted, naive, columns = pod(99, new), Naive(zones, placed), build(zones, placed)
    for plugin, rule in ((inter_pod_affinity, naive.affinity), (pod_topology_spread, naive.spread)):
        refused = np.zeros(len(columns.live), np.bool_)
        for rejection in plugin.filter(columns, wanted):
            refused |= rejection.nodes
        for number in range(len(zones)):
            assert refused[columns.rows[f"n{number}"]] == (not rule(wanted, number)), (plugin.__name__, number)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(clusters, st.randoms(use_true_random=False))
def test_counts_kept_are_counts_made(drawn: Any, random: Any) -> None:
    """Pods come, are asked about, move and go: the columns then say what fresh ones say."""
    zones, others, new = drawn
    wanted, placed = pod(99, new), [(pod(n, one), at % len(zones)) for n, (one, at) in enumerate(others)]
    columns = build(zones, [])
    where: dict[str, tuple[PodInfo, int]] = {}
    for one, _ in [*placed, *placed]:
        for plugin in (inter_pod_affinity, pod_topology_spread):
            plugin.filter(columns, wanted)
            plugin.score(columns, wanted, columns.live)
        if one.uid in where and random.random() < 0.5:
            columns.remove_pod(one.uid)
            del where[one.uid]
        else:
            there = random.randrange(len(zones))
            columns.add_pod(one, f"n{there}")
            where[one.uid] = (one, there)
    fresh = build(zones, list(where.values()))
    for plugin in (inter_pod_affinity, pod_topology_spread):
        for kept, made in zip(plugin.filter(columns, wanted), plugin.filter(fresh, wanted), strict=True):
            assert (kept.nodes & columns.live == made.nodes & fresh.live).all()
        kept_score, made_score = (plugin.score(each, wanted, each.live) for each in (columns, fresh))
        assert (kept_score is None) == (made_score is None)
        if kept_score is not None and made_score is not None:
            assert (kept_score[columns.live] == made_score[fresh.live]).all()


def _plain(number: int, **drawn: Any) -> PodInfo:
    empty = {"namespace": "one", "labels": {}, "near": [], "far": [], "spread": [], "zone": None, "ending": False}
    return pod(number, {**empty, **drawn})


def test_a_soft_spread_prefers_the_emptier_zone() -> None:
    constraint = {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
                  "labelSelector": {"matchLabels": {"app": "x"}}}  # fmt: skip
    columns = build(["a", "a", "b", None], [(_plain(n, labels={"app": "x"}), at) for n, at in enumerate((0, 1, 2))])
    scores = pod_topology_spread.score(columns, _plain(9, labels={"app": "x"}, spread=[constraint]), columns.live)
    assert scores is not None
    assert [float(scores[columns.rows[f"n{n}"]]) for n in range(4)] == [33.0, 33.0, 100.0, 0.0]


def test_preferences_of_both_sides_count() -> None:
    wish = {"weight": 10, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}}
    preferred = "preferredDuringSchedulingIgnoredDuringExecution"
    shy = podinfo.read(
        {
            "metadata": {"uid": "s", "name": "s", "namespace": "one", "labels": {}},
            "spec": {"containers": [], "affinity": {"podAntiAffinity": {preferred: [wish]}}},
        }
    )
    columns = build(["a", "b", "c"], [(shy, 0), (_plain(1, labels={"app": "x"}), 1)])
    new = podinfo.read(
        {
            "metadata": {"uid": "n", "name": "n", "namespace": "one", "labels": {"app": "x"}},
            "spec": {"containers": [], "affinity": {"podAffinity": {preferred: [wish]}}},
        }
    )
    scores = inter_pod_affinity.score(columns, new, columns.live)
    assert scores is not None
    assert [float(scores[columns.rows[f"n{n}"]]) for n in range(3)] == [0.0, 100.0, 50.0]


def test_reasons_are_the_originals() -> None:
    from steersman.scheduler.profiles import DEFAULT

    far = [{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}]
    columns = build(["a"], [(_plain(1, labels={"app": "x"}, far=far), 0)])
    for new, reason in (
        (_plain(2, near=[{**far[0], "labelSelector": {"matchLabels": {"app": "y"}}}]),
         "node(s) didn't match pod affinity rules"),
        (_plain(3, far=far), "node(s) didn't match pod anti-affinity rules"),
        (_plain(4, labels={"app": "x"}), "node(s) didn't satisfy existing pods anti-affinity rules"),
    ):  # fmt: skip
        assert run_filters(DEFAULT.filters, columns, new).histogram() == {reason: 1}
