"""How fast silent nodes may be emptied: zone by zone, slower or not at all where too many fail at once.

Owns the count of ready nodes by zone and one bucket of evictions a zone. Called by the controller with every node that
it sees; it reads no clock and talks to nobody. Many silent nodes are more often a broken network than broken machines.
Source: kubernetes' pkg/controller/nodelifecycle (zone states, RateLimitedTimedQueue).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from steersman.api import pods
from steersman.api.resource import Object

_EXCLUDED = "node.kubernetes.io/exclude-disruption"
_MANY = 2  # up to so many failing nodes are never too many, whatever their share


@dataclass(frozen=True, slots=True)
class Pace:
    """The settings, under the names of kube-controller-manager's flags. Rates are nodes a second in each zone."""

    node_eviction_rate: float = 0.1
    secondary_node_eviction_rate: float = 0.01
    unhealthy_zone_threshold: float = 0.55
    large_cluster_size_threshold: int = 50

    @staticmethod
    def of(config: Mapping[str, str]) -> Pace:
        """Raises ValueError for what is no number or below zero."""

        def number(name: str, default: float) -> float:
            text = config.get(name, str(default))
            try:
                found = float(text)
            except ValueError:
                raise ValueError(f'invalid argument "{text}" for "--{name}" flag: not a number') from None
            if not 0 <= found < float("inf"):
                raise ValueError(f'invalid argument "{text}" for "--{name}" flag: must be zero or more, and finite')
            return found

        return Pace(
            number("node-eviction-rate", 0.1),
            number("secondary-node-eviction-rate", 0.01),
            number("unhealthy-zone-threshold", 0.55),
            int(number("large-cluster-size-threshold", 50)),
        )


@dataclass(slots=True)
class _Bucket:
    """At most one eviction waits in it. `since`: when it was last empty, monotonic seconds; None: never yet."""

    rate: float
    since: float | None = None


@dataclass(slots=True)
class Zones:
    """Every known node's zone and readiness, and what follows. `moved` is set when a zone's pace changes."""

    pace: Pace
    moved: bool = False
    _nodes: dict[str, tuple[str, bool]] = field(default_factory=dict)
    _ready: Counter[str] = field(default_factory=Counter)
    _sizes: Counter[str] = field(default_factory=Counter)
    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def tell(self, name: str, node: Object | None) -> None:
        """A node as it is now; None: it is gone. Costs the same however many nodes there are."""
        new = (zone_of(node), is_ready(node)) if node is not None and _counts(node) else None
        old = self._nodes.pop(name, None)
        if new is not None:
            self._nodes[name] = new
        if old == new:
            return
        touched = {zone for zone, _ in filter(None, (old, new))}
        before = self.stopped, {zone: self.rate(zone) for zone in touched}
        for sign, found in ((-1, old), (1, new)):
            if found is not None:
                self._sizes[found[0]] += sign
                self._ready[found[0]] += sign * found[1]
        self._sizes, self._ready = +self._sizes, +self._ready
        self.moved |= before != (self.stopped, {zone: self.rate(zone) for zone in touched})

    def figures(self) -> Iterator[tuple[str, int, int]]:
        """Each zone: its nodes, and those that are ready."""
        for zone, size in self._sizes.items():
            yield zone, size, self._ready[zone]

    @property
    def stopped(self) -> bool:
        """Whether no node at all is ready: then it is us who hear nothing, and nobody is driven away."""
        return bool(self._sizes) and not self._ready

    def rate(self, zone: str) -> float:
        """Nodes a second that may be emptied there."""
        size = self._sizes[zone]
        failing = size - self._ready[zone]
        if self.stopped:
            return 0.0
        if failing <= _MANY or failing == size or failing / size < self.pace.unhealthy_zone_threshold:
            return self.pace.node_eviction_rate
        if size > self.pace.large_cluster_size_threshold:
            return self.pace.secondary_node_eviction_rate
        return 0.0

    def wait(self, node: Object, now: float) -> float | None:
        """Seconds until the node may be emptied; 0.0: now, and its turn is taken; None: not before the pace changes."""
        zone = zone_of(node)
        bucket = self._buckets.setdefault(zone, _Bucket(self.pace.node_eviction_rate))
        rate = self.rate(zone)
        if rate != bucket.rate:
            if not bucket.rate or _left(bucket, now) > 0:
                bucket.since = now  # who waited for the old pace waits for the new one in full
            bucket.rate = rate
        if not rate:
            return None
        left = _left(bucket, now)
        if left <= 0:
            bucket.since = now
        return max(left, 0.0)


def _left(bucket: _Bucket, now: float) -> float:
    return 0.0 if bucket.since is None else bucket.since + 1 / bucket.rate - now


def _counts(node: Object) -> bool:
    return _EXCLUDED not in (node["metadata"].get("labels") or {})


def is_ready(node: Object) -> bool:
    """Whether the node's Ready condition is True."""
    return (pods.condition(node, "Ready") or {}).get("status") == "True"


def zone_of(node: Object) -> str:
    """Region and zone in one; empty for a node that tells neither."""
    labels = node["metadata"].get("labels") or {}
    region, zone = (
        labels.get(f"topology.kubernetes.io/{name}") or labels.get(f"failure-domain.beta.kubernetes.io/{name}") or ""
        for name in ("region", "zone")
    )
    return f"{region}:\0:{zone}" if region or zone else ""
