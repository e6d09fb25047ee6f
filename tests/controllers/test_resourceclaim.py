from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import PODS, Object
from steersman.client.deviceclaims import CLAIMS, FINALIZER, TEMPLATES
from steersman.controllers.resourceclaim import new_claim

from .conftest import World
from .objects import pod

SPEC = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}}]}}
TEMPLATE: Object = {"metadata": {"name": "gpu"}, "spec": {"metadata": {"labels": {"a": "b"}}, "spec": SPEC}}


def asking(name: str = "web") -> Object:
    made = pod(name, resourceClaims=[{"name": "card", "resourceClaimTemplateName": "gpu"}])
    made["spec"]["containers"][0]["resources"] = {"claims": [{"name": "card"}]}
    return made


async def claims(world: World) -> list[Object]:
    return await world.list(CLAIMS)


async def reserve(world: World, claim: Object, made: Object) -> None:
    """What the scheduler does."""
    meta = claim["metadata"]
    body: Any = {"metadata": {"finalizers": [FINALIZER]}}
    await world.client.patch(CLAIMS, meta["name"], meta["namespace"], body)
    user = {"resource": "pods", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
    device = {"request": "gpu", "driver": "example.com", "pool": "p", "device": "d"}
    status = {"allocation": {"devices": {"results": [device]}}, "reservedFor": [user]}
    await world.set_status(CLAIMS, claim, **status)


@pytest.mark.parametrize(
    ("name", "base"),
    [("web", "web-card-"), ("w" * 63, "w" * 52 + "-" + "card"[: 4 * 57 // 69])],
)
def test_the_name_of_a_claim(name: str, base: str) -> None:
    made = new_claim({"metadata": {"name": name, "uid": "u"}}, {"name": "card"}, TEMPLATE)
    assert made["metadata"]["generateName"] == base
    assert made["metadata"]["annotations"] == {"resource.kubernetes.io/pod-claim-name": "card"}
    assert made["metadata"]["labels"] == {"a": "b"}


async def test_a_claim_is_made_from_its_template_once(world: World) -> None:
    world.start("resourceclaim-controller")
    await world.client.create(PODS, asking(), "default")
    await world.settle()
    text = 'PodResourceClaim card: resource claim template "gpu": resourceclaimtemplate.resource.k8s.io "gpu" not found'
    assert ("FailedResourceClaimCreation", text) in await world.events()
    await world.settle(600)
    await world.client.create(TEMPLATES, TEMPLATE, "default")
    await world.settle(1)
    (made,) = await claims(world)
    found = await world.get(PODS, "web")
    assert found["status"]["resourceClaimStatuses"] == [{"name": "card", "resourceClaimName": made["metadata"]["name"]}]
    assert made["metadata"]["ownerReferences"][0]["uid"] == found["metadata"]["uid"]
    assert made["spec"]["devices"]["requests"][0]["name"] == "gpu"
    await world.client.delete(CLAIMS, made["metadata"]["name"], "default")
    await world.settle()
    (again,) = await claims(world)
    assert again["metadata"]["name"] != made["metadata"]["name"]


async def test_a_claim_is_freed_with_its_pod(world: World) -> None:
    world.start("resourceclaim-controller")
    await world.client.create(TEMPLATES, TEMPLATE, "default")
    made = await world.client.create(PODS, asking(), "default")
    shared = await world.client.create(CLAIMS, {"metadata": {"name": "shared"}, "spec": SPEC}, "default")
    await world.settle()
    (own,) = [each for each in await claims(world) if each["metadata"]["name"] != "shared"]
    await reserve(world, own, made)
    await reserve(world, shared, made)
    await world.settle()
    assert len(await claims(world)) == 2
    await world.set_status(PODS, made, phase="Succeeded")
    await world.settle()
    assert await world.names(CLAIMS) == ["shared"], "what was made for a pod goes when the pod has ended"
    await world.client.patch(CLAIMS, "shared", "default", {"metadata": {"labels": {"look": "again"}}})
    await world.settle()
    left = await world.get(CLAIMS, "shared")
    assert not left.get("status") and not left["metadata"].get("finalizers")


async def test_a_pod_past_the_scheduler_reserves_what_is_allocated(world: World) -> None:
    world.start("resourceclaim-controller")
    first = await world.client.create(PODS, pod("first"), "default")
    shared = await world.client.create(CLAIMS, {"metadata": {"name": "shared"}, "spec": SPEC}, "default")
    await reserve(world, shared, first)
    placed = pod("placed", resourceClaims=[{"name": "card", "resourceClaimName": "shared"}])
    placed["spec"]["nodeName"] = "node-1"
    made = await world.client.create(PODS, placed, "default")
    await world.settle()
    users = (await world.get(CLAIMS, "shared"))["status"]["reservedFor"]
    assert [each["uid"] for each in users] == [first["metadata"]["uid"], made["metadata"]["uid"]]
