"""delete and deletecollection.

Owns grace periods, preconditions, finalizers and propagation. Source: apiserver's registry/rest/delete.go and
registry/generic/registry/store.go, the pod strategy's CheckGracefulDelete, the namespace storage's Delete.
"""

from __future__ import annotations

from steersman.api import errors, meta
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.api.schema.body import read_options
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Call
from steersman.apiserver.request import Query
from steersman.apiserver.verbs.create import answer
from steersman.apiserver.verbs.read import selection
from steersman.apiserver.verbs.write import modified
from steersman.lib.clock import parse_rfc3339, rfc3339
from steersman.lib.http.messages import Response

_ORPHANING = {("", "ReplicationController"), ("batch", "Job")}  # without a policy their v1 leaves dependents alone
_NO_DEPENDENTS = ("", "events")  # nothing is owned by an Event: no finalizer is ever set
_JOB_WARNING = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
    "propagationPolicy=Orphan to suppress this warning"
)


def _options(call: Call) -> Object:
    """DeleteOptions from the body, else from the query. Raises ApiError."""
    if call.request.body:  # then the query says nothing
        given = read_options(call.services.decoders, call.request.body, call.request.header("content-type") or "")
        call.asked_for({"kind": "DeleteOptions", **given, "apiVersion": "meta.k8s.io/__internal"})
    else:
        given = _asked_by_query(call.query)
    if problems := meta.validate_delete_options(given):
        raise errors.invalid("meta.k8s.io", "DeleteOptions", "", problems)
    call.options = given
    call.dry_run = bool(given.get("dryRun"))
    if (call.kind.group, call.kind.kind) == ("batch", "Job") and _policy(given) is None:
        call.warnings.append(_JOB_WARNING)
    return given


def _asked_by_query(query: Query) -> Object:
    given: Object = {}
    if (grace := query.number("gracePeriodSeconds")) is not None:
        given["gracePeriodSeconds"] = grace
    if policy := query.get("propagationPolicy"):
        given["propagationPolicy"] = policy
    if query.has("orphanDependents"):
        given["orphanDependents"] = query.flag("orphanDependents")
    if dry := query.all("dryRun"):
        given["dryRun"] = dry
    return given


def _policy(options: Object) -> str | None:
    """What is to happen to dependents, None when the client does not say."""
    if options.get("orphanDependents") is not None:
        return "Orphan" if options["orphanDependents"] else "Background"
    return options.get("propagationPolicy")


async def delete(call: Call) -> Response:
    """Delete one object: a Status when it is gone, the object while something keeps it."""
    options = _options(call)
    item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    if call.kind.kept is not None and (why := call.kind.kept(item.obj())):
        raise errors.forbidden(call.kind.group, call.kind.plural, item.name, why)
    result, gone = await delete_item(call, item, options)
    if gone and not call.kind.returns_deleted:
        details: Object = {
            "name": item.name,
            "group": call.kind.group,
            "kind": call.kind.plural,
            "uid": item.obj()["metadata"]["uid"],
        }
        status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {key: value for key, value in details.items() if value},
        }
        return call.document(200, status)
    if gone and isinstance(result, Item) and (call.kind.group, call.kind.kind) == ("", "Pod"):
        result = result.obj()  # a pod is shown as of being deleted, which it was for no time at all
        _mark(call, result, 0)
    accepted = not gone and options.get("orphanDependents") is False
    return answer(call, 202 if accepted else 200, result)


async def delete_collection(call: Call) -> Response:
    """Delete everything that is selected; answers with what that was."""
    options = _options(call)
    chosen = selection(call)
    prefix = call.storage.prefix(call.kind, chosen.namespace if call.kind.namespaced else "")
    items = [item for _, item in list(call.storage.cache(call.kind).items(prefix)) if chosen.matches(item)]
    for item in items:
        try:
            await delete_item(call, item, options)
        except ApiError as error:
            if error.code != 404:
                raise
    encoder = call.encoder()
    return call.respond(200, encoder.list(items, {"resourceVersion": str(call.storage.revision)}))


