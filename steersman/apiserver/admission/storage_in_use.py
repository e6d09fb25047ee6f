"""StorageObjectInUseProtection: claims and volumes get the finalizer that keeps them while somebody uses them.

The controllers take it away. Source: plugin/pkg/admission/storage/storageobjectinuseprotection.
"""

from __future__ import annotations

from steersman.api.resource import Object
from steersman.apiserver.call import Call

_FINALIZERS = {
    ("", "PersistentVolume"): "kubernetes.io/pv-protection",
    ("", "PersistentVolumeClaim"): "kubernetes.io/pvc-protection",
    ("storage.k8s.io", "VolumeAttributesClass"): "kubernetes.io/vac-protection",
}


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Add the finalizer to what is created."""
    finalizer = _FINALIZERS.get((call.kind.group, call.kind.kind))
    if obj is None or finalizer is None or call.operation != "CREATE" or call.info.subresource:
        return
    present = obj["metadata"].get("finalizers") or []
    if finalizer not in present:
        obj["metadata"]["finalizers"] = [*present, finalizer]
