"""log, exec, attach, portforward and proxy: requests that the API server hands on.

Owns the choice of where to (the pod's kubelet, the pod, a service's endpoint, a node) and the tunnel: bytes pass as
they are, upgraded or not. It speaks no stream protocol itself; the kubelet does. Source: LogLocation in
pkg/registry/core/pod/strategy.go; apimachinery's util/proxy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

from steersman.api import errors
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.call import Call
from steersman.lib.http.messages import (
    Answer,
    ClientResponse,
    Duplex,
    Headers,
    Request,
    Response,
    Stream,
    Transport,
    Upgrade,
    Writer,
)
from steersman.lib.tasks import Tasks

_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
     "upgrade", "host", "content-length", "authorization"}
)  # fmt: skip


class Dialer(Protocol):
    """How the API server reaches kubelets and pods."""

    def kubelet(self, node: Object) -> Transport:
        """A transport to a node's kubelet, as the API server's client identity. Raises ApiError."""
        ...

    def address(self, scheme: str, host: str, port: int) -> Transport:
        """A transport to any address of the cluster network."""
        ...


def _dialer(call: Call) -> Dialer:
    found: Dialer | None = call.services.extras.get("dialer")
    if found is None:
        raise errors.internal("this API server has no way to reach nodes")
    return found


def _pod_kubelet(call: Call) -> tuple[Object, Transport]:
    pod = call.storage.get(call.kind, call.info.namespace, call.info.name).obj()
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise errors.bad_request(f"pod {call.info.name} does not have a host assigned")
    kind = call.services.registry.find("", "nodes")
    assert kind is not None
    return pod, _dialer(call).kubelet(call.storage.get(kind, "", node).obj())


def _container(call: Call, pod: Object) -> str:
    """The container that is asked for; a pod with one needs no name. Raises ApiError in the original's words."""
    spec, wanted = pod["spec"], call.query.get("container")
    regular = [c["name"] for c in spec.get("containers", ())]
    others = {
        "init": [c["name"] for c in spec.get("initContainers") or ()],
        "ephemeral": [c["name"] for c in spec.get("ephemeralContainers") or ()],
    }
    if wanted:
        if wanted not in regular and not any(wanted in names for names in others.values()):
            raise errors.bad_request(f"container {wanted} is not valid for pod {pod['metadata']['name']}")
        return wanted
    if len(regular) == 1:
        return str(regular[0])
    text = f"a container name must be specified for pod {pod['metadata']['name']}, choose one of: [{' '.join(regular)}]"
    for word, names in others.items():
        if names:
            text += f" or one of the {word} containers: [{' '.join(names)}]"
    raise errors.bad_request(text)


async def log(server: Any, call: Call) -> Answer:
    """GET pods/NAME/log."""
    query = {
        key: call.query.get(key)
        for key in (
            "follow",
            "previous",
            "sinceSeconds",
            "sinceTime",
            "timestamps",
            "tailLines",
            "limitBytes",
            "stream",
        )
        if call.query.has(key)
    }
    _check_log_options(query)
    pod, kubelet = _pod_kubelet(call)
    container = _container(call, pod)
    target = f"/containerLogs/{call.info.namespace}/{call.info.name}/{container}"
    return await relay(kubelet, "GET", f"{target}?{urlencode(query)}" if query else target, [], b"")


