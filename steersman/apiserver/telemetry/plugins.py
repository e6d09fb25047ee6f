"""What admission's plugins, webhooks and policies did, and how long it took.

Owns the metrics and how they are counted without a clock on the way of every write: a plugin that waits for nothing
counts as having taken no time, and is counted when somebody reads. Told by the chain, by webhooks and by policies.
Source: apiserver's pkg/admission/metrics and pkg/admission/plugin/policy/validating/metrics (names, labels, bounds).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from steersman.lib.metrics import Registry

METRICS = "admission metrics"
"""Where plugins find the `PluginMetrics` in `Services.extras`; nowhere when nobody measures."""

_BOUNDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5)
_OURS = "RBACEscalation"  # a plugin here and none in the original
_MOST_CODE = 600
_LABELS = ("name", "type", "operation")
Step = tuple[str, str, str]


class PluginMetrics:
    """The figures. `now` gives seconds."""

    def __init__(self, registry: Registry, now: Callable[[], float]) -> None:
        self.now = now
        name = "apiserver_admission_"
        self._plugins = registry.histogram(
            f"{name}controller_admission_duration_seconds",
            "Seconds that a plugin took.",
            (*_LABELS, "rejected"),
            _BOUNDS,
        )
        self._webhooks = registry.histogram(
            f"{name}webhook_admission_duration_seconds",
            "Seconds that a webhook took.",
            (*_LABELS, "rejected"),
            (*_BOUNDS, 10.0, 25.0),
        )
        self._asked = registry.counter(
            f"{name}webhook_request_total", "Requests to a webhook.", (*_LABELS, "code", "rejected")
        )
        self._rejected = registry.counter(
            f"{name}webhook_rejection_count",
            "Requests that a webhook, or its failure, refused.",
            (*_LABELS, "error_type", "rejection_code"),
        )
        self._open = registry.counter(
            f"{name}webhook_fail_open_count", "Failures of a webhook that were passed over.", ("name", "type")
        )
        self._conditions = registry.histogram(
            f"{name}match_condition_evaluation_seconds",
            "Seconds that match conditions took.",
            ("name", "kind", "type", "operation"),
            (0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25),
        )
        self._excluded = registry.counter(
            f"{name}match_condition_exclusions_total",
            "Requests that match conditions left out.",
            ("name", "kind", "type", "operation"),
        )
        self._condition_errors = registry.counter(
            f"{name}match_condition_evaluation_errors_total",
            "Match conditions that had no value.",
            ("name", "kind", "type", "operation"),
        )
        both = ("policy", "policy_binding", "error_type", "enforcement_action")
        name = "apiserver_validating_admission_policy_check_"
        self._checks = registry.counter(f"{name}total", "What policies found.", both)
        self._check_seconds = registry.histogram(
            f"{name}duration_seconds", "Seconds that a policy took.", both, (0.0000005, 0.001, 0.01, 0.1, 1.0)
        )
        self._evaluations = registry.histogram(
            "apiserver_cel_evaluation_duration_seconds", "Seconds that a policy's expressions took.", ()
        )
        self._names: dict[str, Sequence[str]] = {}
        self._runs: Counter[tuple[str, str]] = Counter()
        self._early: Counter[Step] = Counter()  # plugins that let a request pass which a later one refused
        registry.collect(self._collect)

    # Plugins ---------------------------------------------------------------------------------------------------------

    def passed(self, names: Sequence[str], type: str, operation: str) -> None:
        """Every plugin of a kind of step let a request pass."""
        self._names[type] = names
        self._runs[type, operation] += 1

    def took(self, name: str, type: str, operation: str, began: float) -> None:
        """A plugin waited for something; it is part of a run of which `passed` or `refused` tells."""
        self._plugins.labels(name, type, operation, "false").observe(self.now() - began)

    def refused(self, names: Sequence[str], at: int, type: str, operation: str, began: float) -> None:
        """The plugin at a place refused a request that those before it let pass; `began` is 0 where it did not wait."""
        self._names[type] = names
        for name in names[:at]:
            self._early[name, type, operation] += 1
        if names[at] != _OURS:
            seconds = self.now() - began if began else 0.0
            self._plugins.labels(names[at], type, operation, "true").observe(seconds)

    def _collect(self) -> None:
        every = self._early.copy()
        for (type, operation), runs in self._runs.items():
            for name in self._names[type]:
                every[name, type, operation] += runs
        for step, runs in every.items():
            if step[0] != _OURS:
                told = self._plugins.labels(*step, "false")
                told.observe(0.0, runs - told.count)  # those that waited for nothing

    # Webhooks --------------------------------------------------------------------------------------------------------

    def webhook(self, name: str, type: str, operation: str, began: float, code: int, *, rejected: bool) -> None:
        """A webhook was asked."""
        said = str(rejected).lower()
        self._asked.labels(name, type, operation, str(min(code, _MOST_CODE)), said).inc()
        self._webhooks.labels(name, type, operation, said).observe(self.now() - began)

    def webhook_refused(self, name: str, type: str, operation: str, why: str, code: int) -> None:
        """A webhook refused a request (`no_error`), or failed so that it was (`calling_webhook_error`)."""
        self._rejected.labels(name, type, operation, why, str(min(code, _MOST_CODE))).inc()

    def webhook_open(self, name: str, type: str) -> None:
        """A webhook failed, and nobody minded."""
        self._open.labels(name, type).inc()

    def conditions(
        self, name: str, kind: str, type: str, operation: str, began: float, errors: int, *, held: bool
    ) -> None:
        """Match conditions were evaluated."""
        self._conditions.labels(name, kind, type, operation).observe(self.now() - began)
        if errors:
            self._condition_errors.labels(name, kind, type, operation).inc(errors)
        elif not held:
            self._excluded.labels(name, kind, type, operation).inc()

    # Policies --------------------------------------------------------------------------------------------------------

    def evaluated(self, began: float) -> None:
        """A policy's expressions were evaluated."""
        self._evaluations.labels().observe(self.now() - began)

    def checked(self, names: tuple[str, str], began: float, error: str, action: str) -> None:
        """A policy with a binding found something, and what was done about it."""
        self._checks.labels(*names, error, action).inc()
        self._check_seconds.labels(*names, error, action).observe(self.now() - began)
