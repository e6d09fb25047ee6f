"""PersistentVolumeClaimResize: only a bound claim grows, and only when its class allows it.

Source: plugin/pkg/admission/storage/persistentvolume/resize.
"""

from __future__ import annotations

from steersman.api import errors, quantity
from steersman.api.resource import Object
from steersman.apiserver.call import Call

_CLASS = "volume.beta.kubernetes.io/storage-class"


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Raises ApiError."""
    if (call.kind.group, call.kind.kind) != ("", "PersistentVolumeClaim") or call.info.subresource:
        return
    if obj is None or old is None or call.operation != "UPDATE" or _size(obj) <= _size(old):
        return
    if (old.get("status") or {}).get("phase") != "Bound":
        text = "Only bound persistent volume claims can be expanded"
    elif not _expandable(call, obj, old):
        text = (
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
            "support resize"
        )
    else:
        return
    raise errors.forbidden("", call.kind.plural, obj["metadata"]["name"], text)


def _size(claim: Object) -> quantity.Quantity:
    asked = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage", "0")
    return quantity.parse(str(asked))


def _class(claim: Object) -> str:
    annotated = (claim["metadata"].get("annotations") or {}).get(_CLASS)
    return annotated if annotated is not None else claim["spec"].get("storageClassName") or ""


def _expandable(call: Call, obj: Object, old: Object) -> bool:
    name = _class(obj)
    kind = call.services.registry.find("storage.k8s.io", "storageclasses")
    if not name or name != _class(old) or kind is None:
        return False
    item = call.storage.find(kind, "", name)
    return item is not None and item.obj().get("allowVolumeExpansion") is True
