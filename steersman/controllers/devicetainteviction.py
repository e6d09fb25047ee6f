"""Device taint eviction: pods leave devices with a NoExecute taint that their claims do not tolerate, or not for ever.

Owns the deletion of such pods. Taints are those that drivers publish in ResourceSlices, and those of DeviceTaintRules,
which clusters have from 1.37 on; the rules' status is left alone. Source: KEP-5055, kubernetes'
pkg/controller/devicetainteviction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from steersman.api.errors import ApiError
from steersman.api.resource import PODS, Object
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of
from steersman.client.deviceclaims import (
    CLAIMS,
    RULES,
    SLICES,
    allocation,
    is_for,
    reserved_for,
    ruled,
    tolerates,
    used_by,
)
from steersman.client.workload import set_condition
from steersman.lib.clock import parse_rfc3339

_REASON = "DeviceTaintManagerEviction"
_EFFECT = "NoExecute"
_BY_POOL = "pool"
Seen = dict[tuple[str, ...], float]
"""When a taint of a device was first seen, for one that does not say when it was added."""


async def reconcile(context: Context, key: Key) -> Result:
    """Evict one pod if its time is up."""
    due: dict[Key, Seen] = context.memory.setdefault("due", {})
    pod = context.informer(PODS).get(*key)
    if pod is None or pod["metadata"].get("deletionTimestamp") or not pod["spec"].get("nodeName"):
        due.pop(key, None)
        return DONE
    seen: Seen = {}
    when = min(_ends(context, pod, due.get(key, {}), seen), default=None)
    if when is None:
        if due.pop(key, None) is not None:
            context.recorder.event(pod, "Normal", _REASON, "Cancelling deletion")
        return DONE
    if (left := when - context.clock.now()) > 0:
        due[key] = seen
        return Result(left)
    due.pop(key, None)
    await _evict(context, pod)
    return DONE


def _ends(context: Context, pod: Object, before: Seen, seen: Seen) -> Iterator[float]:
    """When the pod must leave each of its devices, in Unix seconds; fills `seen` from what was there `before`."""
    for name, made in used_by(pod):
        claim = context.informer(CLAIMS).get(pod["metadata"]["namespace"], name)
        if claim is None or (made and not is_for(claim, pod)) or not reserved_for(claim, pod):
            continue
        for device in _devices(claim):
            for taint in _taints(context, device):
                mark = tuple(str(each) for each in (*_id(device), taint.get("key"), taint.get("value")))
                seen[mark] = before.get(mark, context.clock.now())
                began = parse_rfc3339(taint["timeAdded"]) if taint.get("timeAdded") else seen[mark]
                if (limit := _limit(device, taint)) is not None:
                    yield began + limit


def _id(device: Object) -> tuple[str, ...]:
    return (device["driver"], device["pool"], device["device"])


def _devices(claim: Object) -> list[Object]:
    return ((allocation(claim) or {}).get("devices") or {}).get("results") or []


def _taints(context: Context, device: Object) -> Iterator[Object]:
    """The taints that make users leave, of a device in the newest generation of its pool."""
    slices = context.informer(SLICES).by_index(_BY_POOL, f"{device['driver']} {device['pool']}")
    newest = max((each["spec"]["pool"].get("generation") or 0 for each in slices), default=0)
    for each in slices:
        if (each["spec"]["pool"].get("generation") or 0) == newest:
            for found in each["spec"].get("devices") or ():
                if found["name"] == device["device"]:
                    yield from (taint for taint in found.get("taints") or () if taint.get("effect") == _EFFECT)
    for rule in context.informer(RULES).list():
        if _evicts(rule) and ruled(rule, *_id(device)):
            yield rule["spec"]["taint"]


def _evicts(rule: Object) -> bool:
    """Whether users of what it selects must leave; one that selects nothing in particular lets them stay."""
    return rule["spec"]["taint"].get("effect") == _EFFECT and rule["spec"].get("deviceSelector") is not None


def _limit(device: Object, taint: Object) -> float | None:
    """How many seconds the taint is put up with; None: for ever."""
    limits = []
    for each in device.get("tolerations") or ():
        if each.get("effect") == _EFFECT and tolerates(each, taint):
            if each.get("tolerationSeconds") is None:
                return None
            limits.append(max(each["tolerationSeconds"], 0))
    return min(limits, default=0)


async def _evict(context: Context, pod: Object) -> None:
    context.recorder.event(pod, "Normal", _REASON, "Marking for deletion")
    status, meta = pod.get("status") or {}, pod["metadata"]
    conditions = [dict(each) for each in status.get("conditions") or ()]
    text = "Device Taint manager: deleting due to NoExecute taint"
    set_condition(conditions, "DisruptionTarget", "True", "DeletionByDeviceTaintManager", text, context.clock.now())
    try:
        if conditions != status.get("conditions"):
            changed = {**pod, "status": {**status, "conditions": conditions}}
            await context.client.update(PODS, changed, subresource="status")
        await context.client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"])
    except ApiError as error:
        if error.code != 404:
            raise


def _of_pod(_: Context, pod: Object) -> Iterable[Key]:
    if pod["spec"].get("resourceClaims"):
        yield key_of(pod)


def _of_claim(_: Context, claim: Object) -> Iterable[Key]:
    for user in (claim.get("status") or {}).get("reservedFor") or ():
        if not user.get("apiGroup") and user.get("resource") == "pods":
            yield Key(claim["metadata"]["namespace"], user["name"])


def _of_slice(context: Context, found: Object) -> Iterable[Key]:
    """The users of devices that have taints, or just lost them (some are due)."""
    if any(device.get("taints") for device in found["spec"].get("devices") or ()):
        pool = f"{found['spec']['driver']} {found['spec']['pool']['name']}"
        for claim in context.informer(CLAIMS).by_index(_BY_POOL, pool):
            yield from _of_claim(context, claim)
    yield from sorted(context.memory.get("due", ()))


def _of_rule(context: Context, rule: Object) -> Iterable[Key]:
    """The users of the devices that it selects."""
    for claim in context.informer(CLAIMS).list():
        if any(ruled(rule, *_id(device)) for device in _devices(claim)):
            yield from _of_claim(context, claim)


def _file_claim(claim: Object) -> Iterable[str]:
    return {f"{each['driver']} {each['pool']}" for each in _devices(claim)}


def _file_slice(found: Object) -> Iterable[str]:
    return (f"{found['spec']['driver']} {found['spec']['pool']['name']}",)


CONTROLLER = Controller(
    "device-taint-eviction-controller",
    reconcile,
    (Watch(PODS, _of_pod), Watch(CLAIMS, _of_claim), Watch(SLICES, _of_slice), Watch(RULES, _of_rule, optional=True)),
    indexes={CLAIMS: {_BY_POOL: _file_claim}, SLICES: {_BY_POOL: _file_slice}},
)
