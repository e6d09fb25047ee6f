"""The kubelet's settings as one value.

Owns `NodeConfig`, which `cluster` builds and every part of the kubelet reads. No defaults here depend on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from steersman.api.resource import Object
from steersman.kubelet.resolvconf import ClusterDns


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node. Sizes in bytes, times in seconds."""

    name: str
    addresses: Sequence[str]  # the node's own IPs, the first is its main one
    root: Path  # pods' directories and volumes
    logs: Path  # container logs, usually /var/log/pods
    memory: Path  # secrets and tokens; should be a tmpfs
    hostname: str = ""
    dns: ClusterDns = field(default_factory=ClusterDns)
    resolv_conf: str = "/etc/resolv.conf"
    hosts_file: str = "/etc/hosts"
    port: int = 10250  # of the kubelet's HTTPS server
    capacity: Mapping[str, str] = field(default_factory=dict)  # cpu, memory, pods, ephemeral-storage, ...
    reserved: Mapping[str, str] = field(default_factory=dict)  # kept from pods
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Object] = ()
    pod_cidr: str = ""
    version: str = "v1.36.3"
    node_info: Mapping[str, str] = field(default_factory=dict)  # what the machine says: kernelVersion, osImage, ...
    memory_capacity: int = 8 << 30
    static_pods: Path | None = None
    lease_seconds: int = 40
    heartbeat: float = 10.0
    status_report: float = 300.0  # the Node's status is written this often when nothing changed

    def configuration(self) -> Object:
        """These settings under the names of KubeletConfiguration (kubelet.config.k8s.io/v1beta1)."""
        return {
            "port": self.port,
            "maxPods": int(self.capacity.get("pods", "110")),
            "podCIDR": self.pod_cidr,
            "clusterDNS": list(self.dns.servers),
            "clusterDomain": self.dns.domain,
            "resolvConf": self.resolv_conf,
            "staticPodPath": str(self.static_pods or ""),
            "nodeLeaseDurationSeconds": self.lease_seconds,
            "nodeStatusUpdateFrequency": f"{self.heartbeat:g}s",
            "nodeStatusReportFrequency": f"{self.status_report:g}s",
            "podLogsDir": str(self.logs),
            "kubeReserved": dict(self.reserved),
            "registerWithTaints": list(self.taints),
            "enableServer": True,
            "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
            "authorization": {"mode": "Webhook"},
        }

    @property
    def pods(self) -> Path:
        """Where pods' directories are."""
        return self.root / "pods"
