"""DefaultStorageClass and DefaultIngressClass: a claim or an ingress that names no class gets the default one.

Source: plugin/pkg/admission/storage/storageclass/setdefault and network/defaultingressclass.
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.api.resource import Object
from steersman.apiserver.call import Call

_STORAGE = ("storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class")
_CLAIM = "volume.beta.kubernetes.io/storage-class"
_INGRESS = ("ingressclass.kubernetes.io/is-default-class",)
_INGRESS_NAMED = "kubernetes.io/ingress.class"


def claim(call: Call, obj: Object | None, old: Object | None) -> None:
    """Name the default StorageClass in a new claim that names none, not even the empty one."""
    if obj is None or not _is_new(call, "", "PersistentVolumeClaim"):
        return
    named = _CLAIM in (obj["metadata"].get("annotations") or {}) or obj["spec"].get("storageClassName") is not None
    if not named and (found := _default(call, "storage.k8s.io", "storageclasses", _STORAGE)):
        obj["spec"]["storageClassName"] = found


def ingress(call: Call, obj: Object | None, old: Object | None) -> None:
    """Name the default IngressClass in a new ingress that names none, in field or annotation."""
    if obj is None or not _is_new(call, "networking.k8s.io", "Ingress"):
        return
    spec = obj.setdefault("spec", {})
    named = spec.get("ingressClassName") is not None or _INGRESS_NAMED in (obj["metadata"].get("annotations") or {})
    if not named and (found := _default(call, "networking.k8s.io", "ingressclasses", _INGRESS)):
        spec["ingressClassName"] = found


def _is_new(call: Call, group: str, kind: str) -> bool:
    return (
        call.operation == "CREATE" and (call.kind.group, call.kind.kind) == (group, kind) and not call.info.subresource
    )


def _default(call: Call, group: str, plural: str, marks: Sequence[str]) -> str:
    """The newest class that is marked as default, by name among equals; empty without one."""
    kind = call.services.registry.find(group, plural)
    if kind is None:
        return ""
    found = []
    for _, item in call.storage.cache(kind).items(call.storage.prefix(kind)):
        if b"is-default-class" in item.tail:
            meta = item.obj()["metadata"]
            if any((meta.get("annotations") or {}).get(mark) == "true" for mark in marks):
                found.append(meta)
    newest = max((meta["creationTimestamp"] for meta in found), default="")
    return min((str(meta["name"]) for meta in found if meta["creationTimestamp"] == newest), default="")
