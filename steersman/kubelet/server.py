"""The kubelet's HTTPS server: logs, exec, attach, port-forward, and what it knows of its pods.

Owns the routes and who may use them. Called by the API server; asks the kubelet through `access.PodAccess`. Source:
pkg/kubelet/server/server.go.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs, unquote

from steersman.api.errors import ApiError
from steersman.engine.interface import ContainerState, NoSuchContainer, Runtime, Session
from steersman.kubelet import logs, streams
from steersman.kubelet.access import PodAccess
from steersman.kubelet.logs import LogOptions
from steersman.kubelet.streams import StreamOptions
from steersman.lib.clock import Clock, parse_rfc3339
from steersman.lib.http.messages import Answer, Request, Response, Stream, Upgrade
from steersman.wire import channels, websocket
from steersman.wire.spdyheaders import ProtocolError

_TEXT = ("content-type", "text/plain; charset=utf-8")
_JSON = ("content-type", "application/json")
_ALLOWED = frozenset({"kube-apiserver-kubelet-client"})
_SUPERUSERS = "system:masters"


class KubeletServer:
    """Answers requests; `handle` is an HTTP handler."""

    def __init__(self, pods: PodAccess, runtime: Runtime, clock: Clock) -> None:
        self._pods = pods
        self._runtime = runtime
        self._clock = clock
        self._known: dict[bytes, bool] = {}

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """One request. Errors are plain text, as the kubelet's are."""
        try:
            if request.path == "/healthz":
                return Response(200, [_TEXT], b"ok")
            self._authorize(request)
            return self._route(request)
        except ApiError as error:
            return _refusal(error)

    def _authorize(self, request: Request) -> None:
        certificate = request.peer.certificate
        if certificate is None:
            raise ApiError(401, "Unauthorized", "Unauthorized")
        allowed = self._known.get(certificate)
        if allowed is None:
            allowed = self._known[certificate] = _may(certificate)
        if not allowed:
            raise ApiError(403, "Forbidden", "Forbidden")

    def _route(self, request: Request) -> Answer | Awaitable[Answer]:
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        query = parse_qs(request.query, keep_blank_values=True)
        match parts:
            case ["pods"]:
                body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(self._pods.pods())}
                return Response(200, [_JSON], json.dumps(body).encode())
            case ["stats", "summary"]:
                return self._stats()
            case ["containerLogs", namespace, pod, container]:
                return self._logs(namespace, pod, container, query)
            case ["exec", namespace, pod, container]:
                return self._exec(request, self._pods.container_id(namespace, pod, container), query)
            case ["exec", namespace, pod, uid, container]:
                return self._exec(request, self._pods.container_id(namespace, pod, container, uid=uid), query)
            case ["attach", namespace, pod, container]:
                return self._attach(request, self._pods.container_id(namespace, pod, container), query)
            case ["attach", namespace, pod, uid, container]:
                return self._attach(request, self._pods.container_id(namespace, pod, container, uid=uid), query)
            case ["configz"]:
                return Response(200, [_JSON], json.dumps({"kubeletconfig": {"kind": "KubeletConfiguration"}}).encode())
            case ["metrics"]:
                return Response(200, [("content-type", "text/plain; version=0.0.4")], b"")
            case _:
                return Response(404, [_TEXT], b"404 page not found\n")

    async def _stats(self) -> Answer:
        return Response(200, [_JSON], json.dumps(await self._pods.stats_summary()).encode())

    # Logs --------------------------------------------------------------------------------------------------------

    def _logs(self, namespace: str, pod: str, container: str, query: dict[str, list[str]]) -> Answer:
        options = log_options(query, self._clock.now())
        previous = _flag(query, "previous")
        path = Path(self._pods.log_path(namespace, pod, container, previous=previous))
        container_id = self._pods.log_container_id(namespace, pod, container, previous=previous)
        if not path.exists():
            raise ApiError(404, "NotFound", f'failed to open log file "{path}": no such file or directory')

        def running() -> bool:
            try:
                return self._runtime.container(container_id).state is not ContainerState.EXITED
            except NoSuchContainer:
                return False

        return Stream(200, [_TEXT], lambda writer: logs.stream(path, options, writer, running, self._clock))

    # Sessions ----------------------------------------------------------------------------------------------------

    def _exec(self, request: Request, container: str, query: dict[str, list[str]]) -> Answer:
        options, command = _stream_options(query), query.get("command") or []
        if not command:
            raise ApiError(400, "BadRequest", "you must specify at least 1 command")
        return self._session(
            request,
            options,
            lambda: self._runtime.exec(container, command, tty=options.tty, stdin=options.stdin),
        )

    def _attach(self, request: Request, container: str, query: dict[str, list[str]]) -> Answer:
        options = _stream_options(query)
        return self._session(request, options, lambda: self._runtime.attach(container, stdin=options.stdin))

    def _session(self, request: Request, options: StreamOptions, start: Callable[[], Awaitable[Session]]) -> Answer:
        upgrade = (request.header("upgrade") or "").lower()
        if upgrade == "websocket":
            headers, protocol = _accept_websocket(request)
            return Upgrade(
                headers,
                lambda duplex: streams.serve(streams.WebSocketClient(duplex, protocol), start, options),
            )
        raise ApiError(400, "BadRequest", "Upgrade request required")


