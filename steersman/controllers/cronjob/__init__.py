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
from steersman.client.metrics import Metrics, exponential
from steersman.client.workload import created_at, is_controlled_by, owner_reference
from steersman.controllers.cronjob.schedule import Schedule, parse
from steersman.lib.clock import parse_rfc3339, rfc3339
from steersman.lib.metrics import Distribution

_SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_SKEW, _SKEWS = "cronjob_controller_job_creation_skew_duration_seconds", exponential(1, 2, 10)
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
    """What is due. `active` are the references in the status, brought up to date.

    A start that came too late is never met here, for the deadline already limits how far back one looks; so
    MissSchedule is never said, as it is not by the original since it looks so.
    """
    spec, steps = cronjob["spec"], Plan()
    zone = _with_zone(spec, steps)
    if zone is None or cronjob["metadata"].get("deletionTimestamp") or spec.get("suspend"):
        return steps
    try:
        schedule = parse(_schedule(spec, steps), zone)
    except ValueError as error:
        text = f'unparseable schedule: "{spec["schedule"]}" : {error}'
        steps.events.append(("Warning", "UnparseableSchedule", text))
        return steps
    last = (cronjob.get("status") or {}).get("lastScheduleTime")
    since = parse_rfc3339(last) if last else created_at(cronjob)
    deadline = spec.get("startingDeadlineSeconds")
    begin = max(since, now - deadline) if deadline is not None else since
    try:
        at, many = most_recent(schedule, begin, now)
    except ValueError as error:
        steps.events.append(("Warning", "InvalidSchedule", f"invalid schedule: {spec['schedule']} : {error}"))
        return steps
    steps.wait = _wait(schedule, since if at is None else at, now)
    if at is None:
        return steps
    if many:
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


def _schedule(spec: Object, steps: Plan) -> str:
    """The schedule's text; a time zone in it, which older releases let pass, is complained of."""
    text = str(spec["schedule"])
    if "TZ" in text:
        where = "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/"
        complaint = f'CRON_TZ or TZ used in schedule "{text}" is not officially supported, see {where} for more details'
        steps.events.append(("Warning", "UnsupportedSchedule", complaint))
    return text


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


def most_recent(schedule: Schedule, since: float, now: float) -> tuple[float | None, bool]:
    """The last time after `since` that has come, and whether more than a hundred were missed before it.

    After a longer pause only the end of it is looked at, as if all times lay as far apart as the first two: an
    irregular schedule may find none there, and goes on with the next. Raises ValueError for one that has no times.
    """
    first = schedule.after(since)
    if first is not None and now < first:
        return None, False
    second = schedule.after(first) if first is not None else None
    if first is not None and second is not None and now < second:
        return first, False
    if first is None or second is None:
        raise ValueError("time difference between two schedules is less than 1 second")
    between = round(second - first)
    missed = int(now - first) // between + 1
    found, each = None, schedule.after(first + (missed - 2) * between)
    while each is not None and each <= now:
        found, each = each, schedule.after(each)
    return found, missed > _MANY


def _wait(schedule: Schedule, came: float, now: float) -> float:
    """Seconds until the time that follows `came`, the last that has come or when to begin; 0 when there is none."""
    following = schedule.after(came)
    if following is not None and following <= now:
        following = schedule.after(now)
    return following - now + _PADDING if following is not None else 0.0


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


def _started(job: Object) -> tuple[bool, str, str]:
    started = (job.get("status") or {}).get("startTime") or ""
    return not started, started, job["metadata"]["name"]


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
    gone = set()
    for job in surplus(cronjob, jobs):
        if await _delete(context, cronjob, job):
            gone.add(job["metadata"]["uid"])
    status["active"] = [each for each in status.get("active") or () if each["uid"] not in gone]
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
        if found is None and await _exists(context, each):
            left.append(each)
        elif found is None:
            tell(cronjob, "Normal", "MissingJob", f"Active job went missing: {each['name']}")
        elif how := ended_as(found):
            tell(cronjob, "Normal", "SawCompletedJob", f"Saw completed job: {each['name']}, condition: {how}")
        else:
            left.append(each)
    return left


async def _exists(context: Context, reference: Object) -> bool:
    """Whether the API server knows a Job that our copy does not show. Raises ApiError."""
    try:
        await context.client.get(JOBS, reference["name"], reference["namespace"])
    except ApiError as error:
        if error.code != 404:
            raise
        return False
    return True


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
        _counts(context.metrics).observe(created_at(job) - steps.start)
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


def _counts(metrics: Metrics) -> Distribution:
    return metrics.histogram(_SKEW, "Seconds from a Job's time to its creation.", (), _SKEWS).labels()


def _reference(job: Object) -> Object:
    meta = job["metadata"]
    about = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "namespace": meta["namespace"]}
    return about | {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}


def _is_scheduled(job: Object) -> bool:
    """Whether the schedule started it, and not a person (`kubectl create job --from`)."""
    return _SCHEDULED in (job["metadata"].get("annotations") or {})


async def _delete(context: Context, cronjob: Object, job: Object) -> bool:
    """Delete a Job; whether that is done. What fails is told. Raises OSError and TimeoutError when nobody answers."""
    meta = job["metadata"]
    context.expectations.deleted(key_of(cronjob), job)
    try:
        await context.client.delete(JOBS, meta["name"], meta["namespace"], propagation="Background", uid=meta["uid"])
    except (OSError, TimeoutError):
        context.expectations.kept(key_of(cronjob), job)  # perhaps; to delete the same Job again is harmless
        raise
    except ApiError as error:
        if error.code in (404, 409):
            return True
        context.expectations.kept(key_of(cronjob), job)
        context.recorder.event(cronjob, "Warning", "FailedDelete", f"Deleted job: {error.message}")
        raise
    context.recorder.event(cronjob, "Normal", "SuccessfulDelete", f"Deleted job {meta['name']}")
    return True


CONTROLLER = Controller(
    "cronjob-controller",
    reconcile,
    (For(CRONJOBS), Owns(JOBS, CRONJOBS)),
    indexes={JOBS: INDEX},
    counts=_counts,
)
