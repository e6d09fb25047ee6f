"""Every node gets a range of the cluster's pod addresses.

Owns spec.podCIDRs of nodes that came without; a node that brings its own keeps them, and nobody else gets them.
Settings: `allocate-node-cidrs` (false), `cluster-cidr`, `service-cluster-ip-range`, `node-cidr-mask-size` (24, 64 for
IPv6) and its `-ipv4` and `-ipv6`. Source: kubernetes' pkg/controller/nodeipam, the range allocator, whose texts these
are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from steersman.api.errors import ApiError
from steersman.api.resource import NODES, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result

Network = IPv4Network | IPv6Network
_MASKS = {4: 24, 6: 64}
_MOST = 16  # bits between an IPv6 cluster's mask and its nodes'


class Ranges:
    """Equal parts of one network, each with how many hold it; the next one given is the one after the last."""

    def __init__(self, network: Network, mask: int) -> None:
        """Raises ValueError for a mask that the network cannot be cut by."""
        if network.prefixlen > mask:
            raise ValueError(
                "Controller: Invalid --cluster-cidr, mask size of cluster CIDR must be less than or equal to "
                "--node-cidr-mask-size configured for CIDR family"
            )
        if mask > network.max_prefixlen or (network.version == 6 and mask - network.prefixlen > _MOST):
            raise ValueError("New CIDR set failed; the node CIDR size is too big")
        self.network = network
        self._mask = mask
        self._bits = network.max_prefixlen - mask
        self._count = 1 << (mask - network.prefixlen)
        self._held: Counter[int] = Counter()
        self._next = 0
        self.allocated = self.released = 0  # parts, since the start

    @property
    def count(self) -> int:
        """How many parts there are."""
        return self._count

    def _parts(self, network: Network) -> range:
        """The parts that `network` touches; none when it lies outside."""
        if network.version != self.network.version:
            return range(0)
        base = int(self.network.network_address)
        first = (int(network.network_address) - base) >> self._bits
        last = (int(network.broadcast_address) - base) >> self._bits
        return range(max(first, 0), min(last + 1, self._count))

    def hold(self, network: Network) -> None:
        """These addresses are somebody's."""
        before = len(self._held)
        self._held.update(self._parts(network))
        self.allocated += len(self._held) - before

    def release(self, network: Network) -> None:
        """One holder less."""
        for part in self._parts(network):
            self._held[part] -= 1
            if self._held[part] <= 0:
                del self._held[part]
                self.released += 1

    @property
    def usage(self) -> float:
        """The share that is held."""
        return len(self._held) / self._count

    def take(self) -> Network | None:
        """A part that nobody holds, held from now on; None when there is none."""
        if len(self._held) >= self._count:
            return None
        while self._next in self._held:
            self._next = (self._next + 1) % self._count
        part, self._next = self._next, (self._next + 1) % self._count
        self._held[part] = 1
        self.allocated += 1
        address = int(self.network.network_address) + (part << self._bits)
        return ip_network((address, self._mask))


class Book:
    """Which node holds what."""

    def __init__(self, ranges: Sequence[Ranges]) -> None:
        self._ranges = ranges
        self._of: dict[str, list[Network]] = {}

    def hold(self, name: str, networks: Sequence[Network]) -> None:
        """The node has these, and nothing else."""
        if self._of.get(name) == networks:
            return
        self.release(name)
        self._of[name] = list(networks)
        for ranges, network in zip(self._ranges, networks, strict=False):
            ranges.hold(network)

    def release(self, name: str) -> None:
        """The node is gone."""
        for ranges, network in zip(self._ranges, self._of.pop(name, ()), strict=False):
            ranges.release(network)

    def give(self, name: str) -> list[Network] | None:
        """One part of each range, the same again for a node that is not known to have it yet; None when one is full."""
        found = self._of.get(name)
        if found is None:
            taken = [ranges.take() for ranges in self._ranges]
            if None in taken:
                for ranges, network in zip(self._ranges, taken, strict=True):
                    if network is not None:
                        ranges.release(network)
                return None
            found = self._of[name] = [network for network in taken if network is not None]
        return found


