"""Real etcd members for tests: processes on loopback with their own data directories.

Called by `tests/store` and `bench/store.py`. etcd comes from Debian's package `etcd-server`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from steersman.lib.clock import Clock, SystemClock
from steersman.lib.grpc.channel import Channel, GrpcError
from steersman.store.etcd import messages
from steersman.store.etcd.link import Servers


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]


class Member:
    """One etcd process; it may be killed, frozen and started again."""

    def __init__(
        self,
        name: str,
        folder: Path,
        client: int,
        peer: int,
        options: Sequence[str] = (),
        *,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        """`prefix`: words before the command, such as those that enter the namespace where `host` is."""
        self.name = name
        self.folder = folder
        self.url = f"http://{host}:{client}"
        self.peer_url = f"http://{host}:{peer}"
        self._host, self._port = host, client
        self._prefix = prefix
        self._options = options
        self._cluster = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: Sequence[Member] = ()) -> None:
        """Start the process as a member of `cluster`."""
        self._cluster = ",".join(f"{m.name}={m.peer_url}" for m in cluster) or self._cluster
        self.folder.mkdir(parents=True, exist_ok=True)
        arguments = [
            *self._prefix, "etcd", f"--name={self.name}", f"--data-dir={self.folder}/data",
            f"--listen-client-urls={self.url}", f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self.peer_url}", f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self._cluster}", "--heartbeat-interval=20", "--election-timeout=200",
            "--max-request-bytes=8388608", "--log-level=error", "--logger=zap", *self._options,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            environment = {key: value for key, value in os.environ.items() if not key.startswith("ETCD_")}
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment)

    async def ready(self, clock: Clock) -> None:
        """Wait until it serves reads with a leader. Raises RuntimeError with its log when it has ended."""
        while True:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"etcd ended: {(self.folder / 'log').read_text()}")
            try:
                channel = await Channel.connect(self._host, self._port)
                try:
                    await channel.unary(messages.RANGE, messages.range_request(b"x"))
                    return
                finally:
                    channel.close()
            except (OSError, GrpcError):
                await clock.sleep(0.01)

    def signal(self, number: int) -> None:
        """SIGSTOP freezes, SIGCONT thaws, SIGKILL kills."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL and wait."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None


class Etcd:
    """A cluster of members: `async with Etcd(folder, 3) as etcd`."""

    def __init__(self, folder: Path, members: int = 1, clock: Clock | None = None, made: Sequence[Member] = ()) -> None:
        """`made`: the members, instead of so many on loopback."""
        ports = free_ports(members * 2)
        self._clock = clock or SystemClock()
        self.members = list(made) or [
            Member(f"m{number}", folder / f"m{number}", ports[number * 2], ports[number * 2 + 1])
            for number in range(members)
        ]

    @property
    def servers(self) -> Servers:
        """How to reach it."""
        return Servers([member.url for member in self.members])

    async def __aenter__(self) -> Etcd:
        for member in self.members:
            member.start(self.members)
        for member in self.members:
            await member.ready(self._clock)
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()
