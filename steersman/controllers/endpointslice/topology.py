"""Zone hints by how much CPU each zone has, for Services that ask with `service.kubernetes.io/topology-mode: Auto`.

Owns the shares of the zones, which Services have hints, and the rules by which endpoints serve other zones than their
own so that no zone's endpoints have more than a fifth too much to do. Called by the controller of slices; it never
writes. Source: KEP-2433, kubernetes' staging/src/k8s.io/endpointslice/topologycache; texts are the original's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from steersman.api import pods, quantity
from steersman.api.resource import Object
from steersman.client.controller import Key

ZONE = "topology.kubernetes.io/zone"
_ANNOTATIONS = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")  # the older first
_EXCLUDED = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_OVERLOAD = 0.2  # how much too much an endpoint may have to do
_POOR = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
_FEW = "Insufficient number of endpoints"
_UNEVEN = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
_HOMELESS = "One or more endpoints do not have a zone specified"
_NONE = "No hints allocated for zones"


class Told(NamedTuple):
    """An event about the Service."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


class _Share(NamedTuple):
    """Of a zone: how many endpoints it must have and may have, and what would be right."""

    least: int
    most: int
    right: float


def wants_hints(service: Object) -> bool:
    """Whether the Service's annotation asks for hints."""
    annotations = service["metadata"].get("annotations") or {}
    found = next((annotations[each] for each in _ANNOTATIONS if each in annotations), "")
    return found in ("Auto", "auto")


def _off(message: str, family: str) -> Told:
    return Told("Warning", "TopologyAwareHintsDisabled", f"{message}, addressType: {family}")


def _is_ready(endpoint: Object) -> bool:
    return bool((endpoint.get("conditions") or {}).get("ready"))


def _zones_of(endpoint: Object) -> list[str]:
    return [each["name"] for each in (endpoint.get("hints") or {}).get("forZones") or ()]


def _bare(endpoint: Object) -> Object:
    return {name: value for name, value in endpoint.items() if name != "hints"}


def _hinted(endpoint: Object, zone: str) -> Object:
    return {**endpoint, "hints": {"forZones": [{"name": zone}]}}


class Topology:
    """What is known of zones and of the Services whose endpoints have hints. Told of nodes one by one."""

    def __init__(self) -> None:
        self._nodes: dict[str, tuple[str, int]] = {}  # zone and milli CPU; neither where the node does not say
        self._cpu: Counter[str] = Counter()
        self._unknown = 0
        self._spread: dict[Key, dict[str, Counter[str]]] = {}
        self._hinted: set[Key] = set()
        self._refused: dict[Key, dict[str, int]] = {}  # how many endpoints could not be shared out, by family

    def tell(self, name: str, node: Object | None) -> bool:
        """A node as it is now, None: it is gone. Returns whether the zones' shares have changed."""
        new = _counted(node)
        old = self._nodes.get(name)
        if new == old:
            return False
        for found, sign in ((old, -1), (new, 1)):
            if found is not None:
                self._unknown += sign * (not found[1])
                self._cpu[found[0]] += sign * found[1]
        if new is None:
            del self._nodes[name]
        else:
            self._nodes[name] = new
        self._cpu = +self._cpu
        return True

    @property
    def shares(self) -> Mapping[str, float]:
        """Each zone's share of the CPU; empty where they cannot be told, or there is one zone only."""
        total = sum(self._cpu.values())
        if self._unknown or len(self._cpu) < 2:
            return {}
        return {zone: cpu / total for zone, cpu in sorted(self._cpu.items())}

    def concerned(self) -> Iterator[Key]:
        """The Services of which a zone has too few endpoints, and those that could have hints now.

        The original waits with the latter until something else happens to them.
        """
        shares = self.shares
        for key, families in list(self._spread.items()):
            if any(_is_overloaded(spread, shares) for spread in families.values()):
                yield key
        for key, counts in list(self._refused.items()):
            if any(not isinstance(_allocate(shares, number), str) for number in counts.values()):
                yield key

    def forget(self, key: Key) -> None:
        """The Service is gone."""
        self._spread.pop(key, None)
        self._refused.pop(key, None)
        self._hinted.discard(key)

    def _drop(self, key: Key, family: str) -> None:
        left = self._spread.get(key, {})
        left.pop(family, None)
        if not left:
            self._spread.pop(key, None)
        self._hinted.discard(key)

    def without(self, key: Key, family: str) -> list[Told]:
        """The Service asks for no hints: what is to be told when it did before."""
        had = key in self._hinted
        self._refused.pop(key, None)
        self._drop(key, family)
        return [_off("Topology Aware Hints has been disabled", family)] if had else []

    def hint(
        self, key: Key, family: str, fresh: Sequence[Object], kept: Sequence[Object]
    ) -> tuple[list[Object], list[Told]]:
        """Put hints on `fresh`, the slices that will be written, and on what must change of `kept`.

        Returns what of `kept` is to be written, too, and what to tell. Endpoints are replaced, never changed.
        """
        ready = sum(_is_ready(each) for slice_ in (*fresh, *kept) for each in slice_["endpoints"])
        shares = _allocate(self.shares, ready)
        if isinstance(shares, str):
            self._refused.setdefault(key, {})[family] = ready
            return self._refuse(key, family, fresh, kept, shares)
        self._refused.get(key, {}).pop(family, None)
        spread, moved = _as_they_are(kept, shares)
        slices = [*fresh, *moved]
        for slice_ in slices:
            found = slice_["endpoints"] = [_bare(each) for each in slice_["endpoints"]]
            for at, endpoint in enumerate(found):
                if not _is_ready(endpoint):
                    continue
                if not (zone := endpoint.get("zone")):
                    left = [each for each in kept if each["metadata"]["name"] not in _names(moved)]
                    more, told = self._refuse(key, family, slices, left, _HOMELESS)
                    return [*moved, *more], told
                spread[zone] += 1
                found[at] = _hinted(endpoint, zone)
        _redistribute(slices, spread, *_trade(shares, spread))
        if not spread:
            more, told = self._refuse(key, family, slices, (), _NONE)
            return [*moved, *more], told
        self._spread.setdefault(key, {})[family] = spread
        told = []
        if key not in self._hinted:
            text = f"Topology Aware Hints has been enabled, addressType: {family}"
            told.append(Told("Normal", "TopologyAwareHintsEnabled", text))
        self._hinted.add(key)
        return moved, told

    def _refuse(
        self, key: Key, family: str, fresh: Sequence[Object], kept: Sequence[Object], why: str
    ) -> tuple[list[Object], list[Told]]:
        self._drop(key, family)
        for slice_ in fresh:
            slice_["endpoints"] = [_bare(each) for each in slice_["endpoints"]]
        stripped = [
            {**slice_, "endpoints": [_bare(each) for each in slice_["endpoints"]]}
            for slice_ in kept
            if any("hints" in each for each in slice_["endpoints"])
        ]
        return stripped, [_off(why, family)]


