"""Looks at kubelets, when somebody asks and no oftener than needed.

Owns the last two looks at each node. Called by `resource`. It has no loop: a cluster that nobody asks spends nothing on
it. The first question after a silence takes a second, which two looks must lie apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from steersman.api.resource import Object
from steersman.apiserver.metrics.usage import Look, PodKey, Usage, node_usage, pod_usages, read
from steersman.lib.clock import Clock
from steersman.lib.http.messages import Transport, read_at_most

log = logging.getLogger(__name__)

_ENOUGH = 5.0  # seconds for which two looks are new enough
_OLDEST = 60.0  # seconds over which a rate still tells of now
_APART = 1.0
_PATIENCE = 5.0  # seconds for a kubelet to answer
_MOST = 32 << 20  # bytes of a Summary


@dataclass(slots=True)
class _Looks:
    before: Look | None = None
    after: Look | None = None


class Collector:
    """Usage of nodes and pods. `kubelet` gives the way to a node's kubelet; raises ApiError where there is none."""

    def __init__(self, kubelet: Callable[[Object], Transport], clock: Clock) -> None:
        self._kubelet = kubelet
        self._clock = clock
        self._looks: dict[str, _Looks] = {}
        self._busy: dict[str, asyncio.Lock] = {}

    async def collect(self, nodes: Mapping[str, Object]) -> None:
        """Make what is known of these nodes new enough. A kubelet that does not answer is left out."""
        await asyncio.gather(*(self._renew(name, node) for name, node in nodes.items()))

    def keep_only(self, names: frozenset[str]) -> None:
        """Forget nodes that are gone."""
        for gone in set(self._looks) - names:
            self._looks.pop(gone, None)
            self._busy.pop(gone, None)

    def node(self, name: str) -> Usage | None:
        """A node's use; None while it is not known."""
        found = self._looks.get(name)
        return (
            None
            if found is None or found.before is None or found.after is None
            else node_usage(found.before, found.after)
        )

    def pods(self) -> dict[PodKey, Usage]:
        """The use of every pod that is known."""
        out: dict[PodKey, Usage] = {}
        for found in self._looks.values():
            if found.before is not None and found.after is not None:
                out |= pod_usages(found.before, found.after)
        return out

    async def _renew(self, name: str, node: Object) -> None:
        async with self._busy.setdefault(name, asyncio.Lock()):
            looks = self._looks.setdefault(name, _Looks())
            now = self._clock.now()
            if looks.before is not None and looks.after is not None and now - looks.after.at < _ENOUGH:
                return
            try:
                if looks.after is None or now - looks.after.at > _OLDEST:
                    looks.before, looks.after = None, await self._look(node)
                if looks.before is None:
                    await self._clock.sleep(looks.after.at + _APART - self._clock.now())
                looks.before, looks.after = looks.after, await self._look(node)
            except Exception as error:
                log.warning("cannot ask the kubelet of %s what it uses: %s", name, error or type(error).__name__)
                looks.before = looks.after = None

    async def _look(self, node: Object) -> Look:
        async with asyncio.timeout(_PATIENCE):
            response = await self._kubelet(node).request("GET", "/stats/summary")
            data = await read_at_most(response, _MOST)
        if response.status != 200:
            raise ValueError(f"it answers {response.status}")
        return read(data, self._clock.now())
