"""More of what kube-controller-manager 1.36 was seen to write, beside ours, and of what its source says."""

from __future__ import annotations

from typing import Any

from steersman.api.resource import CONFIGMAPS, EVENTS, NODES, PODDISRUPTIONBUDGETS, PODS, SERVICEACCOUNTS, Object
from steersman.client.deviceclaims import CLAIMS, TEMPLATES
from steersman.controllers.endpointslicemirroring import groups_of
from steersman.controllers.servicecidr import SERVICECIDRS
from steersman.lib.clock import rfc3339

from .conftest import World
from .objects import pod


def managers(obj: Object) -> set[tuple[str, str, str]]:
    """Who wrote to an object, how, and to which part."""
    fields = obj["metadata"].get("managedFields") or ()
    return {(each["manager"], each["operation"], each.get("subresource", "")) for each in fields}


async def test_a_node_that_has_said_nothing_yet_is_not_tainted(world: World) -> None:
    world.start("node-lifecycle-controller")
    await world.client.create(NODES, {"metadata": {"name": "new"}})
    await world.settle(30)
    assert "taints" not in (await world.get(NODES, "new"))["spec"]
    await world.settle(40)
    assert (await world.get(NODES, "new"))["spec"]["taints"][0]["key"] == "node.kubernetes.io/unreachable"


def owned(name: str, version: str, kind: str, uid: str = "u") -> Object:
    made = pod(name)
    reference = {"apiVersion": version, "kind": kind, "name": "owner", "uid": uid, "controller": True}
    return made | {"metadata": {**made["metadata"], "ownerReferences": [reference]}}


async def budget(world: World, **meta: Any) -> None:
    body = {"metadata": {"name": "b", **meta}, "spec": {"maxUnavailable": 1, "selector": {}}}
    await world.client.create(PODDISRUPTIONBUDGETS, body, "default")


async def condition(world: World) -> Object:
    [found] = (await world.get(PODDISRUPTIONBUDGETS, "b"))["status"]["conditions"]
    return found


async def test_a_budget_of_pods_whose_owners_kind_nobody_serves(world: World) -> None:
    world.start("disruption-controller")
    await world.client.create(PODS, owned("a", "foo.example/v1", "Foo"), "default")
    await budget(world)
    await world.settle()
    found = await condition(world)
    text = 'no matches for kind "Foo" in version "foo.example/v1"'
    assert (found["reason"], found["message"], found.get("observedGeneration")) == ("SyncFailed", text, None)
    assert ("CalculateExpectedPodCountFailed", f"Failed to calculate the number of expected pods: {text}") in (
        await world.events()
    )


async def test_a_budget_of_pods_whose_owners_have_no_size(world: World) -> None:
    world.start("disruption-controller")
    await world.client.create(SERVICEACCOUNTS, {"metadata": {"name": "owner"}}, "default")
    await world.client.create(PODS, owned("a", "v1", "ServiceAccount"), "default")
    await budget(world)
    await world.settle()
    assert (await condition(world))["message"] == "serviceaccounts does not implement the scale subresource"


async def test_a_budget_works_until_it_is_gone(world: World) -> None:
    world.start("disruption-controller")
    await budget(world, finalizers=["example.com/stay"])
    await world.settle()
    await world.client.delete(PODDISRUPTIONBUDGETS, "b", "default")
    await world.client.create(PODS, pod("a"), "default")
    await world.settle()
    assert ("UnmanagedPods" in [reason for reason, _ in await world.events()]) is True


async def test_what_a_kubelet_says_of_a_disruption_is_never_stale(world: World) -> None:
    world.start("disruption-controller")
    made = await world.client.create(PODS, pod("a"), "default")
    target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
    await world.set_status(PODS, made, conditions=[{**target, "lastTransitionTime": rfc3339(world.clock.now())}])
    await world.settle(200)
    [found] = (await world.get(PODS, "a"))["status"]["conditions"]
    assert found["status"] == "True"