def _names(slices: Sequence[Object]) -> set[str]:
    return {each["metadata"]["name"] for each in slices}


def _counted(node: Object | None) -> tuple[str, int] | None:
    """A node's zone and milli CPU; 0 where it does not say one of them, None where the node does not count."""
    if node is None:
        return None
    labels = node["metadata"].get("labels") or {}
    if any(each in labels for each in _EXCLUDED) or not pods.is_ready(node):
        return None
    zone = labels.get(ZONE) or ""
    cpu = quantity.milli(str(((node.get("status") or {}).get("allocatable") or {}).get("cpu", "0")))
    return (zone, cpu) if zone and cpu > 0 else ("", 0)


def _allocate(shares: Mapping[str, float], number: int) -> dict[str, _Share] | str:
    """What each zone gets of so many endpoints, or why that cannot be said."""
    if not shares:
        return _POOR
    counts = f"({number} endpoints, {len(shares)} zones)"
    if len(shares) > number:
        return f"{_FEW} {counts}"
    least = {zone: math.ceil(share * number * (1 / (1 + _OVERLOAD))) for zone, share in shares.items()}
    free = number - sum(least.values())
    if free < 0:
        return f"{_UNEVEN} {counts}"
    return {zone: _Share(least[zone], least[zone] + free, max(shares[zone] * number, least[zone])) for zone in shares}


def _as_they_are(kept: Sequence[Object], shares: Mapping[str, _Share]) -> tuple[Counter[str], list[Object]]:
    """The hints of slices that can stay as they are, and copies of those that cannot."""
    spread: Counter[str] = Counter()
    moved: list[Object] = []
    for slice_ in kept:
        hints = [_zones_of(each) for each in slice_["endpoints"] if _is_ready(each)]
        own = Counter(zone for zones in hints for zone in zones)
        if all(hints) and all(zone in shares and own[zone] + spread[zone] <= shares[zone].most for zone in own):
            spread += own
        else:
            moved.append({**slice_})
    return spread, moved


def _trade(shares: Mapping[str, _Share], spread: Mapping[str, int]) -> tuple[Counter[str], Counter[str]]:
    """How many endpoints each zone gives to others, and how many it gets."""
    gives = {zone: over for zone, share in shares.items() if (over := spread.get(zone, 0) - share.right) > 0}
    gets = {zone: under for zone, share in shares.items() if (under := share.right - spread.get(zone, 0)) > 0}
    giving: Counter[str] = Counter()
    getting: Counter[str] = Counter()
    while gives and gets:
        giver, getter = max(gives, key=lambda zone: gives[zone]), max(gets, key=lambda zone: gets[zone])
        most, least = max(gives[giver], gets[getter]), min(gives[giver], gets[getter])
        if most < 1 or least < 0.5:
            break
        giving[giver] += 1
        gives[giver] -= 1
        getting[getter] += 1
        gets[getter] -= 1
    return giving, getting


def _redistribute(slices: Sequence[Object], spread: Counter[str], giving: Counter[str], getting: Counter[str]) -> None:
    """Hint endpoints of zones that have too many at zones that have too few."""
    for slice_ in slices:
        for at, endpoint in enumerate(slice_["endpoints"]):
            if not _is_ready(endpoint) or not giving[endpoint["zone"]]:
                continue
            zone = next((each for each, number in getting.items() if number > 0), None)
            if zone is None:
                return
            slice_["endpoints"][at] = _hinted(endpoint, zone)
            giving[endpoint["zone"]] -= 1
            spread[endpoint["zone"]] -= 1
            getting[zone] -= 1
            spread[zone] += 1


def _is_overloaded(spread: Mapping[str, int], shares: Mapping[str, float]) -> bool:
    if not spread:
        return False
    total = sum(spread.values())
    return not shares or any(
        zone not in spread or spread[zone] < math.ceil(total * share * (1 / (1 + _OVERLOAD)))
        for zone, share in shares.items()
    )
