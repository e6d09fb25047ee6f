"""CronJobs: a Job at each time that a schedule names.

Owns those Jobs, how many of the ended are kept, and the CronJob's status. Source: kubernetes' pkg/controller/cronjob;
reasons and messages are the original's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from steersman.api.errors import ApiError
from steersman.api.resource import CRONJOBS, JOBS, Object
from steersman.client.children import INDEX, namespace_terminates, owned_by
from steersman.client.controller import DONE, Context, Controller, For, Key, Owns, Result, key_of
from steersman.client.workload import created_at, is_controlled_by, owner_reference
from steersman.controllers.cronjob.schedule import Schedule, parse
from steersman.lib.clock import parse_rfc3339, rfc3339

_SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_PADDING = 0.1  # seconds
_MANY = 100


@dataclass(slots=True)
class Plan:
    """Events to tell, the time to start a Job for, and seconds until the next look."""

    events: list[tuple[str, str, str]] = field(default_factory=list)
    start: float | None = None
    replace: bool = False
    wait: float = 0.0


def ended_as(job: Object) -> str:
    """`Complete` or `Failed`; empty while it goes on."""
    for each in (job.get("status") or {}).get("conditions") or ():
        if each["type"] in ("Complete", "Failed") and each["status"] == "True":
            return str(each["type"])
    return ""


def job_name(cronjob: Object, at: float) -> str:
    """The name of the Job for one time: the same whoever makes it, so that there is one."""
    return f"{cronjob['metadata']['name']}-{int(at) // 60}"


def plan(cronjob: Object, active: Sequence[Object], now: float) -> Plan:
    """What is due. `active` are the references in the status, brought up to date."""
    spec, steps = cronjob["spec"], Plan()
    zone = _with_zone(spec, steps)
    if zone is None or cronjob["metadata"].get("deletionTimestamp") or spec.get("suspend"):
        return steps
    try:
        schedule = parse(spec["schedule"], zone)
    except ValueError as error:
        text = f'unparseable schedule: "{spec["schedule"]}" : {error}'
        steps.events.append(("Warning", "UnparseableSchedule", text))
        return steps
    last = (cronjob.get("status") or {}).get("lastScheduleTime")
    since = parse_rfc3339(last) if last else created_at(cronjob)
    deadline = spec.get("startingDeadlineSeconds")
    begin = max(since, now - deadline) if deadline is not None else since
    at = schedule.latest(begin, now)
    following = schedule.after(now)
    steps.wait = following - now + _PADDING if following is not None else 0.0
    if at is None:
        return steps
    if _missed(schedule, begin, now) > _MANY:
        text = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        steps.events.append(("Warning", "TooManyMissedTimes", text))
    if any(each["name"] == job_name(cronjob, at) for each in active) or (last and parse_rfc3339(last) == at):
        return steps
    policy = spec.get("concurrencyPolicy", "Allow")
    if policy == "Forbid" and active:
        text = "Not starting job because prior execution is running and concurrency policy is Forbid"
        steps.events.append(("Normal", "JobAlreadyActive", text))
        return steps
    steps.start, steps.replace = at, policy == "Replace"
    return steps


def _with_zone(spec: Object, steps: Plan) -> tzinfo | None:
    name = spec.get("timeZone")
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        text = f'invalid timeZone: "{name}": unknown time zone {name}'
        steps.events.append(("Warning", "UnknownTimeZone", text))
        return None


def _missed(schedule: Schedule, since: float, now: float) -> int:
    """About how many times lie between; exact while they are few."""
    first = schedule.after(since)
    second = schedule.after(first) if first is not None else None
    if first is None or second is None or first > now:
        return 0
    return int((now - first) // (second - first)) + 1


def new_job(cronjob: Object, at: float) -> Object:
    """The Job for one time."""
    template = cronjob["spec"]["jobTemplate"]
    meta = template.get("metadata") or {}
    name = cronjob["spec"].get("timeZone")
    local = datetime.fromtimestamp(at, ZoneInfo(name) if name else UTC)
    stamp = local.isoformat(timespec="seconds").replace("+00:00", "Z")
    body: Object = {
        "name": job_name(cronjob, at),
        "namespace": cronjob["metadata"]["namespace"],
        "annotations": {**(meta.get("annotations") or {}), _SCHEDULED: stamp},
        "ownerReferences": [owner_reference(cronjob, CRONJOBS)],
    }
    if meta.get("labels"):
        body["labels"] = meta["labels"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": body, "spec": template["spec"]}


def surplus(cronjob: Object, jobs: Sequence[Object]) -> list[Object]:
    """Ended Jobs above the limits of the history, oldest first."""
    spec, out = cronjob["spec"], []
    limits = (
        ("Complete", spec.get("successfulJobsHistoryLimit", 3)),
        ("Failed", spec.get("failedJobsHistoryLimit", 1)),
    )
    for kind, limit in limits:
        found = sorted((job for job in jobs if ended_as(job) == kind), key=_started)
        if limit is not None:
            out += found[: max(len(found) - limit, 0)]
    return out


def _started(job: Object) -> tuple[str, str]:
    return (job.get("status") or {}).get("startTime") or "", job["metadata"]["name"]


async def reconcile(context: Context, key: Key) -> Result:
    """Bring one CronJob's record up to date, start what is due, drop old history."""
    cronjob = context.informer(CRONJOBS).get(*key)
    if cronjob is None:
        context.expectations.forget([(key, "status"), key])
        return DONE
    jobs_seen = context.expectations.fulfilled(key, context.informer(JOBS))
    if not jobs_seen or not context.expectations.fulfilled((key, "status"), context.informer(CRONJOBS)):
        return DONE
    jobs = [job for job in owned_by(context.informer(JOBS), cronjob) if not job["metadata"].get("deletionTimestamp")]
    status = {**(cronjob.get("status") or {})}
    active = await _update_active(context, cronjob, jobs, status)
    steps = plan(cronjob, active, context.clock.now())
    for kind, reason, text in steps.events:
        context.recorder.event(cronjob, "Warning" if kind == "Warning" else "Normal", reason, text)
    if steps.start is not None:
        await _start(context, cronjob, steps, active, status)
    status["active"] = active
    wanted = {name: value for name, value in status.items() if value}
    if wanted != (cronjob.get("status") or {}):
        written = await context.client.update(CRONJOBS, {**cronjob, "status": wanted}, subresource="status")
        context.expectations.created((key, "status"), written)
    if not cronjob["metadata"].get("deletionTimestamp"):
        for job in surplus(cronjob, jobs):
            await _delete(context, cronjob, job)
    return Result(steps.wait)