async def test_who_writes_what_is_applied(world: World) -> None:
    world.start("resourceclaim-controller", "service-cidr-controller")
    await world.client.create(SERVICECIDRS, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.77.0.0/24"]}})
    request = {"name": "r", "exactly": {"deviceClassName": "x"}}
    template = {"metadata": {"name": "t"}, "spec": {"spec": {"devices": {"requests": [request]}}}}
    await world.client.create(TEMPLATES, template, "default")
    asked = [{"name": name, "resourceClaimTemplateName": "t"} for name in ("one", "two")]
    await world.client.create(PODS, pod("a", resourceClaims=asked), "default")
    await world.settle()
    found = await world.get(PODS, "a")
    names = {each["name"]: each["resourceClaimName"] for each in found["status"]["resourceClaimStatuses"]}
    assert ("ResourceClaimController", "Apply", "status") in managers(found)
    assert ("service-cidr-controller", "Apply", "status") in managers(await world.get(SERVICECIDRS, "more"))
    await world.client.delete(CLAIMS, names["one"], "default")
    await world.settle()
    again = (await world.get(PODS, "a"))["status"]["resourceClaimStatuses"]
    assert {each["name"]: each["resourceClaimName"] == names[each["name"]] for each in again} == {
        "one": False,
        "two": True,
    }


async def test_how_long_a_pod_stays_beside_a_taint_of_a_user(world: World) -> None:
    world.start("taint-eviction-controller")
    taint = {"key": "evict", "effect": "NoExecute"}  # as kubectl taint has it: without a time
    await world.client.create(NODES, {"metadata": {"name": "node-1"}})
    patience = {"key": "evict", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    await world.make_ready(await world.client.create(PODS, pod("a", tolerations=[patience]), "default"))
    await world.client.patch(NODES, "node-1", "", {"spec": {"taints": [taint]}})
    await world.settle(20)
    await world.client.patch(PODS, "a", "default", {"metadata": {"labels": {"color": "blue"}}})
    await world.settle(5)
    assert not (await world.get(PODS, "a"))["metadata"].get("deletionTimestamp")
    await world.settle(10)
    assert ("TaintManagerEviction", "Marking for deletion Pod default/a") in await world.events()


async def test_a_pod_that_comes_to_a_tainted_node_has_its_whole_time(world: World) -> None:
    world.start("taint-eviction-controller")
    long_ago = rfc3339(world.clock.now() - 3600)
    taint = {"key": "evict", "effect": "NoExecute", "timeAdded": long_ago}
    await world.client.create(NODES, {"metadata": {"name": "node-1"}, "spec": {"taints": [taint]}})
    patience = {"key": "evict", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30}
    await world.make_ready(await world.client.create(PODS, pod("a", tolerations=[patience]), "default"))
    await world.settle(25)
    assert not (await world.get(PODS, "a"))["metadata"].get("deletionTimestamp")
    await world.settle(10)
    assert (await world.names(PODS)) == [] or (await world.get(PODS, "a"))["metadata"].get("deletionTimestamp")


async def test_only_a_node_that_was_ready_is_told_to_be_so_no_more(world: World) -> None:
    world.start("node-lifecycle-controller")
    for name, status in (("well", "True"), ("ill", "False")):
        made = await world.client.create(NODES, {"metadata": {"name": name}})
        stamp = rfc3339(world.clock.now())
        ready = {"type": "Ready", "status": status, "lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
        await world.set_status(NODES, made, conditions=[ready])
    await world.settle(70)
    told = [message for reason, message in await world.events() if reason == "NodeNotReady"]
    assert told == ["Node well status is now: NodeNotReady"]


async def test_an_owner_in_a_namespace_is_no_owner_outside_and_that_is_told_once(world: World) -> None:
    world.start("garbage-collector-controller")
    made = await world.client.create(CONFIGMAPS, {"metadata": {"name": "there"}}, "default")
    for name, uid in (("there", made["metadata"]["uid"]), ("nobody", "11111111-1111-1111-1111-111111111114")):
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid}
        await world.client.create(NODES, {"metadata": {"name": f"of-{name}", "ownerReferences": [reference]}})
    await world.settle(600)
    assert len(await world.list(NODES)) == 2
    await world.recorder.flush()
    told = [each for each in await world.list(EVENTS) if each["reason"] == "OwnerRefInvalidNamespace"]
    assert [(each["involvedObject"]["name"], each["count"]) for each in told] == [("of-there", 1)]


def test_mirrors_put_ports_with_the_same_addresses_together() -> None:
    named = {"ip": "192.0.2.1", "hostname": "h"}
    found = groups_of(
        {
            "subsets": [
                {"addresses": [named, {"ip": "192.0.2.2"}], "ports": [{"port": 80, "name": "a"}]},
                {"addresses": [{"ip": "192.0.2.2"}, {"ip": "192.0.2.1"}], "ports": [{"port": 81, "name": "b"}]},
                {"notReadyAddresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 82, "name": "c"}]},
                {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 82, "name": "c"}]},
                {"addresses": [{"ip": "2001:db8::1"}]},
            ]
        }
    )
    shape = [([port["name"] for port in each.ports], [one["addresses"] for one in each.endpoints]) for each in found]
    assert shape == [(["a", "b"], [["192.0.2.1"], ["192.0.2.2"]]), (["c"], [["192.0.2.1"]]), ([], [["2001:db8::1"]])]
    assert [each.get("hostname") for each in found[0].endpoints] == ["h", None]
    assert found[1].endpoints == [{"addresses": ["192.0.2.1"], "conditions": {"ready": False}, "hostname": "h"}]


async def test_pods_of_a_node_that_says_it_is_not_ready_are_its_kubelets(world: World) -> None:
    world.start("node-lifecycle-controller", **{"node-monitor-grace-period": "100"})
    made = await world.client.create(NODES, {"metadata": {"name": "node-1"}})
    stamp = rfc3339(world.clock.now())
    ready = {"type": "Ready", "lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
    await world.set_status(NODES, made, conditions=[ready | {"status": "True"}])
    await world.make_ready(await world.client.create(PODS, pod("a"), "default"))
    await world.settle(60)
    made = await world.get(NODES, "node-1")
    stamp = rfc3339(world.clock.now())
    told = [
        {**each, "status": "False", "lastHeartbeatTime": stamp} if each["type"] == "Ready" else each
        for each in made["status"]["conditions"]
    ]
    await world.set_status(NODES, made, conditions=told)
    await world.settle()
    [found] = (await world.get(PODS, "a"))["status"]["conditions"]
    assert found["status"] == "True"
    await world.settle(110)
    [found] = (await world.get(PODS, "a"))["status"]["conditions"]
    assert found["status"] == "False"


async def test_a_binding_says_of_no_generation_that_a_pod_is_scheduled(world: World) -> None:
    made = await world.client.create(PODS, pod("a"), "default")
    stamp = rfc3339(world.clock.now())
    before = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "observedGeneration": 1},
        {"type": "Other", "status": "True", "lastTransitionTime": stamp},
    ]
    await world.set_status(PODS, made, conditions=before)
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}}
    await world.client.create(PODS, body, "default", name="a", subresource="binding")
    first, second = (await world.get(PODS, "a"))["status"]["conditions"]
    assert second["type"] == "Other"
    assert {key: first.get(key) for key in ("type", "status", "reason", "observedGeneration")} == {
        "type": "PodScheduled",
        "status": "True",
        "reason": None,
        "observedGeneration": None,
    }
