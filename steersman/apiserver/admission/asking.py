"""A request as admission shows it to others: the AdmissionReview of a webhook, the variables of an expression.

Owns both forms, in the version that the asked one knows. Called by webhooks and policies. Source: k8s.io/api's
admission/v1 and apiserver's pkg/admission/plugin/cel.
"""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import unquote

from steersman.api.resource import Object
from steersman.apiserver.admission import matching, rights
from steersman.apiserver.call import Call
from steersman.apiserver.subresources.reviews import user_info

_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}
_WRITES = ("dryRun", "fieldManager", "fieldValidation")
_SAID = {
    "CreateOptions": _WRITES,
    "UpdateOptions": _WRITES,
    "DeleteOptions": ("gracePeriodSeconds", "preconditions", "orphanDependents", "propagationPolicy", "dryRun"),
}
_CONNECTS = {
    ("pods", "exec"): "PodExecOptions",
    ("pods", "attach"): "PodAttachOptions",
    ("pods", "portforward"): "PodPortForwardOptions",
    ("pods", "proxy"): "PodProxyOptions",
    ("services", "proxy"): "ServiceProxyOptions",
    ("nodes", "proxy"): "NodeProxyOptions",
}


def review(call: Call, obj: Object | None, old: Object | None, version: str) -> Object:
    """The `request` of the AdmissionReview that asks about a request, in `version`."""
    info, kind = call.info, call.kind
    connecting = connect_options(call) if obj is None else None
    obj = matching.in_version(call, obj, version) if connecting is None else connecting
    old = matching.in_version(call, old, version)
    name = matching.name_of(call, obj)

    def ways(version: str) -> tuple[Object, Object]:
        shown: Object = {"group": kind.group, "version": version, "kind": kind.kind}
        if connecting is not None:
            shown["kind"] = connecting["kind"]
        elif call.apart:
            group, _, own = (obj or old or {}).get("apiVersion", "").rpartition("/")
            shown = {"group": group, "version": own, "kind": (obj or old or {}).get("kind", "")}
        return shown, {"group": kind.group, "version": version, "resource": kind.plural}

    matched, asked = ways(version), ways(call.version)
    request: Object = {
        "uid": str(uuid.uuid4()),
        "kind": matched[0],
        "resource": matched[1],
        "requestKind": asked[0],
        "requestResource": asked[1],
        "name": name,
        "namespace": name if matching.is_namespace(call) else info.namespace,
        "operation": call.operation,
        "userInfo": user_info(call.user),
        "object": obj,
        "oldObject": old,
        "dryRun": call.dry_run,
        "options": options(call),
    }
    for key in ("name", "namespace"):
        if not request[key]:
            del request[key]
    if info.subresource:
        request["subResource"] = request["requestSubResource"] = info.subresource
    return request


def options(call: Call) -> Object | None:
    """What the request says besides its object, as an object; nothing where somebody connects."""
    kind = _OPTIONS.get(call.operation)
    if kind is None:
        return None
    said = {name: call.options[name] for name in _SAID[kind] if call.options.get(name) not in (None, "", [])}
    return {"kind": kind, "apiVersion": "meta.k8s.io/v1", **said}


def values(call: Call, obj: Object | None, old: Object | None, version: str) -> dict[str, Any]:
    """What an expression of admission may name."""
    request = review(call, obj, old, version)
    name = request.get("name", "")
    inside = bool(call.info.namespace) and not matching.is_namespace(call)
    return {
        "object": request.pop("object"),
        "oldObject": request.pop("oldObject"),
        "request": request,
        "authorizer": rights.authorizer(call, name),
        "namespaceObject": matching.namespace(call) if inside else None,
    }


def connect_options(call: Call) -> Object | None:
    """What is asked by who connects to a pod, a service or a node, as an object; None for everything else."""
    where = (call.kind.plural, call.info.subresource)
    name = _CONNECTS.get(where) if call.operation == "CONNECT" and not call.kind.group else None
    if name is None:
        return None
    found: Object = {"kind": name, "apiVersion": "v1"}
    if call.info.subresource == "proxy":
        return found | ({"path": unquote(call.info.rest)} if call.info.rest else {})
    if call.info.subresource == "portforward":
        ports = [int(port) for text in call.query.all("ports") for port in text.split(",") if port.isdecimal()]
        return found | ({"ports": ports} if ports else {})
    found |= {flag: True for flag in ("stdin", "stdout", "stderr", "tty") if call.query.flag(flag)}
    if container := call.query.get("container"):
        found["container"] = container
    if command := call.query.all("command"):
        found["command"] = command
    return found
