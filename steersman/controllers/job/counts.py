"""What metrics say of Jobs: looks, ends, and the pods that were counted.

Owns the families job_controller_*. Called by the controller. Source: kubernetes' pkg/controller/job/metrics.
"""

from __future__ import annotations

from steersman.api.resource import Object
from steersman.client.metrics import Metrics, exponential
from steersman.controllers.job.indexes import parse

_LABELS = ("completion_mode", "result", "action")


def synced(metrics: Metrics, labels: tuple[str, str, str], seconds: float) -> None:
    """A look at a Job has ended; `labels`: its mode, success or error, and what was done to its pods."""
    metrics.counter("job_controller_job_syncs_total", "Looks at Jobs.", _LABELS).labels(*labels).inc()
    name, bounds = "job_controller_job_sync_duration_seconds", exponential(0.004, 2, 15)
    metrics.histogram(name, "Their seconds.", _LABELS, bounds).labels(*labels).observe(seconds)


def made(metrics: Metrics, reason: str, well: bool) -> None:
    """A pod was to be made; `reason`: new, or why another takes the place of one that goes or has failed."""
    family = metrics.counter(
        "job_controller_job_pods_creation_total", "Pods that were to be made.", ("reason", "status")
    )
    family.labels(reason, "succeeded" if well else "failed").inc()


def finished(metrics: Metrics, mode: str, result: str, reason: str) -> None:
    """A Job has ended; `result`: failed or succeeded."""
    labels = ("completion_mode", "result", "reason")
    metrics.counter("job_controller_jobs_finished_total", "Jobs that ended.", labels).labels(mode, result, reason).inc()


def handled(metrics: Metrics, action: str) -> None:
    """A failed pod was counted, or not, as a rule of the failure policy says."""
    name = "job_controller_pod_failures_handled_by_failure_policy_total"
    metrics.counter(name, "Failed pods by the rule that matched.", ("action",)).labels(action).inc()


def tracked(metrics: Metrics, job: Object, after: Object) -> None:
    """A status was written: the pods, or indexes, that it counts more than the one before have been fully tracked."""
    spec, before = job["spec"], job.get("status") or {}
    mode = str(spec.get("completionMode") or "NonIndexed")
    family = metrics.counter(
        "job_controller_job_pods_finished_total", "Pods that were counted.", ("completion_mode", "result")
    )
    for result in ("succeeded", "failed"):
        family.labels(mode, result).inc(max((after.get(result) or 0) - (before.get(result) or 0), 0))
    if mode != "Indexed":
        return
    each = spec.get("backoffLimitPerIndex") is not None
    text, labels = "Indexes that have ended.", ("status", "backoffLimit")
    indexes = metrics.counter("job_controller_job_finished_indexes_total", text, labels)
    for result, field in (("succeeded", "completedIndexes"), *((("failed", "failedIndexes"),) if each else ())):
        more = len(parse(after.get(field) or "", spec["completions"])) - len(
            parse(before.get(field) or "", spec["completions"])
        )
        if more > 0 or result == "succeeded":
            indexes.labels(result, "perIndex" if each else "global").inc(max(more, 0))
