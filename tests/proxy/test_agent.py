"""The agent as a node's process runs it: in the node's namespace, until cancelled."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from steersman.api.resource import ENDPOINTSLICES, SERVICES
from steersman.client.informer import Informers
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.proxy.agent import ProxyAgent, remove
from steersman.testing.cluster import ApiCluster
from tests.proxy.conftest import NODE_IP, PODS, UPLINK, Network, ask
from tests.proxy.objects import endpoint, service, slice_of

pytestmark = pytest.mark.node


@dataclass(frozen=True)
class Mapping:
    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


async def until(answer: Callable[[], Awaitable[str]], wanted: str) -> None:
    """Ask again and again; an answer that does not come is none."""
    async with asyncio.timeout(10):
        while True:
            try:
                if await answer() == wanted:
                    return
            except OSError:
                await SystemClock().sleep(0.02)


def test_a_node_gets_services_and_host_ports_and_keeps_them(network: Network) -> None:
    """From nothing to a working Service, a host port that comes later, and no trace after `remove`."""
    network.serve(network.pods[0], "pod0", 8080)
    mappings: list[tuple[str, str, Mapping]] = []

    async def life() -> None:
        clock = SystemClock()
        async with ApiCluster(clock=clock) as cluster, Tasks() as tasks:
            agent = ProxyAgent(
                Informers(cluster.client, clock=clock, tasks=tasks),
                clock,
                table="steer-agent",
                node_name="here",
                node_addresses=[NODE_IP],
                pod_network="10.244.0.0/16",
                service_network="10.96.0.0/16",
                host_ports=lambda: mappings,
            )
            running = tasks.spawn(agent.run(), "proxy")
            await cluster.client.create(SERVICES, service(), "default")
            await cluster.client.create(ENDPOINTSLICES, slice_of("web", endpoint(PODS[0])), "default")

            async def asked(address: str, port: int) -> str:
                return (await asyncio.to_thread(ask, network.outsider, address, port, timeout=0.5))[0]

            await until(lambda: asked("10.96.0.7", 80), "pod0")
            connected = await asyncio.open_connection("10.96.0.7", 80)  # from the node itself
            assert await connected[0].read() == f"pod0 {NODE_IP}".encode()
            connected[1].close()
            mappings.append(("sandbox", PODS[0], Mapping(8080, 9090)))
            await until(lambda: asked(UPLINK, 9090), "pod0")
            running.cancel()
            await asyncio.wait([running])
            assert await asked("10.96.0.7", 80) == "pod0", "the rules stay"
        remove("steer-agent", "10.96.0.0/16")
        remove("steer-agent", "10.96.0.0/16")
        assert "steer-agent" not in output("nft", "list", "tables")
        assert "10.96.0.0/16" not in output("ip", "route")

    network.node.run(lambda: asyncio.run(life()))


def test_a_table_name_cannot_smuggle_commands() -> None:
    for name in ("a b", "x;flush ruleset", "", "a{", "é"):
        with pytest.raises(ValueError, match="invalid table name"):
            remove(name)
