"""Claims of devices: made from their templates for pods that ask, and free again when their pods have ended.

Owns the generated ResourceClaims, pods' status.resourceClaimStatuses, and the clearing of reservations and allocations;
who allocates is the scheduler. Source: KEP-4381, kubernetes' pkg/controller/resourceclaim; texts are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import PODS, Object
from steersman.client.children import catch_up, in_doubt
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch
from steersman.client.deviceclaims import CLAIMS, FINALIZER, TEMPLATES, is_for, reserved_for, used_by
from steersman.client.workload import controller_of
from steersman.client.workqueue import WorkQueue

_FOR = "resource.kubernetes.io/pod-claim-name"
_EXTENDED = "resource.kubernetes.io/extended-resource-claim"
_CLAIM = "claim:"  # keys of claims, beside those of pods
_MANAGER = "ResourceClaimController"
_CONSUMERS = 256  # that a claim may have
_LONGEST = 57  # characters of a generated name before its random end
_BY_OWNER = "owner"
_BY_CLAIM, _BY_TEMPLATE = "device claim", "device claim template"  # of pods


def _admin(spec: Object | None) -> str:
    """Whether a claim's requests ask for administrators' access, as metrics say it."""
    requests = ((spec or {}).get("devices") or {}).get("requests") or ()
    return "true" if any((each.get("exactly") or {}).get("adminAccess") for each in requests) else "false"


def _count(context: Context, template: Object | None, status: str) -> None:
    name, labels = "resourceclaim_controller_creates_total", ("status", "admin_access")
    family = context.metrics.counter(name, "Claims made from templates.", labels)
    family.labels(status, _admin(((template or {}).get("spec") or {}).get("spec"))).inc()


async def _feed(context: Context, _: WorkQueue[Key]) -> None:
    """Claims are counted whenever metrics are asked for."""
    name, labels = "resourceclaim_controller_resource_claims", ("allocated", "admin_access", "source")
    family = context.metrics.gauge(name, "Claims.", labels)

    def count() -> None:
        family.clear()
        for claim in context.informer(CLAIMS).list():
            allocated = "true" if (claim.get("status") or {}).get("allocation") else "false"
            family.labels(allocated, _admin(claim.get("spec")), _source(claim)).inc()

    context.metrics.ask("resourceclaim_controller", count)


def _source(claim: Object) -> str:
    notes = claim["metadata"].get("annotations") or {}
    if notes.get(_EXTENDED) == "true":
        return "extended_resource"
    return "resource_claim_template" if notes.get(_FOR) else ""


async def reconcile(context: Context, key: Key) -> Result:
    """Make one pod's claims, or free one claim."""
    if key.name.startswith(_CLAIM):
        await _free(context, Key(key.namespace, key.name.removeprefix(_CLAIM)))
        return DONE
    pod = context.informer(PODS).get(*key)
    if pod is None or pod["metadata"].get("deletionTimestamp") or _is_done(pod):
        return DONE  # what was made for a pod that has ended is deleted, and must not be made again
    if not context.expectations.fulfilled(key, context.informer(CLAIMS)):
        return DONE
    known = {each["name"]: each for each in (pod.get("status") or {}).get("resourceClaimStatuses") or ()}
    fresh: list[Object] = []
    for wanted in pod["spec"].get("resourceClaims") or ():
        if wanted.get("resourceClaimTemplateName"):
            name = await _ensure(context, key, pod, wanted, (known.get(wanted["name"]) or {}).get("resourceClaimName"))
            if name is not None:
                fresh.append({"name": wanted["name"], "resourceClaimName": name})
    if fresh:
        meta = pod["metadata"]
        told = known | {each["name"]: each for each in fresh}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "status": {"resourceClaimStatuses": list(told.values())},
        }
        await context.client.patch(
            PODS,
            meta["name"],
            meta["namespace"],
            body,
            type="apply",
            subresource="status",
            field_manager=_MANAGER,
            force=True,
        )
    elif pod["spec"].get("nodeName"):
        await _reserve(context, pod)
    return DONE


