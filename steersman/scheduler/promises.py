"""Devices that were promised to a pod's claims: written before the pod is bound, given back when it is not.

Owns the writes to claims (finalizer, allocation, reservation, deallocation) and the wait until devices are ready
(KEP-5007). Called by the plugin DynamicResources. Source: kube-scheduler's plugins/dynamicresources (bindClaim).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steersman.api.errors import ApiError
from steersman.api.resource import PODS, Object
from steersman.api.validation import quote
from steersman.client.client import Client
from steersman.client.deviceclaims import CLAIMS, FINALIZER, allocation, reserved_for
from steersman.lib.clock import parse_rfc3339, rfc3339
from steersman.scheduler.allocator import key
from steersman.scheduler.devices import Devices
from steersman.scheduler.extended import UNNAMED
from steersman.scheduler.framework import Reserved
from steersman.scheduler.podinfo import PodInfo

_ATTEMPTS = 5  # at a write that others overtake
_LATE = "device binding timeout"


@dataclass(frozen=True, slots=True)
class Promise:
    """What a claim will be given."""

    claim: Object
    given: Object


@dataclass(slots=True)
class Taken:
    """What one pod took, as a `Reservation`. `patience`: seconds until devices must be ready."""

    devices: Devices
    pod: PodInfo
    node: str
    claims: Sequence[Object]
    promises: Sequence[Promise]
    patience: float
    uses: Sequence[Object] = ()  # by which requests of the last claim containers have their extended resources
    made: Object | None = None  # the claim for extended resources, once it is there
    written: dict[str, Object] = field(default_factory=dict)  # by uid, as they are now

    def undo(self) -> None:
        """Nobody gets what was promised."""
        for each in self.promises:
            self.devices.take_back(each.claim)

    async def release(self, client: Client) -> None:
        """The pod's reservations end; allocations stay with their claims. Raises ApiError, OSError."""
        if self.made is not None:
            await delete(client, await client.get(CLAIMS, self.made["metadata"]["name"], self.pod.namespace))
        for known in self.claims:
            claim = self.written.get(known["metadata"]["uid"], known)
            meta = claim["metadata"]
            if meta["name"] == UNNAMED or not allocation(claim) or not reserved_for(claim, self.pod.pod):
                continue
            gone = [{"$patch": "delete", "uid": self.pod.uid}]
            body = {"metadata": {"uid": meta["uid"]}, "status": {"reservedFor": gone}}
            await client.patch(CLAIMS, meta["name"], meta["namespace"], body, type="strategic", subresource="status")

    async def settle(self, client: Client, tell: Callable[[str, str], None]) -> None:
        """Write allocations and reservations, then wait until devices are ready. Raises Reserved, ApiError, OSError."""
        promised = {each.claim["metadata"]["uid"]: each for each in self.promises}
        written = []
        for claim in self.claims:
            promise = promised.get(claim["metadata"]["uid"])
            if promise is not None and promise.claim["metadata"]["name"] == UNNAMED:
                written.append(await self._extended(client, promise))
            elif reserved_for(claim, self.pod.pod):
                written.append(claim)
            else:
                written.append(await self._bind(client, claim, promise))
        if any(_conditional(claim) for claim in written):
            tell("BindingConditionsPending", f"waiting for binding conditions for device on node {self.node}")
            await self._ready(written)

    async def _extended(self, client: Client, promise: Promise) -> Object:
        """Make the claim for extended resources, and tell the pod of it."""
        asked = promise.claim
        meta = {key: asked["metadata"][key] for key in ("generateName", "ownerReferences", "annotations")}
        made = await client.create(CLAIMS, {"metadata": meta, "spec": asked["spec"]}, self.pod.namespace)
        self.made = made
        claim = await self._bind(client, made, Promise(made, promise.given))
        self.devices.handed_over(asked, claim)
        told = {"requestMappings": list(self.uses), "resourceClaimName": claim["metadata"]["name"]}
        body = {"metadata": {"uid": self.pod.uid}, "status": {"extendedResourceClaimStatus": told}}
        await client.patch(PODS, self.pod.name, self.pod.namespace, body, type="strategic", subresource="status")
        return claim

    async def _bind(self, client: Client, claim: Object, promise: Promise | None) -> Object:
        for attempt in range(_ATTEMPTS):
            try:
                if attempt:
                    claim = await client.get(CLAIMS, claim["metadata"]["name"], claim["metadata"]["namespace"])
                return await self._write(client, claim, promise)
            except ApiError as error:
                if error.code != 409 or attempt + 1 == _ATTEMPTS:
                    doing = "add allocation and reservation" if promise is not None else "add reservation"
                    raise Reserved(f"{doing} to claim {key(claim)}: {error}") from error
        raise AssertionError("the last attempt returns or raises")

    async def _write(self, client: Client, claim: Object, promise: Promise | None) -> Object:
        meta = claim["metadata"]
        if "deletionTimestamp" in meta:
            raise Reserved(f"claim {key(claim)} got deleted in the meantime")
        given = allocation(claim)
        if promise is not None:
            if given:
                raise Reserved(f"claim {key(claim)} got allocated elsewhere in the meantime")
            if FINALIZER not in (meta.get("finalizers") or ()):
                held = {**meta, "finalizers": [*(meta.get("finalizers") or ()), FINALIZER]}
                claim = await client.update(CLAIMS, {**claim, "metadata": held})
            given = promise.given
        if not given:
            raise Reserved(f"claim {key(claim)} got deallocated elsewhere in the meantime")
        if not given.get("allocationTimestamp"):
            given = {**given, "allocationTimestamp": rfc3339(self.devices.clock.now())}
        user = {"resource": "pods", "name": self.pod.name, "uid": self.pod.uid}
        status = claim.get("status") or {}
        status = {**status, "allocation": given, "reservedFor": [*(status.get("reservedFor") or ()), user]}
        claim = await client.update(CLAIMS, {**claim, "status": status}, subresource="status")
        self.written[claim["metadata"]["uid"]] = claim
        if promise is not None:
            self.devices.written(claim, claim["metadata"]["resourceVersion"])
        return claim

    async def _ready(self, claims: Sequence[Object]) -> None:
        """Wait until every device's conditions say that it can be used."""
        changed = asyncio.Event()
        stop = self.devices.listen(changed.set)
        names = [(claim["metadata"]["namespace"], claim["metadata"]["name"]) for claim in claims]
        floor = dict(zip(names, claims, strict=True))
        try:
            async with asyncio.timeout(self.patience):
                while True:
                    changed.clear()
                    states = [self._state(name, floor[name]) for name in names]
                    if failed := next((each for each in states if each not in ("", "waiting")), None):
                        raise Reserved(failed)
                    if not any(states):
                        return
                    await changed.wait()
        except TimeoutError:
            raise Reserved(f"{_LATE}: context deadline exceeded") from None
        finally:
            stop()

    def _state(self, name: tuple[str, str], written: Object) -> str:
        now = self.devices.claims.get(name)
        if now is None or not allocation(now):
            now = written  # the informer has not told of it yet
        return readiness(now, self.patience, self.devices.clock.now())


