"""What metrics say of EndpointSlices: how many there are and should be, and what each look changes.

Owns the families of a controller of slices, and `Changes`, which they count. Called by `slices` and the controllers.
Source: kubernetes' staging/src/k8s.io/endpointslice/metrics, pkg/controller/endpointslicemirroring/metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from steersman.api.resource import Object
from steersman.client.metrics import Metrics, exponential

_encode = msgspec.json.Encoder(order="deterministic").encode
_SIZES = exponential(2, 2, 15)
_KEPT = {
    "endpoints_desired": "Endpoints.",
    "num_endpoint_slices": "Slices.",
    "desired_endpoint_slices": "Slices, if full.",
}


@dataclass(slots=True)
class Changes:
    """What to write."""

    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)


def identity(endpoint: Object) -> bytes:
    """Endpoints with the same identity are one that changed: the same pod, or the same addresses."""
    target = endpoint.get("targetRef") or {}
    return _encode(
        [target.get("uid", ""), endpoint.get("nodeName", ""), endpoint["addresses"], endpoint.get("hostname", "")]
    )


class SliceCounts:
    """One controller's families, which start with `of`."""

    def __init__(self, metrics: Metrics, of: str) -> None:
        self._metrics = metrics
        self._of = of
        self._kept: dict[tuple[str, str], tuple[int, int, int]] = {}
        self._sums = [0, 0, 0]

    def keep(self, key: tuple[str, str], sizes: Sequence[int], slices: int, most: int) -> None:
        """After a look at one owner: the endpoints of each of its groups, and how many slices hold them."""
        full = sum(-(-size // most) for size in sizes)
        self._replace(key, (sum(sizes), slices, full or 1))

    def forget(self, key: tuple[str, str]) -> None:
        """An owner is gone."""
        if key in self._kept:
            self._replace(key, (0, 0, 0))
            del self._kept[key]

    def _replace(self, key: tuple[str, str], new: tuple[int, int, int]) -> None:
        old = self._kept.get(key, (0, 0, 0))
        self._kept[key] = new
        for at, (name, text) in enumerate(_KEPT.items()):
            self._sums[at] += new[at] - old[at]
            self._metrics.gauge(f"{self._of}_{name}", text).labels().set(self._sums[at])

    def wrote(self, operation: str) -> None:
        """A slice was written: create, update or delete."""
        self._metrics.counter(f"{self._of}_changes", "Slices written.", ("operation",)).labels(operation).inc()

    def per_sync(self, what: str, number: int) -> None:
        """Of one look: how many endpoints were added, removed or otherwise."""
        name, text = f"{self._of}_{what}_per_sync", f"At a look: {what.replace('_', ' ')}."
        self._metrics.histogram(name, text, (), _SIZES).labels().observe(number)

    def changed(self, changes: Changes, existing: Mapping[str, Object]) -> None:
        """What a look changes; `existing` are the slices by name."""
        before = {name: {identity(each) for each in found.get("endpoints") or ()} for name, found in existing.items()}
        old = [before.get(each["metadata"]["name"], set()) for each in (*changes.update, *changes.delete)]
        was = set().union(*old)
        now = {identity(each) for found in (*changes.create, *changes.update) for each in found["endpoints"]}
        self.per_sync("endpoints_added", len(now - was))
        self.per_sync("endpoints_removed", len(was - now))


def updated(changes: Changes, existing: Mapping[str, Object]) -> int:
    """How many endpoints stay and are changed."""
    before = {identity(each): each for found in existing.values() for each in found.get("endpoints") or ()}
    now = [each for found in (*changes.create, *changes.update) for each in found["endpoints"]]
    return sum(before.get(mark, each) != each for each in now for mark in (identity(each),))
