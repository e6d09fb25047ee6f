"""Metrics of whoever works with the API: work queues, requests, leadership. Names as client-go's.

Owns `Metrics`, the families of one component. Handed to `controller.Context` and to transports by `cluster`; who is
handed none counts nothing. Source: component-base, metrics/prometheus (workqueue, restclient, clientgo).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from typing import cast

from steersman.lib.http.messages import ClientResponse, Duplex, Headers, Transport
from steersman.lib.metrics import DURATIONS, Distribution, Family, Registry, Value

_TINY = [1e-8 * 10.0**power for power in range(10)]  # seconds
_REQUESTS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_BYTES = (64.0, 256.0, 512.0, *(float(4**power) for power in range(5, 13)))


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Bounds of a histogram, each so many times the one before."""
    return tuple(start * factor**number for number in range(count))


class QueueMetrics:
    """One queue's: told of what happens to each key."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._now = metrics.now
        self._adds = metrics.adds.labels(name)
        self._retries = metrics.retries.labels(name)
        self._waits = metrics.waits.labels(name)
        self._works = metrics.works.labels(name)
        self._added: dict[Hashable, float] = {}
        self._begun: dict[Hashable, float] = {}

    def added(self, key: Hashable) -> None:
        """A key is to be worked on."""
        self._adds.value += 1
        self._added[key] = self._now()

    def begun(self, key: Hashable) -> None:
        """A worker has it."""
        now = self._begun[key] = self._now()
        self._waits.observe(now - self._added.pop(key, now))

    def done(self, key: Hashable) -> None:
        """He has finished."""
        now = self._now()
        self._works.observe(now - self._begun.pop(key, now))

    def retried(self) -> None:
        """A key has to wait and to come again."""
        self._retries.value += 1

    def figures(self) -> tuple[int, float, float]:
        """How many wait; the seconds of all that are being worked on, and of the longest."""
        now = self._now()
        running = [now - begun for begun in self._begun.values()]
        return len(self._added), sum(running), max(running, default=0.0)


class Metrics:
    """One process's. `registry` prints them."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now`: a monotonic clock, in seconds."""
        self.now = now
        self.registry = of = Registry()
        self.adds = of.counter("workqueue_adds_total", "Keys that were added.", ("name",))
        self.retries = of.counter("workqueue_retries_total", "Keys that had to come again.", ("name",))
        self.waits = of.histogram("workqueue_queue_duration_seconds", "Seconds that keys waited.", ("name",), _TINY)
        self.works = of.histogram("workqueue_work_duration_seconds", "Seconds that keys took.", ("name",), _TINY)
        self._depth = of.gauge("workqueue_depth", "Keys that wait.", ("name",))
        self._unfinished = of.gauge("workqueue_unfinished_work_seconds", "Seconds that workers are at it.", ("name",))
        self._longest = of.gauge(
            "workqueue_longest_running_processor_seconds", "Seconds that one worker is at it.", ("name",)
        )
        self._leads = of.gauge("leader_election_master_status", "1 for who leads.", ("name",))
        self._requests = of.counter("rest_client_requests_total", "Requests by their ends.", ("code", "method", "host"))
        self._seconds = of.histogram(
            "rest_client_request_duration_seconds", "Seconds to an answer's head.", ("verb", "host"), _REQUESTS
        )
        sizes = ("Bytes of requests.", ("verb", "host"), _BYTES)
        self._sent = of.histogram("rest_client_request_size_bytes", *sizes)
        self._got = of.histogram("rest_client_response_size_bytes", "Bytes of answers.", ("verb", "host"), _BYTES)
        self._queues: dict[str, QueueMetrics] = {}
        self._asked: dict[str, Callable[[], None]] = {}
        self._families: dict[str, Family[Value] | Family[Distribution]] = {}
        of.collect(self._collect)

    def queue(self, name: str) -> QueueMetrics:
        """A queue's, by its name; whoever comes again with the name begins anew."""
        made = self._queues[name] = QueueMetrics(self, name)
        return made

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Family[Value]:
        """A number that only grows; who asks again, say after a new election, gets the same."""
        if name not in self._families:
            self._families[name] = self.registry.counter(name, text, labels)
        return cast(Family[Value], self._families[name])

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Family[Value]:
        """A number that goes up and down; again the same."""
        if name not in self._families:
            self._families[name] = self.registry.gauge(name, text, labels)
        return cast(Family[Value], self._families[name])

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = DURATIONS
    ) -> Family[Distribution]:
        """A distribution; again the same."""
        if name not in self._families:
            self._families[name] = self.registry.histogram(name, text, labels, bounds)
        return cast(Family[Distribution], self._families[name])

    def ask(self, name: str, collect: Callable[[], None]) -> None:
        """Call `collect` before every print; of one name only the latest, for who leads again asks again."""
        self._asked[name] = collect

    def _collect(self) -> None:
        for collect in self._asked.values():
            collect()
        for name, queue in self._queues.items():
            gauges = (self._depth, self._unfinished, self._longest)
            for gauge, value in zip(gauges, queue.figures(), strict=True):
                gauge.labels(name).set(value)

    async def leading(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work`, which is what a leader does."""
        gauge = self._leads.labels(name)
        gauge.set(1)
        try:
            await work()
        finally:
            gauge.set(0)

    def follow(self, name: str) -> None:
        """Say that somebody who may lead does not yet."""
        self._leads.labels(name).set(0)

    def counted(self, transport: Transport, host: str) -> Transport:
        """The same, its requests counted; `host` is where they go."""
        return _Counted(transport, host, self)

    def moved(self, method: str, host: str, sent: int, got: str | None) -> None:
        """A request had so many bytes, and its answer says that it has `got`, None where it does not say."""
        self._sent.labels(method, host).observe(sent)
        if got is not None and got.isdecimal():
            self._got.labels(method, host).observe(float(got))

    def asked(self, method: str, host: str, code: str, seconds: float) -> None:
        """A request had its answer, or none."""
        self._requests.labels(code, method, host).value += 1
        self._seconds.labels(method, host).observe(seconds)


class _Counted:
    """Implements `Transport`."""

    def __init__(self, inner: Transport, host: str, metrics: Metrics) -> None:
        self._inner = inner
        self._host = host
        self._metrics = metrics

    async def request(
        self, method: str, target: str, headers: Headers = (), body: bytes | AsyncIterator[bytes] = b""
    ) -> ClientResponse:
        """Send one request."""
        began, code = self._metrics.now(), "<error>"
        try:
            response = await self._inner.request(method, target, headers, body)
            code = str(response.status)
            if isinstance(body, bytes):
                self._metrics.moved(method, self._host, len(body), response.header("content-length"))
            return response
        finally:
            self._metrics.asked(method, self._host, code, self._metrics.now() - began)

    async def upgrade(self, method: str, target: str, headers: Headers = ()) -> tuple[ClientResponse, Duplex | None]:
        """Ask for a protocol switch."""
        return await self._inner.upgrade(method, target, headers)

    async def close(self) -> None:
        """Close every connection."""
        await self._inner.close()
