"""Deployments: from one ReplicaSet to the next, no faster than the strategy allows.

Owns the ReplicaSets of a Deployment, its status and its revision annotation. `plan` decides, `reconcile` acts.
Source: kubernetes' pkg/controller/deployment; rollbacks come as changes of the template.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api import labels, pods
from steersman.api.errors import ApiError
from steersman.api.resource import DEPLOYMENTS, PODS, REPLICASETS, Object
from steersman.client.children import INDEX, Children, namespace_terminates, owned_by
from steersman.client.controller import DONE, Context, Controller, For, Key, Owns, Result, Watch, key_of
from steersman.client.selecting import BY_SELECTOR, file_by_selector, object_selector, selectors
from steersman.client.workload import controller_of, set_condition, without_label
from steersman.controllers.deployment import status
from steersman.controllers.deployment.plan import Plan, plan
from steersman.controllers.deployment.sets import HASH_LABEL, REVISION, Sized


async def reconcile(context: Context, key: Key) -> Result:
    """Look at one Deployment, decide, act, and write its status."""
    deployment = context.informer(DEPLOYMENTS).get(*key)
    if deployment is None:
        context.expectations.forget([key])
        return DONE
    if deployment["spec"].get("selector") == {}:
        text = "This deployment is selecting all pods. A non-empty selector is required."
        context.recorder.event(deployment, "Warning", "SelectingAll", text)
        return DONE
    children = Children(context, deployment, DEPLOYMENTS, REPLICASETS, "replica set")
    if not children.settled():
        return DONE
    found = await children.claim(labels.from_object(deployment["spec"]["selector"]))
    recreate = (deployment["spec"].get("strategy") or {}).get("type") == "Recreate"
    old_pods = recreate and _old_pods(context, deployment, found)
    steps = plan(deployment, found, old_pods=old_pods, now=context.clock.now())
    if not await _act(context, deployment, steps):
        return DONE
    changed = _shown(deployment, steps)
    if changed != deployment:
        await context.client.update(DEPLOYMENTS, changed, subresource="status")
    return Result(steps.check_after)


async def _act(context: Context, deployment: Object, steps: Plan) -> bool:
    """Carry the plan out; False when the status must wait for another look."""
    for each in steps.every:
        if each.original is None:
            if not await _create(context, deployment, each):
                return False
        elif each.changed():
            await _update(context, deployment, each)
    for gone in steps.delete:
        meta = gone["metadata"]
        try:
            await context.client.delete(REPLICASETS, meta["name"], meta["namespace"], uid=meta["uid"])
        except ApiError as error:
            if error.code != 404:
                raise
    return True


def _shown(deployment: Object, steps: Plan) -> Object:
    """The Deployment with its new status, and its new set's revision.

    The annotation goes through the status subresource: there it does not count as a new generation.
    """
    meta = deployment["metadata"]
    revision = steps.new.annotations.get(REVISION) if steps.new is not None else None
    if revision is not None and not meta.get("deletionTimestamp"):
        annotations = {**(meta.get("annotations") or {}), REVISION: revision}
        meta = {**meta, "annotations": annotations}
    return {**deployment, "metadata": meta, "status": steps.status}


async def _update(context: Context, deployment: Object, each: Sized) -> None:
    assert each.original is not None
    before = each.original["spec"].get("replicas", 1)
    written = await context.client.update(REPLICASETS, each.wanted())
    context.expectations.created(key_of(deployment), written)
    if before != each.replicas:
        way = "up" if before < each.replicas else "down"
        text = f"Scaled {way} replica set {each.name} from {before} to {each.replicas}"
        context.recorder.event(deployment, "Normal", "ScalingReplicaSet", text)


async def _create(context: Context, deployment: Object, each: Sized) -> bool:
    namespace = deployment["metadata"]["namespace"]
    try:
        made = await context.client.create(REPLICASETS, each.wanted(), namespace)
    except ApiError as error:
        if namespace_terminates(error):
            return False
        if error.reason == "AlreadyExists":
            await _resolve_collision(context, deployment, each)
            return False
        await _report_failure(context, deployment, each, error)
        raise
    context.expectations.created(key_of(deployment), made)
    if each.replicas:
        text = f"Scaled up replica set {each.name} from 0 to {each.replicas}"
        context.recorder.event(deployment, "Normal", "ScalingReplicaSet", text)
    return True


async def _resolve_collision(context: Context, deployment: Object, each: Sized) -> None:
    """The name is taken: by a set that we made and do not see yet, or by another template with the same hash."""
    there = await context.client.get(REPLICASETS, each.name, deployment["metadata"]["namespace"])
    owner = controller_of(there)
    ours = owner is not None and owner["uid"] == deployment["metadata"]["uid"]
    template = without_label(deployment["spec"]["template"], HASH_LABEL)
    if ours and without_label(there["spec"]["template"], HASH_LABEL) == template:
        context.expectations.created(key_of(deployment), there)
        return
    old = deployment.get("status") or {}
    bumped = {**old, "collisionCount": (old.get("collisionCount") or 0) + 1}
    await context.client.update(DEPLOYMENTS, {**deployment, "status": bumped}, subresource="status")


async def _report_failure(context: Context, deployment: Object, each: Sized, error: ApiError) -> None:
    text = f'Failed to create new replica set "{each.name}": {error.message}'
    context.recorder.event(deployment, "Warning", "ReplicaSetCreateError", text)
    if not status.has_deadline(deployment):
        return
    old = deployment.get("status") or {}
    conditions = [dict(found) for found in old.get("conditions") or ()]
    now = context.clock.now()
    set_condition(conditions, "Progressing", "False", "ReplicaSetCreateError", text, now, updated=True)
    if conditions != old.get("conditions"):
        changed = {**deployment, "status": {**old, "conditions": conditions}}
        await context.client.update(DEPLOYMENTS, changed, subresource="status")


def _old_pods(context: Context, deployment: Object, found: Iterable[Object]) -> bool:
    """Whether a pod of a set with another template has not ended."""
    template = without_label(deployment["spec"]["template"], HASH_LABEL)
    old = [each for each in found if without_label(each["spec"]["template"], HASH_LABEL) != template]
    informer = context.informer(PODS)
    return any(not pods.is_terminal(pod) for each in old for pod in owned_by(informer, each))


def _of_pod(context: Context, pod: Object) -> Iterable[Key]:
    """The Deployment two levels above a pod: Recreate waits for pods to be gone."""
    above = controller_of(pod)
    if above is None or above["kind"] != "ReplicaSet":
        return
    found = context.informer(REPLICASETS).get(pod["metadata"]["namespace"], above["name"])
    top = controller_of(found) if found is not None else None
    if top is not None and top["kind"] == "Deployment":
        key = Key(pod["metadata"]["namespace"], top["name"])
        deployment = context.informer(DEPLOYMENTS).get(*key)
        if deployment and (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
            yield key


def _adopters(context: Context, replica_set: Object) -> Iterable[Key]:
    meta = replica_set["metadata"]
    if controller_of(replica_set) is not None or not meta.get("labels"):
        return
    yield from map(key_of, selectors(context.informer(DEPLOYMENTS), replica_set))


CONTROLLER = Controller(
    "deployment-controller",
    reconcile,
    (For(DEPLOYMENTS), Owns(REPLICASETS, DEPLOYMENTS), Watch(REPLICASETS, _adopters), Watch(PODS, _of_pod)),
    indexes={REPLICASETS: INDEX, PODS: INDEX, DEPLOYMENTS: {BY_SELECTOR: file_by_selector(object_selector)}},
)
