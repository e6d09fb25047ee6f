"""Addresses and node ports of Services: given out, checked, taken back.

Owns which are in use: those of stored Services, followed as they change, and those promised to writes under way, so
that two writes at once never get the same. Hooked into the writes of Services; called by nobody else.
Source: pkg/registry/core/service/storage/alloc.go, service/ipallocator and portallocator; KEP-3070 and KEP-3668 (the
lower part of each range is left to those who choose for themselves).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from steersman.api import errors
from steersman.api.errors import ApiError, FieldError
from steersman.api.kind import Kind
from steersman.api.names import parse_ip
from steersman.api.resource import Object
from steersman.apiserver import ipfamilies
from steersman.apiserver.cache import decode, encode
from steersman.apiserver.call import Call
from steersman.apiserver.ipaddresses import GROUP, IpAddresses
from steersman.apiserver.ipfamilies import HEADLESS
from steersman.apiserver.reservations import Reservations
from steersman.store.interface import Event, StoreUnavailable

Network = IPv4Network | IPv6Network
Claim = str | int
"""An address, or the number of a node port."""
Undo = Callable[[], None]

_ANOTHER = "another API server's"
_WAITS = (0.02, 0.05, 0.1, 0.2, 0.4)  # seconds
_PORT_TYPES = ("NodePort", "LoadBalancer")


ALLOCATOR = "service allocator"
"""Where the `Allocator` is in `Services.extras`."""


class Claims:
    """Who holds what, by uid."""

    def __init__(self) -> None:
        self._stored: dict[Claim, str] = {}
        self._of: dict[str, frozenset[Claim]] = {}
        self._promised: dict[Claim, str] = {}

    def holder(self, claim: Claim) -> str:
        """The uid that holds it; empty when it is free."""
        return self._stored.get(claim) or self._promised.get(claim, "")

    def promise(self, uid: str, claims: Iterable[Claim]) -> Undo:
        """Hold what is free for a write; the result takes it back. What is stored wins and needs no promise."""
        fresh = [claim for claim in claims if not self.holder(claim)]
        self._promised.update(dict.fromkeys(fresh, uid))

        def undo() -> None:
            for claim in fresh:
                self._promised.pop(claim, None)

        return undo

    def store(self, uid: str, claims: frozenset[Claim]) -> frozenset[Claim]:
        """What a committed write holds from now on, instead of what it held; returns what it gave up."""
        gone = self._of.pop(uid, frozenset()) - claims
        for claim in gone:
            self._stored.pop(claim, None)
        for claim in claims:
            self._stored[claim] = uid
            self._promised.pop(claim, None)
        if claims:
            self._of[uid] = claims
        return gone

    @property
    def held(self) -> Mapping[str, frozenset[Claim]]:
        """What stored Services hold, by uid."""
        return self._of


def claims_of(spec: Object) -> frozenset[Claim]:
    """What a Service holds."""
    claims: list[Claim] = [ip for ip in spec.get("clusterIPs") or () if ip and ip != HEADLESS]
    claims += [port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")]
    if health := spec.get("healthCheckNodePort"):
        claims.append(health)
    return frozenset(claims)


class Allocator:
    """Gives Services what they lack. `network` is the default family's; `ports` are inclusive bounds."""

    def __init__(
        self,
        server: Any,
        network: Network,
        ports: tuple[int, int],
        second: Network | None = None,
        reservations: Reservations | None = None,
    ) -> None:
        """`reservations` where other API servers give out the same addresses."""
        self._server = server
        self._reservations = reservations
        self._networks = {f"IPv{each.version}": each for each in (network, second) if each is not None}
        self._more: dict[str, list[Network]] | None = None
        self.ports = ports
        self._claims = Claims()
        self.given = Counter[tuple[str, str]]()  # addresses by range and scope: asked for (static), or any (dynamic)
        self.refused = Counter[tuple[str, str]]()
        self.addresses = IpAddresses(server)

    @property
    def networks(self) -> Sequence[Network]:
        """Where addresses are from, the default family's first."""
        return list(self._networks.values())

    def used(self) -> list[tuple[Network, int]]:
        """Every range, and how many of its addresses Services have."""
        held = [parsed for claims in self._claims.held.values() for one in claims if (parsed := parse_ip(str(one)))]
        ranges = dict.fromkeys(each for family in ("IPv4", "IPv6") for each in self.ranges(family))
        return [(network, sum(address in network for address in held)) for network in ranges]

    @property
    def used_ports(self) -> int:
        """How many node ports Services have."""
        return len({one for claims in self._claims.held.values() for one in claims if isinstance(one, int)})

    def ranges(self, family: str) -> list[Network]:
        """Where a family's addresses are from: this server's own range, then those of ServiceCIDRs that are ready."""
        if self._more is None:
            self._more = {}
            kind = self._server.registry.find(GROUP, "servicecidrs")
            found = self._server.storage.cache(kind).items(self._server.storage.prefix(kind)) if kind else ()
            for network in (each for _, item in found for each in _ready_ranges(item.obj())):
                self._more.setdefault(f"IPv{network.version}", []).append(network)
        own = self._networks.get(family)
        more = self._more.get(family, [])
        return more if own is None else [own, *(each for each in more if each != own)]

    async def attach(self) -> None:
        """Learn what is in use, then hook into creates, updates and changes of Services."""
        server = self._server
        kind = server.registry.find("", "services")
        for _, item in server.storage.cache(kind).items(server.storage.prefix(kind)):
            obj = item.obj()
            self._claims.store(obj["metadata"]["uid"], claims_of(obj["spec"]))
        if self._reservations is not None:
            await self._reservations.settle(dict(self._claims.held))
        server.storage.on_change.append(self._changed)
        self.addresses.attach(kind)
        extras = server.services.extras
        extras.setdefault("before_create", {}).setdefault(("", "Service"), []).append(self.created)
        extras.setdefault("before_update", {}).setdefault(("", "Service"), []).append(self.updated)
        extras["service_networks"] = self.networks
        extras[ALLOCATOR] = self

    def _changed(self, kind: Kind, events: Sequence[Event]) -> None:
        if (kind.group, kind.plural) == (GROUP, "servicecidrs"):
            self._more = None
        if (kind.group, kind.plural) != ("", "services"):
            return
        for event in events:
            obj = decode(event.value if event.value is not None else event.previous or b"{}")
            claims = claims_of(obj["spec"]) if event.value is not None else frozenset()
            uid = obj["metadata"]["uid"]
            gone = self._claims.store(uid, claims)
            if self._reservations is not None:
                self._reservations.release(gone, uid)

    async def created(self, call: Call, obj: Object) -> Undo:
        """Allocate for a new Service. Raises ApiError."""
        return await self._agreed(call, obj, {})

    async def updated(self, call: Call, obj: Object, old: Object) -> Undo | None:
        """Allocate what a change of type, families or ports calls for. Raises ApiError."""
        return None if call.info.subresource else await self._agreed(call, obj, old["spec"])

    async def _agreed(self, call: Call, obj: Object, before: Object) -> Undo:
        """Allocate, and have it from the other API servers too. Raises ApiError.

        What a write of theirs holds only for a moment may be all that is left: nobody is told at once that a range is
        full of which something was lost to another.
        """
        if self._reservations is None:
            return self._allocate(call, obj, before)
        asked = encode(obj["spec"])
        for wait in (*_WAITS, 0.0):
            lost: set[Claim] = set()
            try:
                return await self._contested(call, obj, before, self._reservations, lost)
            except StoreUnavailable as error:
                raise errors.internal(str(error)) from error
            except ApiError:
                if not lost or not wait:
                    raise
            obj["spec"] = decode(asked)
            await call.services.clock.sleep(wait)
        raise AssertionError("unreachable: the last try returns or raises")

    async def _contested(
        self, call: Call, obj: Object, before: Object, reservations: Reservations, lost: set[Claim]
    ) -> Undo:
        """One pass over what seems free; what others were quicker to give is added to `lost` and not tried again."""
        asked, uid = encode(obj["spec"]), obj["metadata"]["uid"]
        held = claims_of(before)
        with ExitStack() as others:
            while True:
                undo = self._allocate(call, obj, before)
                mine = claims_of(obj["spec"]) - held
                try:
                    refused = await reservations.take(mine, uid)
                except StoreUnavailable:
                    undo()
                    raise
                if not refused:
                    break
                undo()
                lost.update(refused)
                others.callback(self._claims.promise(_ANOTHER, refused))  # as long as this pass looks for another
                obj["spec"] = decode(asked)

        def give_back() -> None:
            undo()
            reservations.release(mine, uid)

        return give_back

    def _allocate(self, call: Call, obj: Object, before: Object) -> Undo:
        spec = obj["spec"]
        if not spec.get("clusterIPs") and spec.get("clusterIP"):
            spec["clusterIPs"] = [spec["clusterIP"]]
        if problems := ipfamilies.settle(spec, before, list(self._networks)):
            raise errors.invalid("", "Service", obj["metadata"].get("name", ""), problems)
        uid = obj["metadata"]["uid"]
        if spec.get("type") != "ExternalName":
            self._addresses(call, obj, before, uid)
        if spec.get("type") in _PORT_TYPES:
            self._node_ports(call, obj, uid)
        return self._claims.promise(uid, claims_of(spec))

    # Addresses -----------------------------------------------------------------------------------------------------

    def _addresses(self, call: Call, obj: Object, before: Object, uid: str) -> None:
        """Addresses that the Service has are not given again: that they may not change is validation's to say."""
        spec, had = obj["spec"], list(before.get("clusterIPs") or ()) if before.get("type") != "ExternalName" else []
        listed: list[str] = list(spec.get("clusterIPs") or ())
        if HEADLESS in listed[:1]:
            spec["clusterIP"] = HEADLESS
            return
        for at, family in enumerate(spec["ipFamilies"][:2]):
            if at < len(listed) and listed[at]:
                if at < len(had):
                    continue
                self._check_address(obj, listed, listed[at], uid)
            else:
                listed[at:] = [self._free_address(call, obj, family, listed)]
        spec["clusterIP"], spec["clusterIPs"] = listed[0], listed

    def _check_address(self, obj: Object, listed: list[str], wanted: str, uid: str) -> None:
        parsed = parse_ip(wanted)
        if parsed is None or self._claims.holder(wanted) == uid:
            return  # of what is no address, validation says what is wrong with it
        network = next((each for each in self.ranges(f"IPv{parsed.version}") if parsed in each), None)
        where = str(network), "static"
        if network is None:
            text = f"failed to allocate IP {wanted}: the provided network does not match the current range"
        elif self._taken(wanted):
            text = f"failed to allocate IP {wanted}: provided IP is already allocated"
        else:
            self.given[where] += 1
            return
        if network is not None:
            self.refused[where] += 1
        shown = "[" + ",".join(f'"{each}"' for each in listed) + "]"
        raise _invalid(obj, "spec.clusterIPs", listed, f"{shown}: {text}")

    def _taken(self, address: str) -> bool:
        """Whether a Service holds it, or an IPAddress of anybody's stands for it."""
        return bool(self._claims.holder(address)) or self.addresses.find(address) is not None

    def _free_address(self, call: Call, obj: Object, family: str, taken: Sequence[str]) -> str:
        """A random address, from the lower part of a range only when the upper has none."""
        for network in self.ranges(family):
            size = min(network.num_addresses, 1 << 32)
            lower = min(max(16, size // 16), 256) + 1
            last = size - 1 if network.version == 4 else size  # IPv6 has no broadcast address
            first = int(network.network_address)
            make = type(network.network_address)
            for low, high in ((min(lower, last), last), (1, min(lower, last))):
                start = call.services.random.randrange(high - low) if high > low else 0
                for step in range(high - low):
                    address = str(make(first + low + (start + step) % (high - low)))
                    if not self._taken(address) and address not in taken:
                        self.given[str(network), "dynamic"] += 1
                        return address
            self.refused[str(network), "dynamic"] += 1
        name = obj["metadata"].get("name", "")
        raise errors.internal(f'failed to allocate a serviceIP for Service "{name}": range is full')

    # Node ports ----------------------------------------------------------------------------------------------------

    def _node_ports(self, call: Call, obj: Object, uid: str) -> None:
        spec = obj["spec"]
        mine: set[Claim] = set()
        chosen: dict[int, int] = {}  # service port -> node port: TCP and UDP of one port share it
        ports = spec.get("ports") or ()
        for at, port in enumerate(ports):
            if not port.get("nodePort"):
                if spec.get("allocateLoadBalancerNodePorts") is False and spec["type"] == "LoadBalancer":
                    continue
                port["nodePort"] = chosen.get(port.get("port", 0)) or _requested(ports[at:], port.get("port", 0))
            if not port["nodePort"]:
                port["nodePort"] = self._free_port(call, mine)
            elif not call.dry_run and port["nodePort"] != chosen.get(port.get("port", 0)):
                self._check_port(obj, f"spec.ports[{at}].nodePort", port["nodePort"], uid, mine)
            mine.add(port["nodePort"])
            chosen.setdefault(port.get("port", 0), port["nodePort"])
        if spec["type"] == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
            self._health_port(call, spec, uid, mine)

    def _health_port(self, call: Call, spec: Object, uid: str, mine: set[Claim]) -> None:
        wanted = spec.get("healthCheckNodePort")
        if not wanted:
            spec["healthCheckNodePort"] = self._free_port(call, mine)
        elif not call.dry_run and (problem := self._problem(wanted, uid, mine)):
            raise errors.internal(f"failed to allocate requested HealthCheck NodePort {wanted}: {problem}")

    def _problem(self, wanted: int, uid: str, mine: set[Claim]) -> str:
        """Why a port cannot be had; empty when it can."""
        if not self.ports[0] <= wanted <= self.ports[1]:
            valid = f"{self.ports[0]}-{self.ports[1]}"
            return f"provided port is not in the valid range. The range of valid ports is {valid}"
        if wanted in mine or self._claims.holder(wanted) not in ("", uid):
            return "provided port is already allocated"
        return ""

    def _check_port(self, obj: Object, path: str, wanted: int, uid: str, mine: set[Claim]) -> None:
        if problem := self._problem(wanted, uid, mine):
            raise _invalid(obj, path, wanted, f"{wanted}: {problem}")

    def _free_port(self, call: Call, mine: set[Claim]) -> int:
        low, high = self.ports
        size = high - low + 1
        lower = low + (min(max(16, size // 32), 128) if size > 16 else 0)
        for first, last in ((lower, high + 1), (low, lower)):
            start = call.services.random.randrange(last - first) if last > first else 0
            for step in range(last - first):
                port = first + (start + step) % (last - first)
                if port not in mine and not self._claims.holder(port):
                    return port
        raise errors.internal("failed to allocate a nodePort: range is full")


def _ready_ranges(cidr: Object) -> list[Network]:
    """The ranges of a ServiceCIDR that may be given from: of one that is ready and is to stay."""
    conditions = (cidr.get("status") or {}).get("conditions") or ()
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    if not ready or cidr["metadata"].get("deletionTimestamp"):
        return []
    return [ip_network(each) for each in cidr["spec"].get("cidrs") or ()]


def _requested(ports: Sequence[Object], number: int) -> int:
    """A node port that somebody asks for on the same port with another protocol."""
    return next((int(port["nodePort"]) for port in ports if port.get("port", 0) == number and port.get("nodePort")), 0)


def _invalid(obj: Object, path: str, value: Any, text: str) -> ApiError:
    found = FieldError("FieldValueInvalid", path, f"Invalid value: {text}", value)
    return errors.invalid("", "Service", obj["metadata"].get("name", ""), [found])
