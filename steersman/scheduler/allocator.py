"""Which devices the claims of one pod get on one node: the first choice that satisfies all of them.

Owns the search: every request of every claim in turn, one device after the other, back where it does not go on. Called
by the plugin DynamicResources. Pure. Source: KEP-4381, KEP-4816 (prioritized lists), KEP-4815
(partitionable devices), KEP-5055 (taints), KEP-5075 (shared devices); kubernetes' structured allocator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from steersman.api import cel
from steersman.api.quantity import Quantity
from steersman.api.resource import Object
from steersman.client.deviceclaims import tolerates
from steersman.scheduler.consumption import amounts, suits
from steersman.scheduler.inventory import Device, DeviceId, Pool, PoolId, Slice

MOST_RESULTS = 32  # devices of one claim
MOST_STEPS = 20_000
INVALID_POOLS = "invalid resource pools were encountered"
Amounts = Mapping[str, Quantity]


class AllocationError(Exception):
    """Something is wrong with a claim, a class or the devices; no other node would help."""


class TimedOut(AllocationError):
    """There are too many ways to try."""


class InvalidPools(Exception):
    """Nothing was found, and some of the pools make no sense."""


class Usage(Protocol):
    """What is given away already."""

    def in_use(self, device: DeviceId) -> bool:
        """Whether a claim has it to itself."""
        ...

    def consumed(self, device: DeviceId) -> Mapping[str, int] | None:
        """Billionths of its capacity that shares of it have; None where nobody has a share."""
        ...

    def taints(self, device: Device) -> Sequence[Object]:
        """What is said against its use."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a claim, or one way to satisfy it."""

    name: str  # as results name it: `request` or `request/way`
    base: str
    asked: Object
    class_: Object
    admin: bool
    every: Sequence[tuple[Pool, Device, Slice]] | None  # allocationMode All
    count: int

    def selectors(self) -> Iterator[tuple[str, int, str]]:
        """Whose (empty: the claim's own), which, and the expression."""
        for at, each in enumerate((self.class_.get("spec") or {}).get("selectors") or ()):
            yield self.class_["metadata"]["name"], at, each["cel"]["expression"]
        for at, each in enumerate(self.asked.get("selectors") or ()):
            yield "", at, each["cel"]["expression"]


class Given(NamedTuple):
    """One device for one request; `amounts` where it is shared."""

    request: Request
    device: Device
    slice: Slice
    amounts: Amounts | None


class Position(NamedTuple):
    """How far the search has come; `place` is the pool, slice and device to go on from."""

    claim: int = 0
    request: int = 0
    way: int = -1
    number: int = 0
    place: tuple[int, int, int] = (0, 0, 0)


DONE = Position(-1)


@dataclass(slots=True)
class _Constraint:
    """matchAttribute or distinctAttribute over some requests of a claim."""

    attribute: str
    distinct: bool
    requests: Sequence[str]
    values: list[tuple[str, Any]] = field(default_factory=list)

    def means(self, request: Request) -> bool:
        """Whether it is about this request."""
        return not self.requests or request.base in self.requests or request.name in self.requests

    def allows(self, value: tuple[str, Any] | None) -> bool:
        """Whether one more device may have this."""
        if value is None:
            return False
        return value not in self.values if self.distinct else not self.values or value == self.values[0]


