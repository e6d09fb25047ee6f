"""The gate that every request passes between impersonation and authorization: its flow, its seats, its turn.

Owns the classification and what it is remembered by, the levels, and the answer of those who are turned away. Asked by
`app.py`; it never looks into a request's body. A request that is answered at once, while its level has room, is not
counted: nothing else runs meanwhile on this loop. Watches leave when their head is sent; exec, logs and proxies never
come here. Source: KEP-1040, apiserver's pkg/server/filters/priority-and-fairness.go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from steersman.api import flows
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.call import User
from steersman.apiserver.flow import match, shares
from steersman.apiserver.flow.level import Level, Tally
from steersman.apiserver.flow.retry import Drops
from steersman.apiserver.request import LONG_RUNNING, Query, RequestInfo
from steersman.lib.clock import Clock
from steersman.lib.http.messages import Answer, Request, Response

ADJUST_EVERY = 10.0  # seconds between two looks at who could lend to whom
_REMEMBERED = 8192  # classifications
_PATIENCE = 15.0  # seconds in a queue, where the client says nothing of its own: a quarter of a request's time
_MOST_PATIENCE = 60.0
_OBJECTS_A_SEAT = 100
_MOST_SEATS = 10
_READS = ("get", "list", "watch", "head")

Serve = Callable[[Request, Query, RequestInfo, User], Answer | Awaitable[Answer]]


class Place:
    """Where a request belongs: a flow of a schema, at a level."""

    __slots__ = ("_hand", "by_namespace", "flow", "headers", "level", "schema", "tally")

    def __init__(self, schema: str, level: Level, flow: str, headers: list[tuple[str, str]]) -> None:
        self.schema = schema
        self.flow = flow
        self.level = level
        self.headers = headers
        self.tally = level.tallies.setdefault(schema, Tally())
        self.by_namespace: dict[str, Place] | None = None  # where each namespace is a flow of its own
        self._hand: tuple[int, ...] | None = None

    @property
    def hand(self) -> tuple[int, ...]:
        """The queues it may wait in."""
        if self._hand is None:
            self._hand = self.level.hand(self.schema, self.flow)
        return self._hand


class Gate:
    """API Priority and Fairness of one server. `schemas` and `levels` give the objects as they are now."""

    def __init__(
        self,
        clock: Clock,
        seats: int,
        schemas: Callable[[], list[Object]],
        levels: Callable[[], list[Object]],
        objects: Callable[[RequestInfo], int],
    ) -> None:
        """`seats`: of the whole server; `objects` counts what a list would look at."""
        self._clock = clock
        self._seats = seats
        self._read = schemas, levels
        self._objects = objects
        self._schemas: list[Object] = []
        self.levels: dict[str, Level] = {}
        self._drops: dict[str, Drops] = {}
        self._by_namespace = False
        self._places: dict[tuple[Any, ...], Place | None] = {}
        self._stale = True
        self.queued = {"mutating": 0, "readOnly": 0}  # requests that wait

    def changed(self) -> None:
        """A schema or level is not what it was: read all of them before the next request."""
        self._stale = True

    # Configuration -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the configuration anew."""
        self._stale = False
        self._places.clear()
        found = {one["metadata"]["name"]: one for one in self._read[1]()}
        for name in (flows.EXEMPT, flows.CATCH_ALL):
            found.setdefault(name, flows.levels()[name])
        limits = shares.limits({name: one["spec"] for name, one in found.items()}, self._seats)
        self.levels = {name: self.levels.get(name) or Level(name, self._clock.monotonic) for name in found}
        for name, level in self.levels.items():
            level.configure(found[name], limits[name])
        schemas = {one["metadata"]["name"]: one for one in self._read[0]()}
        for name in (flows.EXEMPT, flows.CATCH_ALL):
            schemas.setdefault(name, flows.schemas()[name])
        known = [one for one in schemas.values() if one["spec"]["priorityLevelConfiguration"]["name"] in self.levels]
        self._schemas = match.in_order(known)
        self._by_namespace = any(match.names_namespaces(schema) for schema in self._schemas)
        self.adjust()

    def adjust(self) -> None:
        """Let levels that need less lend to those that need more."""
        limited = [level for level in self.levels.values() if not level.exempt]
        total = sum(level.limits.nominal for level in self.levels.values())
        left = total - sum(max(one.wish().least, one.limits.least) for one in self.levels.values() if one.exempt)
        wishes = [level.wish() for level in limited]
        least, floor = sum(wish.least for wish in wishes), sum(level.limits.least for level in limited)
        if left > least:
            grants = shares.shared_out(wishes, total)
        else:  # what is exempt takes it all
            part = max(0, left - floor) / max(1, least - floor)
            pairs = zip(limited, wishes, strict=True)
            grants = [one.limits.least + round((wish.least - one.limits.least) * part) for one, wish in pairs]
        for level, seats in zip(limited, grants, strict=True):
            level.grant(seats)

    async def run(self) -> None:
        """Adjust for ever."""
        while True:
            await self._clock.sleep(ADJUST_EVERY)
            self.adjust()

    # Classification ------------------------------------------------------------------------------------------------

    def place(self, info: RequestInfo, user: User) -> Place | None:
        """Where the request belongs; None for what is not limited because it is meant to be long."""
        if self._stale:
            self.refresh()
        namespace: object = info.namespace if self._by_namespace else info.namespace != ""
        what = info.resource if info.is_resource else info.path
        key = (user.name, user.groups, info.verb, info.group, what, info.subresource, namespace, info.is_resource)
        try:
            found = self._places[key]
        except KeyError:
            if len(self._places) >= _REMEMBERED:
                self._places.clear()
            found = self._places[key] = self._classify(info, user)
        if found is None or found.by_namespace is None:
            return found
        return self._in_namespace(found, info.namespace)

    def _classify(self, info: RequestInfo, user: User) -> Place | None:
        if info.subresource in LONG_RUNNING or info.verb == "proxy":
            return None
        schema = next((one for one in self._schemas if match.matches(one, user, info)), None)
        if schema is None:
            schema = next(one for one in self._schemas if one["metadata"]["name"] == flows.CATCH_ALL)
        level = self.levels[schema["spec"]["priorityLevelConfiguration"]["name"]]
        by = match.distinguisher(schema)
        headers = [
            ("x-kubernetes-pf-flowschema-uid", schema["metadata"].get("uid", "")),
            ("x-kubernetes-pf-prioritylevel-uid", level.uid),
        ]
        place = Place(schema["metadata"]["name"], level, user.name if by == "ByUser" else "", headers)
        if by == "ByNamespace":
            place.by_namespace = {}
        return place

    def _in_namespace(self, of: Place, namespace: str) -> Place:
        known = of.by_namespace
        assert known is not None
        found = known.get(namespace)
        if found is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            found = known[namespace] = Place(of.schema, of.level, namespace, of.headers)
        return found

    def _seats_of(self, info: RequestInfo, level: Level) -> int:
        """What a request weighs: a list by how much it has to look at. Writes tell watchers before they end."""
        if info.verb != "list" or info.name:
            return 1
        return max(1, min(-(-self._objects(info) // _OBJECTS_A_SEAT), level.most_seats, _MOST_SEATS))

    # Requests ------------------------------------------------------------------------------------------------------

    def through(
        self, serve: Serve, request: Request, query: Query, info: RequestInfo, user: User
    ) -> Answer | Awaitable[Answer]:
        """The answer of `serve`, when it is the request's turn; raises its ApiErrors."""
        place = self.place(info, user)
        if place is None:
            return serve(request, query, info, user)
        seats = self._seats_of(info, place.level)
        if seats > 1:
            place.tally.heavy[seats] += 1
        if not place.level.room(seats):
            return self._held(place, seats, _later(serve, request, query, info, user), info, request)
        try:
            place.tally.begun += 1
            answer = serve(request, query, info, user)
        except ApiError as error:
            error.headers = [*error.headers, *place.headers]
            raise
        if answer.__class__ is not Response and isinstance(answer, Awaitable):
            place.tally.begun -= 1  # not yet
            return self._held(place, seats, answer, info, request)
        if info.verb == "watch":
            place.tally.watches += 1
        answer.headers = [*answer.headers, *place.headers]
        return answer

    async def _held(
        self, place: Place, seats: int, waiting: Awaitable[Answer], info: RequestInfo, request: Request
    ) -> Answer:
        """Have seats while the answer is made. Many requests may have come since there was room."""
        level, tally, turn = place.level, place.tally, None
        if level.room(seats):
            level.sit(seats)
        else:
            patience = min(info.seconds / 4, _MOST_PATIENCE) if info.seconds else _PATIENCE
            since = self._clock.monotonic()
            tally.waiting += 1
            tally.wanted += seats
            kind = "readOnly" if info.verb in _READS else "mutating"
            self.queued[kind] += 1
            try:
                turn = await level.wait(place.hand, seats, patience, place.schema, place.flow, self._clock.now())
            finally:
                tally.waiting -= 1
                tally.wanted -= seats
                self.queued[kind] -= 1
                request.waited = self._clock.monotonic() - since
                tally.waits[turn is not None].observe(request.waited)
            if turn is None:
                if (close := getattr(waiting, "close", None)) is not None:
                    close()
                late = self._clock.monotonic() - since >= patience
                return self._turned_away(place, "time-out" if late else "queue-full")
        tally.begun += 1
        tally.executing += 1
        tally.seats += seats
        began = self._clock.monotonic()
        try:
            answer = await waiting
        except ApiError as error:
            error.headers = [*error.headers, *place.headers]
            raise
        finally:
            tally.executing -= 1
            tally.seats -= seats
            tally.runs.observe(self._clock.monotonic() - began)
            if turn is None:
                level.rise(seats)
            else:
                level.leave(turn)
        answer.headers = [*answer.headers, *place.headers]
        return answer

    def _turned_away(self, place: Place, reason: str) -> Response:
        reason = reason if place.hand else "concurrency-limit"
        place.tally.gone[reason] = place.tally.gone.get(reason, 0) + 1
        drops = self._drops.setdefault(place.level.name, Drops())
        drops.note(int(self._clock.now()))
        return too_many(drops.seconds, place.headers)


async def _later(serve: Serve, request: Request, query: Query, info: RequestInfo, user: User) -> Answer:
    answer = serve(request, query, info, user)
    return await answer if isinstance(answer, Awaitable) else answer


def too_many(seconds: int, headers: list[tuple[str, str]]) -> Response:
    """429, to come again in so many seconds."""
    fixed = [
        ("cache-control", "no-cache, private"),
        ("content-type", "text/plain; charset=utf-8"),
        ("retry-after", str(seconds)),
        ("x-content-type-options", "nosniff"),
    ]
    return Response(429, [*fixed, *headers], b"Too many requests, please try again later.\n")