async def _update_active(context: Context, cronjob: Object, jobs: Sequence[Object], status: Object) -> list[Object]:
    """The references to Jobs that go on; those that ended or went are told of."""
    tell = context.recorder.event
    active = list(status.get("active") or ())
    by_uid = {job["metadata"]["uid"]: job for job in jobs}
    listed = {each["uid"] for each in active}
    for job in jobs:  # started by us, but we ended before we could write it down
        if job["metadata"]["uid"] not in listed and not ended_as(job) and _is_scheduled(job):
            active.append(_reference(job))
            listed.add(job["metadata"]["uid"])
    for uid, job in by_uid.items():
        how = ended_as(job)
        if not how and uid not in listed:
            text = f"Saw a job that the controller did not create or forgot: {job['metadata']['name']}"
            tell(cronjob, "Warning", "UnexpectedJob", text)
        if how == "Complete":
            done = (job.get("status") or {}).get("completionTime")
            if done and done > (status.get("lastSuccessfulTime") or ""):
                status["lastSuccessfulTime"] = done
    left = []
    for each in active:
        found = by_uid.get(each["uid"])
        if found is None:
            tell(cronjob, "Normal", "MissingJob", f"Active job went missing: {each['name']}")
        elif how := ended_as(found):
            tell(cronjob, "Normal", "SawCompletedJob", f"Saw completed job: {each['name']}, condition: {how}")
        else:
            left.append(each)
    return left


async def _start(context: Context, cronjob: Object, steps: Plan, active: list[Object], status: Object) -> None:
    assert steps.start is not None
    namespace = cronjob["metadata"]["namespace"]
    if steps.replace:
        informer = context.informer(JOBS)
        for each in active:
            if (running := informer.get(namespace, each["name"])) is not None:
                await _delete(context, cronjob, running)
        active.clear()
    body = new_job(cronjob, steps.start)
    try:
        job = await context.client.create(JOBS, body, namespace)
        text = f"Created job {job['metadata']['name']}"
        context.recorder.event(cronjob, "Normal", "SuccessfulCreate", text)
        context.expectations.created(key_of(cronjob), job)
    except ApiError as error:
        if namespace_terminates(error):
            return
        if error.reason != "AlreadyExists":
            context.recorder.event(cronjob, "Warning", "FailedCreate", f"Error creating job: {error.message}")
            raise
        job = await context.client.get(JOBS, body["metadata"]["name"], namespace)
        if not is_controlled_by(job, cronjob):
            return
        context.expectations.created(key_of(cronjob), job)
    if all(each["uid"] != job["metadata"]["uid"] for each in active):
        active.append(_reference(job))
    status["lastScheduleTime"] = rfc3339(steps.start)


def _reference(job: Object) -> Object:
    meta = job["metadata"]
    about = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "namespace": meta["namespace"]}
    return about | {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}


def _is_scheduled(job: Object) -> bool:
    """Whether the schedule started it, and not a person (`kubectl create job --from`)."""
    return _SCHEDULED in (job["metadata"].get("annotations") or {})


async def _delete(context: Context, cronjob: Object, job: Object) -> None:
    meta = job["metadata"]
    context.expectations.deleted(key_of(cronjob), job)
    try:
        await context.client.delete(JOBS, meta["name"], meta["namespace"], propagation="Background", uid=meta["uid"])
    except (OSError, TimeoutError):
        context.expectations.kept(key_of(cronjob), job)  # perhaps; to delete the same Job again is harmless
        raise
    except ApiError as error:
        if error.code in (404, 409):
            return
        context.expectations.kept(key_of(cronjob), job)
        context.recorder.event(cronjob, "Warning", "FailedDelete", f"Deleted job: {error.message}")
        raise
    context.recorder.event(cronjob, "Normal", "SuccessfulDelete", f"Deleted job {meta['name']}")


CONTROLLER = Controller("cronjob-controller", reconcile, (For(CRONJOBS), Owns(JOBS, CRONJOBS)), indexes={JOBS: INDEX})
