"""A node's process: kubelet with its HTTPS server, proxy and DNS, over the engine.

Owns their wiring and the node's own addresses. Called by `components.py`. Ending it with SIGTERM stops the node's pods;
killing it leaves them running for the next start to find.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from steersman import __version__
from steersman.client.client import Client
from steersman.client.cloud import UNINITIALIZED
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.cluster import nodenet, process
from steersman.cluster.machinesockets import MachineSockets
from steersman.cluster.process import StartFailure
from steersman.cluster.profile import Profile
from steersman.dns.agent import DnsAgent
from steersman.engine.images.registry import connect
from steersman.engine.images.store import ImageStore
from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import LocalRuntime, share_mounts
from steersman.kubelet import machine
from steersman.kubelet.agent import Kubelet
from steersman.kubelet.resolvconf import ClusterDns
from steersman.kubelet.reviews import Reviews
from steersman.kubelet.server import KubeletServer
from steersman.kubelet.settings import NodeConfig
from steersman.lib.clock import Clock, SystemClock
from steersman.lib.http.server import Server, server_tls
from steersman.lib.tasks import Tasks
from steersman.proxy.agent import ProxyAgent
from steersman.proxy.policyagent import PolicyAgent

log = logging.getLogger(__name__)

KUBELET_PORT = 10250
_SHUTDOWN = 8.0  # seconds that pods have to end when the node is stopped: less than the supervisor waits
DOMAIN = "cluster.local"


def main(profile: Profile, ready: Callable[[], None], number: int) -> None:
    """The process's whole life."""
    left = nodenet.enter(profile, number)
    machine = MachineSockets(left) if left is not None else None
    process.serve(lambda stop: _run(profile, number, machine, ready, stop))


def parse_mirrors(given: Sequence[str]) -> dict[str, list[str]]:
    """`[REGISTRY=]URL` as mirrors by registry; docker.io when none is named."""
    mirrors: dict[str, list[str]] = {}
    for text in given:
        registry, equals, url = text.partition("=")
        if not equals or "://" in registry:
            registry, url = "docker.io", text
        mirrors.setdefault(registry, []).append(url)
    return mirrors


def settings(profile: Profile, number: int) -> NodeConfig:
    """The kubelet's settings."""
    directory = profile.node_directory(number)
    name = profile.node_name(number)
    options = profile.options("kubelet")
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": str(machine.node_info()["architecture"]),
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": str(machine.node_info()["architecture"]),
    }
    if not number:
        labels["node-role.kubernetes.io/control-plane"] = ""
    external = options.get("cloud-provider") == "external"  # somebody's cloud controllers will say what the node is
    address = profile.node_address(number)
    return NodeConfig(
        name=name,
        addresses=[address],
        root=directory / "kubelet",
        logs=directory / "logs",
        memory=directory / "memory",
        hostname=name,
        dns=ClusterDns([profile.dns_address], DOMAIN),
        port=KUBELET_PORT,
        capacity=machine.capacity(directory, int(options.get("max-pods", "110"))),
        labels=labels,
        annotations={"alpha.kubernetes.io/provided-node-ip": address} if external else {},
        taints=[{"key": UNINITIALIZED, "value": "true", "effect": "NoSchedule"}] if external else [],
        pod_cidr=str(profile.node_network(number)),
        version=f"v{profile.release}.0",
        node_info={**machine.node_info(), "containerRuntimeVersion": f"steersman://{__version__}"},
        memory_capacity=machine.memory_bytes(),
    )


