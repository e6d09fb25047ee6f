"""What the plugin DynamicResources remembers of pods alike is what it would find anew."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api.resource import Object
from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.plugins import dynamic_resources
from steersman.scheduler.podinfo import PodInfo
from tests.scheduler.test_devices import a_claim, a_class, a_device, a_slice, request
from tests.scheduler.test_scheduler import a_node

PLUGIN = dynamic_resources.make({"bindingTimeout": "600s"})
NODES = ("n0", "n1", "n2")
shared = a_slice("wide", [a_device("w")], allNodes=True)
Step = tuple[str, int, int]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("place"), st.integers(1, 2), st.integers(0, 2)),
        st.tuples(st.just("free"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("publish"), st.integers(0, 2), st.integers(0, 3)),
    ),
    max_size=12,
)


def cluster() -> Columns:
    columns = Columns()
    for name in NODES:
        columns.set_node(a_node(name))
    columns.devices.set_class("gpu", a_class())
    columns.devices.set_slice("wide", shared)
    return columns


def pod(name: str) -> PodInfo:
    spec = {"containers": [{"name": "c"}], "resourceClaims": [{"name": "x", "resourceClaimName": name}]}
    return podinfo.read({"metadata": {"uid": name, "name": name, "namespace": "d"}, "spec": spec})


def claim(name: str, count: int) -> Object:
    made = a_claim(name, request(count=count))
    made["metadata"] |= {"namespace": "d", "uid": f"uid-{name}"}
    return made


def suits(columns: Columns, info: PodInfo) -> set[str]:
    left = columns.live.copy()
    for rejection in PLUGIN.refuses(columns, info, columns.live):
        left &= ~rejection.nodes
    return {columns.names[row] for row in np.flatnonzero(left)}


@settings(deadline=None, max_examples=60)
@given(steps)
def test_it_remembers_only_what_still_holds(taken: list[Step]) -> None:
    columns = cluster()
    told: dict[str, Any] = {}  # slices and claims, for a cluster that remembers nothing
    placed: list[str] = []
    for at, (what, one, other) in enumerate(taken):
        if what == "publish":
            name = NODES[one]
            told[name] = a_slice(name, [a_device(f"d{each}") for each in range(other)])
            columns.devices.set_slice(name, told[name])
        elif what == "free" and placed:
            name = placed.pop(one % len(placed))
            columns.devices.set_claim(("d", name), None)
            del told[name]
        elif what == "place":
            name = f"c{at}"
            told[name] = claim(name, one)
            columns.devices.set_claim(("d", name), told[name])
            fresh = cluster()
            for key, each in told.items():
                if key in NODES:
                    fresh.devices.set_slice(key, each)
                else:
                    fresh.devices.set_claim(("d", key), each)
            found = suits(columns, pod(name))
            assert found == suits(fresh, pod(name))
            if found:
                node = sorted(found)[other % len(found)]
                assert PLUGIN.reserve is not None
                assert PLUGIN.reserve(columns, pod(name), node) is not None
                given_ = columns.devices.promises()[f"uid-{name}"]
                told[name] = {**told[name], "status": {"allocation": given_}}
                columns.devices.set_claim(("d", name), told[name])
                placed.append(name)
