"""Pods alike: the same choice as when everything is worked out anew, whatever happened in between."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import msgspec.structs
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import run_filters, run_scores
from steersman.scheduler.plugins import balanced_allocation, node_resources
from steersman.scheduler.profiles import DEFAULT
from steersman.scheduler.repeats import Repeats
from tests.scheduler.test_hints import SPECS, node, nodes, pod

kinds = st.fixed_dictionaries(
    {
        "spec": st.sampled_from(SPECS),
        "labels": st.sampled_from([{}, {"app": "x"}]),
        "cpu": st.sampled_from(["20m", "300m"]),
        "port": st.sampled_from([0, 0, 80]),
        "nominated": st.sampled_from(["", "", "n0", "n1"]),
    }
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("pod"), kinds),
        st.tuples(st.just("gone"), st.integers(0, 9)),
        st.tuples(st.just("node"), st.tuples(st.integers(0, 4), nodes)),
        st.tuples(st.just("drop"), st.integers(0, 4)),
        st.tuples(st.just("near"), st.just(None)),
    ),
    max_size=14,
)
NEAR = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "x"}}}
]}}  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(nodes, min_size=1, max_size=5), steps)
def test_it_is_the_same_choice(made: list[dict[str, Any]], todo: list[tuple[str, Any]]) -> None:
    columns, random = Columns(), Random(1)
    repeats = Repeats(columns)
    for at, facts in enumerate(made):
        columns.set_node(node(f"n{at}", facts))
    placed: list[str] = []
    for number, (what, of) in enumerate(todo):
        if what == "node":
            columns.set_node(node(f"n{of[0]}", of[1]))
        elif what == "drop":
            columns.remove_node(f"n{of}")
        elif what == "gone" and placed:
            columns.remove_pod(placed.pop(of % len(placed)))
        elif what == "near" and columns.rows:
            facts = {"spec": {"affinity": NEAR}, "labels": {"app": "x"}, "cpu": "20m", "port": 0}
            columns.add_pod(pod(f"p{number}", facts), next(iter(columns.rows)))
            placed.append(f"p{number}")
        elif what == "pod":
            info = msgspec.structs.replace(pod(f"p{number}", of), nominated=of["nominated"])
            choice = repeats.decide(info, DEFAULT, random)
            feasible = run_filters(DEFAULT.filters, columns, info).feasible
            if choice is not None:
                assert (choice.feasible == feasible).all()
                awaited = columns.rows.get(info.nominated)
                if awaited is not None and feasible[awaited]:
                    assert choice.node == info.nominated and not choice.parts
                    continue
                parts: list[tuple[str, int, Any]] = []
                scores = run_scores(DEFAULT.scores, columns, info, feasible, parts)
                row = columns.rows[choice.node]
                assert scores[row] == scores.max() >= 0
                assert {n: int(s[row]) for n, _, s in choice.parts} == {n: int(s[row]) for n, _, s in parts}
                columns.add_pod(info, choice.node)
                placed.append(info.uid)
            else:
                assert not feasible.any()


def test_only_what_changed_is_asked_again() -> None:
    columns, random = Columns(), Random(1)
    repeats = Repeats(columns)
    facts: dict[str, Any] = {"labels": {}, "taint": False, "cordoned": False, "cpu": "1"}
    for number in range(300):
        columns.set_node(node(f"n{number}", facts))
    alike: dict[str, Any] = {"spec": {}, "labels": {}, "cpu": "50m", "port": 0}
    seen: list[int] = []
    real = DEFAULT.filters[[plugin.name for plugin in DEFAULT.filters].index("NodeResourcesFit")]
    all_rows, one_row = real.filter, real.filter_row
    assert all_rows is not None and one_row is not None

    def counted(columns: Any, pod: Any) -> Any:
        seen.append(len(columns.live))
        return all_rows(columns, pod)

    def one(columns: Any, pod: Any, row: int) -> bool:
        seen.append(1)
        return one_row(columns, pod, row)

    watched = replace(real, filter=counted, filter_row=one)
    filters = [watched if p.name == "NodeResourcesFit" else p for p in DEFAULT.filters]
    profile = replace(DEFAULT, filters=tuple(filters))
    for number in range(20):
        info = pod(f"p{number}", alike)
        choice = repeats.decide(info, profile, random)
        assert choice is not None
        columns.add_pod(info, choice.node)
    assert seen[0] >= 300
    assert seen[1:] == [1] * 19


@settings(max_examples=200, deadline=None)
@given(st.lists(nodes, min_size=1, max_size=5), st.lists(kinds, min_size=1, max_size=8), st.integers(0, 2**30))
def test_one_row_is_told_what_all_are(made: list[dict[str, Any]], pods: list[dict[str, Any]], seed: int) -> None:
    columns, random = Columns(), Random(seed)
    for at, facts in enumerate(made):
        columns.set_node(node(f"n{at}", facts))
    for number, facts in enumerate(pods):
        columns.add_pod(pod(f"p{number}", facts), f"n{random.randrange(len(made))}")
    info = pod("new", pods[0])
    for name, kind in (("LeastAllocated", 1), ("MostAllocated", 3)):
        strategy = {"type": name, "resources": [{"name": "cpu", "weight": kind}, {"name": "memory", "weight": 1}]}
        for plugin in (
            node_resources.make({"scoringStrategy": strategy}),
            balanced_allocation.make({"resources": [{"name": "cpu"}, {"name": "memory"}]}),
        ):
            scores = plugin.score(columns, info, columns.live) if plugin.score is not None else None
            assert plugin.score_row is not None
            for row in columns.rows.values():
                told = plugin.score_row(columns, info, row)
                assert told is None if scores is None else told == scores[row]
                if plugin.filter is not None and plugin.filter_row is not None:
                    refused = any(each.nodes[row] for each in plugin.filter(columns, info))
                    assert plugin.filter_row(columns, info, row) is not refused
