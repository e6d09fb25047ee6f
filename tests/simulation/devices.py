"""What the simulation plays of claims of devices, of devices that break, and of policies that are looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import PODS, Object
from steersman.apiserver.paths import OpenApiPaths
from steersman.client.deviceclaims import CLAIMS, FINALIZER, SLICES, TEMPLATES, used_by
from steersman.controllers.validatingadmissionpolicystatus import POLICIES
from steersman.testing.objects import pod
from steersman.testing.simulation import Simulation

from .scenarios import NAMESPACE

_DRIVER = "gpu.example.com"
_SPEC: Object = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "gpu"}}]}}


async def _allocate(world: Simulation, claim: Object, user: Object, device: str, *tolerations: Object) -> None:
    """What the scheduler does."""
    meta = claim["metadata"]
    await world.client.patch(CLAIMS, meta["name"], NAMESPACE, {"metadata": {"finalizers": [FINALIZER]}})
    who = {"resource": "pods", "name": user["metadata"]["name"], "uid": user["metadata"]["uid"]}
    result = {"request": "gpu", "driver": _DRIVER, "pool": "p", "device": device, "tolerations": list(tolerations)}
    status = {"allocation": {"devices": {"results": [result]}}, "reservedFor": [who]}
    await world.client.patch(CLAIMS, meta["name"], NAMESPACE, {"status": status}, subresource="status")


class DeviceClaims:
    """Pods that want a device each: one claim a pod, which goes with it; a shared one is free when all have gone."""

    controllers: Sequence[str] = ("resourceclaim-controller", "garbage-collector-controller")

    def __init__(self, random: Random) -> None:
        self.there: set[str] = set()
        self.shares = random.random() < 0.5

    def start(self, world: Simulation) -> None:
        world.seen.informer(CLAIMS)

    async def _schedule(self, world: Simulation) -> None:
        """Every claim of a pod that has none allocated yet is, sooner or later."""
        while True:
            await world.clock.sleep(world.random.random() * 5)
            for each in world.all(PODS):
                for name, _ in used_by(each):
                    claim = world.seen.informer(CLAIMS).get(NAMESPACE, name)
                    if claim is None or (claim.get("status") or {}).get("allocation") or not pods.is_active(each):
                        continue
                    try:
                        await _allocate(world, claim, each, "d")
                    except ApiError as error:
                        assert error.code in (404, 409, 422), error

    async def play(self, world: Simulation) -> None:
        await world.client.create(TEMPLATES, {"metadata": {"name": "gpu"}, "spec": {"spec": _SPEC}}, NAMESPACE)
        await world.client.create(CLAIMS, {"metadata": {"name": "shared"}, "spec": _SPEC}, NAMESPACE)
        world.start(self._schedule(world), "scheduler")
        for number in range(world.random.randint(2, 7)):
            await world.pause(world.random.random() * 10)
            if self.there and world.random.random() < 0.5:
                self.there.discard(gone := min(self.there))
                await world.client.delete(PODS, gone, NAMESPACE)
            else:
                self.there.add(f"p-{number}")
                asked = [{"name": "card", "resourceClaimTemplateName": "gpu"}]
                asked += [{"name": "both", "resourceClaimName": "shared"}] if self.shares else []
                body = pod(f"p-{number}", resourceClaims=asked)
                body["spec"]["containers"][0]["resources"] = {"claims": [{"name": each["name"]} for each in asked]}
                await world.client.create(PODS, body, NAMESPACE)

    def complaint(self, world: Simulation) -> str:
        found = {each["metadata"]["name"]: each for each in world.all(CLAIMS)}
        shared = found.pop("shared", None)
        if shared is None:
            return "the shared claim is gone"
        users = {each["uid"] for each in (shared.get("status") or {}).get("reservedFor") or ()}
        living = {each["metadata"]["uid"] for each in world.all(PODS)}
        if not users <= living or (not users and (shared.get("status") or {}).get("allocation")):
            return f"the shared claim is {shared.get('status')}"
        wanted = {name for each in world.all(PODS) for name, made in used_by(each) if made}
        if world.twins:  # two that did not know of each other: the claim that no pod knows goes with its pod
            found = {name: each for name, each in found.items() if name in wanted}
        if len(wanted) != len(self.there) or set(found) != wanted:
            return f"claims {sorted(found)}, pods {sorted(self.there)} know {sorted(wanted)}"
        return ""


class TaintedDevices:
    """Devices that break and are mended: pods leave those that are broken, unless they bear it."""

    controllers: Sequence[str] = ("device-taint-eviction-controller",)

    def __init__(self, random: Random) -> None:
        self.bears = {f"p-{number}": random.choice((None, 0, 600)) for number in range(3)}
        self.broken: set[int] = set()
        self.ever: set[int] = set()

    def start(self, world: Simulation) -> None:
        world.seen.informer(CLAIMS)
        world.seen.informer(SLICES)
        world.always(PODS, lambda: self._lost(world))

    def _lost(self, world: Simulation) -> str:
        for each in world.all(PODS):
            name = each["metadata"]["name"]
            leaves = each["metadata"].get("deletionTimestamp")
            if leaves and (int(name[2:]) not in self.ever or self.bears[name] is None):
                return f"{name} leaves, whose device is fine or which bears it"
        return ""

    async def _devices(self, world: Simulation) -> None:
        taint = {"key": "broken", "effect": "NoExecute"}
        devices = [
            {"name": f"d-{number}", "taints": [taint]} if number in self.broken else {"name": f"d-{number}"}
            for number in range(3)
        ]
        pool = {"name": "p", "resourceSliceCount": 1, "generation": 1}
        spec = {"driver": _DRIVER, "pool": pool, "allNodes": True, "devices": devices}
        if not world.all(SLICES):
            await world.client.create(SLICES, {"metadata": {"name": "s"}, "spec": spec})
        else:
            await world.client.patch(SLICES, "s", "", {"spec": {"devices": devices}})

    async def play(self, world: Simulation) -> None:
        await self._devices(world)
        for number, (name, seconds) in enumerate(self.bears.items()):
            claim = await world.client.create(CLAIMS, {"metadata": {"name": name}, "spec": _SPEC}, NAMESPACE)
            body = pod(name, resourceClaims=[{"name": "card", "resourceClaimName": name}])
            made = await world.client.create(PODS, body, NAMESPACE)
            bears: Object = {"key": "broken", "operator": "Exists", "effect": "NoExecute"}
            if seconds is not None:
                bears["tolerationSeconds"] = seconds
            await _allocate(world, claim, made, f"d-{number}", bears)
        for _ in range(world.random.randint(1, 5)):
            await world.pause(world.random.random() * 60)
            self.broken ^= {world.random.randrange(3)}
            self.ever |= self.broken
            await self._devices(world)

    def complaint(self, world: Simulation) -> str:
        there = Counter(each["metadata"]["name"] for each in world.all(PODS))
        for number, (name, seconds) in enumerate(self.bears.items()):
            if number in self.broken and seconds is not None and there[name]:
                return f"{name} is on a broken device"
            if (number not in self.ever or seconds is None) and not there[name]:
                return f"{name} is gone"
        return ""


class Policies:
    """Policies that are written and changed: the status of each is of its newest text."""

    controllers: Sequence[str] = ("validatingadmissionpolicy-status-controller",)

    def __init__(self, random: Random) -> None:
        self.wrong: dict[str, bool] = {}

    def start(self, world: Simulation) -> None:
        world.seen.informer(POLICIES)
        server = world.cluster.server
        server.paths.append(OpenApiPaths(server.registry))

    async def play(self, world: Simulation) -> None:
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}
        for _ in range(world.random.randint(1, 5)):
            await world.pause(world.random.random() * 10)
            name, wrong = world.random.choice("ab"), world.random.random() < 0.5
            spec = {"matchConstraints": {"resourceRules": [rule]}, "failurePolicy": "Fail"}
            spec["validations"] = [{"expression": "object.data.a == 1" if wrong else "object.data.a == 'x'"}]
            if name in self.wrong:
                await world.client.patch(POLICIES, name, "", {"spec": spec})
            else:
                await world.client.create(POLICIES, {"metadata": {"name": name}, "spec": spec})
            self.wrong[name] = wrong

    def complaint(self, world: Simulation) -> str:
        for each in world.all(POLICIES):
            status, meta = each.get("status") or {}, each["metadata"]
            warned = bool((status.get("typeChecking") or {}).get("expressionWarnings"))
            if status.get("observedGeneration") != meta["generation"] or warned is not self.wrong[meta["name"]]:
                return f"{meta['name']}, generation {meta['generation']}, has {status}"
        return ""


DEVICES = (DeviceClaims, TaintedDevices, Policies)