async def _ensure(context: Context, key: Key, pod: Object, wanted: Object, name: str | None) -> str | None:
    """The name of the claim that the pod's status must learn; None when it knows it already."""
    meta, claims = pod["metadata"], context.informer(CLAIMS)
    if name is not None and (there := claims.get(meta["namespace"], name)) is not None and is_for(there, pod):
        return None
    for orphan in claims.by_index(_BY_OWNER, meta["uid"]):
        if (orphan["metadata"].get("annotations") or {}).get(_FOR) == wanted["name"]:
            return str(orphan["metadata"]["name"])  # made before the status could be written
    template_name = wanted["resourceClaimTemplateName"]
    template = context.informer(TEMPLATES).get(meta["namespace"], template_name)
    try:
        if template is None:
            kind = "resourceclaimtemplate.resource.k8s.io"
            raise ApiError(
                404, "NotFound", f'resource claim template "{template_name}": {kind} "{template_name}" not found'
            )
        made = await context.client.create(CLAIMS, new_claim(pod, wanted, template), meta["namespace"])
    except (OSError, TimeoutError):
        await catch_up(context, pod, CLAIMS)  # it may have been made, and must not be made twice
        raise
    except ApiError as error:
        if in_doubt(error):
            await catch_up(context, pod, CLAIMS)
        text = f"PodResourceClaim {wanted['name']}: {error.message}"
        context.recorder.event(pod, "Warning", "FailedResourceClaimCreation", text)
        _count(context, template, "failure")
        raise
    _count(context, template, "success")
    context.expectations.created(key, made)
    return str(made["metadata"]["name"])


async def _reserve(context: Context, pod: Object) -> None:
    """A pod that was put on its node past the scheduler uses claims that are allocated already."""
    meta = pod["metadata"]
    user: Object = {"resource": "pods", "name": meta["name"], "uid": meta["uid"]}
    for name, generated in used_by(pod):
        claim = context.informer(CLAIMS).get(meta["namespace"], name)
        status = (claim or {}).get("status") or {}
        reserved = status.get("reservedFor") or []
        if claim is None or not status.get("allocation") or reserved_for(claim, pod) or len(reserved) >= _CONSUMERS:
            continue
        if not generated or is_for(claim, pod):
            status = {**status, "reservedFor": [*reserved, user]}
            await context.client.update(CLAIMS, {**claim, "status": status}, subresource="status")


def _status(pod: Object) -> Object:
    return pod.get("status") or {}


