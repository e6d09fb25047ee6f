"""Metrics of priority and fairness: who has seats, who waits, who was turned away, and for how long.

Owns the names; the figures are counted by the gate and its levels, and read when somebody asks. A request that was
answered without waiting for anything counts as having taken next to no time. What the original samples over time
(utilization, averages) is not here. Source: apiserver's pkg/util/flowcontrol/metrics (names, labels, bounds).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from steersman.apiserver.flow.gate import Gate
from steersman.apiserver.flow.level import RUNS, WAITS, Level, Tally
from steersman.lib.metrics import Registry

_NAME, _BOTH = "apiserver_flowcontrol_", ("priority_level", "flow_schema")
_WEIGHTS = (1, 2, 4, 8, 16, 32, 64, 100)


class Flowing:
    """The families; `collect` fills them."""

    def __init__(self, registry: Registry, server: Any) -> None:
        """`server.flow` is asked each time: it comes after the metrics do."""
        self._server = server
        gauge, level = registry.gauge, _BOTH[:1]
        self._limits = {
            key: gauge(f"{_NAME}{key}_limit_seats", f"Seats: the {key} limit.", level)
            for key in ("nominal", "lower", "upper", "current")
        }
        self._concurrency = gauge(f"{_NAME}request_concurrency_limit", "Seats: the nominal limit.", level)
        self._peak = gauge(f"{_NAME}demand_seats_high_watermark", "The most seats wanted since the last look.", level)
        self._smooth = gauge(f"{_NAME}demand_seats_smoothed", "Seats wanted, smoothed over time.", level)
        self._target = gauge(f"{_NAME}target_seats", "Seats wished for when they were last shared out.", level)
        self._waiting_seats = gauge(f"{_NAME}current_inqueue_seats", "Seats that waiting requests want.", _BOTH)
        self._queued = gauge("apiserver_current_inqueue_requests", "Requests that wait for seats.", ("request_kind",))
        self._executing = gauge(f"{_NAME}current_executing_requests", "Requests that have seats.", _BOTH)
        self._waiting = gauge(f"{_NAME}current_inqueue_requests", "Requests that wait for seats.", _BOTH)
        self._seats = gauge(f"{_NAME}current_executing_seats", "Seats that are taken.", _BOTH)
        self._in_use = gauge(f"{_NAME}request_concurrency_in_use", "Seats that are taken.", _BOTH)
        self._begun = registry.counter(f"{_NAME}dispatched_requests_total", "Requests that had their turn.", _BOTH)
        self._gone = registry.counter(f"{_NAME}rejected_requests_total", "Requests turned away.", (*_BOTH, "reason"))
        self._runs = registry.histogram(
            f"{_NAME}request_execution_seconds", "Seconds with seats.", (*_BOTH, "type"), RUNS
        )
        self._waits = registry.histogram(
            f"{_NAME}request_wait_duration_seconds", "Seconds in a queue.", (*_BOTH, "execute"), WAITS
        )
        self._weights = registry.histogram(
            f"{_NAME}work_estimated_seats", "Seats that requests weigh.", _BOTH, _WEIGHTS
        )
        registry.collect(self.collect)

    def collect(self) -> None:
        """Ask the gate."""
        gate = self._server.flow
        for kind, number in gate.queued.items() if isinstance(gate, Gate) else ():
            self._queued.labels(kind).set(number)
        for level in gate.levels.values() if isinstance(gate, Gate) else ():
            self._level(level)
            for schema, tally in level.tallies.items():
                self._tally((level.name, schema), tally)

    def _level(self, level: Level) -> None:
        for key, value in zip(self._limits, level.figures(), strict=True):
            self._limits[key].labels(level.name).set(value)
        self._concurrency.labels(level.name).set(level.figures()[0])
        peak, smooth = level.demand
        self._peak.labels(level.name).set(peak)
        self._smooth.labels(level.name).set(smooth)
        self._target.labels(level.name).set(level.target)

    def _tally(self, where: tuple[str, str], tally: Tally) -> None:
        self._executing.labels(*where).set(tally.executing)
        self._seats.labels(*where).set(tally.seats)
        self._in_use.labels(*where).set(tally.seats)
        self._waiting.labels(*where).set(tally.waiting)
        self._waiting_seats.labels(*where).set(tally.wanted)
        self._begun.labels(*where).set(tally.begun)
        for reason, number in tally.gone.items():
            self._gone.labels(*where, reason).set(number)
        counts = list(tally.runs.counts)
        at_once = tally.begun - tally.executing - tally.runs.count - tally.watches
        counts[1] += max(0, at_once)  # within the least bound above nothing
        self._runs.labels(*where, "regular").load(counts, tally.runs.total)
        if tally.watches:
            head = [0, tally.watches, *[0] * (len(RUNS) - 1)]
            self._runs.labels(*where, "watch").load(head, 0.0)
        for executed, waits in zip(("false", "true"), tally.waits, strict=True):
            if waits.count:
                self._waits.labels(*where, executed).load(waits.counts, waits.total)
        weights, light = [0] * (len(_WEIGHTS) + 1), max(0, tally.begun - sum(tally.heavy.values()))
        weights[0] = light
        for seats, number in tally.heavy.items():
            weights[bisect_left(_WEIGHTS, seats)] += number
        heavy = sum(seats * number for seats, number in tally.heavy.items())
        self._weights.labels(*where).load(weights, light + heavy)
