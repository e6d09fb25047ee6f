"""A sandbox's network: a veth pair, a /32 address, and routes; no bridge.

Owns the interfaces and routes of sandboxes, and the node's one-time settings. The pod sees a default route through
169.254.1.1, held by the node's end of the pair; the node sees a /32 route per pod. Masquerade, Services and policy are
somebody else's. Called by `sandbox.py` in worker threads.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import rtnetlink
from steersman.engine.runtime.rtnetlink import Netlink

GATEWAY = "169.254.1.1"
INTERFACE = "eth0"
_NODE_SYSCTLS = {"net/ipv4/ip_forward": "1"}


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """`node_ip`: source address of the node towards pods (empty: 169.254.1.1). `mtu` 0: as the node's default route."""

    pod_cidr: str
    node_ip: str = ""
    mtu: int = 0


def node_interface(sandbox_id: str) -> str:
    """The name of the node's end of a sandbox's veth pair (at most 15 characters)."""
    return f"veth{sandbox_id[:11]}"


def default_mtu() -> int:
    """MTU of the interface that the default route leaves by; 1500 without one."""
    for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000":
            return int(Path(f"/sys/class/net/{fields[0]}/mtu").read_text(encoding="ascii"))
    return 1500


def prepare_node() -> None:
    """Set what routing to pods needs of the node. Raises RuntimeFailure saying what could not be set and why."""
    for name, wanted in _NODE_SYSCTLS.items():
        path = Path("/proc/sys") / name
        try:
            if path.read_text(encoding="ascii").strip() != wanted:
                path.write_text(wanted, encoding="ascii")
        except OSError as error:
            setting = name.replace("/", ".")
            raise RuntimeFailure(f"pods need {setting}={wanted} on this node, and it cannot be set: {error}") from error


def connect_inside(sandbox_id: str, node_namespace: int, ip: str, mtu: int) -> None:
    """Make the pair and set up the pod's end, in a thread inside the pod's network namespace."""
    with Netlink() as netlink:
        messages = [rtnetlink.link_up(socket.if_nametoindex("lo"))]
        if ip:
            netlink.send([rtnetlink.veth(INTERFACE, node_interface(sandbox_id), node_namespace, mtu)])
            index = socket.if_nametoindex(INTERFACE)
            messages += [
                rtnetlink.address(index, ip, 32),
                rtnetlink.link_up(index),
                rtnetlink.route(index, GATEWAY, 32),
                rtnetlink.route(index, "0.0.0.0", 0, gateway=GATEWAY),
            ]
        netlink.send(messages)


def connect_node(sandbox_id: str, ip: str, node_ip: str) -> None:
    """Set up the node's end of the pair, in a thread inside the node's network namespace."""
    index = socket.if_nametoindex(node_interface(sandbox_id))
    with Netlink() as netlink:
        netlink.send(
            [
                rtnetlink.address(index, GATEWAY, 32, link_scope=True),
                rtnetlink.link_up(index),
                rtnetlink.route(index, ip, 32, source=node_ip or GATEWAY),
            ]
        )


def disconnect(sandbox_id: str) -> bool:
    """Remove a sandbox's pair with its routes; returns whether it was there."""
    with Netlink() as netlink:
        return netlink.delete_link(node_interface(sandbox_id))


def traffic(sandbox_id: str) -> tuple[int, int]:
    """Bytes that a sandbox received and sent; zeros without an interface of its own."""
    statistics = Path("/sys/class/net") / node_interface(sandbox_id) / "statistics"
    try:
        received = int((statistics / "tx_bytes").read_text(encoding="ascii"))
        return received, int((statistics / "rx_bytes").read_text(encoding="ascii"))
    except OSError:
        return 0, 0
