"""NamespaceLifecycle: nothing is made in a namespace that is missing or on its way out; four namespaces stay.

Source: apiserver's pkg/admission/plugin/namespace/lifecycle.
"""

from __future__ import annotations

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.call import Call

_IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
_ALLOWED = frozenset({"localsubjectaccessreviews"})


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Raises ApiError."""
    kind, info = call.kind, call.info
    if call.operation == "DELETE" and (kind.group, kind.kind) == ("", "Namespace"):
        name = (old or {}).get("metadata", {}).get("name", info.name)
        if name in _IMMORTAL:
            raise errors.forbidden("", "namespaces", name, "this namespace may not be deleted")
        return
    if call.operation != "CREATE" or not kind.namespaced or kind.plural in _ALLOWED:
        return
    namespace = info.namespace
    namespaces = call.services.registry.find("", "namespaces")
    item = call.storage.find(namespaces, "", namespace) if namespaces is not None else None
    if item is None:
        raise errors.not_found("", "namespaces", namespace)
    if b'"deletionTimestamp"' in item.tail and item.obj()["metadata"].get("deletionTimestamp"):
        name = ((obj or {}).get("metadata") or {}).get("name", "")
        text = f"unable to create new content in namespace {namespace} because it is being terminated"
        refused = errors.forbidden(kind.group, kind.plural, name, text)
        refused.details["causes"] = [
            {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
        ]
        raise refused
