"""The Node object: registered once, then kept true; and the lease that says the node is alive.

Owns every write to the Node and its Lease. Called by `agent`. Source: Node documentation, KEP-589 (heartbeats by
lease); the conditions' reasons and messages are the original's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from steersman.api.errors import ApiError
from steersman.api.resource import LEASES, NODES, Object
from steersman.engine.interface import Image, Images, Runtime
from steersman.kubelet import resources
from steersman.kubelet.settings import NodeConfig
from steersman.lib.clock import rfc3339, rfc3339_micro

if TYPE_CHECKING:
    from steersman.client.client import Client
    from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_MAX_IMAGES = 50
_LEASE_NAMESPACE = "kube-node-lease"
HANDLERS = ("", "crun", "runc")
"""Names that a RuntimeClass may give the engine's OCI runtime, whichever of the two that is."""

_FEATURES = (
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
)
"""What is asked of kubelets before they get it, and this one can (KEP-5328)."""

_WELL = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def allocatable(settings: NodeConfig) -> dict[str, str]:
    """What pods may use: capacity without what is reserved."""
    out = dict(settings.capacity)
    for name, quantity in settings.reserved.items():
        if name in out:
            left = max(resources.amount(out[name]) - resources.amount(quantity), Fraction(0))
            out[name] = f"{int(left * 1000)}m" if name == "cpu" else str(int(left))
    return out


def node_object(settings: NodeConfig, status: Object) -> Object:
    """The Node as it is registered."""
    name = settings.name
    own_labels = {
        "kubernetes.io/hostname": settings.hostname or name,
        "kubernetes.io/os": settings.node_info.get("operatingSystem", "linux"),
        "kubernetes.io/arch": settings.node_info.get("architecture", "amd64"),
    }
    labels = {**own_labels, **{f"beta.{key}": value for key, value in list(own_labels.items())[1:]}, **settings.labels}
    annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true", **settings.annotations}
    spec: Object = {}
    if settings.taints:
        spec["taints"] = list(settings.taints)
    if settings.pod_cidr:
        spec.update(podCIDR=settings.pod_cidr, podCIDRs=[settings.pod_cidr])
    meta = {"name": name, "labels": labels, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": spec, "status": status}


def node_status(
    settings: NodeConfig, old: Sequence[Object], images: Sequence[Image], runtime_version: tuple[str, str], now: float
) -> Object:
    """The Node's status. `old`: the conditions that it has, for their transition times."""
    before = {each["type"]: each for each in old}
    conditions = []
    for kind, status, reason, message in _WELL:
        previous = before.get(kind)
        same = previous is not None and previous.get("status") == status
        since = previous.get("lastTransitionTime") if same and previous is not None else None
        conditions.append(
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": rfc3339(now),
                "lastTransitionTime": since or rfc3339(now),
                "reason": reason,
                "message": message,
            }
        )
    addresses = [{"type": "InternalIP", "address": each} for each in settings.addresses]
    addresses.append({"type": "Hostname", "address": settings.hostname or settings.name})
    return {
        "capacity": dict(settings.capacity),
        "allocatable": allocatable(settings),
        "conditions": conditions,
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": settings.port}},
        "nodeInfo": _node_info(settings, runtime_version),
        "declaredFeatures": list(_FEATURES),
        "images": _images(images),
        "features": {"supplementalGroupsPolicy": True},
        "runtimeHandlers": [
            {"name": name, "features": {"recursiveReadOnlyMounts": True, "userNamespaces": False}} for name in HANDLERS
        ],
    }


def _node_info(settings: NodeConfig, runtime_version: tuple[str, str]) -> Object:
    keys = ("machineID", "systemUUID", "bootID", "kernelVersion", "osImage")
    info: Object = {key: settings.node_info.get(key, "") for key in keys}
    info["containerRuntimeVersion"] = "://".join(runtime_version)
    info["kubeletVersion"] = settings.version
    info["kubeProxyVersion"] = ""
    info["operatingSystem"] = settings.node_info.get("operatingSystem", "linux")
    info["architecture"] = settings.node_info.get("architecture", "amd64")
    return info


def _images(images: Sequence[Image]) -> list[Object]:
    largest = sorted(images, key=lambda each: each.size, reverse=True)[:_MAX_IMAGES]
    return [{"names": [*each.digests, *each.tags][:5], "sizeBytes": each.size} for each in largest]