def new_claim(pod: Object, wanted: Object, template: Object) -> Object:
    """The claim for one entry of the pod's spec.resourceClaims."""
    meta, given = pod["metadata"], template["spec"].get("metadata") or {}
    base = f"{meta['name']}-{wanted['name']}-"
    if len(base) > _LONGEST:  # of both names something is left
        parts = (each[: len(each) * _LONGEST // len(base)] for each in (meta["name"], wanted["name"]))
        base = "-".join(parts)
    owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"], "controller": True}
    body: Object = {
        "generateName": base,
        "annotations": {**(given.get("annotations") or {}), _FOR: wanted["name"]},
        "ownerReferences": [owner],
    }
    if given.get("labels"):
        body["labels"] = given["labels"]
    return {"metadata": body, "spec": template["spec"].get("spec") or {}}


async def _free(context: Context, key: Key) -> None:
    """Drop reservations of pods that will not run; without any the allocation goes, and a generated claim with it."""
    claim = context.informer(CLAIMS).get(*key)
    if claim is None:
        return
    status = claim.get("status") or {}
    reserved: list[Object] = status.get("reservedFor") or []
    kept = [each for each in reserved if await _holds(context, key.namespace, each)]
    ours = FINALIZER in (claim["metadata"].get("finalizers") or ())
    leaving = bool(claim["metadata"].get("deletionTimestamp"))
    if len(kept) < len(reserved) or (leaving and ours and not kept):
        status = {**status, "reservedFor": kept}
        if not kept:
            del status["reservedFor"]
            if ours:
                status.pop("allocation", None)
        if status != (claim.get("status") or {}):
            claim = await context.client.update(CLAIMS, {**claim, "status": status}, subresource="status")
        if ours and "allocation" not in status:
            left = [each for each in claim["metadata"]["finalizers"] if each != FINALIZER]
            claim = await context.client.update(
                CLAIMS, {**claim, "metadata": {**claim["metadata"], "finalizers": left}}
            )
    if not kept and not leaving and _is_over(context, claim):
        meta = claim["metadata"]
        await context.client.delete(CLAIMS, meta["name"], meta["namespace"], uid=meta["uid"])


async def _holds(context: Context, namespace: str, consumer: Object) -> bool:
    """Whether a reservation stands: a pod that we do not see may be one that the scheduler has just placed."""
    if consumer.get("apiGroup") or consumer.get("resource") != "pods":
        return True
    pod = context.informer(PODS).get(namespace, consumer["name"])
    if pod is None:
        try:
            pod = await context.client.get(PODS, consumer["name"], namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            return False
    return pod["metadata"]["uid"] == consumer["uid"] and not _is_done(pod)


def _is_over(context: Context, claim: Object) -> bool:
    """Whether the claim was made for a pod that has been replaced, or will not run any more."""
    owner = controller_of(claim)
    if owner is None or owner["kind"] != "Pod" or owner.get("apiVersion") != "v1":
        return False
    pod = context.informer(PODS).get(claim["metadata"]["namespace"], owner["name"])
    return pod is not None and (pod["metadata"]["uid"] != owner["uid"] or _is_done(pod))


def _is_done(pod: Object) -> bool:
    never_ran = bool(pod["metadata"].get("deletionTimestamp")) and not pod["spec"].get("nodeName")
    return pods.is_terminal(pod) or never_ran


def _of_pod(context: Context, pod: Object) -> Iterable[Key]:
    meta = pod["metadata"]
    if not pod["spec"].get("resourceClaims") and not _status(pod).get("extendedResourceClaimStatus"):
        return
    there = context.informer(PODS).get(meta["namespace"], meta["name"])
    gone = there is None or there["metadata"]["uid"] != meta["uid"]
    if not gone and not _is_done(pod):
        yield Key(meta["namespace"], meta["name"])
        return
    yield from (Key(meta["namespace"], _CLAIM + name) for name, _ in used_by(pod))


def _of_claim(context: Context, claim: Object) -> Iterable[Key]:
    """The claim itself, and the pods that use it: one that was deleted is made again, and the pod that it was made for,
    which may not have been told of it."""
    meta = claim["metadata"]
    yield Key(meta["namespace"], _CLAIM + meta["name"])
    if (owner := controller_of(claim)) is not None and owner["kind"] == "Pod":
        yield Key(meta["namespace"], owner["name"])
    for pod in context.informer(PODS).by_index(_BY_CLAIM, f"{meta['namespace']}/{meta['name']}"):
        yield Key(meta["namespace"], pod["metadata"]["name"])


def _of_template(context: Context, template: Object) -> Iterable[Key]:
    """The pods that may have waited for it."""
    meta = template["metadata"]
    for pod in context.informer(PODS).by_index(_BY_TEMPLATE, f"{meta['namespace']}/{meta['name']}"):
        yield Key(meta["namespace"], pod["metadata"]["name"])


def _file_by_claim(pod: Object) -> Iterable[str]:
    return (f"{pod['metadata']['namespace']}/{name}" for name, _ in used_by(pod))


def _file_by_template(pod: Object) -> Iterable[str]:
    names = {each.get("resourceClaimTemplateName") for each in pod["spec"].get("resourceClaims") or ()}
    return (f"{pod['metadata']['namespace']}/{name}" for name in names if name)


def _file_by_owner(claim: Object) -> Iterable[str]:
    owner = controller_of(claim)
    return (owner["uid"],) if owner is not None else ()


CONTROLLER = Controller(
    "resourceclaim-controller",
    reconcile,
    (Watch(PODS, _of_pod), Watch(CLAIMS, _of_claim), Watch(TEMPLATES, _of_template)),
    component="resource_claim",
    feed=_feed,
    indexes={
        CLAIMS: {_BY_OWNER: _file_by_owner},
        PODS: {_BY_CLAIM: _file_by_claim, _BY_TEMPLATE: _file_by_template},
    },
)
