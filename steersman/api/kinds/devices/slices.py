"""ResourceSlice: what a driver publishes of one pool of devices.

Source: pkg/apis/resource/{v1,validation}, the strategy in pkg/registry/resource; KEP-4381, KEP-4815, KEP-5055.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from steersman.api import names
from steersman.api.fields import text_at
from steersman.api.kind import Behavior, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.devices.rules import Complaints, binding, each, label, named, pool_name, qualified, taint
from steersman.api.kinds.podspec.scheduling import node_selector
from steersman.api.kinds.podspec.volumes import driver_name
from steersman.api.quantity import Quantity, parse
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, dig, field
from steersman.api.validation import (
    IMMUTABLE,
    Struct,
    each_invalid,
    forbidden,
    invalid,
    required,
    struct,
    too_long,
    too_many,
)

_PLACES = ("nodeName", "nodeSelector", "allNodes")
_MOST_DEVICES, _MOST_ADVANCED = 128, 64
_MOST_SETS, _MOST_COUNTERS, _MOST_CONSUMED, _MOST_TAINTS, _MOST_FACTS, _MOST_OPTIONS = 8, 32, 2, 16, 32, 10
_LONGEST_VALUE, _LONGEST_LABEL, _LONGEST_NAME = 64, 63, 63 + 1 + 32
_NUMBER = r"(0|[1-9]\d*)"
_PRE = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE}(\.{_PRE})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?", re.ASCII
)
_NOT_A_VERSION = "must be a string compatible with semver.org spec 2.0.0"
_KINDS = ("bool", "int", "string", "version")


def _default(found: Object) -> None:
    """A pool begins with generation 0; amounts are always shown."""
    spec = found.setdefault("spec", {})
    spec.setdefault("pool", {}).setdefault("generation", 0)
    for device in spec.get("devices") or ():
        for one in (device.get("capacity") or {}).values():
            one.setdefault("value", "0")
            if one.get("requestPolicy") is not None:
                one["requestPolicy"].setdefault("default", None)
        for consumed in device.get("consumesCounters") or ():
            _amounts(consumed)
    for counters in spec.get("sharedCounters") or ():
        _amounts(counters)


def _amounts(found: Mapping[str, Any]) -> None:
    for one in (found.get("counters") or {}).values():
        one.setdefault("value", "0")


_LISTS = ("bools", "ints", "strings", "versions")


def _drop(found: Object) -> None:
    """Fields behind gates that are off."""
    for device in dig(found, "spec", "devices") or ():
        device.pop("nodeAllocatableResourceMappings", None)
        for attribute in (device.get("attributes") or {}).values():
            for key in _LISTS:
                attribute.pop(key, None)


def validate(found: Object, old: Object | None = None) -> Complaints:
    """A driver's devices, and one way to say on which nodes they are; driver, pool and place stay."""
    spec = found.get("spec") or {}
    pool, devices = spec.get("pool") or {}, spec.get("devices") or ()
    out = driver_name("spec.driver", spec.get("driver") or "") + pool_name("spec.pool.name", pool.get("name") or "")
    count = pool.get("resourceSliceCount") or 0
    if count <= 0:
        out.append(invalid("spec.pool.resourceSliceCount", count, "must be greater than zero"))
    if (pool.get("generation") or 0) < 0:
        out.append(invalid("spec.pool.generation", pool["generation"], "must be greater than or equal to zero"))
    out += _fixed(found, old) if old is not None else []
    out += _where(spec)
    if spec.get("sharedCounters") is not None and spec.get("devices") is not None:
        out.append(invalid("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    advanced = any(one.get("taints") or one.get("consumesCounters") for one in devices)
    single = bool(spec.get("perDeviceNodeSelection"))
    out += each(
        "spec.devices",
        devices,
        _MOST_ADVANCED if advanced else _MOST_DEVICES,
        lambda path, device: _device(path, device, single),
        lambda device: device.get("name") or "",
    )
    sets = spec.get("sharedCounters")
    return out + each("spec.sharedCounters", sets, _MOST_SETS, _counter_set, lambda one: one.get("name") or "")


def _where(spec: Mapping[str, Any]) -> Complaints:
    out, given = _places("spec", spec, "must be either unset or set to a non-empty string")
    if "nodeSelector" in given and len(terms := spec["nodeSelector"].get("nodeSelectorTerms") or []) != 1:
        out.append(
            invalid(
                "spec.nodeSelector.nodeSelectorTerms",
                _shown_terms(terms) if "nodeSelectorTerms" in spec["nodeSelector"] else None,
                "must have exactly one node selector term",
            )
        )
    if spec.get("perDeviceNodeSelection"):
        given.append("perDeviceNodeSelection")
    elif spec.get("perDeviceNodeSelection") is False:
        out.append(invalid("spec.perDeviceNodeSelection", False, "must be either unset or set to true"))
    one_of = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
    if not given:
        out.append(required("spec", one_of))
    elif len(given) > 1:
        out.append(invalid("spec", _shown(given), f"{one_of}, but multiple fields are set"))
    return out


def _places(path: str, found: Mapping[str, Any], empty: str) -> tuple[Complaints, list[str]]:
    """What is wrong with how the nodes are named, and which ways are used."""
    out: Complaints = []
    given = []
    if found.get("nodeName"):
        given.append("nodeName")
        name = found["nodeName"]
        out += each_invalid(f"{path}.nodeName", name, names.dns_subdomain(name))
    elif found.get("nodeName") is not None:
        out.append(invalid(f"{path}.nodeName", "", empty))
    if found.get("nodeSelector") is not None:
        given.append("nodeSelector")
        out += node_selector(f"{path}.nodeSelector", found["nodeSelector"])
    if found.get("allNodes"):
        given.append("allNodes")
    elif found.get("allNodes") is False:
        out.append(invalid(f"{path}.allNodes", False, "must be either unset or set to true"))
    return out, given


def _shown(given: Iterable[str]) -> str:
    return "{" + ", ".join(f"`{key}`" for key in given) + "}"


def _device(path: str, device: Mapping[str, Any], single: bool) -> Complaints:
    out = label(f"{path}.name", device.get("name") or "")
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if len(attributes) + len(capacity) > _MOST_FACTS:
        text = f"the total number of attributes and capacities must not exceed {_MOST_FACTS}"
        out.append(invalid(path, len(attributes) + len(capacity), text))
    out += _table(f"{path}.attributes", attributes, -1, _LONGEST_NAME, qualified, _attribute)
    policed = _shared_capacity if device.get("allowMultipleAllocations") else _capacity
    out += _table(f"{path}.capacity", capacity, -1, _LONGEST_NAME, qualified, policed)
    out += each(f"{path}.taints", device.get("taints"), _MOST_TAINTS, taint)
    consumed = device.get("consumesCounters")
    out += each(
        f"{path}.consumesCounters", consumed, _MOST_CONSUMED, _consumption, lambda one: one.get("counterSet") or ""
    )
    if single:
        wrong, given = _places(path, device, "must not be empty")
        out += wrong
        one_of = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when "
        one_of += "`perDeviceNodeSelection` is set to true in the ResourceSlice spec"
        if not given:
            out.append(required(path, one_of))
        elif len(given) > 1:
            out.append(invalid(path, _shown(given), one_of))
    elif any(device.get(key) is not None for key in _PLACES):
        text = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true "
        out.append(invalid(path, None, f"{text}in the ResourceSlice spec"))
    return out + binding(path, device)


Check = Callable[[str, Any], Complaints]


def _table(path: str, found: Mapping[str, Any], most: int, longest: int, key: Check, value: Check) -> Complaints:
    """A map: its names, and what they mean."""
    if 0 <= most < len(found):
        return [too_many(path, len(found), most)]
    return [
        error
        for name in sorted(found)
        for error in (*key(path, name), *value(f"{path}[{_cut(name, longest)}]", found[name]))
    ]


def _cut(name: str, longest: int) -> str:
    if len(name) <= longest:
        return name
    left = longest - 3
    return f"{name[: (left + 1) // 2]}...{name[len(name) - left // 2 :]}"


def _attribute(path: str, found: Mapping[str, Any]) -> Complaints:
    given = {key: found[key] for key in _KINDS if found.get(key) is not None}
    out: Complaints = []
    for key in ("string", "version"):
        if key not in given:
            continue
        if key == "version" and not _VERSION.fullmatch(given[key]):
            out.append(invalid(f"{path}.version", given[key], _NOT_A_VERSION))
        if len(given[key]) > _LONGEST_VALUE:
            out.append(too_long(f"{path}.{key}", _LONGEST_VALUE))
    if len(given) != 1:
        out.append(invalid(path, _shown_attribute(found) if given else "", "exactly one value must be specified"))
    return out


def _shown_attribute(found: Mapping[str, Any]) -> Struct:
    """An attribute as Go has it; the lists are behind a gate that is off."""
    values = {f"{key.capitalize()}Value": found.get(key) for key in ("int", "bool", "string", "version")}
    return Struct({**values, **dict.fromkeys(("IntValues", "BoolValues", "StringValues", "VersionValues"))})


def _shown_terms(terms: Sequence[Mapping[str, Any]]) -> list[Struct]:
    out: list[Struct] = []
    for term in terms:
        lists = (
            [struct(each, Key="", Operator="", Values=None) for each in term[key]] if term.get(key) else None
            for key in ("matchExpressions", "matchFields")
        )
        out.append(Struct(zip(("MatchExpressions", "MatchFields"), lists, strict=True)))
    return out


def _capacity(path: str, found: Mapping[str, Any]) -> Complaints:
    if found.get("requestPolicy") is not None:
        return [forbidden(f"{path}.requestPolicy", "allowMultipleAllocations must be true")]
    return []


def _shared_capacity(path: str, found: Mapping[str, Any]) -> Complaints:
    policy, path = found.get("requestPolicy"), f"{path}.requestPolicy"
    if policy is None:
        return []
    values, bounds = policy.get("validValues"), policy.get("validRange")
    if values and bounds is not None:
        text = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        return [forbidden(path, text)]
    for key, given in (("validValues", values), ("validRange", bounds)):
        if (given or key == "validRange") and given is not None and policy.get("default") is None:
            return [required(f"{path}.default", f"required when {key} is defined")]
    there = parse(found.get("value") or "0")
    if values:
        return _options(f"{path}.validValues", [parse(one) for one in values], parse(policy["default"]), there)
    return _range(f"{path}.validRange", bounds, parse(policy["default"]), there) if bounds is not None else []


def _options(path: str, values: list[Quantity], default: Quantity, there: Quantity) -> Complaints:
    text = "values must be sorted in ascending order"
    out = [
        invalid(f"{path}[{at}]", str(values[at]), text) for at in range(1, len(values)) if values[at - 1] > values[at]
    ]

    def check(here: str, value: Quantity) -> Complaints:
        return [invalid(here, str(value), f"option is larger than capacity value: {there}")] if value > there else []

    out += each(path, values, _MOST_OPTIONS, check, lambda value: str(value.whole()))
    if default not in values:
        out.append(invalid(path, str(default), "default value is not valid according to the requestPolicy"))
    return out


def _range(path: str, bounds: Mapping[str, Any], default: Quantity, there: Quantity) -> Complaints:
    low, high, step = (None if bounds.get(key) is None else parse(bounds[key]) for key in ("min", "max", "step"))
    if low is None:
        return [required(f"{path}.min", "required when validRange is defined")]
    out: Complaints = []
    if low > there:
        out.append(invalid(f"{path}.min", str(low), f"min is larger than capacity value: {there}"))
    if default < low:
        out.append(invalid(f"{path}.min", str(default), f"default is less than min: {low}"))
    if high is not None:
        if low > high:
            out.append(invalid(f"{path}.max", str(low), f"min is larger than max: {high}"))
        if high > there:
            out.append(invalid(f"{path}.max", str(high), f"max is larger than capacity value: {there}"))
        if default > high:
            out.append(invalid(f"{path}.max", str(default), f"default is more than max: {high}"))
    if step is not None:
        if low + step > there:
            text = f"one step {low + step} is larger than capacity value: {there}"
            out.append(invalid(f"{path}.step", str(step), text))
        for value in (default, high):
            if value is not None and (not step.whole() or (value.whole() - low.whole()) % step.whole()):
                text = f"value is not a multiple of a given step ({step}) from ({low})"
                out.append(invalid(f"{path}.step", str(value), text))
    return out


def _counters(path: str, found: Mapping[str, Any]) -> Complaints:
    if not found:
        return [required(path)]
    return _table(path, found, _MOST_COUNTERS, _LONGEST_LABEL, _counter_name, lambda *_: [])


def _counter_name(path: str, name: str) -> Complaints:
    return each_invalid(path, name, names.dns_label(name))


def _counter_set(path: str, found: Mapping[str, Any]) -> Complaints:
    return named(f"{path}.name", found.get("name") or "") + _counters(f"{path}.counters", found.get("counters") or {})


def _consumption(path: str, found: Mapping[str, Any]) -> Complaints:
    out = named(f"{path}.counterSet", found.get("counterSet") or "")
    return out + _counters(f"{path}.counters", found.get("counters") or {})


def _fixed(new: Object, old: Object) -> Complaints:
    out: Complaints = []
    for keys, zero in ((("pool", "name"), ""), (("driver",), ""), (("nodeName",), None)):
        fresh, before = (dig(each, "spec", *keys) for each in (new, old))
        fresh, before = (zero if each is None else each for each in (fresh, before))
        out += [] if fresh == before else [invalid(f"spec.{'.'.join(keys)}", fresh, IMMUTABLE)]
    return out


_begin = strategy.begin(None, generations=True)


def _prepare_create(new: Object) -> None:
    """Taints begin with the slice."""
    _begin(new)
    _drop(new)
    for _, found in _tainted(new):
        found.setdefault("timeAdded", new["metadata"]["creationTimestamp"])


def _prepare_update(new: Object, old: Object) -> None:
    """Taints go on from when they were added, where a driver does not say; of new ones it is not known here."""
    known = {mark: found.get("timeAdded") for mark, found in _tainted(old)}
    for mark, found in _tainted(new):
        if not found.get("timeAdded") and known.get(mark):
            found["timeAdded"] = known[mark]
    for device in dig(new, "spec", "devices") or ():
        if not device.get("nodeAllocatableResourceMappings"):
            device.pop("nodeAllocatableResourceMappings", None)
    strategy.count(new, old, changed=strategy.differs(new.get("spec"), old.get("spec")))
    _drop(new)


def _tainted(found: Object) -> Iterable[tuple[tuple[str, ...], Object]]:
    for device in dig(found, "spec", "devices") or ():
        for one in device.get("taints") or ():
            yield (device.get("name") or "", *(one.get(key) or "" for key in ("key", "value", "effect"))), one


SLICE = Behavior(
    "resource.k8s.io",
    "ResourceSlice",
    default=_default,
    validate=validate,
    prepare_create=_prepare_create,
    updates={"": Update(_prepare_update, validate)},
    columns=(
        NAME,
        field("Node", "spec", "nodeName"),
        field("Driver", "spec", "driver"),
        field("Pool", "spec", "pool", "name"),
        AGE,
    ),
    fields={"spec.driver": text_at("spec", "driver"), "spec.nodeName": text_at("spec", "nodeName")},
)