async def delete_item(call: Call, item: Item, options: Object) -> tuple[Item | Object, bool]:
    """Delete, or mark as being deleted; returns the object and whether it is gone."""
    call.operation = "DELETE"
    for _ in range(100):
        obj = item.obj()
        _check_preconditions(call, item, obj, options)
        await call.services.admission.mutate(call, None, obj)
        await call.services.admission.validate(call, None, obj)
        grace = _grace(call, obj, options)
        _set_finalizers(call, obj, options)
        hook = call.services.extras.get("before_delete", {}).get((call.kind.group, call.kind.kind))
        if hook is not None:
            hook(obj)
        keeps = bool(obj["metadata"].get("finalizers")) or _has_spec_finalizers(obj)
        if grace == 0 and not keeps:
            if call.dry_run:
                return obj, True
            gone = await call.storage.remove(call.kind, item, term=call.term)
            if gone is not None:
                return gone, True
        else:
            _mark(call, obj, grace)
            if call.dry_run:
                return obj, False
            kept = await call.storage.replace(call.kind, item, obj, term=call.term)
            if kept is not None:
                return kept, False
        item = call.storage.get(call.kind, item.namespace, item.name)
    raise modified(call.kind, item.name)


def _check_preconditions(call: Call, item: Item, obj: Object, options: Object) -> None:
    conditions = options.get("preconditions") or {}
    uid, version = conditions.get("uid"), conditions.get("resourceVersion")
    real = obj["metadata"]["uid"]
    if uid is not None and uid != real:
        text = (
            f"the UID in the precondition ({uid}) does not match the UID in record ({real}). "
            "The object might have been deleted and then recreated"
        )
    elif version is not None and version != str(item.revision):
        text = (
            f"the ResourceVersion in the precondition ({version}) does not match the ResourceVersion in record "
            f"({item.revision}). The object might have been modified"
        )
    else:
        return
    raise errors.conflict(call.kind.group, call.kind.kind, item.name, text)


def _grace(call: Call, obj: Object, options: Object) -> int:
    """Seconds that the object's deletion may take; only pods have any."""
    if (call.kind.group, call.kind.kind) != ("", "Pod"):
        return 0
    spec, given = obj.get("spec") or {}, options.get("gracePeriodSeconds")
    grace = given if given is not None else spec.get("terminationGracePeriodSeconds", 30)
    if grace < 0:
        grace = 1
    phase = (obj.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    pending = obj["metadata"].get("deletionGracePeriodSeconds")
    if obj["metadata"].get("deletionTimestamp") and pending is not None:
        return min(grace, pending) if given is not None else pending
    return int(grace)


def _set_finalizers(call: Call, obj: Object, options: Object) -> None:
    """`orphan` and `foregroundDeletion`: as the client asks, else as they are, else as the kind does by default."""
    if call.kind.storage_location == _NO_DEPENDENTS:
        return
    metadata, policy = obj["metadata"], _policy(options)
    old = metadata.get("finalizers") or []
    if policy is None:
        marked = meta.ORPHAN in old or meta.FOREGROUND in old
        if marked or (call.kind.group, call.kind.kind) not in _ORPHANING:
            return
        policy = "Orphan"
    kept = [name for name in old if name not in (meta.ORPHAN, meta.FOREGROUND)]
    added = {"Orphan": [meta.ORPHAN], "Foreground": [meta.FOREGROUND]}.get(policy, [])
    finalizers = kept + added
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def _has_spec_finalizers(obj: Object) -> bool:
    return obj["kind"] == "Namespace" and bool((obj.get("spec") or {}).get("finalizers"))


def _mark(call: Call, obj: Object, grace: int) -> None:
    """Set the deletion stamps, or bring them forward; a namespace becomes Terminating."""
    metadata, now = obj["metadata"], call.services.clock.now()
    due = rfc3339(now + grace)
    old = metadata.get("deletionTimestamp")
    if old is None or parse_rfc3339(due) < parse_rfc3339(old):
        if old is None and metadata.get("generation"):
            metadata["generation"] += 1
        metadata["deletionTimestamp"] = due
        if obj["kind"] != "Namespace" or obj["apiVersion"] != "v1":
            metadata["deletionGracePeriodSeconds"] = grace
    elif grace < (metadata.get("deletionGracePeriodSeconds") or 0):
        metadata["deletionGracePeriodSeconds"] = grace
    if obj["kind"] == "Namespace" and obj["apiVersion"] == "v1":
        obj.setdefault("status", {})["phase"] = "Terminating"
