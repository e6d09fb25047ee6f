"""Device taint eviction: pods leave devices with a NoExecute taint that their claims do not tolerate, or not for ever.

Owns the deletion of such pods. Taints are those that drivers publish in ResourceSlices, and those of DeviceTaintRules,
which clusters have from 1.37 on and whose status says how far it is. Source: KEP-5055, kubernetes'
pkg/controller/devicetainteviction; texts are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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
from steersman.client.disrupt import disrupt
from steersman.client.metrics import Metrics
from steersman.lib.clock import parse_rfc3339, rfc3339
from steersman.lib.metrics import Distribution, Value

_REASON = "DeviceTaintManagerEviction"
_EFFECT = "NoExecute"
_BY_POOL = "pool"
_RULE = "rule:"  # keys of rules, beside those of pods
_CONDITION, _PERIOD = "EvictionInProgress", 10.0
Seen = dict[tuple[str, ...], float]
"""When a taint of a device was first seen, for one that does not say when it was added."""


_LATE = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 30, 60, 120, 180, 240)  # seconds


async def reconcile(context: Context, key: Key) -> Result:
    """Evict one pod if its time is up, or tell what one rule does."""
    if key.name.startswith(_RULE):
        return await _report(context, key.name.removeprefix(_RULE))
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
    deleted, lateness = _counts(context.metrics)
    deleted.inc()
    lateness.observe(max(-left, 0.0))
    evicted = context.memory.setdefault("evicted", {})
    for rule in context.informer(RULES).list():
        if _evicts(rule) and any(True for _ in _leaving(context, pod, rule)):
            evicted[rule["metadata"]["uid"]] = evicted.get(rule["metadata"]["uid"], 0) + 1
    return DONE


def _counts(metrics: Metrics) -> tuple[Value, Distribution]:
    """How many pods were deleted, and how late."""
    name = "device_taint_eviction_controller_pod_deletion"
    deleted = metrics.counter(f"{name}s_total", "Pods deleted since the start.").labels()
    text = "Seconds from the moment a pod was to go to its deletion."
    return deleted, metrics.histogram(f"{name}_duration_seconds", text, (), _LATE).labels()


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


# Rules -----------------------------------------------------------------------------------------------------------


def _leaving(context: Context, pod: Object, rule: Object) -> Iterator[Object]:
    """The devices that a pod has, and that users would have to leave if the rule's effect were NoExecute."""
    taint = {**rule["spec"]["taint"], "effect": _EFFECT}
    for name, _ in used_by(pod):
        claim = context.informer(CLAIMS).get(pod["metadata"]["namespace"], name)
        if claim is not None and reserved_for(claim, pod) and rule["spec"].get("deviceSelector") is not None:
            for device in _devices(claim):
                if ruled(rule, *_id(device)) and _limit(device, taint) is not None:
                    yield device


async def _report(context: Context, name: str) -> Result:
    """Write the condition of a rule, at most every ten seconds for one generation of it."""
    rule = context.informer(RULES).get("", name)
    if rule is None:
        return DONE
    now, meta = context.clock.now(), rule["metadata"]
    conditions = (rule.get("status") or {}).get("conditions") or []
    old = next((each for each in conditions if each["type"] == _CONDITION), {})
    if old.get("observedGeneration") == meta.get("generation"):
        since = now - parse_rfc3339(old["lastTransitionTime"])
        if since < _PERIOD:
            return Result(_PERIOD - since)
    status, reason, message = _state(context, rule)
    new = {"type": _CONDITION, "status": status, "reason": reason, "message": message}
    new["observedGeneration"] = meta.get("generation")
    again = Result(_PERIOD) if status == "True" else DONE  # until nobody has to leave
    if {**old, **new} == old:
        return again
    new["lastTransitionTime"] = rfc3339(now)
    others = [each for each in conditions if each["type"] != _CONDITION]
    changed = {**rule, "status": {**(rule.get("status") or {}), "conditions": [*others, new]}}
    await context.client.update(RULES, changed, subresource="status")
    return again


def _state(context: Context, rule: Object) -> tuple[str, str, str]:
    """Status, reason and message of a rule's condition."""
    effect, gone = (
        rule["spec"]["taint"].get("effect"),
        context.memory.get("evicted", {}).get(rule["metadata"]["uid"], 0),
    )
    tail = f"{_pods(gone)} evicted since starting the controller." if gone else ""
    if effect not in (_EFFECT, "None"):
        return "False", "OtherEffect", _joined("Eviction only happens for the NoExecute effect.", tail)
    staying = [
        pod
        for pod in context.informer(PODS).list()
        if pod["spec"].get("nodeName") and "deletionTimestamp" not in pod["metadata"]
        if any(True for _ in _leaving(context, pod, rule))
    ]
    spaces = len({pod["metadata"]["namespace"] for pod in staying})
    where = "1 namespace" if spaces == 1 else f"{spaces} different namespaces"
    if effect == _EFFECT:
        if staying:
            need = "needs" if len(staying) == 1 else "need"
            return (
                "True",
                "PodsPendingEviction",
                _joined(f"{_pods(len(staying))} {need} to be evicted in {where}.", tail),
            )
        return "False", "Completed" if gone else "NotStarted", tail
    published, given = _selected(context, rule)
    text = f"{published} published {_s(published)} selected. {given} allocated {_s(given)} selected. "
    text += f"{_pods(len(staying))} would be evicted in {where} if the effect was NoExecute. This information will not "
    return (
        "False",
        "NoEffect",
        _joined(f"{text}be updated again. Recreate the DeviceTaintRule to trigger an update.", tail),
    )


def _selected(context: Context, rule: Object) -> tuple[int, int]:
    """How many devices that are published, and that are allocated, a rule means."""
    if rule["spec"].get("deviceSelector") is None:
        return 0, 0
    slices = context.informer(SLICES).list()
    newest: dict[tuple[str, str], int] = {}
    for each in slices:
        pool = (each["spec"]["driver"], each["spec"]["pool"]["name"])
        newest[pool] = max(newest.get(pool, 0), each["spec"]["pool"].get("generation") or 0)
    published = sum(
        ruled(rule, each["spec"]["driver"], each["spec"]["pool"]["name"], device["name"])
        for each in slices
        if (each["spec"]["pool"].get("generation") or 0) == newest[each["spec"]["driver"], each["spec"]["pool"]["name"]]
        for device in each["spec"].get("devices") or ()
    )
    claims = context.informer(CLAIMS).list()
    return published, sum(ruled(rule, *_id(device)) for claim in claims for device in _devices(claim))


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def _s(count: int) -> str:
    return "device" if count == 1 else "devices"


def _joined(text: str, tail: str) -> str:
    return f"{text} {tail}" if tail else text


async def _evict(context: Context, pod: Object) -> None:
    context.recorder.event(pod, "Normal", _REASON, "Marking for deletion")
    text = "Device Taint manager: deleting due to NoExecute taint"
    await disrupt(context, pod, "DeletionByDeviceTaintManager", text)


def _of_pod(_: Context, pod: Object) -> Iterable[Key]:
    if pod["spec"].get("resourceClaims"):
        yield key_of(pod)


def _of_claim(context: Context, claim: Object) -> Iterable[Key]:
    for rule in context.informer(RULES).list():
        if _evicts(rule) and any(ruled(rule, *_id(device)) for device in _devices(claim)):
            yield Key("", _RULE + rule["metadata"]["name"])
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
    """The rule itself, and the users of the devices that it selects."""
    yield Key("", _RULE + rule["metadata"]["name"])
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
    counts=_counts,
)
