"""Counting a Job's pods: each exactly once, whatever is lost on the way.

Owns `Tally`, the state of a Job and its pods at one look. A pod keeps a finalizer until its end is written down: first
its uid in status.uncountedTerminatedPods (or its index), then the finalizer goes, then the counter moves. Pure.
Source: KEP-2307 (job tracking without lingering pods), KEP-3850 (back-off limit per index).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steersman.api import pods
from steersman.api.resource import Object
from steersman.client.workload import created_at
from steersman.controllers.job.indexes import index_of, parse
from steersman.controllers.job.policy import on_failure
from steersman.lib.clock import parse_rfc3339

FINALIZER = "batch.kubernetes.io/job-tracking"
FAILURES, IGNORED = (
    "batch.kubernetes.io/job-index-failure-count",
    "batch.kubernetes.io/job-index-ignored-failure-count",
)
_FIRST_BACKOFF, _MOST_BACKOFF = 10.0, 600.0  # seconds


def is_indexed(job: Object) -> bool:
    """Whether each pod has an index of its own."""
    return job["spec"].get("completionMode") == "Indexed"


def is_suspended(job: Object) -> bool:
    """spec.suspend."""
    return bool(job["spec"].get("suspend"))


def replaces_only_failed(job: Object) -> bool:
    """Whether a pod is replaced only when it has ended, not when it begins to terminate."""
    policy = job["spec"].get("podReplacementPolicy")
    return policy == "Failed" if policy else job["spec"].get("podFailurePolicy") is not None


def is_failed(pod: Object, job: Object) -> bool:
    """Whether the pod counts as failed."""
    phase = (pod.get("status") or {}).get("phase")
    if phase == "Failed":
        return True
    return not replaces_only_failed(job) and bool(pod["metadata"].get("deletionTimestamp")) and phase != "Succeeded"


def is_tracked(pod: Object) -> bool:
    """Whether the pod's end is not written down yet."""
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def failures_of(pod: Object, *, ignored: bool = False) -> int:
    """How often the pods before this one failed at its index."""
    text = (pod["metadata"].get("annotations") or {}).get(IGNORED if ignored else FAILURES, "0")
    return int(text) if text.isdecimal() else 0


def ended_at(pod: Object) -> float:
    """Unix seconds when the pod ended, as well as that can be known."""
    status, meta = pod.get("status") or {}, pod["metadata"]
    ends = [_finished(each) for each in status.get("containerStatuses") or ()]
    if ends and all(ends):
        return max(ends)
    ready = pods.condition(pod, "Ready")
    if ready is not None and ready["status"] == "False" and ready.get("lastTransitionTime"):
        return parse_rfc3339(ready["lastTransitionTime"])
    if stamp := meta.get("deletionTimestamp"):
        return parse_rfc3339(stamp) - float(meta.get("deletionGracePeriodSeconds") or 0)
    return created_at(pod)


def _finished(container: Object) -> float:
    stamp = ((container.get("state") or {}).get("terminated") or {}).get("finishedAt")
    return parse_rfc3339(stamp) if stamp else 0.0


def backoff_left(failures: int, last: float, now: float) -> float:
    """Seconds until the next pod may start after so many failures, the last at `last`."""
    if failures <= 0:
        return 0.0
    delay = min(_FIRST_BACKOFF * 2.0 ** min(failures - 1, 32), _MOST_BACKOFF)
    return max(last + delay - now, 0.0)


@dataclass(slots=True)
class Tally:
    """A Job and its pods, counted."""

    job: Object
    pods: Sequence[Object]
    active: list[Object] = field(default_factory=list)
    terminating: list[Object] = field(default_factory=list)
    new_succeeded: list[Object] = field(default_factory=list)
    new_failed: list[Object] = field(default_factory=list)
    succeeded: int = 0
    failed: int = 0
    before: set[int] = field(default_factory=set)  # succeeded indexes that are written down
    succeeded_indexes: set[int] = field(default_factory=set)
    failed_indexes: set[int] | None = None
    delayed: dict[int, Object] = field(default_factory=dict)  # last failed pod per index, until it is replaced

    @property
    def ready(self) -> int:
        """Active pods that are ready."""
        return sum(map(pods.is_ready, self.active))