class NodeAgent:
    """The writes about one node."""

    def __init__(self, client: Client, clock: Clock, settings: NodeConfig, runtime: Runtime, images: Images) -> None:
        self._client = client
        self._clock = clock
        self._settings = settings
        self._runtime = runtime
        self._images = images
        self._conditions: Sequence[Object] = ()
        self._added: Mapping[str, str] = {}
        self._withdrawn: Sequence[str] = ()
        self._noticed: tuple[Mapping[str, str], Mapping[str, str]] = ({}, {})
        self._lease: Object | None = None

    async def register(self) -> Object:
        """Create the Node, or bring one that is there up to date; tried until the API answers."""
        retry = 0.1
        while True:
            try:
                return await self._register_once()
            except (ApiError, OSError) as error:
                log.info("cannot register node %s yet: %s", self._settings.name, error)
                await self._clock.sleep(retry)
                retry = min(retry * 2, 7.0)

    async def _register_once(self) -> Object:
        wanted = node_object(self._settings, self._status())
        try:
            made = await self._client.create(NODES, wanted)
        except ApiError as error:
            if error.code != 409:
                raise
            made = await self._client.get(NODES, self._settings.name)
            self._conditions = (made.get("status") or {}).get("conditions") or ()
            self.notice(made)
            meta = {key: _changed(made["metadata"].get(key) or {}, wanted["metadata"][key]) for key in ("labels",)}
            if meta["labels"]:
                await self._client.patch(NODES, self._settings.name, "", {"metadata": meta}, type="merge")
        else:
            if (made.get("status") or {}).get("conditions"):
                self._conditions = made["status"]["conditions"]
                return made
        await self.report()
        return made

    def _status(self) -> Object:
        version = self._runtime.version()
        status = node_status(self._settings, self._conditions, self._images.list(), version, self._clock.now())
        status["allocatable"] |= self._added
        status["allocatable"] |= dict.fromkeys(self._withdrawn)
        return status

    def notice(self, node: Object) -> bool:
        """Look at what others say that the node has: pods may use all of it. True when that is news to be told."""
        status, own = node.get("status") or {}, self._settings.capacity
        self._added = {name: amount for name, amount in (status.get("capacity") or {}).items() if name not in own}
        said = {name: amount for name, amount in (status.get("allocatable") or {}).items() if name not in own}
        self._withdrawn = [name for name in said if name not in self._added]
        before, self._noticed = self._noticed, (self._added, said)
        return said != self._added and before != self._noticed

    async def report(self) -> None:
        """Write the Node's status. Raises ApiError or OSError."""
        status = self._status()
        body = {"status": status}
        await self._client.patch(NODES, self._settings.name, "", body, type="strategic", subresource="status")
        self._conditions = status["conditions"]

    async def beat(self) -> None:
        """Renew the lease. Raises ApiError or OSError."""
        now = rfc3339_micro(self._clock.now())
        if self._lease is None:
            self._lease = await self._acquire(now)
            return
        renewed = {**self._lease, "spec": {**self._lease["spec"], "renewTime": now}}
        try:
            self._lease = await self._client.update(LEASES, renewed)
        except ApiError:
            self._lease = None
            raise

    async def _acquire(self, now: str) -> Object:
        name = self._settings.name
        spec = {"holderIdentity": name, "leaseDurationSeconds": self._settings.lease_seconds, "renewTime": now}
        try:
            found = await self._client.get(LEASES, name, _LEASE_NAMESPACE)
        except ApiError as error:
            if error.code != 404:
                raise
        else:
            return await self._client.update(LEASES, {**found, "spec": {**(found.get("spec") or {}), **spec}})
        meta: Object = {"name": name, "namespace": _LEASE_NAMESPACE}
        node = await self._client.get(NODES, name)
        uid = node["metadata"].get("uid")
        if uid:
            owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
            meta["ownerReferences"] = [owner]
        lease = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": meta, "spec": spec}
        return await self._client.create(LEASES, lease, _LEASE_NAMESPACE)

    async def keep_alive(self) -> None:
        """Renew the lease for ever, and report the status now and then."""
        reported = self._clock.monotonic()
        while True:
            try:
                await self.beat()
                if self._clock.monotonic() - reported >= self._settings.status_report:
                    await self.report()
                    reported = self._clock.monotonic()
            except (ApiError, OSError) as error:
                log.warning("cannot renew the lease of node %s: %s", self._settings.name, error)
                if isinstance(error, ApiError) and error.code == 404:
                    self._lease = None
            await self._clock.sleep(self._settings.heartbeat)


def _changed(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in new.items() if old.get(key) != value}
