"""Jobs: pods that run to their end, as many and as often as asked for.

Owns a Job's pods, the finalizer by which each pod's end is counted once, and the Job's status. `tally` counts, `plan`
decides, `reconcile` acts. Source: kubernetes' pkg/controller/job; KEPs 2214, 2307, 3329, 3850, 3939, 3998.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from steersman.api import labels
from steersman.api.errors import ApiError
from steersman.api.labels import Selector
from steersman.api.resource import JOBS, PODS, Object
from steersman.client.children import INDEX as BY_CONTROLLER
from steersman.client.children import Children
from steersman.client.controller import DONE, Context, Controller, For, Key, Owns, Result, Watch, key_of
from steersman.client.selecting import BY_SELECTOR, file_by_selector, object_selector, selectors
from steersman.client.workload import Conditions, condition, controller_of, drop_condition
from steersman.controllers.job import counts
from steersman.controllers.job.indexes import index_of, render
from steersman.controllers.job.plan import Verdict, deadline_left, is_complete, new_pods, plan, verdict
from steersman.controllers.job.policy import on_failure
from steersman.controllers.job.tally import (
    FINALIZER,
    Tally,
    backoff_left,
    ended_at,
    is_failed,
    is_indexed,
    is_suspended,
    is_tracked,
    tally,
)
from steersman.lib.clock import rfc3339

_UNCOUNTED_MOST = 500
_BUILTIN = "kubernetes.io/job-controller"


@dataclass(slots=True)
class Failures:
    """Failures of a Job's pods since the last success."""

    count: int = 0
    last: float = 0.0


async def reconcile(context: Context, key: Key) -> Result:
    """Count one Job's pods, create and delete, and write down what ended."""
    job = context.informer(JOBS).get(*key)
    if job is None:
        context.expectations.forget([key, (key, "status")])
        context.memory.pop(key, None)
        await _free_orphans(context, key, "")
        return DONE
    if job["spec"].get("managedBy", _BUILTIN) != _BUILTIN:
        return DONE
    if job["spec"].get("completionMode") not in (None, "NonIndexed", "Indexed"):
        text = "Skipped Job sync because completion mode is unknown"
        context.recorder.event(job, "Warning", "UnknownCompletionMode", text)
        return DONE
    await _free_orphans(context, key, "" if is_over(job) else job["metadata"]["uid"])
    selector = labels.from_object(job["spec"].get("selector"))
    if is_over(job):
        context.memory.pop(key, None)
        return DONE
    children = Children(context, job, JOBS, PODS, finalizers=(FINALIZER,))
    seen = context.expectations.fulfilled((key, "status"), context.informer(JOBS))
    if not children.settled() or not seen:
        counts.synced(context.metrics, (_mode(job), "success", "reconciling"), 0.0)
        return DONE
    return await _counted(context, children, selector)


