"""ReplicaSets and ReplicationControllers: as many pods as asked for, no more and no fewer.

Owns their pods and their status. Both kinds follow the same rules; only the selector's form differs.
Source: kubernetes' pkg/controller/replicaset.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from steersman.api import labels, pods
from steersman.api.errors import ApiError
from steersman.api.labels import Selector
from steersman.api.resource import PODS, REPLICASETS, REPLICATIONCONTROLLERS, Object, Resource
from steersman.client.children import BURST, INDEX, Children, owned_by
from steersman.client.controller import DONE, Context, Controller, For, Key, Owns, Result, Watch, key_of
from steersman.client.metrics import Metrics, exponential
from steersman.client.selecting import BY_SELECTOR, file_by_selector, selectors
from steersman.client.workload import (
    controller_of,
    counts,
    created_at,
    drop_condition,
    is_available,
    pod_from_template,
    set_condition,
    soonest_available,
    to_delete,
)
from steersman.lib.metrics import Distribution

_SIBLINGS = "deployment"
_TELL_EVERY = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """How many pods to create, and which to delete."""

    create: int = 0
    delete: tuple[Object, ...] = ()


def plan(replicas: int, active: Sequence[Object], related: Iterable[Object], now: float) -> Plan:
    """What brings the number of active pods to `replicas`."""
    missing = replicas - len(active)
    if missing > 0:
        return Plan(create=min(missing, BURST))
    if missing < 0:
        return Plan(delete=tuple(to_delete(active, min(-missing, BURST), related, now)))
    return Plan()


def status_of(
    owner: Object, active: Sequence[Object], terminating: int | None, failure: ApiError | None, missing: int, now: float
) -> Object:
    """The new status. `failure` is what kept us from creating or deleting; `missing` how many pods lack."""
    spec, old = owner["spec"], owner.get("status") or {}
    template = labels.from_set((spec["template"].get("metadata") or {}).get("labels"))
    conditions = [dict(each) for each in old.get("conditions") or ()]
    if failure is None:
        drop_condition(conditions, "ReplicaFailure")
    elif not any(each["type"] == "ReplicaFailure" for each in conditions):
        reason = "FailedCreate" if missing > 0 else "FailedDelete"
        set_condition(conditions, "ReplicaFailure", "True", reason, failure.message, now)
    seconds = spec.get("minReadySeconds") or 0
    ready = [pod for pod in active if pods.is_ready(pod)]
    status = counts(
        {
            "replicas": len(active),
            "fullyLabeledReplicas": sum(template.matches(pod["metadata"].get("labels")) for pod in active),
            "readyReplicas": len(ready),
            "availableReplicas": sum(is_available(pod, seconds, now) for pod in ready) if seconds else len(ready),
            "terminatingReplicas": terminating,
            "observedGeneration": owner["metadata"].get("generation"),
        },
        always=("replicas", "terminatingReplicas"),
    )
    return status | ({"conditions": conditions} if conditions else {})


def selector_of(kind: Resource, owner: Object) -> Selector:
    """The owner's selector; one that selects everything selects nothing."""
    chosen = owner["spec"].get("selector")
    if kind is REPLICATIONCONTROLLERS:
        return labels.from_set(chosen) if chosen else labels.NOTHING
    return labels.from_object(chosen)