def _may(der: bytes) -> bool:
    """Whether a certificate is the API server's, or an administrator's."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    subject = x509.load_der_x509_certificate(der).subject
    names = {str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)}
    groups = {str(each.value) for each in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)}
    return bool(names & _ALLOWED) or _SUPERUSERS in groups


def _refusal(error: ApiError) -> Response:
    return Response(error.code, [_TEXT], (error.message + "\n").encode())


def _flag(query: dict[str, list[str]], name: str) -> bool:
    return query.get(name, ["0"])[0].lower() in ("1", "true", "")


def _number(query: dict[str, list[str]], name: str) -> int | None:
    text = query.get(name, [""])[0]
    if not text:
        return None
    try:
        return int(text)
    except ValueError:
        raise ApiError(400, "BadRequest", f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def log_options(query: dict[str, list[str]], now: float) -> LogOptions:
    """PodLogOptions from a query. Raises ApiError 400."""
    since: float | None = None
    if (seconds := _number(query, "sinceSeconds")) is not None:
        since = now - seconds
    if text := query.get("sinceTime", [""])[0]:
        try:
            since = parse_rfc3339(text)
        except ValueError:
            raise ApiError(400, "BadRequest", f'parsing time "{text}": not RFC 3339') from None
    wanted = query.get("stream", ["All"])[0] or "All"
    chosen = {"Stdout": ("stdout",), "Stderr": ("stderr",)}.get(wanted, ("stdout", "stderr"))
    return LogOptions(
        follow=_flag(query, "follow"),
        timestamps=_flag(query, "timestamps"),
        tail=_number(query, "tailLines"),
        since=since,
        limit=_number(query, "limitBytes"),
        streams=chosen,
    )


def _stream_options(query: dict[str, list[str]]) -> StreamOptions:
    tty = _flag(query, "tty") if "tty" in query else False
    chosen = {name: _flag(query, name) if name in query else False for name in ("input", "output", "error")}
    if not any(chosen.values()):
        raise ApiError(400, "BadRequest", "you must specify at least 1 of stdin, stdout, stderr")
    return StreamOptions(chosen["input"], chosen["output"], chosen["error"] and not tty, tty)


def _accept_websocket(request: Request) -> tuple[list[tuple[str, str]], str]:
    """The 101's headers and the chosen subprotocol. Raises ApiError 400."""
    key = request.header("sec-websocket-key")
    if key is None or request.header("sec-websocket-version") != "13":
        raise ApiError(400, "BadRequest", "not a WebSocket handshake")
    offered = request.header_all("sec-websocket-protocol")
    protocol = websocket.choose_protocol(offered, lambda name: name in channels.REMOTE_COMMAND)
    if protocol is None:
        raise ApiError(400, "BadRequest", f"no supported subprotocol among {', '.join(offered)}")
    try:
        accepted = websocket.accept_key(key)
    except ProtocolError as error:
        raise ApiError(400, "BadRequest", str(error)) from error
    headers = [("upgrade", "websocket"), ("connection", "Upgrade"), ("sec-websocket-accept", accepted)]
    if protocol:
        headers.append(("sec-websocket-protocol", protocol))
    return headers, protocol
