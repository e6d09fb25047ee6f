"""Claims of devices, what drivers publish, and who has what: as scheduling needs them.

Owns the copies of claims, classes and slices, what was promised to claims and is not written yet, and which devices are
taken. The observer tells, the plugin DynamicResources asks. Source: kube-scheduler's plugins/dynamicresources (claim
tracker, allocated devices), KEP-4381.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steersman.api.quantity import parse
from steersman.api.resource import Object
from steersman.client.deviceclaims import EXTENDED, allocation, is_for, ruled
from steersman.lib.clock import Clock, SystemClock
from steersman.scheduler.extended import classes_by_resource
from steersman.scheduler.inventory import Device, DeviceId, Pool, PoolId, Slice, pools
from steersman.scheduler.listeners import Listeners

Key = tuple[str, str]  # namespace and name
_KINDS = 16  # of pods that are remembered


class Devices:
    """See the module. `changes` counts what could make another choice the right one."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.claims: dict[Key, Object] = {}
        self.classes: dict[str, Object] = {}
        self.by_resource: dict[str, str] = {}  # classes, by the extended resources that they stand for
        self.changes = 0
        self.memo: Any = None  # what the plugin has worked out last
        self._outcomes: dict[bytes, dict[tuple[Slice, ...], Any]] = {}  # by kind of pod, for pods alike
        self._used: dict[PoolId, int] = {}  # how often who has what of a pool changed
        self._rules: dict[str, Object] = {}  # that taint devices
        self._slices: dict[str, Slice] = {}
        self._of_pool: dict[PoolId, dict[str, Slice]] = {}
        self._local: dict[str, dict[str, Slice]] = {}  # by node
        self._wide: dict[str, Slice] = {}  # for more nodes than one
        self._published = 0  # how often slices changed
        self._reached: dict[str, tuple[int, Object, tuple[Slice, ...]]] = {}  # by node: what was worked out, for what
        self._pools: dict[tuple[Slice, ...], list[Pool]] = {}  # by the slices that a node reaches
        self._promised: dict[str, tuple[Object, Object, int | None]] = {}  # by uid: claim, allocation, version written
        self._counted: dict[str, Object] = {}  # by uid: the allocation that is counted
        self._holders: dict[DeviceId, int] = {}
        self._shares: dict[DeviceId, list[Mapping[str, int]]] = {}
        self._listeners = Listeners()

    # What the cluster has ------------------------------------------------------------------------------------------

    def set_claim(self, key: Key, claim: Object | None) -> None:
        """A claim as the API server has it; None when it is gone."""
        old = self.claims.pop(key, None)
        if claim is not None:
            self.claims[key] = claim
        if old is not None and (claim is None or claim["metadata"]["uid"] != old["metadata"]["uid"]):
            self._promised.pop(old["metadata"]["uid"], None)
            self._count(old["metadata"]["uid"], None)
        if claim is not None:
            uid = claim["metadata"]["uid"]
            promise = self._promised.get(uid)
            if promise is not None and (allocation(claim) or _reaches(claim, promise[2])):
                del self._promised[uid]
                promise = None
            self._count(uid, allocation(claim) or (promise[1] if promise is not None else None))
        self.changes += 1
        self._listeners.tell()

    def set_class(self, name: str, found: Object | None) -> bool:
        """A DeviceClass; None when it is gone. Whether extended resources mean something else now."""
        self.classes.pop(name, None)
        if found is not None:
            self.classes[name] = found
        self.changes += 1
        self._outcomes.clear()
        before, self.by_resource = self.by_resource, classes_by_resource(self.classes)
        return before != self.by_resource

    def set_rule(self, name: str, found: Object | None) -> None:
        """A DeviceTaintRule; None when it is gone."""
        self._rules.pop(name, None)
        if found is not None:
            self._rules[name] = found
        self._outcomes.clear()
        self.changes += 1

    def taints(self, device: Device) -> Sequence[Object]:
        """What its driver and rules say against its use."""
        if not self._rules:
            return device.taints
        return [*device.taints, *(each["spec"]["taint"] for each in self._rules.values() if ruled(each, *device.id))]

    def set_slice(self, name: str, found: Object | None) -> None:
        """A ResourceSlice; None when it is gone."""
        old = self._slices.pop(name, None)
        if old is not None:
            self._of_pool[old.pool].pop(name)
            for table in (self._local.get(old.where.node, {}), self._wide):
                table.pop(name, None)
        if found is not None:
            made = self._slices[name] = Slice(found)
            self._of_pool.setdefault(made.pool, {})[name] = made
            local = made.where.node and not made.counters
            (self._local.setdefault(made.where.node, {}) if local else self._wide)[name] = made
        self._published += 1
        self._pools.clear()
        self._outcomes.clear()
        self.changes += 1

    def pools(self, node: Object) -> tuple[tuple[Slice, ...], list[Pool]]:
        """The pools that a node can reach, and the slices that make them, which tell alike nodes."""
        name = node["metadata"]["name"]
        known = self._reached.get(name)
        if known is None or known[0] != self._published or known[1] is not node:
            mine = [each for table in (self._local.get(name, {}), self._wide) for each in table.values()]
            known = (self._published, node, tuple(each for each in mine if each.reaches(node)))
            self._reached[name] = known
        found = self._pools.get(known[2])
        if found is None:
            found = self._pools[known[2]] = pools(known[2], self._of_pool)
        return known[2], found

    def outcomes(self, kind: bytes) -> dict[tuple[Slice, ...], Any]:
        """What pods of a kind were told of slices, for the plugin to keep; gone when slices or classes change."""
        found = self._outcomes.pop(kind, None) or {}
        self._outcomes[kind] = found
        if len(self._outcomes) > _KINDS:
            del self._outcomes[next(iter(self._outcomes))]
        return found

    def stamp(self, slices: Sequence[Slice]) -> tuple[int, ...]:
        """The same as long as nothing of these pools is given away or comes back."""
        return tuple([self._used.get(each.pool, 0) for each in slices])

    def forget_node(self, name: str) -> None:
        """A node is gone."""
        self._reached.pop(name, None)

    # Who has what --------------------------------------------------------------------------------------------------

    def in_use(self, device: DeviceId) -> bool:
        """Whether a claim has it to itself."""
        return device in self._holders

    def consumed(self, device: DeviceId) -> Mapping[str, int] | None:
        """Billionths of its capacity that shares of it have; None where nobody has a share."""
        shares = self._shares.get(device)
        if not shares:
            return None
        total: dict[str, int] = {}
        for share in shares:
            for name, nanos in share.items():
                total[name] = total.get(name, 0) + nanos
        return total

    def promised(self, claim: Object) -> bool:
        """Whether the claim is being allocated for a pod."""
        return claim["metadata"]["uid"] in self._promised

    def promises(self) -> Mapping[str, Object]:
        """What claims will be given, by their uids."""
        return {uid: given for uid, (_, given, _) in self._promised.items()}

    def promise(self, claim: Object, given: Object) -> None:
        """Count on an allocation that will be written; `take_back` undoes it."""
        uid = claim["metadata"]["uid"]
        self._promised[uid] = (claim, given, None)
        self._count(uid, given)
        self.changes += 1

    def written(self, claim: Object, version: str) -> None:
        """The promise is kept: it ends once the API server has told of this version."""
        uid = claim["metadata"]["uid"]
        if (promise := self._promised.get(uid)) is None:
            return
        self._promised[uid] = (promise[0], promise[1], int(version))
        meta = claim["metadata"]
        if (now := self.claims.get((meta["namespace"], meta["name"]))) is not None and _reaches(now, int(version)):
            self.set_claim((meta["namespace"], meta["name"]), now)

    def handed_over(self, claim: Object, made: Object) -> None:
        """What was promised to a claim that had no name yet belongs to this one, which is written."""
        mine, uid = self._promised.pop(claim["metadata"]["uid"]), made["metadata"]["uid"]
        self._count(claim["metadata"]["uid"], None)
        if uid not in self._counted:
            self._promised[uid] = (made, mine[1], None)
            self._count(uid, mine[1])
            self.written(made, made["metadata"]["resourceVersion"])
        self.changes += 1

    def extended_claim(self, pod: Object) -> Object | None:
        """The claim that stands for a pod's extended resources."""
        space = pod["metadata"]["namespace"]
        return next(
            (
                each
                for (namespace, _), each in self.claims.items()
                if namespace == space
                and (each["metadata"].get("annotations") or {}).get(EXTENDED) == "true"
                and is_for(each, pod)
            ),
            None,
        )

    def take_back(self, claim: Object) -> None:
        """There will be no such allocation."""
        uid, meta = claim["metadata"]["uid"], claim["metadata"]
        if self._promised.pop(uid, None) is None:
            return
        now = self.claims.get((meta["namespace"], meta["name"]))
        self._count(uid, allocation(now) if now is not None and now["metadata"]["uid"] == uid else None)
        self.changes += 1

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever a claim changes, until what is returned is called."""
        return self._listeners.add(listener)

    def _count(self, uid: str, given: Object | None) -> None:
        """What a claim has from now on."""
        before = self._counted.pop(uid, None)
        if given is not None:
            self._counted[uid] = given
        if before is given:
            return
        for sign, each in ((-1, before), (1, given)):
            for result in _results(each):
                self._count_device(result, sign)

    def _count_device(self, result: Object, sign: int) -> None:
        device = DeviceId(result["driver"], result["pool"], result["device"])
        self._used[device[:2]] = self._used.get(device[:2], 0) + 1
        if result.get("shareID"):
            share = {name: parse(amount).nanos for name, amount in (result.get("consumedCapacity") or {}).items()}
            shares = self._shares.setdefault(device, [])
            if sign > 0:
                shares.append(share)
            elif share in shares:
                shares.remove(share)
            return
        count = self._holders.pop(device, 0) + sign
        if count > 0:
            self._holders[device] = count


def _results(given: Object | None) -> Sequence[Object]:
    found = ((given or {}).get("devices") or {}).get("results") or ()
    return [each for each in found if not each.get("adminAccess")]


def _reaches(claim: Object, version: int | None) -> bool:
    return version is not None and int(claim["metadata"].get("resourceVersion") or 0) >= version
