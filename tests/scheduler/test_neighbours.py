"""Affinity and spread, filters and scores, against scalar versions of themselves, on clusters that Hypothesis makes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api import labels
from steersman.api.resource import Object
from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import run_filters
from steersman.scheduler.plugins import inter_pod_affinity, pod_topology_spread
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.profiles import DEFAULT

ZONE, HOST = "zone", "kubernetes.io/hostname"
SPACES = {"a": {"team": "x"}, "b": {"team": "y"}}

selectors = st.none() | st.sampled_from(
    [{}, {"matchLabels": {"app": "x"}}, {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["x"]}]}]
)
terms = st.fixed_dictionaries(
    {"topologyKey": st.sampled_from([ZONE, HOST]), "labelSelector": selectors},
    optional={
        "namespaces": st.just(["b"]),
        "namespaceSelector": st.sampled_from([{}, {"matchLabels": {"team": "y"}}]),
        "matchLabelKeys": st.just(["rev"]),
        "mismatchLabelKeys": st.just(["rev"]),
    },
)
wishes = st.fixed_dictionaries({"weight": st.integers(1, 100), "podAffinityTerm": terms})
groups = st.fixed_dictionaries(
    {
        "requiredDuringSchedulingIgnoredDuringExecution": st.lists(terms, max_size=2),
        "preferredDuringSchedulingIgnoredDuringExecution": st.lists(wishes, max_size=2),
    }
)
spreads = st.fixed_dictionaries(
    {
        "topologyKey": st.sampled_from([ZONE, HOST]),
        "maxSkew": st.integers(1, 3),
        "whenUnsatisfiable": st.sampled_from(["DoNotSchedule", "ScheduleAnyway"]),
        "labelSelector": selectors,
    },
    optional={
        "minDomains": st.integers(1, 4),
        "nodeTaintsPolicy": st.sampled_from(["Honor", "Ignore"]),
        "nodeAffinityPolicy": st.sampled_from(["Honor", "Ignore"]),
        "matchLabelKeys": st.just(["rev"]),
    },
)
pods = st.fixed_dictionaries(
    {
        "namespace": st.sampled_from(list(SPACES)),
        "labels": st.fixed_dictionaries({}, optional={"app": st.sampled_from("xy"), "rev": st.sampled_from("12")}),
        "near": groups,
        "far": groups,
        "spread": st.lists(spreads, max_size=2),
        "ending": st.booleans(),
        "selector": st.sampled_from([{}, {"disk": "ssd"}]),
    }
)
nodes = st.fixed_dictionaries(
    {
        "labels": st.fixed_dictionaries({}, optional={ZONE: st.sampled_from("123"), "disk": st.just("ssd")}),
        "taint": st.booleans(),
    }
)


def a_node(name: str, facts: dict[str, Any]) -> Object:
    taints = [{"key": "k", "effect": "NoSchedule"}] if facts["taint"] else []
    return {
        "metadata": {"name": name, "labels": {HOST: name, **facts["labels"]}},
        "spec": {"taints": taints},
        "status": {"allocatable": {"cpu": "100", "memory": "100Gi", "pods": "100"}},
    }


def a_pod(uid: str, facts: dict[str, Any]) -> PodInfo:
    meta: Object = {"uid": uid, "name": uid, "namespace": facts["namespace"], "labels": facts["labels"]}
    if facts["ending"]:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    affinity = {"podAffinity": facts["near"], "podAntiAffinity": facts["far"]}
    spec = {"affinity": affinity, "topologySpreadConstraints": facts["spread"], "nodeSelector": facts["selector"]}
    return podinfo.read({"metadata": meta, "spec": {"containers": [{"name": "c"}], **spec}})


Placed = list[tuple[Object, dict[str, Any], PodInfo]]  # node, facts, pod


def means(term: dict[str, Any], holder: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a term of one pod means another pod, as the API documents it."""
    if term["labelSelector"] is None:
        return False
    space, names = term.get("namespaceSelector"), term.get("namespaces") or []
    inside = other["namespace"] in names if names or space is not None else other["namespace"] == holder["namespace"]
    if space is not None and labels.from_object(space).matches(SPACES[other["namespace"]]):
        inside = True
    own, its = holder["labels"].get("rev"), other["labels"].get("rev")
    keyed = own is None or (
        ("matchLabelKeys" not in term or its == own) and ("mismatchLabelKeys" not in term or its != own)
    )
    return inside and keyed and labels.from_object(term["labelSelector"]).matches(other["labels"])