async def reconcile(kind: Resource, context: Context, key: Key) -> Result:
    """Bring one owner's pods to the number asked for, and write its status."""
    owner = context.informer(kind).get(*key)
    if owner is None:
        context.expectations.forget([key])
        context.memory.pop(key, None)
        return DONE
    now = context.clock.now()
    if owner["metadata"].get("deletionTimestamp") and (wait := _told_lately(context, key, now)):
        return Result(wait)
    children = Children(context, owner, kind, PODS)
    if not children.settled():
        return DONE  # a count of what we see would be wrong, and a Deployment builds on it
    claimed = await children.claim(selector_of(kind, owner), lambda pod: not pods.is_terminal(pod))
    active = [pod for pod in claimed if pods.is_active(pod)]
    wanted = owner["spec"].get("replicas", 1)
    failure: ApiError | None = None
    if not owner["metadata"].get("deletionTimestamp"):
        steps = plan(wanted, active, _related(context, kind, owner, active), now)
        try:
            await children.create_all([pod_from_template(owner["spec"]["template"], owner, kind)] * steps.create)
            if len(steps.delete) < len(active):
                _count_ages(context.metrics, active, steps.delete, now)
            await children.delete_all(steps.delete)
        except ApiError as error:
            failure = error
    terminating = None if kind is REPLICATIONCONTROLLERS else len(claimed) - len(active)
    status = status_of(owner, active, terminating, failure, wanted - len(active), now)
    if status != owner.get("status"):
        await context.client.update(kind, {**owner, "status": status}, subresource="status")
    if failure is not None:
        raise failure
    return Result(soonest_available(active, owner["spec"].get("minReadySeconds") or 0, now))


def _ages(metrics: Metrics) -> Distribution:
    text = "Of ready pods chosen to go, the age by that of the youngest."
    return metrics.histogram(
        "replicaset_controller_sorting_deletion_age_ratio", text, (), exponential(0.25, 2, 6)
    ).labels()


def _count_ages(metrics: Metrics, active: Sequence[Object], chosen: Iterable[Object], now: float) -> None:
    """How old the ready pods are that go, by the age of the youngest ready one: whole numbers, as in the original."""
    youngest = now - max((created_at(pod) for pod in active if pods.is_ready(pod)), default=0.0)
    for pod in chosen:
        if pods.is_ready(pod) and youngest > 0:
            _ages(metrics).observe((now - created_at(pod)) // youngest)


def _told_lately(context: Context, key: Key, now: float) -> float:
    """Seconds until the status of an owner that goes is due: a thousand pods that go need not be told one by one."""
    due: float = context.memory.get(key, 0.0)
    if now < due:
        return due - now
    context.memory[key] = now + _TELL_EVERY
    return 0.0


def _related(context: Context, kind: Resource, owner: Object, active: Sequence[Object]) -> Iterable[Object]:
    """The active pods of the ReplicaSets that have the same controller, ours among them."""
    above = controller_of(owner) if kind is REPLICASETS else None
    if above is None:
        return active
    sisters = context.informer(REPLICASETS).by_index(_SIBLINGS, above["uid"])
    informer = context.informer(PODS)
    return [pod for sister in sisters for pod in owned_by(informer, sister) if pods.is_active(pod)]


def _adopters(kind: Resource, context: Context, pod: Object) -> Iterable[Key]:
    """Those who might want a pod that nobody controls."""
    meta = pod["metadata"]
    if controller_of(pod) is not None or not meta.get("labels"):
        return
    yield from map(key_of, selectors(context.informer(kind), pod, partial(selector_of, kind)))


def _file_by_deployment(owner: Object) -> Iterable[str]:
    above = controller_of(owner)
    return (above["uid"],) if above is not None else ()


CONTROLLER = Controller(
    "replicaset-controller",
    partial(reconcile, REPLICASETS),
    (For(REPLICASETS), Owns(PODS, REPLICASETS), Watch(PODS, partial(_adopters, REPLICASETS))),
    indexes={
        PODS: INDEX,
        REPLICASETS: {
            _SIBLINGS: _file_by_deployment,
            BY_SELECTOR: file_by_selector(partial(selector_of, REPLICASETS)),
            **INDEX,
        },
    },
    counts=_ages,
)
REPLICATIONCONTROLLER = Controller(
    "replicationcontroller-controller",
    partial(reconcile, REPLICATIONCONTROLLERS),
    (
        For(REPLICATIONCONTROLLERS),
        Owns(PODS, REPLICATIONCONTROLLERS),
        Watch(PODS, partial(_adopters, REPLICATIONCONTROLLERS)),
    ),
    indexes={
        PODS: INDEX,
        REPLICATIONCONTROLLERS: {BY_SELECTOR: file_by_selector(partial(selector_of, REPLICATIONCONTROLLERS))},
    },
    component="replication-controller",
)
