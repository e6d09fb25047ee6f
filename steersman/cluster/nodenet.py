"""Where a node's own addresses are, and how several nodes of one machine reach each other.

Owns the node's address on loopback, and for every node but the first a network namespace with a route to the machine's.
Called by `node.py` before the node starts and by `erase.py`. Pods' interfaces are the engine's.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from steersman.cluster.process import StartFailure
from steersman.cluster.profile import Profile

_GATEWAY = "169.254.1.1"
_CLONE_NEWNET = 0x40000000


def cgroup_root(profile: Profile, number: int) -> str:
    """The name of the cgroup that holds the node's pods."""
    return f"steer-{profile.index}-{profile.name}-{number}"


def table(profile: Profile) -> str:
    """The name of the profile's nftables table."""
    return f"steer-{profile.index}-{profile.name}"


def policy_table(profile: Profile) -> str:
    """The name of the nftables table with network policies."""
    return f"{table(profile)}-policy"


def interface(profile: Profile, number: int) -> str:
    """The machine's end of the pair that leads to a node (at most 15 characters)."""
    return f"steer{profile.index}n{number}"


def _pin(profile: Profile, number: int) -> Path:
    return profile.node_directory(number) / "netns"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StartFailure(f"cannot set up the node's network: ip {' '.join(words)}: {done.stderr.strip()}")


def enter(profile: Profile, number: int) -> int | None:
    """Give this process the node's network. Returns the machine's namespace, open, if it left that.

    Raises StartFailure.
    """
    machine = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC) if number else None
    if machine is not None:
        _enter_namespace(profile, number, machine)
    _ip("link", "set", "lo", "up")
    _ip("address", "replace", f"{profile.node_address(number)}/32", "dev", "lo")
    return machine


def _enter_namespace(profile: Profile, number: int, machine: int) -> None:
    pin = _pin(profile, number)
    if pin.exists() and os.path.ismount(pin):
        with pin.open() as namespace:
            _libc_setns(namespace.fileno())
        return
    pin.parent.mkdir(parents=True, exist_ok=True)
    pin.touch()
    name, pid = interface(profile, number), str(os.getpid())
    address, first = profile.node_address(number), profile.node_address(0)
    _unshare()
    subprocess.run(["mount", "--bind", f"/proc/{pid}/ns/net", str(pin)], check=True)
    _outside(machine, "address", "replace", f"{first}/32", "dev", "lo")  # the first node may come up later
    _outside(machine, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", pid)
    _outside(machine, "link", "set", name, "up")
    _outside(machine, "address", "add", f"{_GATEWAY}/32", "dev", name, "scope", "link")
    _ip("link", "set", "lo", "up")
    _ip("address", "replace", f"{address}/32", "dev", "lo")
    _ip("link", "set", "eth0", "up")
    _ip("route", "replace", _GATEWAY, "dev", "eth0", "scope", "link", "src", address)
    _ip("route", "replace", "default", "via", _GATEWAY, "dev", "eth0", "src", address)
    network = str(profile.node_network(number))
    _outside(machine, "route", "replace", network, "via", address, "dev", name, "onlink", "src", first)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _outside(machine: int, *words: str) -> None:
    """Run ip in the machine's namespace, which is open at `machine`: this process has left it."""
    command = ["nsenter", f"--net=/proc/self/fd/{machine}", "ip", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=[machine])
    if done.returncode and "File exists" not in done.stderr:
        raise StartFailure(f"cannot set up the node's network: ip {' '.join(words)}: {done.stderr.strip()}")


def _unshare() -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise StartFailure(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")


def _libc_setns(descriptor: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise StartFailure(f"cannot enter the node's network: {os.strerror(ctypes.get_errno())}")


def remove(profile: Profile, number: int) -> None:
    """Take away what `enter` made; idempotent."""
    pin = _pin(profile, number)
    if number and pin.exists():
        subprocess.run(["ip", "link", "delete", interface(profile, number)], capture_output=True, check=False)
        subprocess.run(["umount", str(pin)], capture_output=True, check=False)
        with contextlib.suppress(OSError):
            pin.unlink()
    if not number:
        address = f"{profile.node_address(0)}/32"
        subprocess.run(["ip", "address", "delete", address, "dev", "lo"], capture_output=True, check=False)
