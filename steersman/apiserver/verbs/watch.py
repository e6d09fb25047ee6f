"""watch: events of a collection from a resourceVersion on.

Owns initial events, the past, bookmarks and the end of a watch; once it has caught up it is one of an audience
(`audience.py`), unless it is unlike any other.
Source: apiserver's watch cache; KEP-956 (bookmarks), KEP-3157 (sendInitialEvents).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from steersman.api import errors
from steersman.api.errors import ApiError, FieldError
from steersman.api.fields import exact_name
from steersman.api.resource import Object
from steersman.api.validation import forbidden, not_supported
from steersman.apiserver.cache import WATCH_LISTS, Change, Item
from steersman.apiserver.call import Call
from steersman.apiserver.conversion import remote
from steersman.apiserver.negotiate import PROTOBUF
from steersman.apiserver.verbs.audience import View, audience_of, last_seen
from steersman.apiserver.verbs.longlist import TURN
from steersman.apiserver.verbs.read import Selection, check_not_future, parse_version, selection
from steersman.lib.http.messages import Stream, Writer
from steersman.lib.http.streams import ChunkWriter, frame
from steersman.lib.tasks import turn

BOOKMARK_EVERY = 60.0  # seconds
_TIMEOUT_LEAST, _TIMEOUT_MOST = 1800, 3600  # seconds, when the client names none
_INITIAL_END = "k8s.io/initial-events-end"


def watch(call: Call) -> Stream:
    """Start a watch. Raises ApiError before anything is sent when the parameters are wrong."""
    chosen = selection(call)
    if call.info.name and exact_name(call.query.get("fieldSelector")) not in ("", call.info.name):
        raise errors.bad_request("fieldSelector metadata.name doesn't match requested name")
    version, match = call.query.get("resourceVersion"), call.query.get("resourceVersionMatch")
    initial = call.query.has("sendInitialEvents")
    continues = call.query.get("continue") != ""
    if continues and not (initial or match) and version in ("", "0"):
        _check("NotOlderThan", initial=True, continues=True)  # what there is comes first, as if it had been asked for
    _check(match, initial=initial, continues=continues)
    after = parse_version(version, plain=True) if version not in ("", "0") else None
    wants_state = call.query.flag("sendInitialEvents") if initial else after is None
    if not wants_state and after is None:
        after = call.storage.revision  # only what is new
    seconds = call.query.number("timeoutSeconds") or call.services.random.randrange(_TIMEOUT_LEAST, _TIMEOUT_MOST)
    late: ApiError | None = None
    if wants_state and after is not None:
        try:
            check_not_future(call, after)
        except ApiError as error:
            late = error  # told as an event
    session = _Session(call, chosen, seconds, announces=initial and wants_state)
    media = call.format.media
    content = f"{PROTOBUF};stream=watch" if media == PROTOBUF else media
    headers = [("cache-control", "no-cache, private"), ("content-type", content)]
    return Stream(200, headers, lambda writer: session.run(writer, None if wants_state else after, late))


def _check(match: str, *, initial: bool, continues: bool) -> None:
    """Raises ApiError 422. Source: apimachinery's metav1/validation ValidateListOptions, for watches."""
    name, found = "resourceVersionMatch", list[FieldError]()
    if initial and match != "NotOlderThan":
        found.append(forbidden(name, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"))
    if match:
        if not initial:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            found.append(forbidden(name, text))
        if match != "NotOlderThan":
            found.append(not_supported(name, match, ["NotOlderThan"]))
        if continues:
            found.append(forbidden(name, "resourceVersionMatch is forbidden when continue is provided"))
    if found:
        raise errors.invalid("meta.k8s.io", "ListOptions", "", found)


class _Session:
    """One watch while it lasts."""

    def __init__(self, call: Call, chosen: Selection, seconds: float, *, announces: bool) -> None:
        self._call = call
        self._chosen = chosen
        self._seconds = seconds
        self._announces = announces
        self._began = call.services.clock.monotonic()
        self._bookmarks = call.query.flag("allowWatchBookmarks")
        self._cache = call.storage.cache(call.kind)
        self._view = View(call, chosen, self._cache)
        self._encoder = self._view.encoder
        self._after = 0  # nothing is told of what comes before, though it may be still to come
        self._first = True
        self._held: list[Change] | None = []
        self._over = asyncio.Event()
        self._waits = remote(call.kind)  # events are told when the webhook has converted them
        self._news = asyncio.Event()
        self._writer: Writer = None  # type: ignore[assignment]
        self._send: Callable[[bytes], None] = None  # type: ignore[assignment]

    async def run(self, writer: Writer, after: int | None, late: ApiError | None = None) -> None:
        """Send events until the time is up or the client is gone."""
        self._writer = writer
        out = writer.out if isinstance(writer, ChunkWriter) and writer.chunked else None
        self._send = self._unframed if out is None else out.send_soon
        writer.on_close(self._close)
        live = self._live
        if after is not None and after > self._call.storage.revision:
            self._after, live = after, self._later
        stop = self._cache.watch(live, self._close)
        try:
            if not await self._begin(after, late):
                return
            if out is not None and out.joining is not None and not (self._after or self._waits or self._view.table):
                stop()  # what is told from now on is the same for many
                audience = audience_of(self._call, self._view, self._cache, out.joining)
                stop = audience.join(out, self._close)
                self._send = audience.before(out.send_soon)
            await (self._wait_converting() if self._waits else self._wait())
        finally:
            stop()

    def _close(self) -> None:
        self._over.set()
        self._news.set()

    def _unframed(self, framed: bytes) -> None:
        """For writers that frame themselves: take our own frame off."""
        start = framed.index(b"\r\n") + 2
        self._writer.write(framed[start:-2])

    def _live(self, change: Change) -> None:
        """A change as it happens; kept back while the past is being told."""
        if self._held is None:
            self._on_change(change)
        else:
            self._held.append(change)
            self._news.set()

    def _later(self, change: Change) -> None:
        """As `_live`, for who has seen more than there is."""
        if change.revision > self._after:
            self._live(change)

    async def _begin(self, after: int | None, late: ApiError | None) -> bool:
        """The state, or what happened since `after`; False when that is no longer known."""
        try:
            if late is not None:
                raise late
            if after is None:
                await self._tell_state()
                return True
            past = self._cache.since(after)
            if past is None:
                past = await self._call.storage.past(self._call.kind, after)
            if past is None:
                gone = errors.gone(f"too old resource version: {after} ({self._cache.oldest})")
                self._send(frame(self._encoder.event_of("ERROR", gone.status())))
                return False
            told = past[-1].revision if past else after
            if self._waits:
                self._held = [*past, *(each for each in self._held or () if each.revision > told)]
                self._news.set()
                return True
            for at, change in enumerate(past, 1):
                self._on_change(change)
                await self._pace(at)
            await self._catch_up(told)
        except ApiError as error:
            self._send(frame(self._encoder.event_of("ERROR", error.status())))
            return False
        except ConnectionError:
            return False
        return True

    async def _tell_state(self) -> None:
        """Everything that is there, and that this was all."""
        revision = self._call.storage.revision
        _, items = self._cache.slice(self._call.storage.prefix(self._call.kind, self._chosen.namespace))
        if self._waits:
            await self._encoder.prepare(items)
        for at, item in enumerate(items, 1):
            if self._chosen.matches(item):
                self._emit("ADDED", item, None)
                self._cache.initial += 1
            await self._pace(at)
        if self._announces:
            self._bookmark({_INITIAL_END: "true"}, revision)
            self._timed()
        if not self._waits:
            await self._catch_up(revision)

    def _timed(self) -> None:
        """Count how long it took to tell what there was."""
        if (seconds := self._call.services.extras.get(WATCH_LISTS)) is not None:
            info, now = self._call.info, self._call.services.clock.monotonic()
            scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
            seconds.labels(info.group, info.version, info.resource, scope).observe(now - self._began)

    async def _pace(self, at: int) -> None:
        """After the `at`th of many events: let others run, and the client read."""
        if at % TURN == 0:
            await self._writer.drain()
            await turn()

    async def _catch_up(self, told: int) -> None:
        """Tell what happened meanwhile, and from then on everything at once."""
        while len(held := self._held or []) > TURN:
            self._held = []
            for at, change in enumerate(held, 1):
                if change.revision > told:
                    self._on_change(change)
                await self._pace(at)
        self._held = None
        for change in held:
            if change.revision > told:
                self._on_change(change)

    async def _wait_converting(self) -> None:
        """As `_wait`, for events that take a webhook: in order, as many at a time as have come."""
        clock = self._call.services.clock
        end = clock.monotonic() + self._seconds
        try:
            while not self._over.is_set() and (left := end - clock.monotonic()) > 0:
                try:
                    async with asyncio.timeout(min(left, BOOKMARK_EVERY)):
                        await self._news.wait()
                except TimeoutError:
                    if self._bookmarks:
                        self._bookmark({})
                    continue
                self._news.clear()
                batch, self._held = self._held or [], []
                shown = [change.new if change.new is not None else last_seen(change) for change in batch]
                left_behind = [
                    item for change in batch if change.old is not None for item in (change.old, last_seen(change))
                ]
                await self._encoder.prepare([*shown, *(left_behind if not self._view.everything else ())])
                for change in batch:
                    self._on_change(change)
        except ApiError as error:
            self._send(frame(self._encoder.event_of("ERROR", error.status())))
        except ConnectionError:
            return

    async def _wait(self) -> None:
        clock = self._call.services.clock
        end = clock.monotonic() + self._seconds
        most = BOOKMARK_EVERY if self._bookmarks else self._seconds
        while not self._over.is_set() and (left := end - clock.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(left, most)):
                    await self._over.wait()
            except TimeoutError:
                if self._bookmarks and not self._over.is_set():
                    try:
                        self._bookmark({})
                    except ConnectionError:
                        return

    def _on_change(self, change: Change) -> None:
        """Tell the client of a change, as its selection sees it."""
        if (event := self._view.event(change)) is not None:
            try:
                self._emit(*event, change)
            except ConnectionError:
                self._over.set()

    def _emit(self, type: str, item: Item, change: Change | None) -> None:
        framed = self._view.framed(type, item, change, first=self._first)
        self._first = False
        self._view.count(framed)
        self._send(framed)

    def _bookmark(self, annotations: dict[str, str], revision: int = 0) -> None:
        """Tell how far the watch has come although nothing may have happened; to now, unless a revision is given."""
        kind, reached = self._call.kind, revision or self._call.storage.revision
        if reached < self._after:
            return
        meta: Object = {"resourceVersion": str(reached)}
        meta |= {"creationTimestamp": None}
        if annotations:
            meta["annotations"] = annotations
        obj = {"kind": kind.kind, "apiVersion": kind.api_version(self._call.version), "metadata": meta}
        self._send(frame(self._encoder.event_of("BOOKMARK", obj)))