def readiness(claim: Object, patience: float, now: float) -> str:
    """Whether devices that were given can be used: empty, `waiting`, or what is wrong. `now`: Unix seconds."""
    given = allocation(claim) or {}
    states = (claim.get("status") or {}).get("devices") or ()
    for result in (given.get("devices") or {}).get("results") or ():
        wanted = result.get("bindingConditions")
        if not wanted:
            continue
        mine = [each for each in states if all(each.get(part) == result[part] for part in ("driver", "pool", "device"))]
        conditions = {each["type"]: each for each in (mine[0].get("conditions") or ())} if mine else {}
        for name in result.get("bindingFailureConditions") or ():
            if (found := conditions.get(name, {})).get("status") == "True":
                why = f"reason={found.get('reason', '')}, message={quote(found.get('message', ''))}"
                return f"device binding failed: claim={claim['metadata']['name']}, {why}"
        if mine and all(conditions.get(name, {}).get("status") == "True" for name in wanted):
            continue
        began = given.get("allocationTimestamp")
        if began and parse_rfc3339(began) + patience < now:
            return f"{_LATE}: claim={claim['metadata']['name']}"
        return "waiting"
    return ""


def _conditional(claim: Object) -> bool:
    results = ((allocation(claim) or {}).get("devices") or {}).get("results") or ()
    return any(each.get("bindingConditions") for each in results)


async def deallocate(client: Client, claim: Object) -> None:
    """Take a claim's devices from it. Raises ApiError, OSError."""
    status = {k: v for k, v in (claim.get("status") or {}).items() if k not in ("allocation", "reservedFor", "devices")}
    await client.update(CLAIMS, {**claim, "status": status}, subresource="status")


async def delete(client: Client, claim: Object) -> None:
    """Delete what an attempt that failed has left. Raises ApiError, OSError."""
    meta = claim["metadata"]
    kept = [each for each in meta.get("finalizers") or () if each != FINALIZER]
    if len(kept) < len(meta.get("finalizers") or ()):
        await client.update(CLAIMS, {**claim, "metadata": {**meta, "finalizers": kept}})
    await client.delete(CLAIMS, meta["name"], meta["namespace"], uid=meta["uid"])
