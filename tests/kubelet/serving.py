"""A kubelet's HTTPS server over real sockets, whose commands are processes of this machine; and clients for it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steersman.api.errors import ApiError
from steersman.cluster import certs
from steersman.engine.interface import Container, ContainerConfig, ContainerState, RuntimeFailure, SandboxConfig
from steersman.engine.runtime.portforward import Connection
from steersman.kubelet.server import KubeletServer
from steersman.kubelet.streaming.spdy import SpdyConnection, SpdyStream
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.messages import Duplex
from steersman.lib.http.server import Server, server_tls
from steersman.lib.tasks import Tasks
from steersman.testing.fakeruntime import FakeRuntime
from steersman.wire import websocket
from steersman.wire.channels import ChannelCodec, ChannelData


class ProcessSession:
    """A command of this machine as a session; implements `engine.interface.Session`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.sizes: list[tuple[int, int]] = []
        self.resized = asyncio.Event()
        self.closed = False

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    async def drain(self) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.drain()

    def close_stdin(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def read_stdout(self) -> bytes:
        assert self._process.stdout is not None
        return await self._process.stdout.read(65536)

    async def read_stderr(self) -> bytes:
        assert self._process.stderr is not None
        return await self._process.stderr.read(65536)

    def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))
        self.resized.set()

    async def wait(self) -> int:
        return await self._process.wait()

    async def close(self) -> None:
        self.closed = True
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


class LocalRuntime(FakeRuntime):
    """Containers that only exist in memory, but whose commands and ports are this machine's."""

    def __init__(self) -> None:
        super().__init__(SystemClock())
        self.sessions: list[ProcessSession] = []

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> ProcessSession:  # type: ignore[override]
        if command[0] == "missing":
            raise RuntimeFailure("executable file not found in $PATH")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
        self.sessions.append(session := ProcessSession(process))
        return session

    async def attach(self, container_id: str, *, stdin: bool) -> ProcessSession:  # type: ignore[override]
        return await self.exec(container_id, ["sh", "-c", "echo attached; exec cat"], tty=False, stdin=stdin)

    async def port_forward(self, sandbox_id: str, port: int) -> Duplex:
        try:
            return Connection(*await asyncio.open_connection("127.0.0.1", port))
        except OSError as error:
            raise RuntimeFailure(f"failed to connect to localhost:{port}: Connection refused") from error


