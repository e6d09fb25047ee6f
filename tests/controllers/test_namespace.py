from __future__ import annotations

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, NAMESPACES, PODS, SECRETS, SERVICEACCOUNTS, SERVICES
from steersman.controllers.namespace import Findings, conditions_of

from .conftest import World
from .objects import pod, service


def test_conditions_tell_what_is_in_the_way() -> None:
    findings = Findings(["example.com/v1"], ["cannot"], {"pods.": 2, "jobs.batch": 1}, {"a/b": 3})
    found = {each["type"]: each for each in conditions_of(findings, [], 1_767_225_600)}
    assert found["NamespaceContentRemaining"] == {
        "type": "NamespaceContentRemaining",
        "status": "True",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "reason": "SomeResourcesRemain",
        "message": "Some resources are remaining: jobs.batch has 1 resource instances, pods. has 2 resource instances",
    }
    assert found["NamespaceFinalizersRemaining"]["message"].endswith("remaining: a/b in 3 resource instances")
    assert found["NamespaceDeletionDiscoveryFailure"]["reason"] == "DiscoveryFailed"
    assert found["NamespaceDeletionContentFailure"]["reason"] == "ContentDeletionFailed"
    assert found["NamespaceDeletionGroupVersionParsingFailure"]["status"] == "False"


def test_a_condition_that_stays_keeps_its_time() -> None:
    first = conditions_of(Findings(remaining={"pods.": 2}), [], 0)
    second = conditions_of(Findings(remaining={"pods.": 1}), first, 100)
    assert [each["lastTransitionTime"] for each in second] == [each["lastTransitionTime"] for each in first]
    assert second[3]["message"].endswith("pods. has 1 resource instances")


async def test_a_terminating_namespace_is_emptied_and_goes(world: World) -> None:
    world.start("namespace-controller")
    await world.client.create(NAMESPACES, {"metadata": {"name": "doomed"}})
    await world.client.create(CONFIGMAPS, {"metadata": {"name": "a"}}, "doomed")
    await world.client.create(SECRETS, {"metadata": {"name": "b"}}, "doomed")
    await world.client.create(CONFIGMAPS, {"metadata": {"name": "kept"}}, "default")
    await world.settle()
    assert await world.names(CONFIGMAPS, "doomed") == ["a"], "nothing happens before it is deleted"
    await world.client.delete(NAMESPACES, "doomed")
    await world.settle()
    assert "doomed" not in await world.names(NAMESPACES)
    assert await world.names(CONFIGMAPS, "default") == ["kept"]


async def test_pods_go_first_and_finalizers_are_waited_for(world: World) -> None:
    world.start("namespace-controller")
    await world.client.create(NAMESPACES, {"metadata": {"name": "doomed"}})
    await world.client.create(PODS, pod("running"), "doomed")
    await world.make_ready(await world.get(PODS, "running", "doomed"))
    held = {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    await world.client.create(CONFIGMAPS, held, "doomed")
    await world.client.delete(NAMESPACES, "doomed")
    await world.settle()
    assert "deletionTimestamp" not in (await world.get(CONFIGMAPS, "held", "doomed"))["metadata"]
    found = {each["type"]: each for each in (await world.get(NAMESPACES, "doomed"))["status"]["conditions"]}
    assert "pods. has 1 resource instances" in found["NamespaceContentRemaining"]["message"]
    await world.client.delete(PODS, "running", "doomed", grace_seconds=0)
    await world.settle(20)
    found = {each["type"]: each for each in (await world.get(NAMESPACES, "doomed"))["status"]["conditions"]}
    assert found["NamespaceFinalizersRemaining"]["message"].endswith("example.com/hold in 1 resource instances")
    await world.client.patch(CONFIGMAPS, "held", "doomed", {"metadata": {"finalizers": None}})
    await world.settle(30)
    with pytest.raises(ApiError, match="not found"):
        await world.get(NAMESPACES, "doomed")


async def test_every_namespace_gets_its_service_account_and_the_root_certificate(world: World) -> None:
    world.start("serviceaccount-controller", "root-ca-certificate-publisher-controller", **{"root-ca": "PEM"})
    await world.client.create(NAMESPACES, {"metadata": {"name": "fresh"}})
    await world.settle()
    assert await world.names(SERVICEACCOUNTS, "fresh") == ["default"]
    assert (await world.get(CONFIGMAPS, "kube-root-ca.crt", "fresh"))["data"] == {"ca.crt": "PEM"}
    await world.client.delete(SERVICEACCOUNTS, "default", "fresh")
    await world.client.patch(CONFIGMAPS, "kube-root-ca.crt", "fresh", {"data": {"ca.crt": "evil", "x": "y"}})
    await world.settle()
    assert await world.names(SERVICEACCOUNTS, "fresh") == ["default"]
    assert (await world.get(CONFIGMAPS, "kube-root-ca.crt", "fresh"))["data"] == {"ca.crt": "PEM"}
    await world.client.delete(CONFIGMAPS, "kube-root-ca.crt", "fresh")
    await world.settle()
    assert "kube-root-ca.crt" in await world.names(CONFIGMAPS, "fresh")


async def test_services_are_deleted_too(world: World) -> None:
    world.start("namespace-controller")
    await world.client.create(NAMESPACES, {"metadata": {"name": "doomed"}})
    await world.client.create(SERVICES, service(), "doomed")
    await world.client.delete(NAMESPACES, "doomed")
    await world.settle()
    assert "doomed" not in await world.names(NAMESPACES)