def is_over(job: Object) -> bool:
    """Whether the Job is Complete or Failed."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


async def _counted(context: Context, children: Children, selector: Selector) -> Result:
    """Advance, for metrics too."""
    began, result = context.clock.monotonic(), "error"
    try:
        looked = await _advance(context, children, selector)
        result = "success"
    finally:
        action = context.memory.pop((key_of(children.owner), "action"), "tracking")
        labels = (_mode(children.owner), result, action)
        counts.synced(context.metrics, labels, context.clock.monotonic() - began)
    return looked


def _mode(job: Object) -> str:
    return str(job["spec"].get("completionMode") or "NonIndexed")


async def _advance(context: Context, children: Children, selector: Selector) -> Result:
    now = context.clock.now()
    job = children.owner
    found = await children.claim(selector)
    status = {**(job.get("status") or {})}
    status["conditions"] = [dict(each) for each in status.get("conditions") or ()]
    if "startTime" not in status and not is_suspended(job):
        status["startTime"] = rfc3339(now)
    job = {**job, "status": status}
    counted = tally(job, found)
    failures = _note_failures(context, key_of(job), counted)
    over = verdict(counted, now)
    error: ApiError | None = None
    active, terminating = len(counted.active), len(counted.terminating)
    ready, wait = counted.ready, 0.0
    declared = over
    if over is not None:
        try:
            await children.delete_all(counted.active)
            terminating, active, ready = terminating + active, 0, 0
        except ApiError as problem:
            error, declared = problem, None
    elif not job["metadata"].get("deletionTimestamp"):
        steps = plan(counted, backoff_left(failures.count, failures.last, now), now)
        wait = steps.wait
        if steps.create or steps.delete:
            context.memory[key_of(job), "action"] = "pods_created" if steps.create else "pods_deleted"
        try:
            await _free(context, children, steps.delete, exact=True)
            await children.delete_all(steps.delete)
            gone = {pod["metadata"]["uid"] for pod in steps.delete}
            active, terminating = active - len(gone), terminating + len(gone)
            ready = sum(pod["metadata"]["uid"] not in gone for pod in counted.active if _is_ready(pod))
            made = new_pods(counted, steps.create)
            await replace(children, made=_counter(context, counted)).create_all(made)
            active += len(made)
        except ApiError as problem:
            error = problem
        if is_complete(counted, active):
            declared = Verdict("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")
        else:
            _note_suspension(context, job, status, now)
    status |= {"active": active, "ready": ready, "terminating": terminating}
    if not active:
        del status["active"]
    await _write_down(context, children, counted, declared)
    if error is not None:
        raise error
    left = deadline_left(job, now)
    return Result(min((each for each in (wait, left) if each), default=0.0))


def _counter(context: Context, counted: Tally) -> Callable[[bool], None]:
    """What counts pods that are made, by why they are."""
    job, lost = counted.job, counted.failed > 0
    if lost and job["spec"].get("podReplacementPolicy") == "Failed":
        reason = "recreate_failed"
    else:
        reason = "recreate_terminating_or_failed" if lost or counted.terminating else "new"
    return lambda well: counts.made(context.metrics, reason, well)


def _is_ready(pod: Object) -> bool:
    return any(
        each["type"] == "Ready" and each["status"] == "True"
        for each in (pod.get("status") or {}).get("conditions") or ()
    )


def _note_failures(context: Context, key: Key, counted: Tally) -> Failures:
    """Failures after the last success, each told once."""
    seen: tuple[Failures, set[str]] = context.memory.setdefault(key, (Failures(), set()))
    failures, told = seen
    succeeded = [pod for pod in counted.new_succeeded if pod["metadata"]["uid"] not in told]
    lost = [pod for pod in counted.new_failed if pod["metadata"]["uid"] not in told]
    last_success = max(map(ended_at, succeeded), default=None)
    if last_success is not None:
        failures.count, failures.last = 0, 0.0
    for pod in lost:
        if last_success is None or ended_at(pod) > last_success:
            failures.count += 1
            failures.last = max(failures.last, ended_at(pod))
    told.update(pod["metadata"]["uid"] for pod in [*succeeded, *lost])
    return failures


def _note_suspension(context: Context, job: Object, status: Object, now: float) -> None:
    conditions: Conditions = status["conditions"]
    old = condition(conditions, "Suspended")
    if is_suspended(job):
        if _put(conditions, "Suspended", "True", "JobSuspended", "Job suspended", now):
            status.pop("startTime", None)
            context.recorder.event(job, "Normal", "Suspended", "Job suspended")
    elif old is not None and _put(conditions, "Suspended", "False", "JobResumed", "Job resumed", now):
        status["startTime"] = rfc3339(now)
        context.recorder.event(job, "Normal", "Resumed", "Job resumed")


def _put(conditions: Conditions, kind: str, status: str, reason: str, message: str, now: float) -> bool:
    """Set a condition in batch's form, with a probe time; whether that changed anything."""
    old = condition(conditions, kind)
    if old is not None and (old["status"], old.get("reason"), old.get("message")) == (status, reason, message):
        return False
    stamp = rfc3339(now)
    drop_condition(conditions, kind)
    new = {"type": kind, "status": status, "lastProbeTime": stamp, "lastTransitionTime": stamp}
    conditions.append({**new, "reason": reason, "message": message})
    return True