def tally(job: Object, found: Sequence[Object]) -> Tally:
    """Count."""
    spec, status = job["spec"], job.get("status") or {}
    uncounted = status.get("uncountedTerminatedPods") or {}
    done, lost = set(uncounted.get("succeeded") or ()), set(uncounted.get("failed") or ())
    out = Tally(job, found)
    out.active = [pod for pod in found if pods.is_active(pod)]
    out.terminating = [pod for pod in found if pod["metadata"].get("deletionTimestamp") and not pods.is_terminal(pod)]
    valid = _valid(job)
    tracked = [pod for pod in found if is_tracked(pod) and valid(pod)]
    out.new_succeeded = [
        pod
        for pod in tracked
        if pod["metadata"]["uid"] not in done and (pod.get("status") or {}).get("phase") == "Succeeded"
    ]
    out.new_failed = [pod for pod in tracked if pod["metadata"]["uid"] not in lost and is_failed(pod, job)]
    policy = spec.get("podFailurePolicy")
    counting = sum(on_failure(policy, pod).counts for pod in out.new_failed)
    out.succeeded = (status.get("succeeded") or 0) + len(out.new_succeeded) + len(done)
    out.failed = (status.get("failed") or 0) + counting + len(lost)
    if is_indexed(job):
        _tally_indexes(out, tracked)
    return out


def _valid(job: Object) -> Callable[[Object], bool]:
    if not is_indexed(job):
        return lambda _: True
    completions = job["spec"]["completions"]
    return lambda pod: (index := index_of(pod)) is not None and index < completions


def _tally_indexes(out: Tally, tracked: Sequence[Object]) -> None:
    job = out.job
    spec, status = job["spec"], job.get("status") or {}
    completions = spec["completions"]
    out.before = parse(status.get("completedIndexes"), completions)
    fresh = {index for pod in out.new_succeeded if (index := index_of(pod)) is not None}
    out.succeeded_indexes = out.before | fresh
    out.succeeded = len(out.succeeded_indexes)
    limit = spec.get("backoffLimitPerIndex")
    if limit is None:
        return
    out.failed_indexes = parse(status.get("failedIndexes"), completions)
    for pod in tracked:
        index = index_of(pod)
        if index is None or not is_failed(pod, job):
            continue
        verdict = on_failure(spec.get("podFailurePolicy"), pod)
        if verdict.action == "FailIndex" or (verdict.counts and failures_of(pod) >= limit):
            out.failed_indexes.add(index)
    busy = {index_of(pod) for pod in out.active}
    for pod in tracked:
        index = index_of(pod)
        settled = index in out.succeeded_indexes or index in out.failed_indexes or index in busy
        if index is None or settled or not is_failed(pod, job):
            continue
        other = out.delayed.get(index)
        if other is None or (_all_failures(other), ended_at(other)) <= (_all_failures(pod), ended_at(pod)):
            out.delayed[index] = pod


def _all_failures(pod: Object) -> int:
    return failures_of(pod) + failures_of(pod, ignored=True)


def index_backoff_left(pod: Object | None, now: float) -> float:
    """Seconds until an index may be tried again after its last failed pod."""
    return 0.0 if pod is None else backoff_left(_all_failures(pod) + 1, ended_at(pod), now)


def next_failures(job: Object, replaced: Object | None) -> tuple[int, int]:
    """The failures, counted and ignored, that the pod replacing this one carries."""
    if replaced is None:
        return 0, 0
    counted, ignored = failures_of(replaced), failures_of(replaced, ignored=True)
    if on_failure(job["spec"].get("podFailurePolicy"), replaced).counts:
        return counted + 1, ignored
    return counted, ignored + 1
