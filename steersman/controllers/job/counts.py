"""What metrics say of Jobs: looks, ends, and the pods that were counted.

Owns the families job_controller_*. Called by the controller. Source: kubernetes' pkg/controller/job/metrics.
"""

from __future__ import annotations

from steersman.api.resource import Object
from steersman.client.metrics import Metrics, exponential

_LABELS = ("completion_mode", "result", "action")


def synced(metrics: Metrics, labels: tuple[str, str, str], seconds: float) -> None:
    """A look at a Job has ended; `labels`: its mode, success or error, and what was done to its pods."""
    metrics.counter("job_controller_job_syncs_total", "Looks at Jobs.", _LABELS).labels(*labels).inc()
    name, bounds = "job_controller_job_sync_duration_seconds", exponential(0.004, 2, 15)
    metrics.histogram(name, "Their seconds.", _LABELS, bounds).labels(*labels).observe(seconds)


def finished(metrics: Metrics, mode: str, result: str, reason: str) -> None:
    """A Job has ended; `result`: failed or succeeded."""
    labels = ("completion_mode", "result", "reason")
    metrics.counter("job_controller_jobs_finished_total", "Jobs that ended.", labels).labels(mode, result, reason).inc()


def tracked(metrics: Metrics, mode: str, before: Object, after: Object) -> None:
    """A status was written: the pods that it counts more than the one before have been fully tracked."""
    family = metrics.counter(
        "job_controller_job_pods_finished_total", "Pods that were counted.", ("completion_mode", "result")
    )
    for result in ("succeeded", "failed"):
        if (more := (after.get(result) or 0) - (before.get(result) or 0)) > 0:
            family.labels(mode, result).inc(more)
