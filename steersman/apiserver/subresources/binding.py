"""pods/binding: assign a pod to a node, once.

Source: pkg/registry/core/pod/storage/storage.go (BindingREST).
"""

from __future__ import annotations

from typing import Any

from steersman.api import errors
from steersman.api.resource import Object
from steersman.api.validation import not_supported, required
from steersman.apiserver.admission import pod_topology
from steersman.apiserver.call import Call
from steersman.apiserver.subresources.own import admitted
from steersman.apiserver.verbs.write import body_of, options, update_object
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Response

_SUCCESS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def binding(server: Any, call: Call) -> Response:
    """POST pods/NAME/binding."""
    if call.info.verb != "create":
        raise errors.no_such_method()
    body = body_of(call, kind="Binding", group="", version="v1")
    if (body.get("metadata") or {}).get("name", "") != call.info.name:
        raise errors.bad_request("name in URL does not match name in Binding object")
    return await _bind(server, call, body, call.info.name)


async def binding_in_body(server: Any, call: Call) -> Response:
    """POST bindings: the pod is the one that the body names."""
    body = body_of(call, kind="Binding", group="", version="v1")
    pods = call.services.registry.by_resource("", "v1", "pods")
    return await _bind(server, server.call_for(call, kind=pods), body, body.get("metadata", {}).get("name", ""))


async def _bind(server: Any, call: Call, body: Object, name: str) -> Response:
    options(call)
    target, meta = body.get("target") or {}, body.get("metadata") or {}
    problems = []
    if target.get("kind") not in ("", None, "Node"):
        problems.append(not_supported("target.kind", target["kind"], ("Node", "<empty>")))
    if not target.get("name"):
        problems.append(required("target.name"))
    if problems:  # which the original does not wrap: a 500
        texts = [str(each) for each in problems]
        raise errors.ApiError(500, "", texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    call.info.subresource = "binding"
    call = await admitted(call, "CREATE", body)
    meta, target = body.get("metadata") or {}, body.get("target") or {}
    item = call.storage.get(call.kind, call.info.namespace, name)

    def change(pod: Object) -> Object:
        if (uid := meta.get("uid")) and uid != pod["metadata"]["uid"]:
            text = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {pod['metadata']['uid']}"
            raise errors.conflict("", "pods", name, text)
        _assign(call, pod, target["name"], meta)
        return pod

    await update_object(call, item, change, retry=True)
    return call.document(201, _SUCCESS)


def _assign(call: Call, pod: Object, node: str, meta: Object) -> None:
    """`meta` is the Binding's: the pod gets its annotations and labels over its own. Raises ApiError."""
    name, spec, status = pod["metadata"]["name"], pod["spec"], pod.setdefault("status", {})
    if pod["metadata"].get("deletionTimestamp"):
        raise errors.conflict("", "pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
    if spec.get("nodeName"):
        raise errors.conflict("", "pods/binding", name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
    if spec.get("schedulingGates"):
        raise errors.conflict("", "pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
    spec["nodeName"] = node
    for key in ("annotations", "labels") if pod_topology.copies(call) else ("annotations",):
        if more := meta.get(key):
            pod["metadata"][key] = {**(pod["metadata"].get(key) or {}), **more}
    now = rfc3339(call.services.clock.now())
    conditions = list(status.get("conditions") or ())
    at = next((at for at, each in enumerate(conditions) if each.get("type") == "PodScheduled"), len(conditions))
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    status["conditions"] = [*conditions[:at], scheduled, *conditions[at + 1 :]]  # as there: of no generation
    status.pop("nominatedNodeName", None)