async def _run(
    profile: Profile, number: int, machine: MachineSockets | None, ready: Callable[[], None], stop: asyncio.Event
) -> None:
    clock = SystemClock()
    directory = profile.node_directory(number)
    _mount_memory(profile, number)
    dial = machine.registry if machine is not None else connect
    images = ImageStore(profile.images, clock, mirrors=parse_mirrors(profile.mirrors), connect=dial)
    runtime = LocalRuntime(
        directory / "engine",
        images,
        clock=clock,
        pod_cidr=str(profile.node_network(number)),
        cgroup_root=nodenet.cgroup_root(profile, number),
        node_ip=profile.node_address(number),
    )
    try:
        await runtime.start()
    except RuntimeFailure as failure:
        raise StartFailure(str(failure)) from failure
    name = profile.node_name(number)
    api = profile.node_address(0) if number else "127.0.0.1"
    volumes = directory / "kubelet"
    volumes.mkdir(parents=True, exist_ok=True)
    share_mounts(volumes)
    try:
        async with (
            process.client(profile, f"kubelet-{name}", "kubelet", api) as (client, _),
            process.client(profile, "kube-proxy", "kube-proxy", api) as (services, _),
            Tasks() as tasks,
        ):
            recorder = EventRecorder(client, clock, tasks, component="kubelet", host=name)
            shared = Informers(services, clock=clock, tasks=tasks)
            policies = PolicyAgent(
                shared,
                clock,
                table=nodenet.policy_table(profile),
                node_name=name,
                resolvers=[profile.node_address(each) for each in range(profile.nodes)],
            )
            kubelet = Kubelet(
                settings=settings(profile, number),
                client=client,
                informers=Informers(client, clock=clock, tasks=tasks),
                runtime=runtime,
                images=images,
                clock=clock,
                recorder=recorder,
                networked=policies.admit,
            )
            network = _network(profile, number, machine, services, shared, clock, runtime)
            async with kubelet.running():
                reviews = Reviews(client, clock, name)
                server = await _serve(profile, number, kubelet, runtime, reviews, clock)
                for part in (*network, policies.run()):
                    tasks.spawn(part, "network")
                ready()
                await stop.wait()
                await server.close()
            if not profile.erased.exists():
                await kubelet.end_pods(_SHUTDOWN)
            await _stop_pods(runtime)
    finally:
        await runtime.close()
        await images.close()
        if machine is not None:
            machine.close()


def _network(
    profile: Profile,
    number: int,
    machine: MachineSockets | None,
    client: Client,
    informers: Informers,
    clock: Clock,
    runtime: LocalRuntime,
) -> list[Coroutine[Any, Any, None]]:
    """The proxy and, with it, DNS: both follow Services and EndpointSlices through the same informers."""
    proxy = ProxyAgent(
        informers,
        clock,
        table=nodenet.table(profile),
        node_name=profile.node_name(number),
        node_addresses=[profile.node_address(number)],
        pod_network=str(profile.pod_network),
        service_network=str(profile.service_network),
        host_ports=runtime.port_mappings,
    )
    dns = DnsAgent(
        informers,
        clock,
        domain=DOMAIN,
        addresses=[profile.node_address(number)],
        service_network=str(profile.service_network),
        pod_network=str(profile.pod_network),
        dial=None if machine is None else (machine.datagram, machine.dial),
    )
    return [proxy.run(), dns.run()]


async def _serve(
    profile: Profile, number: int, kubelet: Kubelet, runtime: LocalRuntime, reviews: Reviews, clock: Clock
) -> Server:
    name, pki = profile.node_name(number), profile.pki
    tls = server_tls(pki / f"kubelet-{name}.crt", pki / f"kubelet-{name}.key", [pki / "ca.crt"])
    made = KubeletServer(kubelet, runtime, clock, allow=reviews.allow, identify=reviews.identify)
    server = Server(made.handle, clock, tls=tls)
    try:
        await server.listen(profile.node_address(number), KUBELET_PORT)
    except OSError as error:
        raise StartFailure(f"cannot listen on port {KUBELET_PORT} for the kubelet: {error.strerror}") from error
    return server


async def _stop_pods(runtime: LocalRuntime) -> None:
    """`steer stop`: containers end with their node, as on a machine that shuts down."""
    results = await asyncio.gather(
        *(runtime.stop_sandbox(sandbox.id) for sandbox in runtime.sandboxes()), return_exceptions=True
    )
    for result in results:
        if isinstance(result, Exception):
            log.warning("cannot stop a sandbox: %s", result)


def _mount_memory(profile: Profile, number: int) -> None:
    """Secrets and tokens never touch the disk."""
    memory = profile.node_directory(number) / "memory"
    memory.mkdir(parents=True, exist_ok=True)
    if not memory.is_mount():
        command = ["mount", "-t", "tmpfs", "-o", "mode=0700,size=512m", "steer", str(memory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StartFailure(f"cannot mount a tmpfs for secrets: {done.stderr.strip()}")
