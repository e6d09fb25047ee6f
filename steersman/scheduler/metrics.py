"""The scheduler's metrics: attempts and their outcomes, and pods that wait. Names as kube-scheduler's.

Owns the families. Handed to `scheduler.Scheduler` by `cluster`, which prints them.
Source: kubernetes' pkg/scheduler/metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from steersman.lib.metrics import Registry

SCHEDULED, UNSCHEDULABLE, ERROR = "scheduled", "unschedulable", "error"
_ATTEMPTS = [0.001 * 2.0**power for power in range(15)]  # seconds
_LIVES = [0.01 * 2.0**power for power in range(20)]  # seconds
_TIMES = (1.0, 2.0, 4.0, 8.0, 16.0)
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

    def decided(self, seconds: float) -> None:
        """A decision was made, whichever."""
        self._algorithm.labels().observe(seconds)

    def attempted(self, result: str, profile: str, seconds: float) -> None:
        """One attempt ended."""
        self._attempts.labels(result, profile).value += 1
        self._durations.labels(result, profile).observe(seconds)

    def bound(self, attempts: int) -> None:
        """A pod has its node."""
        self._times.labels().observe(attempts)

    def preempted(self, victims: int) -> None:
        """Others have to go for a pod."""
        self._preemptions.labels().value += 1
        self._victims.labels().observe(victims)

    def pending(self, waiting: Callable[[], Mapping[str, int]]) -> None:
        """Ask how many wait, by queue, whenever somebody reads."""

        def collect() -> None:
            for queue, number in waiting().items():
                self._pending.labels(queue).set(number)

        self._registry.collect(collect)
