"""The kubelet's HTTPS API: logs, exec, attach, port-forward, pods, stats, metrics, health.

Owns the routes and their parameters; `streaming` does what lasts. An HTTP handler (`handle`), called by the API server
through `lib.http.server`. It changes nothing about pods. Source: pkg/kubelet/server/server.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from pathlib import Path
from urllib.parse import parse_qs, unquote

from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.engine.interface import ContainerState, Runtime, RuntimeFailure, SandboxState, Session
from steersman.kubelet import authorize, labels, systemlogs, usage
from steersman.kubelet.access import PodAccess
from steersman.kubelet.streaming import command, criline, logs, portforward
from steersman.kubelet.streaming.command import Wanted
from steersman.kubelet.streaming.criline import LogOptions
from steersman.kubelet.streaming.negotiate import Agreed, agree, is_websocket, refusal
from steersman.kubelet.streaming.portforward import parse_port
from steersman.kubelet.streaming.spdy import SpdyConnection
from steersman.kubelet.streaming.websocket import Channels, Tunnel, WebSocket
from steersman.lib.clock import Clock
from steersman.lib.http.messages import Answer, Duplex, Request, Response, Stream, Upgrade, Writer
from steersman.lib.metrics import Registry
from steersman.lib.tasks import Tasks
from steersman.wire import channels, websocket
from steersman.wire.channels import ChannelCodec

Query = Mapping[str, Sequence[str]]
Route = Callable[["KubeletServer", Request, Sequence[str], Query], "Answer | Awaitable[Answer]"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,100}")
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class KubeletServer:
    """The HTTP handler of one node. `allow` decides about every request; `identify` says whose a bearer token is."""

    def __init__(
        self,
        pods: PodAccess,
        runtime: Runtime,
        clock: Clock,
        *,
        allow: authorize.Allow = authorize.api_server_only,
        identify: authorize.Identify | None = None,
        metrics: Registry | None = None,
        system_logs: Path = Path("/var/log"),
    ) -> None:
        self._pods = pods
        self._system_logs = system_logs
        self._runtime = runtime
        self._clock = clock
        self._allow = allow
        self._identify = identify
        self._metrics = metrics or Registry()
        usage.register(self._metrics, runtime, pods.node_name)

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer one request (`messages.Handler`)."""
        who = authorize.caller(request)
        if who is not None:
            return self._authorized(request, authorize.attributes(request, who))
        token = authorize.bearer(request)
        if token and self._identify is not None:
            return self._with_token(request, token, self._identify)
        return refusal(401, "Unauthorized")

    async def _with_token(self, request: Request, token: str, identify: authorize.Identify) -> Answer:
        who = await identify(token)
        if who is None:
            return refusal(401, "Unauthorized")
        return await self._authorized(request, authorize.attributes(request, who))

    async def _authorized(self, request: Request, wants: authorize.Attributes) -> Answer:
        allowed = self._allow(wants)
        if isawaitable(allowed):
            allowed = await allowed
        if not allowed:
            names = " ".join(wants.subresources)
            text = f"Forbidden (user={wants.caller.name}, verb={wants.verb}, resource=nodes, subresource(s)=[{names}])"
            return refusal(403, text)
        try:
            answer = self._route(request)
            return await answer if isawaitable(answer) else answer
        except ApiError as error:
            return refusal(error.code, error.message)
        except (RuntimeFailure, OSError) as error:
            return refusal(500, str(error))

    def _route(self, request: Request) -> Answer | Awaitable[Answer]:
        first, *rest = [unquote(part) for part in request.path.strip("/").split("/")]
        found = _ROUTES.get(first)
        if found is None or len(rest) not in found[1]:
            return refusal(404, "404 page not found")
        if request.method not in found[2]:
            return refusal(405, "405: Method Not Allowed")
        return found[0](self, request, rest, parse_qs(request.query, keep_blank_values=True))

    def _configz(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        about = {"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1"}
        return _json({"kubeletconfig": {**about, **self._pods.configuration()}})

    def _machine_logs(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        return systemlogs.answer(self._system_logs, names, slash=request.path.endswith("/"))

    # What is answered at once --------------------------------------------------------------------------------------

    def _healthz(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        return Response(200, [("content-type", "text/plain; charset=utf-8")], b"ok")

    def _pod_list(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(self._pods.pods())})

    def _running(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        running: dict[str, list[Object]] = {}
        for container in self._runtime.containers():
            if container.state == ContainerState.RUNNING:
                entry = {"name": container.config.name, "image": container.config.image, "resources": {}}
                running.setdefault(container.sandbox_id, []).append(entry)
        items = [
            {
                "metadata": {"name": box.config.name, "namespace": box.config.namespace, "uid": box.config.uid},
                "spec": {"containers": running.get(box.id, [])},
                "status": {},
            }
            for box in self._runtime.sandboxes()
            if box.state == SandboxState.READY
        ]
        return _json({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})

    async def _stats(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        if names not in ([], ["summary"]):
            return refusal(404, "404 page not found")
        return _json(await self._pods.stats_summary())

    async def _metrics_text(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        if not names:
            text = self._metrics.text()
        elif names == ["resource"]:
            started = {(c.config.labels.get(labels.POD_UID, ""), c.config.name): c.started_at
                       for c in self._runtime.containers() if c.state == ContainerState.RUNNING}  # fmt: skip
            text = usage.resource_metrics(await self._pods.stats_summary(), started)
        elif names == ["cadvisor"]:
            text = await self._pods.cadvisor_metrics()
        elif names == ["probes"]:
            text = self._pods.probe_metrics()
        else:
            return refusal(404, "404 page not found")
        return Response(200, [("content-type", _METRICS_TYPE)], text.encode())

    # Logs ----------------------------------------------------------------------------------------------------------

    def _logs(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        namespace, pod, container = names
        options = self._log_options(query)
        if isinstance(options, Response):
            return options
        previous = _flag(query, "previous")
        container_id = self._pods.log_container_id(namespace, pod, container, previous=previous)
        path = self._pods.log_path(namespace, pod, container, previous=previous)
        try:
            file = logs.open_log(path)
        except OSError as error:
            return refusal(400, f'failed to open log file "{path}": {error.strerror}')

        def running() -> bool:
            try:
                return self._runtime.container(container_id).state == ContainerState.RUNNING
            except RuntimeFailure:
                return False

        async def run(writer: Writer) -> None:
            try:
                async for piece in logs.read(file, path, options, running):
                    writer.write(piece)
                    await writer.drain()
            finally:
                file.close()

        return Stream(200, [("content-type", "text/plain; charset=utf-8")], _until_gone(run))

    def _log_options(self, query: Query) -> LogOptions | Response:
        numbers: dict[str, int | None] = {}
        for name, least in (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)):
            try:
                numbers[name] = number = _int64(query[name][0]) if name in query else None
            except ValueError:
                return refusal(400, '{"message": "Unable to decode query."}')
            if number is not None and number < least:
                return refusal(422, '{"message": "Invalid request."}')
        since_time, stream = query.get("sinceTime", [""])[0], query.get("stream", [""])[0] or "All"
        try:
            since = criline.nanoseconds(since_time) if since_time else None
        except ValueError:
            return refusal(400, '{"message": "Unable to decode query."}')
        seconds, tail = numbers["sinceSeconds"], numbers["tailLines"]
        both = seconds is not None and since is not None
        if both or stream not in ("All", "Stdout", "Stderr") or (stream != "All" and tail is not None):
            return refusal(422, '{"message": "Invalid request."}')
        if seconds is not None:
            since = int((self._clock.now() - seconds) * 1e9)
        timestamps, follow = _flag(query, "timestamps"), _flag(query, "follow")
        return LogOptions(tail, numbers["limitBytes"], since, timestamps, follow, stream)

    # exec and attach -----------------------------------------------------------------------------------------------

    def _exec(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        words, tty = query.get("command", []), _one(query, "tty")

        def begin(container_id: str, wanted: Wanted) -> Awaitable[Session]:
            return self._runtime.exec(container_id, words, tty=tty, stdin=wanted.stdin)

        return self._command(request, names, query, begin, "error executing command in container")

    def _attach(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        def begin(container_id: str, wanted: Wanted) -> Awaitable[Session]:
            return self._runtime.attach(container_id, stdin=wanted.stdin)

        return self._command(request, names, query, begin, "error attaching to container")

    def _command(
        self,
        request: Request,
        names: Sequence[str],
        query: Query,
        begin: Callable[[str, Wanted], Awaitable[Session]],
        what: str,
    ) -> Answer:
        namespace, pod, *uid, container = names
        tty = _one(query, "tty")
        wanted = Wanted(_one(query, "input"), _one(query, "output"), _one(query, "error") and not tty, tty)
        if not (wanted.stdin or wanted.stdout or wanted.stderr):
            return refusal(400, "you must specify at least 1 of stdin, stdout, stderr")
        container_id = self._pods.container_id(namespace, pod, container, uid=uid[0] if uid else "")
        agreed = agree(request, command.SPDY_PROTOCOLS, channels.REMOTE_COMMAND)
        if isinstance(agreed, Response):
            return agreed

        async def run(duplex: Duplex) -> None:
            await _serve_command(duplex, agreed, wanted, lambda: begin(container_id, wanted), what)

        return Upgrade(agreed.headers, run)

    # Port-forward --------------------------------------------------------------------------------------------------

    def _port_forward(self, request: Request, names: Sequence[str], query: Query) -> Answer:
        namespace, pod, *uid = names
        sandbox = self._pods.sandbox_id(namespace, pod, uid=uid[0] if uid else "")
        offered = ",".join(request.header_all("sec-websocket-protocol"))
        tunnel = channels.TUNNEL in [name.strip() for name in offered.split(",")]
        ports: list[int] = []
        if is_websocket(request) and not tunnel:
            given = [parse_port(text) for value in query.get("port", []) for text in value.split(",")]
            ports = [port for port in given if port is not None]
            if not ports or len(ports) < len(given) or len(ports) > 100:
                return refusal(400, 'query parameter "port" must name ports from 1 to 65535')
        known = (channels.TUNNEL,) if tunnel else channels.PORT_FORWARD
        agreed = agree(request, (portforward.PROTOCOL,), known, bare=not tunnel)
        if isinstance(agreed, Response):
            return agreed

        async def dial(port: int) -> Duplex:
            return await self._runtime.port_forward(sandbox, port)

        async def run(duplex: Duplex) -> None:
            await _serve_port_forward(duplex, agreed, ports, dial, sandbox)

        return Upgrade(agreed.headers, run)


async def _serve_command(
    duplex: Duplex, agreed: Agreed, wanted: Wanted, begin: Callable[[], Awaitable[Session]], what: str
) -> None:
    async with Tasks() as tasks:
        if agreed.spdy:
            connection = SpdyConnection(duplex)
            tasks.spawn(connection.run(), "spdy")
            streams = await command.spdy_streams(connection, wanted, agreed.protocol)
            if streams is not None:
                await command.serve(connection, streams, begin, agreed.protocol, what)
            return
        readable = [channels.STDIN, channels.RESIZE] if wanted.stdin else [channels.RESIZE]
        socket = WebSocket(duplex, websocket.Connection(server=True))
        multiplex = Channels(socket, ChannelCodec(agreed.protocol), 5, readable)
        tasks.spawn(multiplex.run(), "websocket")
        streams = await command.channel_streams(multiplex, wanted)
        await command.serve(multiplex, streams, begin, agreed.protocol, what)


async def _serve_port_forward(
    duplex: Duplex, agreed: Agreed, ports: Sequence[int], dial: portforward.Dial, pod: str
) -> None:
    async with Tasks() as tasks:
        socket = None if agreed.spdy else WebSocket(duplex, websocket.Connection(server=True))
        if socket is None or not ports:
            connection = SpdyConnection(duplex if socket is None else Tunnel(socket))
            tasks.spawn(connection.run(), "spdy")
            await portforward.serve_spdy(connection, dial, pod)
            return
        multiplex = Channels(socket, ChannelCodec(agreed.protocol), 2 * len(ports), range(0, 2 * len(ports), 2))
        tasks.spawn(multiplex.run(), "websocket")
        await portforward.serve_channels(multiplex, ports, dial, pod)


def _until_gone(run: Callable[[Writer], Awaitable[None]]) -> Callable[[Writer], Awaitable[None]]:
    """A follower waits for the log: it must also notice that the client has left."""

    async def watched(writer: Writer) -> None:
        async with Tasks() as tasks:
            task = tasks.spawn(_quietly(run, writer), "logs")
            writer.on_close(lambda: _cancel(task))
            await asyncio.wait([task])

    return watched


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


async def _quietly(run: Callable[[Writer], Awaitable[None]], writer: Writer) -> None:
    with contextlib.suppress(ConnectionError):
        await run(writer)


def _json(value: Object) -> Response:
    return Response(200, [("content-type", "application/json")], json.dumps(value, separators=(",", ":")).encode())


def _int64(text: str) -> int:
    """A whole number as Go reads it. Raises ValueError for anything else, also beyond 64 bits."""
    if not _INTEGER.fullmatch(text) or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"not a number of 64 bits: {text!r}")
    return int(text)


def _flag(query: Query, name: str) -> bool:
    """A boolean of the API: present and neither `false` nor `0`."""
    return name in query and query[name][0].lower() not in ("false", "0")


def _one(query: Query, name: str) -> bool:
    """A boolean of the streaming routes: exactly `1`."""
    return query.get(name, [""])[0] == "1"


_READ, _STREAM = ("GET", "HEAD"), ("GET", "POST")
_ROUTES: dict[str, tuple[Route, Sequence[int], Sequence[str]]] = {
    "healthz": (KubeletServer._healthz, (0, 1), _READ),
    "pods": (KubeletServer._pod_list, (0,), _READ),
    "runningpods": (KubeletServer._running, (0,), _READ),
    "stats": (KubeletServer._stats, (0, 1), _READ),
    "metrics": (KubeletServer._metrics_text, (0, 1), _READ),
    "configz": (KubeletServer._configz, (0,), _READ),
    "logs": (KubeletServer._machine_logs, range(64), _READ),
    "containerLogs": (KubeletServer._logs, (3,), _READ),
    "exec": (KubeletServer._exec, (3, 4), _STREAM),
    "attach": (KubeletServer._attach, (3, 4), _STREAM),
    "portForward": (KubeletServer._port_forward, (2, 3), _STREAM),
}
