"""scale: the autoscaling/v1 Scale view of whatever has replicas.

Source: the ScaleREST of pkg/registry/apps/*/storage; CustomResourceDefinition's subresources.scale.
"""

from __future__ import annotations

from typing import Any

import msgspec

from steersman.api import errors, labels
from steersman.api.patch import json, merge
from steersman.api.resource import Object
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Call
from steersman.apiserver.verbs.patch import TYPES
from steersman.apiserver.verbs.write import body_of, options, update_object
from steersman.lib.http.messages import Response


async def scale(server: Any, call: Call) -> Response:
    """GET, PUT and PATCH of NAME/scale."""
    item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    if call.info.verb == "get":
        return call.document(200, view(item.obj()))
    if call.info.verb not in ("update", "patch"):
        raise errors.method_not_allowed(call.kind.group, f"{call.kind.plural}/scale", call.info.verb)
    options(call)
    if call.info.verb == "update":
        body = body_of(call, kind="Scale", group="autoscaling", version="v1")
    else:
        body = None

    def change(obj: Object) -> Object:
        wanted = body if body is not None else _patched(call, view(obj))
        version = (wanted.get("metadata") or {}).get("resourceVersion")
        if version:
            obj["metadata"]["resourceVersion"] = version
        replicas = (wanted.get("spec") or {}).get("replicas", 0)
        if replicas < 0:
            text = f"Invalid value: {replicas}: must be greater than or equal to 0"
            found = errors.FieldError("FieldValueInvalid", "spec.replicas", text, replicas)
            raise errors.invalid("autoscaling", "Scale", call.info.name, [found])
        obj["spec"]["replicas"] = replicas
        return obj

    call.info.subresource = ""
    call.options["through"] = "scale"
    made = await update_object(call, item, change, retry=body is None)
    call.info.subresource = "scale"
    return call.document(200, view(made.obj() if isinstance(made, Item) else made))


def _patched(call: Call, current: Object) -> Object:
    media = (call.request.header("content-type") or "").partition(";")[0].strip()
    try:
        document = msgspec.json.decode(call.request.body)
    except msgspec.DecodeError as error:
        raise errors.bad_request(f"error decoding patch: {error}") from None
    if TYPES.get(media) == "json":
        patched: Object = json.apply(current, document)
        return patched
    if media not in TYPES or not isinstance(document, dict):
        raise errors.unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(TYPES)
        )
    return merge.apply(current, document)


def view(obj: Object) -> Object:
    """The Scale of an object."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    selector = spec.get("selector") or {}
    is_set = obj["kind"] == "ReplicationController"
    text = str(labels.from_set(selector) if is_set else labels.from_object(selector)) if selector else ""
    shown = {
        key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if key in meta
    }
    made: Object = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": shown,
        "spec": {"replicas": spec.get("replicas", 0)} if spec.get("replicas") else {},
        "status": {"replicas": status.get("replicas", 0)},
    }
    if text:
        made["status"]["selector"] = text
    return made
