"""What a pod needs of a kubelet is looked for among what nodes declare."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from steersman.api.resource import NODES, PODS, Object
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import run_filters
from steersman.scheduler.kept import Shared, lean
from steersman.scheduler.plugins.node_declared_features import needs
from steersman.scheduler.podinfo import read
from steersman.scheduler.profiles import DEFAULT
from steersman.testing.cluster import ApiCluster
from tests.scheduler.test_scheduler import a_node, a_pod, add_node, until, virtual, with_scheduler

RULES = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [3]}}]
FEATURE = "RestartAllContainersOnContainerExits"


def node(name: str, *features: str) -> Object:
    made = a_node(name)
    return {**made, "status": {**made["status"], "declaredFeatures": list(features)}}


def pod(where: str = "containers", **spec: Any) -> Object:
    made = a_pod("p", **spec)
    made["metadata"] |= {"uid": "u", "namespace": "default"}
    if where == "initContainers":
        made["spec"][where] = [{"name": "i", "image": "i", "restartPolicyRules": RULES}]
    elif where:
        made["spec"]["containers"][0] |= {"restartPolicy": "Never", "restartPolicyRules": RULES}
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (pod(""), set()),
        (pod(), {FEATURE}),
        (pod("initContainers"), {FEATURE}),
        (pod("", hostNetwork=True), set()),
        (pod("", hostNetwork=True, hostUsers=True), set()),
        (pod("", hostUsers=False), set()),
        (pod(hostNetwork=True, hostUsers=False), {FEATURE, "UserNamespacesHostNetworkSupport"}),
    ],
)
def test_what_a_pod_needs(made: Object, expected: set[str]) -> None:
    assert needs(made) == expected
    made["spec"]["nodeName"] = "n"
    assert needs(lean(msgspec.json.encode(made), Shared())) == expected


def test_nodes_that_lack_it_are_refused_for_good() -> None:
    columns = Columns()
    for name, features in (("a", ()), ("b", ("Other",)), ("c", ("Other", FEATURE))):
        columns.set_node(node(name, *features))
    verdict = run_filters(DEFAULT.filters, columns, read(pod()))
    assert [name for name, row in columns.rows.items() if verdict.feasible[row]] == ["c"]
    assert verdict.histogram() == {"node(s) didn't match Pod's required features": 2}
    assert not verdict.resolvable().any()
    assert run_filters(DEFAULT.filters, columns, read(pod(""))).feasible[:3].all()


def test_a_node_that_declares_it_later_wakes_the_pod() -> None:
    async def body(cluster: ApiCluster) -> None:
        await add_node(cluster, node("n"))
        waiting = pod()
        del waiting["metadata"]["uid"]
        await cluster.client.create(PODS, waiting, "default")
        found = await until(cluster, "p", lambda it: bool((it.get("status") or {}).get("conditions")))
        text = "0/1 nodes are available: 1 node(s) didn't match Pod's required features."
        assert found["status"]["conditions"][0]["message"].startswith(text)
        there = await cluster.client.get(NODES, "n")
        there["status"]["declaredFeatures"] = [FEATURE]
        began = cluster.clock.monotonic()
        await cluster.client.update(NODES, there, subresource="status")
        await until(cluster, "p", lambda it: it["spec"].get("nodeName") == "n")
        assert cluster.clock.monotonic() - began < 11

    virtual(lambda: with_scheduler(body))
