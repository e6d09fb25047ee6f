"""persistentVolumeClaim and ephemeral volumes: from the claim to the volume behind it.

Owns the way from a pod's volume to the source of its PersistentVolume, and the checks on the way. Called by `mounter`.
Claims and volumes are read anew each time: a node may get them, but not watch them. Source: Pod and PersistentVolume
API; KEP-1698 (generic ephemeral volumes); texts are the original's.
"""

from __future__ import annotations

from dataclasses import dataclass

from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, Object
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed

KINDS = ("persistentVolumeClaim", "ephemeral")
_SOURCES = ("hostPath", "local", "nfs", "csi", "iscsi", "fc")


@dataclass(frozen=True, slots=True)
class Behind:
    """What a claim leads to: the kind of the volume, its source, and whether it is a raw block device."""

    kind: str
    source: Object
    block: bool
    options: tuple[str, ...] = ()


def claim_name(pod: Object, volume: Object) -> str:
    """The claim's name, in the pod's namespace."""
    if "ephemeral" in volume:
        return f"{pod['metadata']['name']}-{volume['name']}"
    return str(volume["persistentVolumeClaim"].get("claimName", ""))


async def behind(context: VolumeContext, pod: Object, volume: Object) -> Behind:
    """The volume behind a claim. Raises VolumeFailed while there is none that this pod may use."""
    name, namespace = claim_name(pod, volume), pod["metadata"]["namespace"]
    claim = await context.claims.get(PERSISTENTVOLUMECLAIMS, namespace, name)
    if claim is None:
        raise VolumeFailed(f'persistentvolumeclaim "{name}" not found')
    meta = claim["metadata"]
    if "ephemeral" in volume and not any(
        each.get("controller") and each.get("uid") == pod["metadata"].get("uid")
        for each in meta.get("ownerReferences") or ()
    ):
        raise VolumeFailed(f"PVC {namespace}/{name} was not created for pod {namespace}/{pod['metadata']['name']}")
    if meta.get("deletionTimestamp"):
        raise VolumeFailed(f"can't start pod because PVC {name} is being deleted")
    bound = claim["spec"].get("volumeName") or ""
    if (claim.get("status") or {}).get("phase") != "Bound" or not bound:
        raise VolumeFailed(f'PVC "{name}" is not bound')
    found = await context.claims.get(PERSISTENTVOLUMES, "", bound)
    if found is None:
        raise VolumeFailed(f'persistentvolume "{bound}" not found')
    spec = found["spec"]
    if (spec.get("claimRef") or {}).get("uid") != meta.get("uid"):
        raise VolumeFailed(f'PV "{bound}" spec.claimRef.uid does not match pvc.UID {meta.get("uid")}')
    kind = next((each for each in _SOURCES if each in spec), "")
    if not kind:
        raise VolumeFailed(f'no volume plugin matched persistentvolume "{bound}"')
    return Behind(kind, spec[kind], spec.get("volumeMode") == "Block", tuple(spec.get("mountOptions") or ()))
