"""Metrics of requests: how many, how long, how large, how many at a time.

Owns the families and `Route`, the counters of requests that look alike, found by one look into a dictionary. Asked by
`app.py` for every request, so nothing here walks or formats: what can be worked out of other figures is, when somebody
reads. As in the original, paths that are no resource are counted where they are health checks or OpenAPI v3, and what
nobody serves is not. Source: apiserver's pkg/endpoints/metrics (names, labels, bounds).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from steersman.apiserver.request import Query, RequestInfo
from steersman.lib.http.messages import Answer, Duplex, Request, Response, Stream, Upgrade, Writer
from steersman.lib.metrics import Distribution, Family, Registry, Value

_READS = frozenset({"get", "list", "watch"})
_VERBS = {"get": "GET", "list": "LIST", "watch": "WATCH", "create": "POST", "update": "PUT", "patch": "PATCH"}
_VERBS |= {"delete": "DELETE", "deletecollection": "DELETE", "post": "POST", "put": "PUT", "head": "HEAD"}
_VERBS |= {"options": "OPTIONS", "connect": "CONNECT"}
_BODIES = {"create": "create", "update": "update", "patch": "patch", "delete": "delete"}
_BODIES |= {"deletecollection": "delete_collection"}
_CONNECTS = frozenset({"attach", "exec", "log", "portforward", "proxy"})
_PATHS = ("/healthz", "/livez", "/readyz")
NEVER = "never"  # of a resource that nobody means to take away
_MOST = 4096  # routes; more come from nonsense, and are counted together
_LATENCIES = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60,
)  # fmt: skip
ACCESS = tuple(0.001 * 2**step for step in range(15))
"""Bounds in seconds for authentication and authorization."""
_SOONER = 2  # bounds of durations below the first one of what the server itself takes
_WHAT = ("verb", "group", "version", "resource", "subresource", "scope", "component")


class Families:
    """The families of requests. Where nobody reads them, they are counted in vain."""

    def __init__(self, of: Registry) -> None:
        labels = ("verb", "dry_run", *_WHAT[1:])
        self.total: Family[Value] = of.counter(
            "apiserver_request_total", "Requests answered, by what was asked and the code.", (*labels, "code")
        )
        self.durations: Family[Distribution] = of.histogram(
            "apiserver_request_duration_seconds", "Seconds from a request to its answer.", labels, _LATENCIES
        )
        self.sizes: Family[Distribution] = of.histogram(
            "apiserver_response_sizes", "Bytes of answers to reads.", _WHAT, [10.0**power for power in range(3, 10)]
        )
        self.bodies: Family[Distribution] = of.histogram(
            "apiserver_request_body_size_bytes",
            "Bytes of the bodies of writes.",
            ("resource", "verb", "group"),
            [50_000 + 100_000 * step for step in range(31)],
        )
        self.running: Family[Value] = of.gauge(
            "apiserver_longrunning_requests", "Watches and streams under way.", _WHAT
        )
        self.terminations: Family[Value] = of.counter(
            "apiserver_request_terminations_total", "Requests cut short to protect the server.", (*_WHAT, "code")
        )


class Route:
    """The counters of one verb on one resource."""

    __slots__ = ("_bodies", "_codes", "_families", "_labels", "_late", "_sizes", "_times", "kind", "lasts", "running")

    def __init__(
        self, families: Families, labels: tuple[str, ...], dry_run: str, kind: Value, late: Late, *, body: str
    ) -> None:
        """`labels` as `_WHAT` has them; `body`: what a write is called by its body, empty for others."""
        verb, group, _, resource, *_ = labels
        self._families = families
        self._labels = (verb, dry_run, *labels[1:])
        self._codes: dict[int, Value] = {}
        self._times: Distribution = families.durations.labels(*self._labels)
        self._sizes: Distribution | None = families.sizes.labels(*labels) if verb in ("GET", "LIST") else None
        self._bodies = families.bodies.labels(resource, body, group) if body and resource else None
        self._late = late
        self.kind = kind  # the gauge of what is in flight: reads or writes
        self.lasts = verb in ("WATCH", "CONNECT")
        self.running: Value | None = families.running.labels(*labels) if self.lasts else None

    def note(self, status: int, seconds: float, size: int, request: Request) -> None:
        """A request has been answered, with so many bytes."""
        try:
            self._codes[status].value += 1
        except KeyError:
            self._first(status).value += 1
        self._times.observe(seconds)
        if self._sizes is not None:
            self._sizes.observe(size)
        elif self._bodies is not None:
            self._bodies.observe(len(request.body))
        if request.waited:
            self._late.note((self._labels[0], *self._labels[2:]), seconds, request.waited)

    def _first(self, status: int) -> Value:
        found = self._codes[status] = self._families.total.labels(*self._labels, str(status))
        return found

    def ended(self, status: int) -> None:
        """A request was cut short: too many, or too slow."""
        verb, _, *rest = self._labels
        self._families.terminations.labels(verb, *rest, str(status)).inc()


class Late:
    """What the time that requests spent waiting, for a turn or for webhooks, takes off the server's own."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], list[int]] = {}
        self.sums: dict[tuple[str, ...], float] = {}

    def note(self, labels: tuple[str, ...], seconds: float, waited: float) -> None:
        """A request of `seconds` waited for so many of them."""
        counts = self.counts.setdefault(labels, [0] * (len(_LATENCIES) + 1 - _SOONER))
        counts[bisect_left(_LATENCIES, seconds, _SOONER) - _SOONER] -= 1
        counts[bisect_left(_LATENCIES, max(0.0, seconds - waited), _SOONER) - _SOONER] += 1
        self.sums[labels] = self.sums.get(labels, 0.0) - min(seconds, waited)