def _check_log_options(query: Mapping[str, str]) -> None:
    problems = []
    for key, least in (("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1)):
        value = query.get(key)
        if value is None or value == "":
            continue
        if not value.lstrip("-").isdecimal():
            raise errors.bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax')
        if int(value) < least:
            text = f"must be greater than {'or equal to ' if not least else ''}0"
            problems.append(errors.FieldError("FieldValueInvalid", key, f"Invalid value: {value}: {text}", int(value)))
    if query.get("sinceSeconds") and query.get("sinceTime"):
        text = "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"
        problems.append(errors.FieldError("FieldValueForbidden", "", text))
    if problems:
        raise errors.invalid("", "PodLogOptions", "", problems)


async def exec_(server: Any, call: Call) -> Answer:
    """GET or POST pods/NAME/exec."""
    return await _stream(call, "exec", {"command": call.query.all("command")})


async def attach(server: Any, call: Call) -> Answer:
    """GET or POST pods/NAME/attach."""
    return await _stream(call, "attach", {})


async def _stream(call: Call, what: str, more: dict[str, list[str]]) -> Answer:
    call.operation = "CONNECT"
    await call.services.admission.validate(call, None, None)
    pod, kubelet = _pod_kubelet(call)
    container = _container(call, pod)
    flags = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    query = [(name, "1") for key, name in flags.items() if call.query.flag(key)]
    if not any(name in ("input", "output", "error") for name, _ in query):
        raise errors.bad_request("you must specify at least one of stdin, stdout, stderr")
    query += [(key, value) for key, values in more.items() for value in values]
    target = f"/{what}/{call.info.namespace}/{call.info.name}/{container}?{urlencode(query)}"
    return await tunnel(kubelet, call.request, target)


async def port_forward(server: Any, call: Call) -> Answer:
    """GET or POST pods/NAME/portforward."""
    pod, kubelet = _pod_kubelet(call)
    ports = [("port", port) for port in call.query.all("ports") for port in port.split(",")]
    target = f"/portForward/{call.info.namespace}/{pod['metadata']['name']}"
    return await tunnel(kubelet, call.request, f"{target}?{urlencode(ports)}" if ports else target)


def _split(name: str) -> tuple[str, str, str]:
    """`[scheme:]name[:port]` of the proxy subresources."""
    parts = name.split(":")
    if len(parts) == 3 and parts[0] in ("", "http", "https"):
        return parts[0] or "http", parts[1], parts[2]
    if len(parts) == 2:
        return "http", parts[0], parts[1]
    return "http", name, ""


async def pod_proxy(server: Any, call: Call) -> Answer:
    """Any method on pods/[scheme:]NAME[:port]/proxy/…"""
    scheme, name, port = _split(call.info.name)
    pod = call.storage.get(call.kind, call.info.namespace, name).obj()
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise errors.internal("address not allowed")
    number = _pod_port(pod, port)
    return await _proxy(call, _dialer(call).address(scheme, address, number))


def _pod_port(pod: Object, port: str) -> int:
    ports = [p for c in pod["spec"].get("containers", ()) for p in c.get("ports") or ()]
    if not port:
        return int(ports[0]["containerPort"]) if ports else 80
    if port.isdecimal():
        return int(port)
    found = next((p["containerPort"] for p in ports if p.get("name") == port), None)
    if found is None:
        raise errors.bad_request(f"pod {pod['metadata']['name']} has no port {port}")
    return int(found)


async def service_proxy(server: Any, call: Call) -> Answer:
    """Any method on services/[scheme:]NAME[:port]/proxy/…"""
    scheme, name, port = _split(call.info.name)
    service = call.storage.get(call.kind, call.info.namespace, name).obj()
    ports = service["spec"].get("ports") or []
    chosen = next((p for p in ports if not port or port in (p.get("name"), str(p["port"]))), None)
    if chosen is None or (not port and len(ports) > 1):
        raise unavailable(f'no service port "{port}" found for service "{name}"' if port else "no endpoints available")
    host, number = _endpoint(call, name, chosen)
    return await _proxy(call, _dialer(call).address(scheme, host, number))


def unavailable(text: str) -> ApiError:
    """503 as the service proxy says it."""
    return errors.unavailable(text)


def _endpoint(call: Call, service: str, port: Object) -> tuple[str, int]:
    kind = call.services.registry.find("discovery.k8s.io", "endpointslices")
    assert kind is not None
    found = []
    for _, item in call.storage.cache(kind).items(call.storage.prefix(kind, call.info.namespace)):
        slice_ = item.obj()
        if (slice_["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != service:
            continue
        numbers = [
            p["port"] for p in slice_.get("ports") or () if p.get("name", "") == port.get("name", "") and p.get("port")
        ]
        for endpoint in slice_.get("endpoints") or ():
            if numbers and (endpoint.get("conditions") or {}).get("ready", True):
                found += [(address, int(numbers[0])) for address in endpoint["addresses"]]
    if not found:
        raise unavailable(f'no endpoints available for service "{service}"')
    chosen: tuple[str, int] = call.services.random.choice(found)
    return chosen


async def node_proxy(server: Any, call: Call) -> Answer:
    """Any method on nodes/NAME[:port]/proxy/…: the kubelet's own API."""
    _, name, _ = _split(call.info.name)
    node = call.storage.get(call.kind, "", name).obj()
    return await _proxy(call, _dialer(call).kubelet(node))


async def _proxy(call: Call, transport: Transport) -> Answer:
    request = call.request
    path = call.request.path
    marker = "/proxy"
    rest = path[path.index(marker, path.index(call.info.resource)) + len(marker) :]
    if not rest:  # relative links need the slash
        where = f"{path}/" + (f"?{request.query}" if request.query else "")
        if request.method in ("GET", "HEAD"):
            return Response(301, [("location", where)], b"")
        rest = "/"
    target = rest + (f"?{request.query}" if request.query else "")
    if request.header("upgrade"):
        return await tunnel(transport, request, target)
    headers = [(k, v) for k, v in request.headers if k not in _HOP]
    headers.append(("x-forwarded-uri", path))
    return await relay(transport, request.method, target, headers, request.body)


async def relay(transport: Transport, method: str, target: str, headers: Headers, body: bytes) -> Answer:
    """One request handed on, its answer streamed back."""
    try:
        response = await transport.request(method, target, headers, body)
    except (OSError, TimeoutError) as error:
        raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}") from error
    kept = [(k, v) for k, v in response.headers if k not in _HOP]
    if response.header("transfer-encoding") is None and response.header("content-length") is not None:
        return Response(response.status, kept, await response.read())

    async def run(writer: Writer) -> None:
        await _copy(response, writer)

    return Stream(response.status, kept, run)


async def _copy(response: ClientResponse, writer: Writer) -> None:
    """Until one side is gone; a client that goes away ends the other side too."""
    gone = asyncio.Event()
    writer.on_close(gone.set)
    async with Tasks() as tasks:
        copying = tasks.spawn(_pump(response, writer), "relay")
        leaving = tasks.spawn(gone.wait(), "client")
        await asyncio.wait([copying, leaving], return_when=asyncio.FIRST_COMPLETED)
    await response.close()


async def _pump(response: ClientResponse, writer: Writer) -> None:
    try:
        async for chunk in response.chunks():
            writer.write(chunk)
            await writer.drain()
    except ConnectionError:
        return


async def tunnel(transport: Transport, request: Request, target: str) -> Answer:
    """An upgrade handed on: after the 101 bytes pass both ways untouched."""
    headers = [(k, v) for k, v in request.headers if k not in _HOP]
    for name in ("connection", "upgrade"):
        headers += [(name, value) for value in request.header_all(name)]
    try:
        response, duplex = await transport.upgrade(request.method, target, headers)
    except (OSError, TimeoutError) as error:
        raise ApiError(500, "InternalError", f"error dialing backend: {error}") from error
    if duplex is None:
        kept = [(k, v) for k, v in response.headers if k not in _HOP]
        return Response(response.status, kept, await response.read())
    kept = [(k, v) for k, v in response.headers if k not in ("content-length", "transfer-encoding")]
    return Upgrade(kept, lambda client: splice(client, duplex))


async def splice(one: Duplex, other: Duplex) -> None:
    """Copy both ways until both have ended, or one breaks."""
    async with Tasks() as tasks:
        pumps = [tasks.spawn(_flow(one, other), "up"), tasks.spawn(_flow(other, one), "down")]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(pumps, timeout=5.0)
    other.close()
    one.close()


async def _flow(source: Duplex, sink: Duplex) -> None:
    try:
        while data := await source.read():
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except ConnectionError:
        sink.close()
