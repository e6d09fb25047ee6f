"""Claims of generic ephemeral volumes: made for their pod, never taken from somebody else."""

from __future__ import annotations

from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PODS, Object

from .conftest import World

SPEC = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}


def wanted() -> Object:
    template = {"metadata": {"labels": {"kind": "scratch"}}, "spec": SPEC}
    volume = {"name": "data", "ephemeral": {"volumeClaimTemplate": template}}
    spec = {"containers": [{"name": "main", "image": "x"}], "volumes": [volume, {"name": "other", "emptyDir": {}}]}
    return {"metadata": {"name": "web"}, "spec": spec}


async def test_a_pod_gets_its_claim_and_takes_it_along(world: World) -> None:
    world.start("ephemeral-volume-controller", "garbage-collector-controller")
    pod = await world.client.create(PODS, wanted(), "default")
    await world.settle()
    (claim,) = await world.list(PERSISTENTVOLUMECLAIMS)
    assert (claim["metadata"]["name"], claim["metadata"]["labels"]) == ("web-data", {"kind": "scratch"})
    assert claim["spec"]["resources"] == SPEC["resources"]
    (owner,) = claim["metadata"]["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (pod["metadata"]["uid"], True)
    await world.client.delete(PODS, "web", "default", grace_seconds=0)
    await world.settle(60)
    left = await world.list(PERSISTENTVOLUMECLAIMS)
    assert [each for each in left if not each["metadata"].get("deletionTimestamp")] == []


async def test_somebody_elses_claim_is_left_alone(world: World) -> None:
    world.start("ephemeral-volume-controller")
    mine = {"metadata": {"name": "web-data"}, "spec": SPEC}
    await world.client.create(PERSISTENTVOLUMECLAIMS, mine, "default")
    await world.client.create(PODS, wanted(), "default")
    await world.settle()
    (claim,) = await world.list(PERSISTENTVOLUMECLAIMS)
    assert not claim["metadata"].get("ownerReferences")
    text = "ephemeral volume data: PVC default/web-data was not created for pod default/web (pod is not owner)"
    assert ("FailedBinding", text) in await world.events()
