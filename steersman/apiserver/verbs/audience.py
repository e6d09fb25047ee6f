"""What a watch shows of each change, and who watches the same.

Owns `View`, a selection in a format (an update may be an ADDED or a DELETED to it), and `Audience`, everybody who has
the same view: a change is looked at, counted and queued once for all of them. Made by `watch.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from steersman.apiserver.cache import Cache, Change, Item, Told
from steersman.apiserver.call import Call
from steersman.apiserver.verbs.read import Selection
from steersman.lib.http.crowd import Crowd
from steersman.lib.http.joining import Joining
from steersman.lib.http.streams import Outgoing, frame


class View:
    """Changes as one watch is shown them. An event is encoded and framed once per format and shared."""

    def __init__(self, call: Call, chosen: Selection, cache: Cache) -> None:
        self.chosen = chosen
        self.encoder = call.encoder()
        self.table = call.format.transform == "Table"
        self.everything = chosen.everything and not chosen.namespace
        self._share = (call.version, call.format, call.query.get("includeObject"))
        self._told = cache.by_version.setdefault(call.version, Told())

    def event(self, change: Change) -> tuple[str, Item] | None:
        """What a change is to this selection; None where it is nothing."""
        if self.everything:
            before, after = change.old is not None, change.new is not None
        else:
            before = change.old is not None and self.chosen.matches(change.old)
            after = change.new is not None and self.chosen.matches(change.new)
        if after and change.new is not None:
            return ("MODIFIED" if before else "ADDED"), change.new
        return ("DELETED", last_seen(change)) if before else None

    def framed(self, type: str, item: Item, change: Change | None, *, first: bool = False) -> bytes:
        """An event as it is sent. `first` of its watch, where a Table has its columns."""
        if change is None or (first and self.table):
            return frame(self.encoder.event(type, item, first=first))
        if (framed := change.frames.get(key := (type, self._share), b"")) == b"":
            framed = change.frames[key] = frame(self.encoder.event(type, item))
        return framed

    def count(self, framed: bytes, times: int = 1) -> None:
        """An event is sent to so many."""
        size, told = len(framed), self._told
        told.counts[(size - 1).bit_length()] += times
        told.bytes += size * times


def last_seen(change: Change) -> Item:
    """What a DELETED event shows: the object's last state with the revision of the change."""
    assert change.old is not None
    return change.old.at(change.revision)


class Audience:
    """Everybody who has the same view, as long as there is somebody."""

    def __init__(self, view: View, cache: Cache, joining: Joining, gone: Callable[[], None]) -> None:
        """`gone`: called when the last one has left."""
        self._view = view
        self._crowd = Crowd(joining)
        self._gone = gone
        self._stop = cache.watch(self._on_change, self._crowd.end)

    def join(self, stream: Outgoing, end: Callable[[], None]) -> Callable[[], None]:
        """Tell `stream` of every change from now on; returns what takes it out. `end`: something cannot be told."""
        self._crowd.add(stream, end)

        def leave() -> None:
            self._crowd.remove(stream)
            if not self._crowd:
                self._stop()
                self._gone()

        return leave

    def before(self, send: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """`send`, for what one of them alone is told, after what everybody was."""

        def ordered(framed: bytes) -> None:
            self._crowd.flush()
            send(framed)

        return ordered

    def _on_change(self, change: Change) -> None:
        if (event := self._view.event(change)) is not None:
            framed = self._view.framed(*event, change)
            self._view.count(framed, len(self._crowd))
            self._crowd.send_soon(framed)


def audience_of(call: Call, view: View, cache: Cache, joining: Joining) -> Audience:
    """Who watches the same already, or nobody yet: then `join` at once."""
    queries = tuple(call.query.get(name) for name in ("labelSelector", "fieldSelector", "includeObject"))
    key = id(call.kind), call.version, call.format, call.info.namespace, call.info.name, joining, *queries
    if (found := cache.audiences.get(key)) is None:
        found = cache.audiences[key] = Audience(view, cache, joining, lambda: cache.audiences.pop(key, None))
    return found
