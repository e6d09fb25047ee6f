"""update: replace a whole object, or one of its subresources that is the object itself."""

from __future__ import annotations

from steersman.api import errors
from steersman.api.errors import ApiError, FieldError
from steersman.api.resource import Object
from steersman.apiserver.call import Call
from steersman.apiserver.verbs.create import answer
from steersman.apiserver.verbs.write import (
    another,
    body_of,
    create_object,
    nameless,
    options,
    settle_name,
    settle_namespace,
    update_object,
)
from steersman.lib.http.messages import Response

_VERSIONED = {
    ("admissionregistration.k8s.io", "mutatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("apiregistration.k8s.io", "apiservices"),
    ("certificates.k8s.io", "clustertrustbundles"),
    ("certificates.k8s.io", "podcertificaterequests"),
    ("coordination.k8s.io", "leasecandidates"),
    ("coordination.k8s.io", "leases"),
    ("internal.apiserver.k8s.io", "storageversions"),
    ("node.k8s.io", "runtimeclasses"),
    ("policy", "poddisruptionbudgets"),
    ("storage.k8s.io", "csidrivers"),
    ("storage.k8s.io", "csinodes"),
    ("storage.k8s.io", "csistoragecapacities"),
    ("storage.k8s.io", "volumeattachments"),
    ("storagemigration.k8s.io", "storageversionmigrations"),
}  # whose strategies do not AllowUnconditionalUpdate; nor do custom resources


async def update(call: Call) -> Response:
    """200 with the object as stored; 201 where a missing one is created."""
    options(call)
    obj = body_of(call)
    settle_namespace(call, obj)
    if not obj["metadata"].get("name"):
        raise nameless(call.info.name)
    settle_name(call, obj)
    item = call.storage.find(call.kind, call.info.namespace, call.info.name)
    if item is None and call.kind.create_on_update and not call.info.subresource:
        if uid := obj["metadata"].get("uid"):
            raise another(call, uid, "", root="")
        return answer(call, 201, await create_object(call, obj))
    item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    versioned = str(obj["metadata"].get("resourceVersion") or "") not in ("", "0")
    if not versioned and (call.kind.custom or (call.kind.group, call.kind.plural) in _VERSIONED):
        raise _unversioned(call)

    def change(_: Object) -> Object:
        fresh: Object = {**obj, "metadata": dict(obj["metadata"])}
        return fresh

    return answer(call, 200, await update_object(call, item, change, retry=not versioned, whole=True))


def _unversioned(call: Call) -> ApiError:
    field = FieldError(
        "FieldValueInvalid", "metadata.resourceVersion", "Invalid value: 0: must be specified for an update", 0
    )
    return errors.invalid(call.kind.group, call.kind.plural, call.info.name, [field])
