"""Claims of devices, as everybody reads them: whose they are, who uses them, which taints are tolerated.

Owns the pure rules of resource.k8s.io that the scheduler and controllers share, and the names of its resources.
Source: KEP-4381 and KEP-5055, dynamic-resource-allocation's resourceclaim package.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from steersman.api.resource import Object, Resource
from steersman.client.workload import controller_of

CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", "ResourceClaim")
TEMPLATES = Resource("resource.k8s.io", "v1", "resourceclaimtemplates", "ResourceClaimTemplate")
CLASSES = Resource("resource.k8s.io", "v1", "deviceclasses", "DeviceClass", namespaced=False)
SLICES = Resource("resource.k8s.io", "v1", "resourceslices", "ResourceSlice", namespaced=False)
RULES = Resource("resource.k8s.io", "v1", "devicetaintrules", "DeviceTaintRule", namespaced=False)  # from 1.37 on
FINALIZER = "resource.kubernetes.io/delete-protection"
EXTENDED = "resource.kubernetes.io/extended-resource-claim"
"""The annotation of a claim that stands for a pod's extended resources."""


def used_by(pod: Object) -> Iterable[tuple[str, bool]]:
    """The names of a pod's claims as far as they are known, and whether each was made for the pod."""
    status = pod.get("status") or {}
    made = {each["name"]: each.get("resourceClaimName") for each in status.get("resourceClaimStatuses") or ()}
    for each in pod["spec"].get("resourceClaims") or ():
        name = each.get("resourceClaimName") or made.get(each["name"])
        if name:
            yield name, not each.get("resourceClaimName")
    if name := (status.get("extendedResourceClaimStatus") or {}).get("resourceClaimName"):
        yield name, True


def is_for(claim: Object, pod: Object) -> bool:
    """Whether the claim was made for this very pod."""
    owner = controller_of(claim)
    return owner is not None and owner["uid"] == pod["metadata"]["uid"]


def allocation(claim: Object) -> Object | None:
    """What the claim was given."""
    return (claim.get("status") or {}).get("allocation") or None


def reserved_for(claim: Object, pod: Object) -> bool:
    """Whether the pod may use the claim."""
    users = (claim.get("status") or {}).get("reservedFor") or ()
    return any(each.get("uid") == pod["metadata"]["uid"] for each in users)


def ruled(rule: Object, driver: str, pool: str, device: str) -> bool:
    """Whether a DeviceTaintRule means a device."""
    chosen = rule["spec"].get("deviceSelector") or {}
    return all(
        chosen.get(key) in (None, value) for key, value in (("driver", driver), ("pool", pool), ("device", device))
    )


def tolerates(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Whether one toleration covers one taint of a device."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint.get("key"):
        return False
    if (toleration.get("operator") or "Equal") == "Equal":
        return (toleration.get("value") or "") == (taint.get("value") or "")
    return toleration["operator"] == "Exists"
