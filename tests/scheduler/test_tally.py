"""Sums over the domains of a label, kept up to date one pod at a time: the same as when all is counted anew."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api.labels import NOTHING, from_object
from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.podinfo import Peers

HOST, ZONE = "kubernetes.io/hostname", "zone"
BLUE = Peers(frozenset(["d"]), NOTHING, from_object({"matchLabels": {"color": "blue"}}))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("node"), st.integers(0, 5), st.sampled_from(["a", "b", "", "host"])),
        st.tuples(st.just("drop"), st.integers(0, 5), st.just("")),
        st.tuples(st.just("pod"), st.integers(0, 5), st.sampled_from(["blue", "red"])),
        st.tuples(st.just("gone"), st.integers(0, 9), st.just("")),
        st.tuples(st.just("ask"), st.just(0), st.sampled_from([HOST, ZONE, "unheard-of"])),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_sums_are_those_of_a_recount(todo: list[tuple[str, int, str]]) -> None:
    columns = Columns()
    nodes: dict[str, dict[str, str]] = {}
    pods: dict[str, tuple[str, str]] = {}
    for number, (what, which, how) in enumerate([*todo, *(("ask", 0, key) for key in (HOST, ZONE))]):
        name = f"n{which}"
        if what == "node":
            labels = {} if how == "host" else {HOST: name}
            nodes[name] = labels | ({ZONE: how} if how in ("a", "b") else {})
            columns.set_node({"metadata": {"name": name, "labels": nodes[name]}, "status": {}})
        elif what == "drop":
            nodes.pop(name, None)
            columns.remove_node(name)
        elif what == "pod":
            meta: dict[str, Any] = {"name": f"p{number}", "namespace": "d", "labels": {"color": how}}
            columns.add_pod(podinfo.read({"metadata": meta | {"uid": f"p{number}"}, "spec": {"containers": []}}), name)
            pods[f"p{number}"] = name, how
        elif what == "gone" and pods:
            uid = list(pods)[which % len(pods)]
            del pods[uid]
            columns.remove_pod(uid)
        elif what == "ask":
            tally = columns.peers.counts(BLUE)
            here = {at: sum(each == (at, "blue") for each in pods.values()) for at in nodes}
            sums, somebody = columns.in_domain(how, tally), columns.somebody(how, tally)
            there = columns.labelled([how])
            for at, labels in nodes.items():
                alike = [other for other in nodes if nodes[other].get(how) == labels.get(how)]
                row, wanted = columns.rows[at], sum(here[other] for other in alike) if how in labels else 0
                assert (sums[row], somebody[row], there[row]) == (wanted, wanted > 0, how in labels)
            assert there.sum() == sum(how in labels for labels in nodes.values())
            seen = columns.label(how).populated(columns.live)
            assert seen.sum() == len({labels[how] for labels in nodes.values() if how in labels}) and not seen[-1]