def together(term: dict[str, Any], one: Object, other: Object) -> bool:
    """Whether two nodes are in one domain."""
    key = term["topologyKey"]
    value = one["metadata"]["labels"].get(key)
    return value is not None and value == other["metadata"]["labels"].get(key)


def suits(node: Object, pod: dict[str, Any], placed: Placed) -> bool:
    """InterPodAffinity's filter, one node at a time."""
    hard = "requiredDuringSchedulingIgnoredDuringExecution"
    near = pod["near"][hard]
    if any(term["topologyKey"] not in node["metadata"]["labels"] for term in near):
        return False
    meant = [(at, facts) for at, facts, _ in placed if all(means(term, pod, facts) for term in near)]
    anywhere = any(together(term, at, at) for term in near for at, _ in meant)
    first = not anywhere and all(means(term, pod, pod) for term in near)
    if near and not first and not all(any(together(term, node, at) for at, _ in meant) for term in near):
        return False
    if any(means(t, pod, facts) and together(t, node, at) for t in pod["far"][hard] for at, facts, _ in placed):
        return False
    return not any(
        means(t, facts, pod) and together(t, node, at) for at, facts, _ in placed for t in facts["far"][hard]
    )


def pull(node: Object, pod: dict[str, Any], placed: Placed) -> int:
    """InterPodAffinity's score before it is scaled."""
    soft, hard = "preferredDuringSchedulingIgnoredDuringExecution", "requiredDuringSchedulingIgnoredDuringExecution"
    total = 0
    for at, facts, _ in placed:
        for group, sign in (("near", 1), ("far", -1)):
            for holder, other in ((pod, facts), (facts, pod)):
                for wish in holder[group][soft]:
                    term = wish["podAffinityTerm"]
                    total += sign * wish["weight"] * (means(term, holder, other) and together(term, node, at))
        total += sum(means(term, facts, pod) and together(term, node, at) for term in facts["near"][hard])
    return total


def chosen(each: dict[str, Any], pod: dict[str, Any], other: dict[str, Any]) -> bool:
    if other["ending"] or other["namespace"] != pod["namespace"] or each["labelSelector"] is None:
        return False
    own = pod["labels"].get("rev")
    keyed = "matchLabelKeys" not in each or own is None or other["labels"].get("rev") == own
    return keyed and labels.from_object(each["labelSelector"]).matches(other["labels"])


def eligible(node: Object, each: dict[str, Any], of: list[dict[str, Any]], pod: dict[str, Any]) -> bool:
    """Whether a node counts for a constraint."""
    have = node["metadata"]["labels"]
    if any(other["topologyKey"] not in have for other in of):
        return False
    if each.get("nodeTaintsPolicy") == "Honor" and node["spec"]["taints"]:
        return False
    return each.get("nodeAffinityPolicy") == "Ignore" or pod["selector"].items() <= have.items()


def in_domain(node: Object, each: dict[str, Any], of: list[dict[str, Any]], pod: dict[str, Any], placed: Placed) -> int:
    return sum(
        chosen(each, pod, facts) and together(each, node, at) and eligible(at, each, of, pod) for at, facts, _ in placed
    )


def even(node: Object, cluster: list[Object], pod: dict[str, Any], placed: Placed) -> bool:
    """PodTopologySpread's filter, one node at a time."""
    hard = [each for each in pod["spread"] if each["whenUnsatisfiable"] == "DoNotSchedule"]
    for each in hard:
        if each["topologyKey"] not in node["metadata"]["labels"]:
            return False
        sums = {
            at["metadata"]["labels"][each["topologyKey"]]: in_domain(at, each, hard, pod, placed)
            for at in cluster
            if eligible(at, each, hard, pod)
        }
        least = min(sums.values(), default=0) if len(sums) >= each.get("minDomains", 1) else 0
        here = in_domain(node, each, hard, pod, placed) + chosen(each, pod, {**pod, "ending": False})
        if here - least > each["maxSkew"]:
            return False
    return True