def ranges_of(config: Mapping[str, str]) -> list[Ranges]:
    """The cluster's ranges as the settings have them. Raises ValueError."""
    networks = [ip_network(each.strip()) for each in config.get("cluster-cidr", "").split(",") if each.strip()]
    if not networks:
        raise ValueError("Controller: Must specify --cluster-cidr if --allocate-node-cidrs is set")
    if len(networks) > 2:
        raise ValueError(f"length of clusterCIDRs is:{len(networks)} more than max allowed of 2")
    if len(networks) == 2 and networks[0].version == networks[1].version:
        raise ValueError(
            "len of ClusterCIDRs==2 and they are not configured as dual stack (at least one from each IPFamily"
        )
    plain = _mask(config, "node-cidr-mask-size")
    if plain and len(networks) == 2:
        raise ValueError("usage of --node-cidr-mask-size is not allowed with dual-stack clusters")
    own = {version: _mask(config, f"node-cidr-mask-size-ipv{version}") for version in _MASKS}
    found = [Ranges(network, plain or own[network.version] or _MASKS[network.version]) for network in networks]
    for text in config.get("service-cluster-ip-range", "").split(","):
        for ranges in found if text.strip() else ():
            ranges.hold(ip_network(text.strip()))
    return found


def _mask(config: Mapping[str, str], flag: str) -> int:
    text = config.get(flag, "0")
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f'invalid argument "{text}" for "--{flag}" flag: it is no number of bits')
    return int(text)


def cidrs_of(node: Object) -> list[Network]:
    """The ranges that a node has."""
    spec = node.get("spec") or {}
    return [ip_network(each, strict=False) for each in spec.get("podCIDRs") or ()]


def _book(context: Context) -> Book:
    """Made at the first call from what all nodes have: whoever starts anew gives nothing out twice."""
    book: Book | None = context.memory.get("book")
    if book is None:
        ranges = ranges_of(context.config)
        book = context.memory["book"] = Book(ranges)
        context.metrics.ask("node_ipam_controller", lambda: _count(context, ranges))
        _hold_all(book, context.informer(NODES).list())
    return book


def _count(context: Context, every: Sequence[Ranges]) -> None:
    """What of the ranges is given out, for metrics; the first name is spelt as the original spells it."""
    start, labels = "node_ipam_controller_", ("clusterCIDR",)
    most = context.metrics.gauge(f"{start}cirdset_max_cidrs", "Parts of a range.", labels)
    usage = context.metrics.gauge(f"{start}cidrset_usage_cidrs", "The share of them that is given out.", labels)
    given = context.metrics.counter(f"{start}cidrset_cidrs_allocations_total", "Parts given out.", labels)
    back = context.metrics.counter(f"{start}cidrset_cidrs_releases_total", "Parts taken back.", labels)
    for ranges in every:
        where = str(ranges.network)
        most.labels(where).set(ranges.count)
        usage.labels(where).set(ranges.usage)
        given.labels(where).set(ranges.allocated)
        back.labels(where).set(ranges.released)


def _hold_all(book: Book, nodes: Iterable[Object]) -> None:
    for node in nodes:
        if networks := cidrs_of(node):
            book.hold(node["metadata"]["name"], networks)


async def reconcile(context: Context, key: Key) -> Result:
    """Give one node its ranges, or note which it has, or take back what it had."""
    book = _book(context)
    node = context.informer(NODES).get(*key)
    if node is None:
        book.release(key.name)
        return DONE
    if networks := cidrs_of(node):
        book.hold(key.name, networks)
        return DONE
    if node["metadata"].get("deletionTimestamp"):
        return DONE
    given = book.give(key.name)
    if given is None:
        _tell(context, node, "CIDRNotAvailable")
        raise OSError("CIDR allocation failed; there are no remaining CIDRs left to allocate in the accepted range")
    listed = [str(each) for each in given]
    body = {"metadata": {"uid": node["metadata"]["uid"]}, "spec": {"podCIDR": listed[0], "podCIDRs": listed}}
    try:
        await context.client.patch(NODES, key.name, "", body, type="strategic")
    except ApiError as error:
        if error.code < 500:  # it did not happen; else it may have, and the node shall get the same again
            book.release(key.name)
        if error.code not in (404, 409):
            _tell(context, node, "CIDRAssignmentFailed")
        raise
    return DONE


def _tell(context: Context, node: Object, reason: str) -> None:
    meta = node["metadata"]
    about = {"kind": "Node", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
    context.recorder.event(about, "Normal", reason, f"Node {meta['name']} status is now: {reason}")


def _asked_for(config: Mapping[str, str]) -> bool:
    """Off unless set; settings that cannot be are an error of the start. Raises ValueError."""
    return config.get("allocate-node-cidrs") == "true" and bool(ranges_of(config))


CONTROLLER = Controller(
    "node-ipam-controller",
    reconcile,
    (For(NODES),),
    workers=1,
    component="cidrAllocator",
    asked_for=_asked_for,
)