async def _write_down(context: Context, children: Children, counted: Tally, over: Verdict | None) -> None:
    """Uids first, then finalizers, then counters: whatever fails in between is taken up at the next look."""
    job, now = counted.job, context.clock.now()
    status: Object = job["status"]
    tracked = {pod["metadata"]["uid"] for pod in counted.pods if is_tracked(pod)}
    _settle(status, tracked)
    ended, all_seen = _collect(counted, status, over)
    if over is not None:
        _put(status["conditions"], over.type, "True", over.reason, over.message, now)
    current = await _flush(context, children, status)
    for pod in ended:
        if is_failed(pod, job) and (action := on_failure(job["spec"].get("podFailurePolicy"), pod).action):
            counts.handled(context.metrics, action)
    await _free(context, children, ended)
    _settle(status, tracked - {pod["metadata"]["uid"] for pod in ended})
    uncounted = status.get("uncountedTerminatedPods") or {}
    if over is not None and all_seen and not any(uncounted.values()) and not status.get("terminating"):
        final = "Failed" if over.failed else "Complete"
        _put(status["conditions"], final, "True", over.reason, over.message, now)
        if not over.failed:
            status["completionTime"] = rfc3339(now)
        await _flush(context, children, status, current)
        _tell_end(context, job, over)
        return
    await _flush(context, children, status, current)


def _tell_end(context: Context, job: Object, over: Verdict) -> None:
    counts.finished(context.metrics, _mode(job), "failed" if over.failed else "succeeded", over.reason)
    if over.failed:
        context.recorder.event(job, "Warning", over.reason, over.message)
        return
    completions = job["spec"].get("completions")
    if completions is not None and (job["status"].get("succeeded") or 0) > completions:
        text = "Too many succeeded pods running after completion count reached"
        context.recorder.event(job, "Warning", "TooManySucceededPods", text)
    context.recorder.event(job, "Normal", "Completed", "Job completed")


def _settle(status: Object, tracked: set[str]) -> None:
    """Uids whose pods have no finalizer any more move to the counters."""
    uncounted = {key: list(value) for key, value in (status.get("uncountedTerminatedPods") or {}).items()}
    for key in ("succeeded", "failed"):
        left = [uid for uid in uncounted.get(key, ()) if uid in tracked]
        if moved := len(uncounted.get(key, ())) - len(left):
            status[key] = (status.get(key) or 0) + moved
        uncounted[key] = left
    status["uncountedTerminatedPods"] = {key: value for key, value in uncounted.items() if value}


def _collect(counted: Tally, status: Object, over: Verdict | None) -> tuple[list[Object], bool]:
    """Pods whose finalizer may go, after putting down how they ended; and whether those are all."""
    job, indexed = counted.job, is_indexed(counted.job)
    uncounted: dict[str, list[str]] = {"succeeded": [], "failed": [], **status["uncountedTerminatedPods"]}
    done, lost = set(uncounted["succeeded"]), set(uncounted["failed"])
    completed = set(counted.before)
    ended: list[Object] = []
    complete = True
    for pod in sorted(counted.pods, key=lambda each: index_of(each) or 0):
        uid, failed = pod["metadata"]["uid"], is_failed(pod, job)
        phase = (pod.get("status") or {}).get("phase")
        if not is_tracked(pod):
            continue
        free = over is not None or job["metadata"].get("deletionTimestamp") or phase == "Succeeded"
        if not free and (not failed or any(each["metadata"]["uid"] == uid for each in counted.delayed.values())):
            continue
        index = index_of(pod)
        valid = not indexed or (index is not None and index < job["spec"]["completions"])
        ended.append(pod)
        if phase == "Succeeded" and uid not in lost:
            if indexed and valid and index is not None:
                completed.add(index)
            elif not indexed and uid not in done:
                uncounted["succeeded"] = [*uncounted["succeeded"], uid]
        elif (
            (failed or (over is not None and over.failed))
            and uid not in lost
            and valid
            and on_failure(job["spec"].get("podFailurePolicy"), pod).counts
        ):
            uncounted["failed"] = [*uncounted["failed"], uid]
        if len(ended) >= _UNCOUNTED_MOST:
            complete = False
            break
    status["uncountedTerminatedPods"] = {key: value for key, value in uncounted.items() if value}
    if indexed:
        if completed:
            status["completedIndexes"], status["succeeded"] = render(completed), len(completed)
        if counted.failed_indexes is not None:
            status["failedIndexes"] = render(counted.failed_indexes)
    return ended, complete


