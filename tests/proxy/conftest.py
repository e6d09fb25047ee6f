"""A node, two pods and an outsider, each in a network namespace, joined as the engine joins them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
NODE_IP = "10.244.0.1"
PODS = ("10.244.0.5", "10.244.0.6")
OUTSIDER, UPLINK = "192.0.2.2", "192.0.2.1"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Namespace:
    """A named network namespace with one thread that lives in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        ip("netns", "add", name)
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)
        self.run(lambda: None)
        ip("-n", name, "link", "set", "lo", "up")

    def _enter(self) -> None:
        fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)

    def run(self, work: Callable[[], T]) -> T:
        """Do something in the namespace; sockets made there stay there."""
        return self._thread.submit(work).result(20)

    def close(self) -> None:
        self._thread.shutdown()
        ip("netns", "del", self.name)


class Network:
    """The namespaces and what listens in them."""

    def __init__(self) -> None:
        tag = secrets.token_hex(3)
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._build(tag)
            undo.pop_all()

    def _build(self, tag: str) -> None:
        self.node = self._namespace(f"st{tag}-node")
        self.pods = [self._namespace(f"st{tag}-pod{n}") for n in range(len(PODS))]
        self.outsider = self._namespace(f"st{tag}-out")
        ip("-n", self.node.name, "addr", "add", f"{NODE_IP}/32", "dev", "lo")
        self._sysctl("net/ipv4/ip_forward")
        self._sysctl("net/ipv4/conf/all/route_localnet")
        for pod, address in zip(self.pods, PODS, strict=True):
            self._join(pod, address)
        peer = ("peer", "name", "eth0", "netns", self.outsider.name)
        ip("-n", self.node.name, "link", "add", "uplink", "type", "veth", *peer)
        for name, device, address in ((self.node.name, "uplink", UPLINK), (self.outsider.name, "eth0", OUTSIDER)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
        ip("-n", self.outsider.name, "route", "add", "default", "via", UPLINK)

    def _namespace(self, name: str) -> Namespace:
        made = Namespace(name)
        self._closing.callback(made.close)
        return made

    def _sysctl(self, name: str) -> None:
        def write() -> None:
            with open(f"/proc/thread-self/root/proc/sys/{name}", "w") as file:
                file.write("1")

        self.node.run(write)

    def _join(self, pod: Namespace, address: str) -> None:
        device = f"v{address.rpartition('.')[2]}"
        ip("-n", self.node.name, "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", pod.name)
        ip("-n", pod.name, "addr", "add", f"{address}/32", "dev", "eth0")
        ip("-n", pod.name, "link", "set", "eth0", "up")
        ip("-n", pod.name, "route", "add", "169.254.1.1", "dev", "eth0")
        ip("-n", pod.name, "route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
        ip("-n", self.node.name, "addr", "add", "169.254.1.1/32", "dev", device, "scope", "link")
        ip("-n", self.node.name, "link", "set", device, "up")
        ip("-n", self.node.name, "route", "add", f"{address}/32", "dev", device, "src", NODE_IP)

    def serve(self, where: Namespace, name: str, port: int, kind: int = socket.SOCK_STREAM) -> None:
        """Answer everything with `name` and the address of whoever asks."""
        listener = where.run(lambda: socket.socket(socket.AF_INET, kind))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", port))
        stream = kind == socket.SOCK_STREAM
        if stream:
            listener.listen(64)
        thread = threading.Thread(target=_answer, args=(listener, name, stream))
        thread.start()

        def stop() -> None:
            listener.shutdown(socket.SHUT_RDWR) if stream else _poke(where, port)
            thread.join()
            listener.close()

        self._closing.callback(stop)

    def close(self) -> None:
        self._closing.close()


def _poke(where: Namespace, port: int) -> None:
    with where.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sender:
        sender.sendto(b"stop", ("127.0.0.1", port))


def _answer(listener: socket.socket, name: str, stream: bool) -> None:
    while True:
        if stream:
            try:
                connection, (peer, _) = listener.accept()
            except OSError:
                return
            with connection:
                connection.sendall(f"{name} {peer}".encode())
        else:
            data, address = listener.recvfrom(100)
            if data == b"stop":
                return
            listener.sendto(f"{name} {address[0]}".encode(), address)


def ask(
    where: Namespace, address: str, port: int, kind: int = socket.SOCK_STREAM, timeout: float = 3
) -> tuple[str, str]:
    """(who answered, the client's address as it saw it). Raises ConnectionRefusedError, TimeoutError."""
    with where.run(lambda: socket.socket(socket.AF_INET, kind)) as client:
        client.settimeout(timeout)
        client.connect((address, port))
        if kind == socket.SOCK_DGRAM:
            client.send(b"?")
        name, _, peer = client.recv(100).decode().partition(" ")
        return name, peer


@pytest.fixture
def network() -> Iterator[Any]:
    made = Network()
    yield made
    made.close()
