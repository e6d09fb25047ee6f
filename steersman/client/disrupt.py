"""Pods that are made to leave: first their status says why, then they are deleted (KEP-3329).

Owns the two writes. Called by the controllers that evict because of taints; whether and when is theirs.
"""

from __future__ import annotations

from steersman.api.errors import ApiError
from steersman.api.resource import PODS, Object
from steersman.client.controller import Context
from steersman.client.workload import set_condition


async def disrupt(context: Context, pod: Object, reason: str, text: str) -> None:
    """Mark the pod with DisruptionTarget, and delete it; one that is gone is well. Raises ApiError."""
    status, meta = pod.get("status") or {}, pod["metadata"]
    conditions = [dict(each) for each in status.get("conditions") or ()]
    seen = meta.get("generation") or 0
    set_condition(conditions, "DisruptionTarget", "True", reason, text, context.clock.now(), generation=seen)
    try:
        if conditions != status.get("conditions"):
            changed = {**pod, "status": {**status, "conditions": conditions}}
            await context.client.update(PODS, changed, subresource="status")
        await context.client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"])
    except ApiError as error:
        if error.code != 404:
            raise
