"""What a Job needs next: is it over, which pods to create, which to delete.

Pure. Source: kubernetes' pkg/controller/job (syncJob, manageJob); reasons and messages are the original's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from steersman.api.resource import JOBS, Object
from steersman.client.children import BURST
from steersman.client.workload import condition, pod_from_template, to_delete
from steersman.controllers.job.indexes import INDEX, index_of
from steersman.controllers.job.policy import on_failure, on_success
from steersman.controllers.job.tally import (
    FAILURES,
    FINALIZER,
    IGNORED,
    Tally,
    index_backoff_left,
    is_failed,
    is_indexed,
    is_suspended,
    next_failures,
    replaces_only_failed,
)
from steersman.lib.clock import parse_rfc3339


@dataclass(frozen=True, slots=True)
class Verdict:
    """The Job is over: `FailureTarget` or `SuccessCriteriaMet`, and why."""

    type: str
    reason: str
    message: str

    @property
    def failed(self) -> bool:
        """Whether it is a failure."""
        return self.type == "FailureTarget"


@dataclass(slots=True)
class Plan:
    """Pods to create (by index, None for those without) and to delete; seconds until another look."""

    create: list[int | None] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    wait: float = 0.0


def verdict(tally: Tally, now: float) -> Verdict | None:
    """Whether the Job is over for another reason than having completed all."""
    job, spec = tally.job, tally.job["spec"]
    conditions = (job.get("status") or {}).get("conditions") or ()
    for kind in ("SuccessCriteriaMet", "FailureTarget"):
        found = condition(conditions, kind)
        if found is not None and found["status"] == "True":
            return Verdict(kind, found.get("reason", ""), found.get("message", ""))
    if policy := spec.get("podFailurePolicy"):
        for pod in tally.pods:
            if is_failed(pod, job) and (text := on_failure(policy, pod).fails_job):
                return _failure("PodFailurePolicy", text)
    limit = spec.get("backoffLimit", 6)
    if tally.failed > limit or _restarted_too_often(tally, limit):
        return _failure("BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if deadline_left(job, now) == 0:
        return _failure("DeadlineExceeded", "Job was active longer than specified deadline")
    return _index_verdict(tally) if is_indexed(job) else None


def _failure(reason: str, message: str) -> Verdict:
    return Verdict("FailureTarget", reason, message)


def _index_verdict(tally: Tally) -> Verdict | None:
    spec = tally.job["spec"]
    if tally.failed_indexes is not None:
        lost, most = len(tally.failed_indexes), spec.get("maxFailedIndexes")
        if most is not None and lost > most:
            text = "Job has exceeded the specified maximal number of failed indexes"
            return _failure("MaxFailedIndexesExceeded", text)
        if lost and lost + len(tally.succeeded_indexes) >= spec["completions"]:
            return _failure("FailedIndexes", "Job has failed indexes")
    text = on_success(spec.get("successPolicy"), tally.succeeded_indexes, spec["completions"])
    return Verdict("SuccessCriteriaMet", "SuccessPolicy", text) if text else None


def _restarted_too_often(tally: Tally, limit: int) -> bool:
    if tally.job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = 0
    for pod in tally.pods:
        status = pod.get("status") or {}
        if status.get("phase") in ("Running", "Pending"):
            for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
                restarts += each.get("restartCount", 0)
    return restarts > 0 if limit == 0 else restarts >= limit


def deadline_left(job: Object, now: float) -> float | None:
    """Seconds until activeDeadlineSeconds are over, 0 when they are; None when there is no deadline."""
    seconds, start = job["spec"].get("activeDeadlineSeconds"), (job.get("status") or {}).get("startTime")
    if seconds is None or start is None or is_suspended(job):
        return None
    return max(parse_rfc3339(start) + float(seconds) - now, 0.0)


def is_complete(tally: Tally, active: int) -> bool:
    """Whether all completions are there and nothing runs any more."""
    completions = tally.job["spec"].get("completions")
    if completions is None:
        return tally.succeeded > 0 and active == 0
    return tally.succeeded >= completions and active == 0


def plan(tally: Tally, backoff: float, now: float) -> Plan:
    """Pods to create or to delete for a Job that goes on. `backoff`: seconds that creations must wait."""
    job, spec = tally.job, tally.job["spec"]
    if is_suspended(job):
        return Plan(delete=list(tally.active))
    parallelism, completions = spec.get("parallelism", 1), spec.get("completions")
    if completions is None:
        wanted = len(tally.active) if tally.succeeded > 0 else parallelism
    else:
        wanted = max(min(completions - tally.succeeded, parallelism), 0)
    surplus = _surplus(tally, max(len(tally.active) - wanted, 0), now)
    if surplus:
        return Plan(delete=surplus[:BURST])
    missing = wanted - len(tally.active)
    if replaces_only_failed(job):
        missing -= len(tally.terminating)
    if missing <= 0:
        return Plan()
    if not is_indexed(job):
        return Plan(wait=backoff) if backoff > 0 else Plan(create=[None] * min(missing, BURST))
    return _plan_indexes(tally, min(missing, BURST), backoff, now)


def _plan_indexes(tally: Tally, missing: int, backoff: float, now: float) -> Plan:
    busy = {index_of(pod) for pod in tally.active} | tally.succeeded_indexes | (tally.failed_indexes or set())
    if replaces_only_failed(tally.job):
        busy |= {index_of(pod) for pod in tally.terminating}
    free = [index for index in range(tally.job["spec"]["completions"]) if index not in busy][:missing]
    if tally.failed_indexes is None:
        return Plan(wait=backoff) if backoff > 0 else Plan(create=list(free))
    waits = {index: index_backoff_left(tally.delayed.get(index), now) for index in free}
    due: list[int | None] = [index for index in free if not waits[index]]
    return Plan(create=due) if due else Plan(wait=min(waits.values(), default=0.0))


def _surplus(tally: Tally, count: int, now: float) -> list[Object]:
    """Active pods too many: without a right index, with one that another has, and `count` in all."""
    if not is_indexed(tally.job):
        return to_delete(tally.active, count, tally.active, now) if count else []
    by_index: dict[int, list[Object]] = {}
    out: list[Object] = []
    for pod in tally.active:
        index = index_of(pod)
        if index is None or index >= tally.job["spec"]["completions"]:
            out.append(pod)
        else:
            by_index.setdefault(index, []).append(pod)
    left: list[Object] = []
    for found in by_index.values():
        gone = to_delete(found, len(found) - 1, found, now) if len(found) > 1 else []
        out += gone
        left += [pod for pod in found if pod not in gone]
    if len(out) < count:
        out += to_delete(left, count - len(out), left, now)
    return out


def new_pods(tally: Tally, indexes: Sequence[int | None]) -> list[Object]:
    """The pods to create."""
    return [_new_pod(tally, index) for index in indexes]


def _new_pod(tally: Tally, index: int | None) -> Object:
    job = tally.job
    pod = pod_from_template(job["spec"]["template"], job, JOBS)
    meta = pod["metadata"]
    meta["finalizers"] = [*meta.get("finalizers", ()), FINALIZER]
    if index is None:
        return pod
    name = job["metadata"]["name"]
    meta["generateName"] = f"{name}-{index}-"
    meta["annotations"] = {**meta.get("annotations", {}), INDEX: str(index)}
    meta["labels"] = {**meta.get("labels", {}), INDEX: str(index)}
    if tally.failed_indexes is not None:
        counted, ignored = next_failures(job, tally.delayed.get(index))
        meta["annotations"][FAILURES] = str(counted)
        if ignored:
            meta["annotations"][IGNORED] = str(ignored)
    spec: Object = {**pod["spec"], "hostname": f"{name}-{index}"}
    for field_name in ("initContainers", "containers"):
        if spec.get(field_name):
            spec[field_name] = [_with_index(each) for each in spec[field_name]]
    return {**pod, "spec": spec}


def _with_index(container: Object) -> Object:
    env = container.get("env") or []
    if any(each["name"] == "JOB_COMPLETION_INDEX" for each in env):
        return container
    source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
    return {**container, "env": [*env, {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]}
