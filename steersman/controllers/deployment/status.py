"""A Deployment's status: numbers, and the conditions Available, Progressing and ReplicaFailure.

Pure. Source: kubernetes' pkg/controller/deployment/progress.go; the texts are the original's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api.resource import Object
from steersman.client.workload import Conditions, condition, counts, drop_condition, set_condition
from steersman.controllers.deployment.sets import Sized, Strategy
from steersman.lib.clock import parse_rfc3339

_NO_DEADLINE = 2**31 - 1
COMPLETE, TIMED_OUT, PAUSED = "NewReplicaSetAvailable", "ProgressDeadlineExceeded", "DeploymentPaused"


def of(
    deployment: Object, sets: Sequence[Sized], new: Sized | None, strategy: Strategy, *, rollout: bool, now: float
) -> Object:
    """The new status. `rollout`: whether progress is to be judged."""
    old = deployment.get("status") or {}
    conditions = [dict(each) for each in old.get("conditions") or ()]
    available = _sum(sets, "availableReplicas")
    status = counts(
        {
            "observedGeneration": deployment["metadata"].get("generation"),
            "replicas": _sum(sets, "replicas"),
            "updatedReplicas": new.count("replicas") if new is not None else 0,
            "readyReplicas": _sum(sets, "readyReplicas"),
            "availableReplicas": available,
            "unavailableReplicas": max(sum(each.replicas for each in sets) - available, 0),
            "terminatingReplicas": _sum(sets, "terminatingReplicas"),
            "collisionCount": old.get("collisionCount"),
        },
        always=("terminatingReplicas",),
    )
    _judge_pause(conditions, deployment, now)
    if has_deadline(deployment):
        _note_new_set(conditions, new, deployment, now)
    if available >= strategy.least:
        text = "Deployment has minimum availability."
        set_condition(conditions, "Available", "True", "MinimumReplicasAvailable", text, now, updated=True)
    else:
        text = "Deployment does not have minimum availability."
        set_condition(conditions, "Available", "False", "MinimumReplicasUnavailable", text, now, updated=True)
    if rollout:
        _judge_progress(conditions, deployment, status, new, now)
        _report_failures(conditions, sets, new)
    return status | {"conditions": conditions}


def has_deadline(deployment: Object) -> bool:
    """Whether progress is watched at all."""
    return deployment["spec"].get("progressDeadlineSeconds") not in (None, _NO_DEADLINE)


def is_complete(deployment: Object, status: Mapping[str, Any]) -> bool:
    """Whether every pod is of the new set and available, as of the Deployment's newest generation."""
    wanted = deployment["spec"].get("replicas", 1)
    same = all((status.get(key) or 0) == wanted for key in ("updatedReplicas", "replicas", "availableReplicas"))
    return same and (status.get("observedGeneration") or 0) >= deployment["metadata"].get("generation", 0)


def check_after(deployment: Object, status: Object, now: float) -> float:
    """Seconds until it is known whether the rollout is too slow; 0 when that needs no look."""
    progressing = condition(status["conditions"], "Progressing")
    if not has_deadline(deployment) or progressing is None or is_complete(deployment, status):
        return 0.0
    if progressing.get("reason") == TIMED_OUT:
        return 0.0
    return max(_deadline(deployment, progressing) - now, 0.0) + 1


def _deadline(deployment: Object, progressing: Object) -> float:
    since = progressing.get("lastUpdateTime") or progressing.get("lastTransitionTime")
    began = parse_rfc3339(since) if since else 0.0
    return began + deployment["spec"]["progressDeadlineSeconds"]


def _sum(sets: Sequence[Sized], field: str) -> int:
    return sum(each.count(field) for each in sets)


def _judge_pause(conditions: Conditions, deployment: Object, now: float) -> None:
    """Time spent paused must not count as lack of progress."""
    if not has_deadline(deployment):
        return
    reason = (condition(conditions, "Progressing") or {}).get("reason")
    if reason == TIMED_OUT:
        return
    paused = bool(deployment["spec"].get("paused"))
    if paused and reason != PAUSED:
        set_condition(conditions, "Progressing", "Unknown", PAUSED, "Deployment is paused", now, updated=True)
    elif not paused and reason == PAUSED:
        text = "Deployment is resumed"
        set_condition(conditions, "Progressing", "Unknown", "DeploymentResumed", text, now, updated=True)


def _note_new_set(conditions: Conditions, new: Sized | None, deployment: Object, now: float) -> None:
    if new is None:
        return
    if new.original is None:
        text = f'Created new replica set "{new.name}"'
        set_condition(conditions, "Progressing", "True", "NewReplicaSetCreated", text, now, updated=True)
    elif condition(conditions, "Progressing") is None:
        text = f'Found new replica set "{new.name}"'
        set_condition(conditions, "Progressing", "True", "FoundNewReplicaSet", text, now, updated=True)


def _judge_progress(conditions: Conditions, deployment: Object, status: Object, new: Sized | None, now: float) -> None:
    if not has_deadline(deployment):
        drop_condition(conditions, "Progressing")
        return
    current = condition(conditions, "Progressing")
    settled = current is not None and current.get("reason") == COMPLETE
    if settled and status.get("replicas", 0) == status.get("updatedReplicas", 0):
        return
    who = f'ReplicaSet "{new.name}"' if new is not None else f'Deployment "{deployment["metadata"]["name"]}"'
    if is_complete(deployment, status):
        text = f"{who} has successfully progressed."
        set_condition(conditions, "Progressing", "True", COMPLETE, text, now, updated=True)
    elif _progresses(deployment.get("status") or {}, status):
        since = current.get("lastTransitionTime") if current and current["status"] == "True" else None
        drop_condition(conditions, "Progressing")
        text = f"{who} is progressing."
        set_condition(conditions, "Progressing", "True", "ReplicaSetUpdated", text, now, updated=True)
        if since:
            conditions[-1]["lastTransitionTime"] = since
    elif current is not None and _timed_out(deployment, current, now):
        text = f"{who} has timed out progressing."
        set_condition(conditions, "Progressing", "False", TIMED_OUT, text, now, updated=True)


def _timed_out(deployment: Object, current: Object, now: float) -> bool:
    if current.get("reason") == COMPLETE:
        return False
    return current.get("reason") == TIMED_OUT or _deadline(deployment, current) < now


def _progresses(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    def outdated(status: Mapping[str, Any]) -> int:
        return (status.get("replicas") or 0) - (status.get("updatedReplicas") or 0)

    more = any((new.get(key) or 0) > (old.get(key) or 0) for key in _GROWING)
    return more or outdated(new) < outdated(old)


_GROWING = ("updatedReplicas", "readyReplicas", "availableReplicas")


def _report_failures(conditions: Conditions, sets: Sequence[Sized], new: Sized | None) -> None:
    """The new set's failure, else that of any, is the Deployment's."""
    for each in [*([new] if new is not None else []), *sets]:
        found = condition((each.body.get("status") or {}).get("conditions") or (), "ReplicaFailure")
        if found is not None:
            old = condition(conditions, "ReplicaFailure")
            if old is None or (old["status"], old.get("reason")) != (found["status"], found.get("reason")):
                drop_condition(conditions, "ReplicaFailure")
                conditions.append({**found, "lastUpdateTime": found["lastTransitionTime"]})
            return
    drop_condition(conditions, "ReplicaFailure")
