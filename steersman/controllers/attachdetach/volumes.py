"""What attach and detach are decided by: which volume, wanted where, and whether it may leave a node.

Pure. Source: kubernetes' pkg/controller/volume/attachdetach, its csi plugin for names, and the external attacher's
contract: https://kubernetes-csi.github.io/docs/external-attacher.html.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from steersman.api import pods
from steersman.api.resource import Object
from steersman.client.workload import is_controlled_by

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"
FORCE_AFTER = 360.0  # seconds that a node which is not ready may keep a volume that nobody wants there


def unique_name(volume: Object) -> str:
    """What node status calls a CSI volume; empty for every other kind."""
    csi = volume["spec"].get("csi")
    return f"kubernetes.io/csi/{csi['driver']}^{csi['volumeHandle']}" if csi else ""


def attachment(volume: Object, node: str) -> Object:
    """The VolumeAttachment that asks for a volume on a node. Its name is the same whoever asks."""
    csi = volume["spec"]["csi"]
    digest = hashlib.sha256(f"{csi['volumeHandle']}{csi['driver']}{node}".encode()).hexdigest()
    source = {"persistentVolumeName": volume["metadata"]["name"]}
    return {
        "metadata": {"name": f"csi-{digest}"},
        "spec": {"attacher": csi["driver"], "nodeName": node, "source": source},
    }


def shareable(volume: Object) -> bool:
    """Whether more than one node may have it; who does not say is left to the driver."""
    modes = volume["spec"].get("accessModes") or ()
    return not modes or "ReadWriteMany" in modes or "ReadOnlyMany" in modes


def claims_of(pod: Object) -> Iterable[tuple[str, bool]]:
    """The names of the claims that a pod uses, and whether each must be the pod's own."""
    for volume in pod["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield claim["claimName"], False
        elif volume.get("ephemeral"):
            yield f"{pod['metadata']['name']}-{volume['name']}", True


def needs(pod: Object, claim: Object) -> bool:
    """Whether a pod on a node still needs the claim's volume there."""
    if not pod["spec"].get("nodeName") or _ended(pod):
        return False
    name = claim["metadata"]["name"]
    return any(used == name and (not own or is_controlled_by(claim, pod)) for used, own in claims_of(pod))


def _ended(pod: Object) -> bool:
    if pods.is_terminal(pod):
        return True
    if not pod["metadata"].get("deletionTimestamp"):
        return False
    status = pod.get("status") or {}
    kinds = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    states = [each.get("state") or {} for kind in kinds for each in status.get(kind) or ()]
    return all(state.get("terminated") is not None or state.get("waiting") is not None for state in states)


def in_use(node: Object) -> set[str]:
    """The volumes that a node's kubelet says it has mounted, or is about to mount."""
    return set((node.get("status") or {}).get("volumesInUse") or ())


def reported(node: Object) -> list[Object]:
    """The volumes that the node's status tells its kubelet are attached."""
    found: list[Object] = (node.get("status") or {}).get("volumesAttached") or []
    return found


def is_managed(node: Object) -> bool:
    """Whether the node's kubelet leaves attaching to us."""
    return MANAGED in (node["metadata"].get("annotations") or {})


@dataclass(slots=True)
class Place:
    """One volume on one node: who wants it there, and how far it is. `mounted`: as far as anybody knows."""

    node: str
    pods: list[Object] = field(default_factory=list)
    attachment: Object | None = None
    known: bool = False  # the node is there
    ready: bool = False
    out_of_service: bool = False
    mounted: bool = True
    told: bool = False  # the node's status says that it is attached

    @property
    def leaving(self) -> bool:
        """Whether somebody has asked to detach it."""
        return self.attachment is not None and bool(self.attachment["metadata"].get("deletionTimestamp"))

    @property
    def attached(self) -> bool:
        """Whether the attacher says that it is attached."""
        return self.attachment is not None and bool((self.attachment.get("status") or {}).get("attached"))

    @property
    def usable(self) -> bool:
        """Whether it is attached, and stays."""
        return self.attached and not self.leaving

    def forced(self, unwanted: float, limit: float | None) -> bool:
        """Whether to detach it, unwanted for so many seconds, although it may be mounted."""
        return self.out_of_service or (limit is not None and not self.ready and unwanted >= limit)


@dataclass(frozen=True, slots=True)
class Facts:
    """What of a node matters: to all its volumes, and to each."""

    general: tuple[object, ...] = ()
    volumes: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(cls, node: Object) -> Facts:
        ready = (pods.condition(node, "Ready") or {}).get("status")
        taints = tuple(each["key"] for each in node["spec"].get("taints") or ())
        used = {("used", name) for name in in_use(node)}
        told = {("told", each["name"]) for each in reported(node)}
        return cls((node["metadata"]["uid"], ready, taints, is_managed(node)), frozenset(used | told))


def multi_attach_text(volume: Object, pod: Object, others: Iterable[Object]) -> str:
    """Why a pod waits for a volume that only one node may have."""
    users = [each["metadata"] for each in others]
    local = [each["name"] for each in users if each["namespace"] == pod["metadata"]["namespace"]]
    far = len(users) - len(local)
    if not users:
        why = "Volume is already exclusively attached to one node and can't be attached to another"
    elif local:
        why = f"Volume is already used by pod(s) {', '.join(local)}"
        why += f" and {far} pod(s) in different namespaces" if far else ""
    else:
        why = f"Volume is already used by {far} pod(s) in different namespaces"
    return f'Multi-Attach error for volume "{volume["metadata"]["name"]}" {why}'
