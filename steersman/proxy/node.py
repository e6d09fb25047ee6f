"""What the node's kernel must be told once so that Services work: forwarding, loopback node ports, a route.

Owns three settings. The route leads the service addresses to the loopback interface, with the node's address as source:
without any route to it a local program's packet to a service address is refused before nftables sees it. Called by
whoever starts the proxy, in the node's network namespace.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_SYSCTLS = {"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/route_localnet": "1"}


class NodeSettingFailed(Exception):
    """The kernel does not let us; the text names the setting."""


def prepare(service_cidr: str, node_ip: str) -> None:
    """Make the settings; harmless when they are there. Raises NodeSettingFailed."""
    for name, wanted in _SYSCTLS.items():
        path = Path("/proc/sys") / name
        try:
            if path.read_text(encoding="ascii").strip() != wanted:
                path.write_text(wanted, encoding="ascii")
        except OSError as error:
            raise NodeSettingFailed(f"services need {name.replace('/', '.')}={wanted}: {error}") from error
    source = ("src", node_ip) if node_ip else ()
    _ip("route", "replace", service_cidr, "dev", "lo", *source)


def undo(service_cidr: str) -> None:
    """Remove the route; no error when it is not there."""
    try:
        _ip("route", "del", service_cidr, "dev", "lo")
    except NodeSettingFailed as error:
        if "No such process" not in str(error):
            raise


def _ip(*arguments: str) -> None:
    try:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NodeSettingFailed(f"cannot run ip: {error}") from error
    if done.returncode:
        raise NodeSettingFailed(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