def unevenness(node: Object, feasible: list[Object], pod: dict[str, Any], placed: Placed) -> int | None:
    """PodTopologySpread's score before it is scaled; None for nodes that it does not judge."""
    soft = [each for each in pod["spread"] if each["whenUnsatisfiable"] == "ScheduleAnyway"]
    keys = [each["topologyKey"] for each in soft]
    judged = [at for at in feasible if all(key in at["metadata"]["labels"] for key in keys)]
    if node not in judged:
        return None
    total = 0.0
    for each in soft:
        if each["topologyKey"] == HOST:
            count = sum(chosen(each, pod, facts) for at, facts, _ in placed if at is node)
            domains = len(judged)
        else:
            count = in_domain(node, each, soft, pod, placed)
            domains = len({at["metadata"]["labels"][each["topologyKey"]] for at in judged})
        total += count * math.log(domains + 2) + each["maxSkew"] - 1
    return math.floor(total + 0.5)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.lists(nodes, min_size=1, max_size=5),
    pods,
    st.lists(st.tuples(st.integers(0, 4), pods), max_size=5),
    st.integers(0, 5),
)
def test_neighbours_agree_with_the_scalar_versions(
    made: list[dict[str, Any]], wanted: dict[str, Any], put: list[tuple[int, dict[str, Any]]], gone: int
) -> None:
    columns = Columns()
    for space, of in SPACES.items():
        columns.peers.set_namespace(space, of)
    cluster = [a_node(f"n{at}", facts) for at, facts in enumerate(made)]
    info = a_pod("u", wanted)
    for node in cluster:
        columns.set_node(node)
    placed: Placed = []
    for number, (at, facts) in enumerate(put):
        node = cluster[at % len(cluster)]
        one = a_pod(f"p{number}", facts)
        columns.add_pod(one, node["metadata"]["name"])
        placed.append((node, facts, one))
        if number == 1:  # the counters exist from here on and are kept in step
            run_filters(DEFAULT.filters, columns, info)
    for _, _, one in placed[gone:]:
        columns.remove_pod(one.uid)
    placed = placed[:gone]

    def accepted(plugin: Any) -> set[str]:
        refused = np.zeros(len(columns.live), np.bool_)
        for rejection in plugin.filter(columns, info):
            refused |= rejection.nodes
        return {name for name, row in columns.rows.items() if not refused[row]}

    assert accepted(inter_pod_affinity) == {n["metadata"]["name"] for n in cluster if suits(n, wanted, placed)}
    assert accepted(pod_topology_spread) == {n["metadata"]["name"] for n in cluster if even(n, cluster, wanted, placed)}

    everywhere = columns.live.copy()
    pulls = [pull(node, wanted, placed) for node in cluster]
    scores = inter_pod_affinity.score(columns, info, everywhere)
    if len(set(pulls)) == 1:
        assert scores is None or not scores.any()
    else:
        low, high = min(pulls), max(pulls)
        assert scores is not None
        got = [int(scores[columns.rows[n["metadata"]["name"]]]) for n in cluster]
        assert got == [int(100.0 * (each - low) / (high - low)) for each in pulls]

    raw = [unevenness(node, cluster, wanted, placed) for node in cluster]
    judged = [each for each in raw if each is not None]
    scores = pod_topology_spread.score(columns, info, everywhere)
    if not judged:
        assert scores is None or not scores.any()
    elif scores is None:
        assert all(each["whenUnsatisfiable"] == "DoNotSchedule" for each in wanted["spread"])
    else:
        low, high = min(judged), max(judged)
        expected = [0 if e is None else 100 if high == 0 else 100 * (high + low - e) // high for e in raw]
        assert [int(scores[columns.rows[n["metadata"]["name"]]]) for n in cluster] == expected


def test_a_counter_follows_rows_that_are_added_later() -> None:
    columns = Columns()
    plain = {"namespace": "a", "labels": {"app": "x"}, "near": {}, "far": {}, "spread": [], "ending": False}
    every: dict[str, Any] = {"topologyKey": HOST, "maxSkew": 1, "labelSelector": {}}
    info = a_pod("u", {**plain, "selector": {}, "spread": [{**every, "whenUnsatisfiable": "DoNotSchedule"}]})
    for number in range(40):
        columns.set_node(a_node(f"n{number}", {"labels": {}, "taint": False}))
        pod_topology_spread.filter(columns, info)
        if number:
            columns.add_pod(a_pod(f"p{number}", {**plain, "selector": {}}), f"n{number}")
    refused = np.logical_or.reduce([rejection.nodes for rejection in pod_topology_spread.filter(columns, info)])
    assert [columns.names[row] for row in np.flatnonzero(columns.live & ~refused)] == ["n0"]
