"""Machines that are network namespaces: each with an address on one bridge, from which it can be cut off."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

_NEW_NET = 0x40000000


def ip(*words: str) -> None:
    """The command. Raises CalledProcessError."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Machine:
    """One namespace. What runs in it is started with `prefix`."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address

    @property
    def prefix(self) -> Sequence[str]:
        """Words before a command that is to run here."""
        return ("nsenter", f"--net=/run/netns/{self.name}")

    def cut_off(self) -> None:
        """Nothing comes or goes any more but on its own loopback."""
        ip("link", "set", f"{self.name}h", "down")

    def join(self) -> None:
        """As before."""
        ip("link", "set", f"{self.name}h", "up")

    async def dial(self, host: str, port: int) -> socket.socket:
        """A connection made in the namespace, as an HttpClient takes it. Raises OSError."""

        def inside() -> socket.socket:
            with open(f"/run/netns/{self.name}") as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _NEW_NET):
                    raise OSError(ctypes.get_errno(), "setns")
            made = socket.create_connection((host, port), timeout=5)
            made.setblocking(False)
            return made

        def outside() -> socket.socket:
            with ThreadPoolExecutor(1) as thread:  # which stays in the namespace, and ends
                return thread.submit(inside).result()

        return await asyncio.to_thread(outside)


class Net(contextlib.AbstractContextManager["Net"]):
    """A bridge, 10.213.0.1/24 for whoever made it, and machines from .2 on."""

    def __init__(self, count: int) -> None:
        mark = f"st{os.getpid() % 100_000}"
        self._bridge = f"{mark}b"
        self.machines = [Machine(f"{mark}n{number}", f"10.213.0.{number + 2}") for number in range(count)]

    def __enter__(self) -> Net:
        ip("link", "add", self._bridge, "type", "bridge")
        ip("address", "add", "10.213.0.1/24", "dev", self._bridge)
        ip("link", "set", self._bridge, "up")
        for machine in self.machines:
            name, outside = machine.name, f"{machine.name}h"
            ip("netns", "add", name)
            ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", outside, "master", self._bridge, "up")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"{machine.address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for machine in self.machines:
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "delete", machine.name)
        with contextlib.suppress(subprocess.CalledProcessError):
            ip("link", "delete", self._bridge)