@dataclass
class OnePod:
    """The pods of a node with one, `default/web`, with the container `main`; implements `access.PodAccess`."""

    runtime: LocalRuntime
    container: Container
    logs: Path
    node_name: str = "node-a"
    extra: list[Any] = field(default_factory=list)

    def pods(self) -> Sequence[Any]:
        return [{"metadata": {"name": "web", "namespace": "default"}, "spec": {}, "status": {"phase": "Running"}}]

    def _check(self, pod: str, container: str = "main") -> None:
        if pod != "web":
            raise ApiError(404, "NotFound", f'pod "{pod}" does not exist')
        if container != "main":
            raise ApiError(404, "NotFound", f'container not found ("{container}")')

    def container_id(self, namespace: str, pod: str, container: str, *, uid: str = "") -> str:
        self._check(pod, container)
        return self.container.id

    def log_path(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> str:
        self._check(pod, container)
        return str(self.logs / ("0.log" if previous else "1.log"))

    def log_container_id(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> str:
        self._check(pod, container)
        return self.container.id

    def sandbox_id(self, namespace: str, pod: str, *, uid: str = "") -> str:
        self._check(pod)
        return self.container.sandbox_id

    def configuration(self) -> Any:
        return {"maxPods": 110}

    def probe_metrics(self) -> str:
        return "prober_probe_total 1\n"

    async def cadvisor_metrics(self) -> str:
        return "machine_cpu_cores 2\n"

    async def stats_summary(self) -> Any:
        return {"node": {"nodeName": self.node_name}, "pods": []}


@dataclass
class World:
    """A running server and how to reach it."""

    runtime: LocalRuntime
    pods: OnePod
    server: Server
    port: int
    pki: Path
    tasks: Tasks
    clients: list[HttpClient] = field(default_factory=list)

    def client(self, identity: str = "apiserver-kubelet-client") -> HttpClient:
        """A client with a certificate; "" for none."""
        certificate = (self.pki / f"{identity}.crt", self.pki / f"{identity}.key") if identity else (None, None)
        tls = client_tls(authority=self.pki / "ca.crt", certificate=certificate[0], key=certificate[1])
        self.clients.append(made := HttpClient(Address("127.0.0.1", self.port, tls)))
        return made

    async def get(self, target: str, identity: str = "apiserver-kubelet-client") -> tuple[int, bytes]:
        """Status and body."""
        answer = await self.client(identity).request("GET", target)
        return answer.status, await answer.read()

    async def spdy(self, target: str, *protocols: str) -> SpdyConnection:
        """An upgraded connection, its reader running."""
        headers = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]
        headers += [("x-stream-protocol-version", protocol) for protocol in protocols]
        answer, duplex = await self.client().upgrade("POST", target, headers)
        assert duplex is not None, (answer.status, await answer.read())
        connection = SpdyConnection(duplex, server=False)
        self.tasks.spawn(connection.run(), "client")
        return connection

    async def websocket(self, target: str, protocol: str) -> SocketClient:
        """An upgraded connection."""
        headers = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ]
        if protocol:
            headers.append(("sec-websocket-protocol", protocol))
        answer, duplex = await self.client().upgrade("GET", target, headers)
        assert duplex is not None, (answer.status, await answer.read())
        assert answer.header("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert (answer.header("sec-websocket-protocol") or "") == protocol
        return SocketClient(duplex, ChannelCodec(protocol))


class SocketClient:
    """A WebSocket client that collects what comes on every channel."""

    def __init__(self, duplex: Duplex, codec: ChannelCodec) -> None:
        self.duplex = duplex
        self.codec = codec
        self.wire = websocket.Connection(server=False, random=os.urandom)
        self.channels: dict[int, bytes] = {}
        self.first: int | None = None
        self.closed: websocket.Closed | None = None

    def send(self, channel: int, data: bytes) -> None:
        self.wire.send(self.codec.encode(channel, data), text=self.codec.text)
        self.flush()

    def flush(self) -> None:
        self.duplex.write(self.wire.take())

    async def read(self) -> bool:
        """Read once; False when it is over."""
        data = await self.duplex.read()
        for event in self.wire.receive(data):
            if isinstance(event, websocket.Closed):
                self.closed = event
            elif isinstance(event, websocket.Message) and (found := self.codec.decode(event.data)) is not None:
                assert isinstance(found, ChannelData)
                self.first = found.channel if self.first is None else self.first
                self.channels[found.channel] = self.channels.get(found.channel, b"") + found.data
        self.flush()
        return bool(data) and self.closed is None

    async def until(self, channel: int, wanted: bytes) -> None:
        """Read until a channel's text ends so."""
        async with asyncio.timeout(5):
            while not self.channels.get(channel, b"").endswith(wanted):
                assert await self.read(), self.channels

    async def end(self) -> dict[int, bytes]:
        """Read to the end."""
        async with asyncio.timeout(5):
            while await self.read():
                pass
        self.duplex.close()
        return self.channels


async def drain(stream: SpdyStream) -> bytes:
    """Everything on a stream."""
    out = b""
    async with asyncio.timeout(5):
        while data := await stream.read():
            out += data
    return out


def exit_code(status: bytes) -> int:
    """What a Status says about a command's end."""
    found = json.loads(status)
    if found["status"] == "Success":
        return 0
    assert found["reason"] == "NonZeroExitCode"
    (cause,) = found["details"]["causes"]
    assert cause["reason"] == "ExitCode"
    return int(cause["message"])


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[World]:
    """A node's server with its pod."""
    certs.ensure(folder, certs.identities([("node-a", "127.0.0.1")], [], "cluster.local"), time.time())  # noqa: TID251
    runtime = LocalRuntime()
    sandbox = await runtime.run_sandbox(SandboxConfig("web", "default", "u1"))
    container = await runtime.create_container(sandbox.id, ContainerConfig("main", "image"))
    await runtime.start_container(container.id)
    assert runtime.container(container.id).state is ContainerState.RUNNING
    pods = OnePod(runtime, container, folder)
    handler = KubeletServer(pods, runtime, SystemClock(), system_logs=folder / "system")
    tls = server_tls(folder / "kubelet-node-a.crt", folder / "kubelet-node-a.key", [folder / "ca.crt"])
    async with Tasks() as tasks, Server(handler.handle, SystemClock(), tls=tls) as server:
        world = World(runtime, pods, server, await server.listen("127.0.0.1", 0), folder, tasks)
        try:
            yield world
        finally:
            for client in world.clients:
                await client.close()
    await runtime.close()