class _Users(dict[str, int]):
    """Requests by the names of their users; of very many users, the others together."""

    def __missing__(self, name: str) -> int:
        if len(self) >= _MOST:
            others = sum(self.values())
            self.clear()
            self[""] = others
        return 0


class Requests:
    """The metrics of all requests to one server."""

    def __init__(self, registry: Registry, known: Callable[[RequestInfo], str | None]) -> None:
        """`known` says since when a resource is gone, where that is planned ("" where not); None of nonsense."""
        self._known = known
        self._routes: dict[tuple[object, ...], Route] = {}
        self._shown, self._unseen = Families(registry), Families(Registry())
        self._late = Late()
        self._validating: dict[str, dict[Distribution, None]] = {}
        self._own = [
            registry.histogram(f"apiserver_request_{name}_duration_seconds", text, _WHAT, _LATENCIES[_SOONER:])
            for name, text in (("sli", "Seconds of a request without those that it waited for others."),
                               ("slo", "As apiserver_request_sli_duration_seconds, by its older name."))
        ]  # fmt: skip
        self._validations = registry.histogram(
            "field_validation_request_duration_seconds",
            "Seconds of writes, by how they want unknown fields to be met.",
            ("field_validation",),
            _LATENCIES[_SOONER:],
        )
        self._deprecated = registry.gauge(
            "apiserver_requested_deprecated_apis",
            "1 of what was asked for although it should not be used.",
            ("group", "version", "resource", "subresource", "removed_release"),
        )
        self.unauthenticated = Counter[str]()  # requests that nobody could be found for, by what came of it
        self.denied = Counter[str]()  # requests that the authorizer let not in, by what came of it
        self.users = _Users()  # requests of each
        self.waits = Distribution(ACCESS), Distribution(ACCESS)  # seconds of those authenticators and authorizers
        # that had to wait for an answer
        registry.collect(self._collect)
        inflight = registry.gauge("apiserver_current_inflight_requests", "Requests being answered.", ("request_kind",))
        self._reads, self._writes = inflight.labels("readOnly"), inflight.labels("mutating")

    def route(self, info: RequestInfo, query: Query, text: str) -> Route:
        """Where a request is counted; `text` is the query as it came."""
        key = (
            info.verb,
            info.group,
            info.version,
            info.resource,
            info.subresource if info.is_resource else _path(info.path),
            info.name != "",
            info.namespace != "",
            query.get("dryRun") if "dryRun" in text else "",
            query.get("fieldValidation") if "fieldV" in text else "",
        )
        try:
            return self._routes[key]
        except KeyError:
            return self._new(key, info, query)

    def _new(self, key: tuple[object, ...], info: RequestInfo, query: Query) -> Route:
        kind = self._reads if info.verb in _READS else self._writes
        verb = "CONNECT" if info.subresource in _CONNECTS else _VERBS.get(info.verb, "other")
        removed = self._known(info) if len(self._routes) < _MOST else None
        if removed is None or (not info.is_resource and not key[4]):
            unseen = (verb, _scope(info))
            if unseen not in self._routes:
                labels = (verb, "", "", "", "", unseen[1], "")
                self._routes[unseen] = Route(self._unseen, labels, "", kind, Late(), body="")
            return self._routes[unseen]
        component = "apiserver" if info.is_resource else ""
        labels = (verb, info.group, info.version, info.resource, str(key[4]), _scope(info), component)
        dry_run = query.all("dryRun")
        dry = "" if not dry_run else "All" if set(dry_run) == {"All"} else "invalid"
        found = Route(self._shown, labels, dry, kind, self._late, body=_BODIES.get(info.verb, ""))
        self._routes[key] = found
        if removed != NEVER:
            self._deprecated.labels(info.group, info.version, info.resource, info.subresource, removed).set(1)
        if verb in ("POST", "PUT", "PATCH") and info.is_resource:
            how = key[8] if key[8] in ("Strict", "Warn", "Ignore") else ""
            times = self._shown.durations.labels(verb, dry, *labels[1:])
            self._validating.setdefault(str(how), {})[times] = None
        return found

    @property
    def answered(self) -> int:
        """Requests so far, with those that go on."""
        shown, unseen = self._shown, self._unseen
        ended = sum(child.value for each in (shown, unseen) for _, child in each.total.children())
        return int(ended + sum(child.value for _, child in shown.running.children()))

    def _collect(self) -> None:
        """Work out what follows from other figures."""
        own: dict[tuple[str, ...], tuple[list[int], float]] = {}
        for (verb, _, *rest), child in self._shown.durations.children():
            labels = (verb, *rest)
            counts, total = own.get(labels) or (self._late.counts.get(labels), self._late.sums.get(labels, 0.0))
            found = _merged(child.counts)
            if counts is not None:
                found = [one + other for one, other in zip(found, counts, strict=True)]
            own[labels] = found, total + child.total
        for labels, (counts, total) in own.items():
            for family in self._own:
                family.labels(*labels).load(counts, total)
        for how, times in self._validating.items():
            merged = [_merged(each.counts) for each in times]
            self._validations.labels(how).load([sum(each) for each in zip(*merged, strict=True)],
                                               sum(each.total for each in times))  # fmt: skip

    def lasting(self, route: Route, answer: Answer, ended: Callable[[], None]) -> Answer:
        """An answer that goes on is counted as long as it does; then `ended` is called."""
        if isinstance(answer, Response):
            return answer
        gauge = route.running
        if isinstance(answer, Stream):
            stream = answer.run

            async def run(writer: Writer) -> None:
                await _counted(stream(writer), gauge, ended)

            answer.run = run
        else:
            upgrade = answer.run

            async def switched(duplex: Duplex) -> None:
                await _counted(upgrade(duplex), gauge, ended)

            answer.run = switched
        return answer


async def _counted(work: Awaitable[None], gauge: Value | None, ended: Callable[[], None]) -> None:
    if gauge is not None:
        gauge.inc()
    try:
        await work
    finally:
        if gauge is not None:
            gauge.dec()
        ended()


def _merged(counts: Sequence[int]) -> list[int]:
    """Counts by the bounds of durations, as those by the fewer bounds of what the server itself takes."""
    return [sum(counts[: _SOONER + 1]), *counts[_SOONER + 1 :]]


def _path(path: str) -> str:
    """What a path that is no resource is counted by."""
    for known in _PATHS:
        if path == known or path.startswith(known + "/"):
            return known
    if path.startswith("/openapi/v3"):
        return "openapi/v3/" if path.startswith("/openapi/v3/") else "openapi/v3" if path == "/openapi/v3" else ""
    return ""


def size_of(answer: Answer) -> int:
    """Bytes of a whole answer; 0 of one that goes on."""
    if isinstance(answer, Stream | Upgrade):
        return 0
    return len(answer.body) if isinstance(answer.body, bytes) else sum(map(len, answer.body))


def _scope(info: RequestInfo) -> str:
    if info.name or info.verb == "create":
        return "resource"
    return "namespace" if info.namespace else "cluster" if info.is_resource else ""
