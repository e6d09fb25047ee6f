"""What drivers publish: ResourceSlices read once, put together to the pools that one node can reach.

Owns which generation of a pool counts, whether all of it is there, and whether it makes sense. Called by `devices`; the
allocator reads pools. Pure. Source: KEP-4381, dynamic-resource-allocation's structured allocator (pools).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from steersman.api import cel, deviceselectors
from steersman.api.quantity import Quantity, parse
from steersman.api.resource import Object
from steersman.client import nodefit


class DeviceId(NamedTuple):
    """What tells devices apart."""

    driver: str
    pool: str
    device: str

    def __str__(self) -> str:
        return "/".join(self)


PoolId = tuple[str, str]  # driver and pool
Counters = Mapping[str, Mapping[str, int]]
"""Billionths, by counter set and counter."""


class Device:
    """One device of a slice, read as far as it is asked for."""

    def __init__(self, id: DeviceId, given: Object) -> None:
        self.id = id
        self.given = given
        self.shared = bool(given.get("allowMultipleAllocations"))
        self.taints: Sequence[Object] = given.get("taints") or ()
        self._matched: dict[str, bool | Exception] = {}

    @cached_property
    def counters(self) -> Counters:
        """What an allocation takes from the pool's counter sets."""
        return {
            each["counterSet"]: {
                name: parse(found.get("value") or "0").nanos for name, found in (each.get("counters") or {}).items()
            }
            for each in self.given.get("consumesCounters") or ()
        }

    @cached_property
    def capacity(self) -> Mapping[str, tuple[Quantity, Mapping[str, Any]]]:
        """Amounts, and how much of each may be asked for (requestPolicy)."""
        return {
            name: (parse(found.get("value") or "0"), found.get("requestPolicy") or {})
            for name, found in (self.given.get("capacity") or {}).items()
        }

    @cached_property
    def _values(self) -> Mapping[str, Any]:
        return deviceselectors.variables(self.id.driver, self.given)

    def attribute(self, name: str) -> tuple[str, Any] | None:
        """An attribute by its full name: its kind and value; None where the device lacks it."""
        attributes = self.given.get("attributes") or {}
        found = attributes.get(name)
        domain, slash, key = name.partition("/")
        if found is None and slash and domain == self.id.driver:
            found = attributes.get(key)
        if found is None:
            return None
        return next(((kind, value) for kind, value in found.items() if value is not None), None)

    def selected(self, expression: str) -> bool:
        """Whether a selector means it, worked out once. Raises CompileError, ValueError or CelError."""
        found = self._matched.get(expression)
        if found is None:
            try:
                found = deviceselectors.selects(expression, self._values)
            except (cel.CelError, cel.CompileError, ValueError) as error:
                found = error
            self._matched[expression] = found
        if isinstance(found, Exception):
            raise found
        return found


class Slice:
    """One ResourceSlice."""

    def __init__(self, given: Object) -> None:
        spec, pool = given["spec"], given["spec"]["pool"]
        self.name: str = given["metadata"]["name"]
        self.pool: PoolId = (spec["driver"], pool["name"])
        self.generation: int = pool.get("generation") or 0
        self.count: int = pool.get("resourceSliceCount") or 0
        self.where = Place(spec)
        self.per_device = bool(spec.get("perDeviceNodeSelection"))
        self.devices = tuple(Device(DeviceId(*self.pool, each["name"]), each) for each in spec.get("devices") or ())
        self.places = {each.id: Place(each.given) for each in self.devices} if self.per_device else {}
        self.counters: Counters = {
            each["name"]: {
                name: parse(found.get("value") or "0").nanos for name, found in (each.get("counters") or {}).items()
            }
            for each in spec.get("sharedCounters") or ()
        }

    def place(self, device: Device) -> Place:
        """From where a device can be reached."""
        return self.places[device.id] if self.per_device else self.where

    def reaches(self, node: Object) -> bool:
        """Whether anything in it matters to a node."""
        if self.counters:
            return True
        if self.per_device:
            return any(place.has(node) for place in self.places.values())
        return self.where.has(node)


class Place:
    """nodeName, allNodes or nodeSelector, of a slice or a device."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.node: str = given.get("nodeName") or ""
        self.everywhere = bool(given.get("allNodes"))
        self.selector: Object | None = given.get("nodeSelector")

    def has(self, node: Object) -> bool:
        """Whether a node is there."""
        if self.node:
            return bool(node["metadata"]["name"] == self.node)
        return self.everywhere or (self.selector is not None and nodefit.selected(self.selector, node))


@dataclass(slots=True)
class Pool:
    """A pool as one node sees it. `beyond`: slices of it that are for other nodes."""

    id: PoolId
    incomplete: bool = False
    invalid: str = ""
    slices: Sequence[Slice] = ()
    beyond: Sequence[Slice] = ()
    counters: Counters = field(default_factory=dict)

    def __str__(self) -> str:
        return "/".join(self.id)

    def usable(self) -> bool:
        """Whether single devices may be taken from it."""
        return not self.incomplete and not self.invalid


def pools(reached: Iterable[Slice], of_pool: Mapping[PoolId, Mapping[str, Slice]]) -> list[Pool]:
    """The pools that slices for a node are of, in the order in which the allocator tries them."""
    newest: dict[PoolId, list[Slice]] = {}
    for each in reached:
        known = newest.setdefault(each.pool, [])
        if known and each.generation > known[0].generation:
            known.clear()
        if not known or each.generation == known[0].generation:
            known.append(each)
    found = [made for id, mine in newest.items() if (made := _pool(id, mine, of_pool.get(id, {}).values())) is not None]
    return sorted(found, key=lambda each: (_binds(each), each.id))


def _binds(pool: Pool) -> bool:
    """Whether its devices must be made ready after they were given (KEP-5007): those are tried last."""
    return any(device.given.get("bindingConditions") for each in pool.slices for device in each.devices)


def _pool(id: PoolId, mine: list[Slice], everywhere: Iterable[Slice]) -> Pool | None:
    """A pool of these slices; None when they are of an older generation than others'."""
    first, whole = mine[0], list(mine)
    if len(mine) != first.count:
        everything = list(everywhere)
        if any(each.generation > first.generation for each in everything):
            return None
        whole = [each for each in everything if each.generation == first.generation]
        if len(whole) != first.count:
            return Pool(id, incomplete=True)
    mine.sort(key=lambda each: each.name)
    names = {each.name for each in mine}
    beyond = [each for each in whole if each.name not in names]
    counters: dict[str, Mapping[str, int]] = {}
    seen: set[DeviceId] = set()
    for each in mine:
        for name, counts in each.counters.items():
            if name in counters:
                return Pool(id, invalid=f"duplicate counter set name {name}")
            counters[name] = counts
        for device in each.devices:
            if device.id in seen:
                return Pool(id, invalid=f"duplicate device name {device.id.device}")
            seen.add(device.id)
    for each in (*mine, *beyond):
        for device in each.devices:
            if wrong := _uncounted(device, counters):
                return Pool(id, invalid=wrong)
    return Pool(id, slices=[each for each in mine if not each.counters], beyond=beyond, counters=counters)


def _uncounted(device: Device, counters: Counters) -> str:
    for name, taken in device.counters.items():
        if name not in counters:
            return f"counter set {name} not found"
        for counter in taken:
            if counter not in counters[name]:
                return f"counter {counter} not found in counter set {name}"
    return ""