async def _flush(context: Context, children: Children, status: Object, current: Object | None = None) -> Object:
    """Write the status if it differs from what is there; returns the Job as it is then."""
    job = current or children.owner
    wanted = {key: value for key, value in status.items() if value != [] or key != "conditions"}
    if wanted == job.get("status"):
        return job
    written = await context.client.update(JOBS, {**job, "status": wanted}, subresource="status")
    counts.tracked(context.metrics, job, wanted)
    context.expectations.created((key_of(job), "status"), written)
    return written


async def _free(context: Context, children: Children, found: Iterable[Object], *, exact: bool = False) -> None:
    """Take the tracking finalizer off pods; `exact`: only if they are as seen, for they may succeed meanwhile."""
    results = await asyncio.gather(
        *(_free_one(context, pod, exact=exact) for pod in found if is_tracked(pod)), return_exceptions=True
    )
    for result in results:
        if isinstance(result, BaseException):
            raise result
        if result is not None:
            context.expectations.created(key_of(children.owner), result)


async def _free_one(context: Context, pod: Object, *, exact: bool = False) -> Object | None:
    meta = pod["metadata"]
    seen = {key: meta[key] for key in ("uid", "resourceVersion") if key == "uid" or exact}
    body = {"metadata": {**seen, "$deleteFromPrimitiveList/finalizers": [FINALIZER]}}
    try:
        return await context.client.patch(PODS, meta["name"], meta["namespace"], body, type="strategic")
    except ApiError as error:
        if error.code in (404, 422):
            return None
        raise  # a conflict too: the finalizer is still there, and the pod must not be counted yet


async def _free_orphans(context: Context, key: Key, uid: str) -> None:
    """Pods that were counted for a Job that is gone, or over when they came, must not wait for it."""
    informer = context.informer(PODS)
    for pod in informer.by_index("tracked", str(key)):
        owner = controller_of(pod)
        if owner is None or owner["uid"] != uid:
            await _free_one(context, pod)


def _job_of(pod: Object) -> str:
    """The key of the Job that a tracked pod belongs to, or belonged to."""
    owner = controller_of(pod)
    marks = pod["metadata"].get("labels") or {}
    name = owner["name"] if owner is not None else marks.get("batch.kubernetes.io/job-name", "")
    return f"{pod['metadata']['namespace']}/{name}" if name else ""


def _file_tracked(pod: Object) -> Iterable[str]:
    if is_tracked(pod) and (name := _job_of(pod)):
        yield name


def _of_tracked(_: Context, pod: Object) -> Iterable[Key]:
    if is_tracked(pod) and (name := _job_of(pod)):
        yield Key(*name.split("/", 1))


def _adopters(context: Context, pod: Object) -> Iterable[Key]:
    meta = pod["metadata"]
    if controller_of(pod) is None and meta.get("labels"):
        yield from map(key_of, selectors(context.informer(JOBS), pod))


CONTROLLER = Controller(
    "job-controller",
    reconcile,
    (For(JOBS), Owns(PODS, JOBS), Watch(PODS, _of_tracked), Watch(PODS, _adopters)),
    indexes={PODS: {**BY_CONTROLLER, "tracked": _file_tracked}, JOBS: {BY_SELECTOR: file_by_selector(object_selector)}},
    retry=(1.0, 60.0),
)
