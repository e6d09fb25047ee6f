from __future__ import annotations

from typing import Any

from steersman.api.resource import PODS, Object
from steersman.client.deviceclaims import CLAIMS, RULES, SLICES

from .conftest import World
from .objects import pod

DRIVER = "gpu.example.com"
DEVICE = {"driver": DRIVER, "pool": "p", "device": "d"}


def a_slice(**device: Any) -> Object:
    pool = {"name": "p", "resourceSliceCount": 1}
    return {
        "metadata": {"name": "s"},
        "spec": {"driver": DRIVER, "pool": pool, "allNodes": True, "devices": [{"name": "d", **device}]},
    }


async def using(world: World, name: str, *tolerations: Object) -> Object:
    """A running pod whose claim has the device."""
    spec = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}
    claim = await world.client.create(CLAIMS, {"metadata": {"name": name}, "spec": spec}, "default")
    made = pod(name, resourceClaims=[{"name": "card", "resourceClaimName": name}])
    made = await world.make_ready(await world.client.create(PODS, made, "default"))
    user = {"resource": "pods", "name": name, "uid": made["metadata"]["uid"]}
    result = {"request": "r", **DEVICE, "tolerations": list(tolerations)}
    await world.set_status(CLAIMS, claim, allocation={"devices": {"results": [result]}}, reservedFor=[user])
    return made


def tolerating(seconds: int | None = None) -> Object:
    found: Object = {"key": "broken", "operator": "Exists", "effect": "NoExecute"}
    return found if seconds is None else {**found, "tolerationSeconds": seconds}


async def leaving(world: World) -> list[str]:
    pods = await world.list(PODS)
    return sorted(each["metadata"]["name"] for each in pods if each["metadata"].get("deletionTimestamp"))


async def taint(world: World, *taints: Object) -> None:
    """The driver says that its device is so."""
    found = await world.get(SLICES, "s")
    await world.client.update(
        SLICES, {**found, "spec": {**found["spec"], "devices": [{"name": "d", "taints": list(taints)}]}}
    )


async def test_users_of_a_tainted_device_leave_it(world: World) -> None:
    world.start("device-taint-eviction-controller")
    await world.client.create(SLICES, a_slice())
    for name, tolerations in (("never", []), ("later", [tolerating(60)]), ("always", [tolerating()])):
        await using(world, name, *tolerations)
    await world.client.create(PODS, pod("nobody"), "default")
    await taint(world, {"key": "broken", "effect": "NoSchedule"}, {"key": "noted", "effect": "None"})
    await world.settle(300)
    assert await leaving(world) == []
    await taint(world, {"key": "broken", "effect": "NoExecute"})
    await world.settle(30)
    assert await leaving(world) == ["never"]
    gone = await world.get(PODS, "never")
    condition = next(each for each in gone["status"]["conditions"] if each["type"] == "DisruptionTarget")
    assert (condition["reason"], condition["message"]) == (
        "DeletionByDeviceTaintManager",
        "Device Taint manager: deleting due to NoExecute taint",
    )
    await world.settle(60)
    assert await leaving(world) == ["later", "never"]
    assert ("DeviceTaintManagerEviction", "Marking for deletion") in await world.events()


async def test_a_taint_that_goes_in_time_costs_nothing(world: World) -> None:
    world.start("device-taint-eviction-controller")
    await world.client.create(SLICES, a_slice(taints=[{"key": "broken", "effect": "NoExecute"}]))
    assert (await world.get(SLICES, "s"))["spec"]["devices"][0]["taints"][0]["timeAdded"]
    await using(world, "later", tolerating(60))
    await world.settle(30)
    await taint(world)
    await world.settle(300)
    assert await leaving(world) == []
    assert ("DeviceTaintManagerEviction", "Cancelling deletion") in await world.events()


async def test_rules_taint_devices_too(world: World) -> None:
    world.start("device-taint-eviction-controller")
    await world.client.create(SLICES, a_slice())
    await using(world, "never")
    await using(world, "always", tolerating())
    taint = {"key": "broken", "effect": "NoExecute"}
    for name, selector in (("all", None), ("other", {"driver": "other.example.com"})):
        spec = {"taint": taint} if selector is None else {"taint": taint, "deviceSelector": selector}
        await world.client.create(RULES, {"metadata": {"name": name}, "spec": spec})
    await world.settle(30)
    assert await leaving(world) == [], "a rule that selects nothing in particular evicts nobody"
    await world.client.create(
        RULES, {"metadata": {"name": "r"}, "spec": {"taint": taint, "deviceSelector": {"pool": "p"}}}
    )
    await world.settle(30)
    assert await leaving(world) == ["never"]
    assert await state(world, "r") == ("False", "Completed", "1 pod evicted since starting the controller.")
    assert await state(world, "other") == ("False", "NotStarted", "")


async def state(world: World, rule: str) -> tuple[str, str, str]:
    """What a rule's condition says."""
    (found,) = (await world.get(RULES, rule))["status"]["conditions"]
    assert found["type"] == "EvictionInProgress"
    return found["status"], found["reason"], found.get("message", "")


async def test_rules_tell_what_they_do(world: World) -> None:
    world.start("device-taint-eviction-controller")
    await world.client.create(SLICES, a_slice())
    await using(world, "later", tolerating(100))
    await using(world, "always", tolerating())
    for name, effect in (("tries", "None"), ("keeps", "NoSchedule"), ("evicts", "NoExecute")):
        spec = {"taint": {"key": "broken", "effect": effect}, "deviceSelector": {"driver": DRIVER}}
        await world.client.create(RULES, {"metadata": {"name": name}, "spec": spec})
    await world.settle(20)
    assert await state(world, "tries") == (
        "False",
        "NoEffect",
        "1 published device selected. 2 allocated devices selected. 1 pod would be evicted in 1 namespace if the "
        "effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule to trigger an "
        "update.",
    )
    text = "Eviction only happens for the NoExecute effect."
    assert await state(world, "keeps") == ("False", "OtherEffect", text)
    pending = "1 pod needs to be evicted in 1 namespace."
    assert await state(world, "evicts") == ("True", "PodsPendingEviction", pending)
    await world.settle(120)
    text = "1 pod evicted since starting the controller."
    assert await state(world, "evicts") == ("False", "Completed", text)
