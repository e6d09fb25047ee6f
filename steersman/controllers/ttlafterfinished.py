"""Jobs that have ended are deleted after their ttlSecondsAfterFinished.

Owns that deletion. Source: kubernetes' pkg/controller/ttlafterfinished, KEP-592.
"""

from __future__ import annotations

from steersman.api.errors import ApiError
from steersman.api.resource import JOBS, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result
from steersman.client.metrics import Metrics, exponential
from steersman.lib.clock import parse_rfc3339
from steersman.lib.metrics import Distribution


def expires(job: Object) -> float | None:
    """Unix seconds when the job is to go; None when it has not ended, or is to stay."""
    seconds = job["spec"].get("ttlSecondsAfterFinished")
    if seconds is None or job["metadata"].get("deletionTimestamp"):
        return None
    for condition in (job.get("status") or {}).get("conditions") or ():
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return parse_rfc3339(condition["lastTransitionTime"]) + float(seconds)
    return None


_LATE = "ttl_after_finished_controller_job_deletion_duration_seconds"


async def reconcile(context: Context, key: Key) -> Result:
    """Delete one job when its time has come."""
    job = context.informer(JOBS).get(*key)
    at = expires(job) if job is not None else None
    if job is None or at is None:
        return DONE
    left = at - context.clock.now()
    if left > 0:
        return Result(left)
    fresh = await _fresh(context, key)
    if fresh is not None and expires(fresh) is not None and fresh["metadata"]["uid"] == job["metadata"]["uid"]:
        await _delete(context, key, fresh)
        _counts(context.metrics).observe(max(context.clock.now() - at, 0.0))
    return DONE


def _counts(metrics: Metrics) -> Distribution:
    text = "Seconds from the moment a Job was to go to its deletion."
    return metrics.histogram(_LATE, text, (), exponential(0.1, 2, 14)).labels()


async def _fresh(context: Context, key: Key) -> Object | None:
    """The job as it is now: its time to live may have been changed at the last moment."""
    try:
        return await context.client.get(JOBS, key.name, key.namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        return None


async def _delete(context: Context, key: Key, job: Object) -> None:
    meta = job["metadata"]
    try:
        await context.client.delete(JOBS, key.name, key.namespace, propagation="Foreground", uid=meta["uid"])
    except ApiError as error:
        if error.code != 404:
            raise


CONTROLLER = Controller("ttl-after-finished-controller", reconcile, (For(JOBS),), counts=_counts)