class Allocator:
    """One search on one node. `classes` finds a DeviceClass by name."""

    def __init__(
        self,
        claims: Sequence[Object],
        pools: Sequence[Pool],
        usage: Usage,
        classes: Mapping[str, Object],
        node: Object,
    ) -> None:
        """Raises AllocationError."""
        self._claims, self._pools, self._usage, self._node = claims, pools, usage, node
        self._taken: dict[DeviceId, list[int]] = {}  # by which of the claims
        self._shares: dict[DeviceId, list[Amounts]] = {}
        self._counted: dict[PoolId, dict[tuple[str, str], int]] = {}  # left of counters
        self.given: list[list[Given]] = [[] for _ in claims]
        self._requests = [
            [self._ways(at, claim, each, classes) for each in _requests(claim)] for at, claim in enumerate(claims)
        ]
        self.chosen: list[list[int]] = [[-1] * len(each) for each in self._requests]
        self._constraints = [_constraints(claim) for claim in claims]

    # What is asked for -------------------------------------------------------------------------------------------

    def _ways(self, claim: int, of: Object, request: Object, classes: Mapping[str, Object]) -> list[Request]:
        if request.get("exactly") is not None:
            return [self._read(of, request["name"], request["name"], request["exactly"], classes)]
        base = request["name"]
        return [
            self._read(of, f"{base}/{each['name']}", base, each, classes)
            for each in request.get("firstAvailable") or ()
        ]

    def _read(self, claim: Object, name: str, base: str, asked: Object, classes: Mapping[str, Object]) -> Request:
        who = f"claim {key(claim)}, request {name.rpartition('/')[2]}"
        wanted = asked.get("deviceClassName") or ""
        if wanted not in classes:
            raise AllocationError(f"{who}: could not retrieve device class {wanted}: deviceclass.resource.k8s.io "
                                  f'"{wanted}" not found')  # fmt: skip
        admin = bool(asked.get("adminAccess"))
        if asked.get("allocationMode") != "All":
            return Request(name, base, asked, classes[wanted], admin, None, asked.get("count") or 1)
        request = Request(name, base, asked, classes[wanted], admin, (), 0)
        every = []
        for pool in self._pools:
            if not pool.usable():
                state = "being updated" if pool.incomplete else "invalid"
                raise AllocationError(f"{who}: asks for all devices, but resource pool {pool} is currently {state}")
            for slice in pool.slices:
                every += [
                    (pool, device, slice) for device in slice.devices if self._selectable(claim, request, device, slice)
                ]
        return Request(name, base, asked, classes[wanted], admin, every, len(every))

    def _selectable(self, claim: Object, request: Request, device: Device, slice: Slice) -> bool:
        """Whether class and request mean the device, it can be reached, and has as much as is asked for."""
        for owner, at, expression in request.selectors():
            who = f"class {owner}" if owner else f"claim {key(claim)}"
            try:
                if not device.selected(expression):
                    return False
            except (cel.CompileError, ValueError) as error:
                raise AllocationError(f"{who}: selector #{at}: CEL compile error: {error}") from error
            except cel.CelError as error:
                raise AllocationError(f"{who}: selector #{at}: CEL runtime error: {error}") from error
        if slice.per_device and not slice.place(device).has(self._node):
            return False
        return self._enough(request, device)

    def _enough(self, request: Request, device: Device) -> bool:
        consumed = dict(self._usage.consumed(device.id) or {})
        for share in self._shares.get(device.id, ()):
            for name, amount in share.items():
                consumed[name] = consumed.get(name, 0) + amount.nanos
        return suits(device.capacity, request.asked.get("capacity") or {}, consumed)

    def ways(self, claim: int) -> list[Request]:
        """How each request of a claim is satisfied, once the search has succeeded."""
        return [ways[way] for ways, way in zip(self._requests[claim], self.chosen[claim], strict=True)]

    # The search --------------------------------------------------------------------------------------------------

    def run(self, most: int = MOST_STEPS) -> bool:
        """Whether all claims can be allocated; `given` says how. Raises AllocationError, InvalidPools.

        After `most` steps it raises TimedOut.
        """
        steps = [self._choices(Position())]
        for _ in range(most):
            if not steps:
                break
            position = next(steps[-1], None)
            if position is None:
                steps.pop()
            elif position is DONE:
                return True
            else:
                steps.append(self._choices(position))
        else:
            raise TimedOut("timed out trying to allocate devices")
        if any(pool.invalid for pool in self._pools):
            raise InvalidPools(INVALID_POOLS)
        return False

    def _choices(self, at: Position) -> Iterator[Position]:
        """Where to go on from here, one choice after the other; each is taken back when it is asked for the next."""
        if at.claim == len(self._claims):
            yield DONE
            return
        requests = self._requests[at.claim]
        if at.request == len(requests):
            yield Position(at.claim + 1)
            return
        if at.way < 0:
            for way in range(len(requests[at.request])):
                self.chosen[at.claim][at.request] = way
                yield at._replace(way=way)
            return
        request = requests[at.request][at.way]
        if request.every is not None and not request.every:
            return
        if at.number == request.count:
            yield Position(at.claim, at.request + 1)
            return
        if len(self.given[at.claim]) + request.count - at.number > MOST_RESULTS:
            return
        candidates = (
            self._candidates(at, request) if request.every is None else iter([((0, 0, 0), *request.every[at.number])])
        )
        for place, pool, device, slice in candidates:
            undo = self._take(at.claim, request, pool, device, slice)
            if undo is not None:
                yield at._replace(number=at.number + 1, place=place)
                undo()

    def _candidates(self, at: Position, request: Request) -> Iterator[tuple[tuple[int, int, int], Pool, Device, Slice]]:
        """Devices from a place on that would do by themselves, and from where the next may be taken."""
        claim, (first_pool, first_slice, first) = self._claims[at.claim], at.place
        for i in range(first_pool, len(self._pools)):
            pool = self._pools[i]
            if not pool.usable():
                continue
            for j in range(first_slice if i == first_pool else 0, len(pool.slices)):
                slice = pool.slices[j]
                here = (i, j) == (first_pool, first_slice)
                for k in range(first if here else 0, len(slice.devices)):
                    device = slice.devices[k]
                    if self._free(at.claim, request, device) and self._selectable(claim, request, device, slice):
                        yield (i, j, k + 1), pool, device, slice

    def _free(self, claim: int, request: Request, device: Device) -> bool:
        holders = self._taken.get(device.id, ())
        if request.admin:
            return claim not in holders
        return not holders and not self._usage.in_use(device.id)

    def _take(
        self, claim: int, request: Request, pool: Pool, device: Device, slice: Slice
    ) -> Callable[[], None] | None:
        """Take a device for a request; how to take it back, or None when it cannot be had."""
        if not self._free(claim, request, device) or _kept_away(self._usage.taints(device), request):
            return None
        partly = device.shared and bool(self._shares.get(device.id) or self._usage.consumed(device.id) is not None)
        if not self._enough(request, device):
            return None
        held: list[_Constraint] = []
        for constraint in self._constraints[claim]:
            if not constraint.means(request):
                continue
            value = device.attribute(constraint.attribute)
            if not constraint.allows(value):
                for each in held:
                    each.values.pop()
                if request.every is not None:
                    who = f"claim {key(self._claims[claim])}, request {request.name.rpartition('/')[2]}"
                    why = "because a claim constraint would not be satisfied"
                    raise AllocationError(f"{who}: cannot add device {device.id} {why}")
                return None
            assert value is not None
            constraint.values.append(value)
            held.append(constraint)
        counted = not partly and bool(device.counters)
        if counted and not self._count(pool, device, 1):
            for each in held:
                each.values.pop()
            return None
        share = amounts(device.capacity, request.asked.get("capacity") or {}) if device.shared else None
        if share is None:
            self._taken.setdefault(device.id, []).append(claim)
        else:
            self._shares.setdefault(device.id, []).append(share)
        self.given[claim].append(Given(request, device, slice, share))

        def undo() -> None:
            self.given[claim].pop()
            (self._taken if share is None else self._shares)[device.id].pop()
            if counted:
                self._count(pool, device, -1)
            for each in held:
                each.values.pop()

        return undo

    def _count(self, pool: Pool, device: Device, sign: int) -> bool:
        """Take from a pool's counters, or give back; False when there is not enough."""
        left = self._counted.get(pool.id)
        if left is None:
            left = self._counted[pool.id] = self._left(pool)
        taken = {(name, each): nanos for name, counts in device.counters.items() for each, nanos in counts.items()}
        if sign > 0 and any(left[counter] < nanos for counter, nanos in taken.items()):
            return False
        for counter, nanos in taken.items():
            left[counter] -= sign * nanos
        return True

    def _left(self, pool: Pool) -> dict[tuple[str, str], int]:
        left = {(name, each): nanos for name, counts in pool.counters.items() for each, nanos in counts.items()}
        for slice in (*pool.slices, *pool.beyond):
            for device in slice.devices:
                if self._usage.in_use(device.id) or self._usage.consumed(device.id) is not None:
                    for name, counts in device.counters.items():
                        for each, nanos in counts.items():
                            left[name, each] -= nanos
        return left


def key(claim: Object) -> str:
    """`namespace/name`."""
    return f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"


def _requests(claim: Object) -> Sequence[Object]:
    return (claim["spec"].get("devices") or {}).get("requests") or ()


def _constraints(claim: Object) -> list[_Constraint]:
    found = []
    for at, each in enumerate((claim["spec"].get("devices") or {}).get("constraints") or ()):
        match, distinct = each.get("matchAttribute"), each.get("distinctAttribute")
        if match is None and distinct is None:
            raise AllocationError(
                f"claim {key(claim)}, constraint #{at}: empty constraint (unsupported constraint type?)"
            )
        found.append(_Constraint(match or distinct or "", match is None, each.get("requests") or ()))
    return found


def _kept_away(taints: Sequence[Object], request: Request) -> bool:
    """Whether a taint that the request does not tolerate keeps it from a device."""
    given = request.asked.get("tolerations") or ()
    return any(
        taint.get("effect") in ("NoSchedule", "NoExecute") and not any(tolerates(each, taint) for each in given)
        for taint in taints
    )
