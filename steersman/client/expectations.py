"""What a controller has done and its informer has not seen yet.

Owns the barrier between writing and reading one's own writes: a controller that trusts a stale copy creates too many.
Called by controllers that create or delete children. Source: client-go's controller expectations, here by
resourceVersion and uid rather than by count, so that a lost event cannot leave it wrong.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from steersman.api.resource import Object
from steersman.client.informer import Informer
from steersman.lib.clock import Clock

_PATIENCE = 300.0  # seconds: then the informer's word counts, whatever we did


@dataclass(slots=True)
class _Owed:
    version: int = 0
    deleted: dict[tuple[str, str], str] = field(default_factory=dict)  # with the uid
    since: float = 0.0


class Expectations:
    """Per owner: the newest child created, which the informer must have reached, and children deleted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._owed: dict[Hashable, _Owed] = {}

    def _of(self, owner: Hashable) -> _Owed:
        owed = self._owed.setdefault(owner, _Owed())
        owed.since = self._clock.monotonic()
        return owed

    def created(self, owner: Hashable, child: Object) -> None:
        """`owner` has created or changed a child, given as the API server returned it."""
        owed = self._of(owner)
        owed.version = max(owed.version, int(child["metadata"]["resourceVersion"]))

    def deleted(self, owner: Hashable, child: Object) -> None:
        """`owner` has deleted a child."""
        meta = child["metadata"]
        self._of(owner).deleted[(meta.get("namespace") or "", meta["name"])] = meta["uid"]

    def kept(self, owner: Hashable, child: Object) -> None:
        """`owner` could not delete a child after all."""
        meta = child["metadata"]
        self._of(owner).deleted.pop((meta.get("namespace") or "", meta["name"]), None)

    def asked(self, owner: Hashable, there: Iterable[Object]) -> None:
        """The API server was asked: these are the children of `owner`, whatever became of our writes."""
        owed = self._of(owner)
        alive: set[str] = set()
        for child in there:
            meta = child["metadata"]
            owed.version = max(owed.version, int(meta["resourceVersion"]))
            if not meta.get("deletionTimestamp"):
                alive.add(meta["uid"])
        owed.deleted = {at: uid for at, uid in owed.deleted.items() if uid not in alive}

    def fulfilled(self, owner: Hashable, informer: Informer) -> bool:
        """Whether the informer shows everything that `owner` did, or it has been waited for long enough."""
        owed = self._owed.get(owner)
        if owed is None:
            return True
        owed.deleted = {at: uid for at, uid in owed.deleted.items() if _still_there(informer, at, uid)}
        seen = informer.version >= owed.version and not owed.deleted
        if seen or self._clock.monotonic() - owed.since > _PATIENCE:
            del self._owed[owner]
            return True
        return False

    def forget(self, owners: Iterable[Hashable]) -> None:
        """These owners are gone."""
        for owner in owners:
            self._owed.pop(owner, None)


def _still_there(informer: Informer, at: tuple[str, str], uid: str) -> bool:
    obj = informer.get(*at)
    return obj is not None and obj["metadata"]["uid"] == uid and not obj["metadata"].get("deletionTimestamp")
