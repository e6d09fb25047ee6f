"""A pod's sandbox as the engine takes it.

Pure. Called by `steps`. Source: Pod API (hostNetwork, hostPID, shareProcessNamespace, hostUsers, sysctls, ports).
"""

from __future__ import annotations

from pathlib import Path

from steersman.api.resource import Object
from steersman.engine.interface import PortMapping, SandboxConfig
from steersman.kubelet import labels, podspec, resources
from steersman.kubelet.resolvconf import Resolver


def log_directory(logs: Path, pod: Object) -> Path:
    """`<logs>/<namespace>_<name>_<uid>`."""
    namespace, name = podspec.key(pod)
    return logs / f"{namespace}_{name}_{podspec.uid(pod)}"


def sandbox_config(pod: Object, attempt: int, resolver: Resolver, cluster_domain: str, logs: Path) -> SandboxConfig:
    """The sandbox for one attempt at a pod."""
    spec = pod["spec"]
    namespace, name = podspec.key(pod)
    host, domain = podspec.hostname_and_domain(pod, cluster_domain)
    context = spec.get("securityContext") or {}
    host_network = podspec.host_network(pod)
    return SandboxConfig(
        name=name,
        namespace=namespace,
        uid=podspec.uid(pod),
        hostname=""
        if host_network
        else (f"{host}.{domain}"[:64] if spec.get("setHostnameAsFQDN") and domain else host),
        attempt=attempt,
        log_directory=str(log_directory(logs, pod)),
        dns_servers=tuple(resolver.servers),
        dns_searches=tuple(resolver.searches),
        dns_options=tuple(resolver.options),
        host_network=host_network,
        host_pid=bool(spec.get("hostPID")),
        host_ipc=bool(spec.get("hostIPC")),
        share_pid=bool(spec.get("shareProcessNamespace")),
        user_namespace=spec.get("hostUsers") is False,
        sysctls={each["name"].replace("/", "."): str(each["value"]) for each in context.get("sysctls") or ()},
        ports=() if host_network else _ports(pod),
        cgroup_parent=resources.cgroup_parent(pod),
        resources=resources.of_pod(pod),
        labels=labels.pod_labels(pod),
    )


def _ports(pod: Object) -> tuple[PortMapping, ...]:
    return tuple(
        PortMapping(
            int(port["containerPort"]), int(port["hostPort"]), port.get("protocol") or "TCP", port.get("hostIP") or ""
        )
        for container in [*podspec.init_containers(pod), *podspec.containers(pod)]
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )
