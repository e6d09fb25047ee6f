"""Metrics of requests: how many, how long, how large, how many at a time.

Owns the families and `Route`, the counters of requests that look alike, found by one look into a dictionary. Asked by
`app.py` for every request, so nothing here walks or formats. Source: apiserver's pkg/endpoints/metrics (names, labels).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from steersman.apiserver.request import Query, RequestInfo
from steersman.lib.http.messages import Answer, Duplex, Response, Stream, Upgrade, Writer
from steersman.lib.metrics import Distribution, Family, Registry, Value

WATCH_EVENTS = "watch events"  # the extra by which watches find what counts them
_READS = frozenset({"get", "list", "watch"})
_VERBS = {"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH"}
_VERBS |= {"delete": "DELETE", "deletecollection": "DELETECOLLECTION", "post": "POST", "put": "PUT", "head": "HEAD"}
_VERBS |= {"options": "OPTIONS", "connect": "CONNECT"}
_CONNECTS = frozenset({"attach", "exec", "portforward", "proxy"})
_PATHS = frozenset({"/healthz", "/livez", "/metrics", "/readyz"})
_MOST = 4096  # routes; more come from nonsense, and are counted together
_LATENCIES = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
_WHAT = ("verb", "group", "version", "resource", "subresource", "scope", "component")


class Route:
    """The counters of one verb on one resource."""

    __slots__ = ("_codes", "_labels", "_sizes", "_telemetry", "_times", "kind", "lasts", "running")

    def __init__(self, telemetry: Requests, labels: tuple[str, ...], dry_run: str, kind: Value, *, lasts: bool) -> None:
        """`labels` as `_WHAT` has them; `lasts`: a watch or a stream."""
        verb, *rest = labels
        self._telemetry = telemetry
        self._labels = (verb, dry_run, *rest)
        self._codes: dict[int, Value] = {}
        self._times: Distribution = telemetry.durations.labels(verb, dry_run, *rest)
        self._sizes: Distribution | None = telemetry.sizes.labels(*labels) if verb in ("GET", "LIST") else None
        self.kind = kind  # the gauge of what is in flight: reads or writes
        self.lasts = lasts
        self.running: Value | None = telemetry.running.labels(*labels) if lasts else None

    def note(self, status: int, seconds: float, size: int) -> None:
        """A request has been answered."""
        try:
            self._codes[status].value += 1
        except KeyError:
            self._first(status).value += 1
        self._times.observe(seconds)
        if self._sizes is not None:
            self._sizes.observe(size)

    def _first(self, status: int) -> Value:
        found = self._codes[status] = self._telemetry.total.labels(*self._labels, str(status))
        return found

    def ended(self, status: int) -> None:
        """A request was cut short: too many, or too slow."""
        verb, _, *rest = self._labels
        self._telemetry.terminations.labels(verb, *rest, str(status)).inc()


class Requests:
    """The metrics of all requests to one server."""

    def __init__(self, registry: Registry, known: Callable[[RequestInfo], bool]) -> None:
        """`known` says whether there is such a resource: nonsense gets no labels of its own."""
        self._known = known
        self._routes: dict[tuple[object, ...], Route] = {}
        labels = ("verb", "dry_run", *_WHAT[1:])
        self.total: Family[Value] = registry.counter(
            "apiserver_request_total", "Requests answered, by what was asked and the code.", (*labels, "code")
        )
        self.durations: Family[Distribution] = registry.histogram(
            "apiserver_request_duration_seconds", "Seconds from a request to its answer.", labels, _LATENCIES
        )
        self.sizes: Family[Distribution] = registry.histogram(
            "apiserver_response_sizes", "Bytes of answers to reads.", _WHAT, [10.0**power for power in range(3, 10)]
        )
        self.running: Family[Value] = registry.gauge(
            "apiserver_longrunning_requests", "Watches and streams under way.", _WHAT
        )
        self.terminations: Family[Value] = registry.counter(
            "apiserver_request_terminations_total", "Requests cut short to protect the server.", (*_WHAT, "code")
        )
        inflight = registry.gauge("apiserver_current_inflight_requests", "Requests being answered.", ("request_kind",))
        self._reads, self._writes = inflight.labels("readOnly"), inflight.labels("mutating")

    def route(self, info: RequestInfo, query: Query, text: str) -> Route:
        """Where a request is counted; `text` is the query as it came."""
        key = (
            info.verb,
            info.group,
            info.version,
            info.resource,
            info.subresource if info.is_resource else info.path if info.path in _PATHS else "",
            info.name != "",
            info.namespace != "",
            query.get("dryRun") if "dryRun" in text else "",
        )
        try:
            return self._routes[key]
        except KeyError:
            return self._new(key, info, query)

    def _new(self, key: tuple[object, ...], info: RequestInfo, query: Query) -> Route:
        kind = self._reads if info.verb in _READS else self._writes
        verb = "CONNECT" if info.subresource in _CONNECTS else _VERBS.get(info.verb, "other")
        if not self._known(info) or len(self._routes) >= _MOST:
            where: tuple[str, ...] = ("", "", "", "", _scope(info))
            key = (verb, where)
            if key in self._routes:
                return self._routes[key]
        else:
            where = (info.group, info.version, info.resource, str(key[4]), _scope(info))
        dry_run = query.all("dryRun")
        dry = "" if not dry_run else "All" if set(dry_run) == {"All"} else "invalid"
        found = Route(self, (verb, *where, "apiserver"), dry, kind, lasts=info.long_running)
        self._routes[key] = found
        return found

    def lasting(self, route: Route, answer: Answer) -> Answer:
        """An answer that goes on is counted as long as it does."""
        if isinstance(answer, Response) or route.running is None:
            return answer
        gauge = route.running
        if isinstance(answer, Stream):
            stream = answer.run

            async def run(writer: Writer) -> None:
                await _counted(stream(writer), gauge)

            answer.run = run
        else:
            upgrade = answer.run

            async def switched(duplex: Duplex) -> None:
                await _counted(upgrade(duplex), gauge)

            answer.run = switched
        return answer


async def _counted(work: Awaitable[None], gauge: Value) -> None:
    gauge.inc()
    try:
        await work
    finally:
        gauge.dec()


def size_of(answer: Answer) -> int:
    """Bytes of a whole answer; 0 of one that goes on."""
    if isinstance(answer, Stream | Upgrade):
        return 0
    return len(answer.body) if isinstance(answer.body, bytes) else sum(map(len, answer.body))


def _scope(info: RequestInfo) -> str:
    if info.name or info.verb == "create":
        return "resource"
    return "namespace" if info.namespace else "cluster" if info.is_resource else ""
