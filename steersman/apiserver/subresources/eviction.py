"""pods/eviction: delete a pod if its disruption budgets allow it.

Source: pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from typing import Any

from steersman.api import errors, labels, meta, pods
from steersman.api.errors import ApiError
from steersman.api.resource import PODS, Object
from steersman.apiserver.bootstrap import internal_call
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Call
from steersman.apiserver.subresources.own import admitted
from steersman.apiserver.verbs.delete import delete_item
from steersman.apiserver.verbs.write import body_of, options, update_object
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Response

_TARGET = "DisruptionTarget"
_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def eviction(server: Any, call: Call) -> Response:
    """POST pods/NAME/eviction."""
    if call.info.verb != "create":
        raise errors.no_such_method()
    options(call)
    body = body_of(call, kind="Eviction", group="policy", version="v1")
    if (body.get("metadata") or {}).get("name", "") != call.info.name:
        raise errors.bad_request("name in URL does not match name in Eviction object")
    if problems := meta.validate_delete_options(body.get("deleteOptions") or {}):
        raise errors.invalid("meta.k8s.io", "DeleteOptions", "", problems)
    call = await admitted(call, "CREATE", body)
    item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    pod, wanted = item.obj(), body.get("deleteOptions") or {}
    if wanted.get("dryRun"):
        call.dry_run = True
    if _counts(pod):
        await _spend_budget(server, call, pod)
        if not call.dry_run:
            item = await _mark(server, call, item)
    await delete_item(call, item, wanted)
    return call.document(201, _SUCCESS)


async def _mark(server: Any, call: Call, item: Item) -> Item:
    """Say in the pod's status why it goes: Jobs' failure policies ask for it (KEP-3329)."""
    condition = {
        "type": _TARGET,
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": rfc3339(call.services.clock.now()),
    }

    def change(pod: Object) -> Object:
        status = pod.setdefault("status", {})
        others = [each for each in status.get("conditions") or () if each["type"] != _TARGET]
        if generation := pod["metadata"].get("generation"):
            condition["observedGeneration"] = generation
        status["conditions"] = [*others, condition]
        return pod

    own = internal_call(server, PODS, "update", call.info.namespace, call.info.name)
    own.info.subresource, own.settled = "status", True
    marked = await update_object(own, item, change, retry=True)
    return marked if isinstance(marked, Item) else item


def _counts(pod: Object) -> bool:
    """Whether evicting this pod disrupts anything."""
    if pods.is_terminal(pod) or pod["metadata"].get("deletionTimestamp"):
        return False
    return (pod.get("status") or {}).get("phase") != "Pending"


async def _spend_budget(server: Any, call: Call, pod: Object) -> None:
    kind = call.services.registry.find("policy", "poddisruptionbudgets")
    if kind is None:
        return
    namespace = call.info.namespace
    found = [
        item
        for _, item in call.storage.cache(kind).items(call.storage.prefix(kind, namespace))
        if labels.from_object(item.obj()["spec"].get("selector")).matches(pod["metadata"].get("labels"))
    ]
    if len(found) > 1:
        raise errors.internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    if not found:
        return
    if not pods.is_ready(pod) and not _guards_unready(found[0].obj()):
        return
    now = rfc3339(call.services.clock.now())

    def change(budget: Object) -> Object:
        status = budget.setdefault("status", {})
        _check(budget, status)
        status["disruptionsAllowed"] -= 1
        status.setdefault("disruptedPods", {})[pod["metadata"]["name"]] = now
        return budget

    spend = server.call_for(call, kind=kind, version=kind.storage_version.name)
    spend.info.subresource = "status"
    await update_object(spend, found[0], change, retry=True)


def _guards_unready(budget: Object) -> bool:
    status = budget.get("status") or {}
    policy = budget["spec"].get("unhealthyPodEvictionPolicy")
    healthy = status.get("currentHealthy", 0) >= status.get("desiredHealthy", 0) > 0
    return policy != "AlwaysAllow" and not healthy


def _check(budget: Object, status: Object) -> None:
    name = budget["metadata"]["name"]
    observed = status.get("observedGeneration", 0)
    if observed < budget["metadata"].get("generation", 0):
        raise _refused(f"The disruption budget {name} is still being processed by the server.", 10)
    if status.get("disruptionsAllowed", 0) <= 0:
        raise _refused(
            f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} healthy pods and has "
            f"{status.get('currentHealthy', 0)} currently",
            0,
        )


def _refused(why: str, retry_after: int) -> ApiError:
    cause = {"reason": "DisruptionBudget", "message": why}
    details: Object = {"causes": [cause]}
    if retry_after:
        details["retryAfterSeconds"] = retry_after
    return ApiError(
        429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.", details
    )
