"""The scheduler's metrics: attempts and their outcomes, and pods that wait. Names as kube-scheduler's.

Owns the families. Handed to `scheduler.Scheduler` by `cluster`, which prints them.
Source: kubernetes' pkg/scheduler/metrics.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Mapping, Sized
from typing import Any

from steersman.lib.metrics import Registry
from steersman.scheduler.columns import Columns
from steersman.scheduler.plugins import KNOWN
from steersman.scheduler.profiles import Profile
from steersman.scheduler.queue import Queue

SCHEDULED, UNSCHEDULABLE, ERROR = "scheduled", "unschedulable", "error"
BINDING, PREEMPTION = "binding", "DefaultPreemption"
_ATTEMPTS = [0.001 * 2.0**power for power in range(15)]  # seconds
_LIVES = [0.01 * 2.0**power for power in range(20)]  # seconds
_TIMES = (1.0, 2.0, 4.0, 8.0, 16.0)
_POINTS = [0.0001 * 2.0**power for power in range(12)]  # seconds
_PLUGINS = [0.00001 * 1.5**power for power in range(20)]  # seconds
_MOST_ATTEMPTS = 15  # that are told apart
_VICTIMS = [2.0**power for power in range(7)]


class SchedulerMetrics:
    """One scheduler's."""

    def __init__(self, registry: Registry) -> None:
        """Into `registry`."""
        self._registry = of = registry
        name, both = "scheduler_", ("result", "profile")
        self._attempts = of.counter(f"{name}schedule_attempts_total", "Attempts to find a node.", both)
        self._durations = of.histogram(
            f"{name}scheduling_attempt_duration_seconds", "Seconds of an attempt with its binding.", both, _ATTEMPTS
        )
        algorithm = f"{name}scheduling_algorithm_duration_seconds"
        self._algorithm = of.histogram(algorithm, "Seconds to a decision.", (), _ATTEMPTS)
        self._times = of.histogram(f"{name}pod_scheduling_attempts", "Attempts that a pod took.", (), _TIMES)
        self._preemptions = of.counter(f"{name}preemption_attempts_total", "Decisions to take others' places.")
        self._victims = of.histogram(f"{name}preemption_victims", "Pods that lost their places.", (), _VICTIMS)
        self._pending = of.gauge(f"{name}pending_pods", "Pods that wait.", ("queue",))
        self._points = of.histogram(
            f"{name}framework_extension_point_duration_seconds",
            "Seconds of all plugins of an extension point.",
            ("extension_point", "status", "profile"),
            _POINTS,
        )
        self._plugins = of.histogram(
            f"{name}plugin_execution_duration_seconds",
            "Seconds of one plugin, in every tenth attempt.",
            ("plugin", "extension_point", "status"),
            _PLUGINS,
        )
        self._lives = of.histogram(
            f"{name}pod_scheduling_sli_duration_seconds",
            "Seconds from a pod's first attempt to its binding.",
            ("attempts",),
            _LIVES,
        )
        after = f"{name}pod_scheduled_after_flush_total"
        self._flushed = of.counter(after, "Pods bound that only long waiting had got another attempt.")
        self._flushed.labels()
        went = f"{name}preemption_goroutines_duration_seconds"
        self._evictions = of.histogram(went, "Seconds that it took to evict.", ("result",), _LIVES)
        self._evicted = of.counter(f"{name}preemption_goroutines_execution_total", "Evictions.", ("result",))
        self._incoming = of.counter(
            f"{name}queue_incoming_pods_total", "Pods that came to a queue, and why.", ("queue", "event")
        )
        self._refused = of.gauge(
            f"{name}unschedulable_pods", "Pods that wait, by who refused them.", ("plugin", "profile")
        )
        self._size = of.gauge(f"{name}cache_size", "Nodes, pods and assumed pods.", ("type",))
        handling = f"{name}event_handling_duration_seconds"
        self._handling = of.histogram(handling, "Seconds to take note of a change.", ("event",), _POINTS)
        self._hinting = of.histogram(
            f"{name}queueing_hint_execution_duration_seconds",
            "Seconds of one plugin's hint; pods alike are one question.",
            ("plugin", "event", "hint"),
            _PLUGINS,
        )
        self._evaluations = of.counter(
            f"{name}plugin_evaluation_total",
            "Nodes that a plugin has judged (Filter, Score) and pods that it was asked about (PreFilter, PreScore).",
            ("plugin", "extension_point", "profile"),
        )
        self._judged: Counter[tuple[str, str]] = Counter()
        self._working = of.gauge(f"{name}goroutines", "What goes on beside the decisions.", ("operation",))
        for operation in (BINDING, PREEMPTION):
            self._working.labels(operation).set(0)

    def decided(self, seconds: float) -> None:
        """A decision was made, whichever."""
        self._algorithm.labels().observe(seconds)

    def point(self, point: str, status: str, profile: str, seconds: float) -> None:
        """All plugins of an extension point have run for one pod: of filters and scores, over all nodes."""
        self._points.labels(point, status, profile).observe(seconds)

    def plugin(self, plugin: str, point: str, status: str, seconds: float) -> None:
        """One plugin has run, for all nodes or for those that had changed."""
        self._plugins.labels(plugin, point, status).observe(seconds)

    def handled(self, event: str, seconds: float) -> None:
        """A change was taken note of, and those who may be helped got another try."""
        self._handling.labels(event).observe(seconds)

    def hinted(self, plugin: str, event: str, seconds: float, *, queue: bool) -> None:
        """A plugin was asked whether an event may help."""
        self._hinting.labels(plugin, event, "Queue" if queue else "QueueSkip").observe(seconds)

    def judged(self, profile: str, nodes: int, scored: int) -> None:
        """A decision has looked at so many nodes, and compared so many of them."""
        judged = self._judged
        judged[profile, "PreFilter"] += 1
        judged[profile, "Filter"] += nodes
        if scored:
            judged[profile, "PreScore"] += 1
            judged[profile, "Score"] += scored

    async def during(self, operation: str, work: Coroutine[Any, Any, None]) -> None:
        """Do work that is counted meanwhile."""
        value = self._working.labels(operation)
        value.value += 1
        try:
            await work
        finally:
            value.value -= 1

    def attempted(self, result: str, profile: str, seconds: float) -> None:
        """One attempt ended."""
        self._attempts.labels(result, profile).value += 1
        self._durations.labels(result, profile).observe(seconds)

    def bound(self, attempts: int, seconds: float, *, flushed: bool) -> None:
        """A pod has its node: after so many attempts and seconds; `flushed`: only long waiting got it the last."""
        self._times.labels().observe(attempts)
        self._lives.labels(str(attempts) if attempts < _MOST_ATTEMPTS else f"{_MOST_ATTEMPTS}+").observe(seconds)
        if flushed:
            self._flushed.labels().inc()

    def evicted(self, seconds: float, *, done: bool) -> None:
        """The victims of one preemption are gone, or could not be made to go."""
        result = "success" if done else "error"
        self._evictions.labels(result).observe(seconds)
        self._evicted.labels(result).inc()

    def preempted(self, victims: int) -> None:
        """Others have to go for a pod."""
        self._preemptions.labels().value += 1
        self._victims.labels().observe(victims)

    def watch(self, queue: Queue, columns: Columns, assumed: Sized, profiles: Mapping[str, Profile]) -> None:
        """Ask these whenever somebody reads."""

        def collect() -> None:
            for name, number in queue.counts().items():
                self._pending.labels(name).set(number)
            for (name, event), number in queue.incoming.items():
                self._incoming.labels(name, event).set(number)
            refused = queue.refused()
            for values, _ in self._refused.children():
                self._refused.labels(*values).set(refused.pop(values, 0))  # type: ignore[call-overload]
            for values, number in refused.items():
                self._refused.labels(*values).set(number)
            for profile in profiles.values():
                self._count_evaluations(profile)
            self._size.labels("nodes").set(len(columns))
            self._size.labels("pods").set(columns.placed)
            self._size.labels("assumed_pods").set(len(assumed))

        self._registry.collect(collect)

    def _count_evaluations(self, profile: Profile) -> None:
        """Every plugin of a profile is asked the same: what one refuses the next may not see, which nobody counts."""
        for point, plugins in (("Filter", profile.filters), ("Score", profile.scores)):
            for plugin in plugins:
                points = KNOWN[plugin.name].points if plugin.name in KNOWN else frozenset()
                for each in (point, f"Pre{point}") if f"pre{point}" in points else (point,):
                    number = self._judged[profile.name, each]
                    self._evaluations.labels(plugin.name, each, profile.name).set(number)
