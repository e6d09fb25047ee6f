"""pods/proxy, services/proxy and nodes/proxy: any request, to whatever listens there.

Owns which address a name means and what a proxied page's links become. Addresses that are no cluster address are
refused: an object's status must not lead the API server to itself. Source: ResourceLocation in
pkg/registry/core/{pod/strategy,service/storage/storage,node/strategy}.go; apimachinery's util/proxy.
"""

from __future__ import annotations

import gzip
import zlib
from ipaddress import ip_address
from typing import Any

from steersman.api import errors
from steersman.apiserver import serviceref
from steersman.apiserver.call import Call
from steersman.apiserver.subresources.links import rewrite_html, rewrite_url
from steersman.apiserver.subresources.own import connecting
from steersman.apiserver.subresources.streams import dialer
from steersman.apiserver.subresources.tunnel import passed_on, relay, tunnel
from steersman.lib.http.messages import Answer, Response, Transport

_PAGE_MOST = 8 * 1024 * 1024  # bytes of HTML, uncompressed, whose links are still rewritten
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


async def pod_proxy(server: Any, call: Call) -> Answer:
    """Any method on pods/[scheme:]NAME[:port]/proxy/…"""
    await connecting(call)
    scheme, name, port = _split(call, "pod")
    pod = call.storage.get(call.kind, call.info.namespace, name).obj()
    address = (pod.get("status") or {}).get("podIP") or ""
    _check_address(address)
    ports = [p for c in pod["spec"].get("containers", ()) for p in c.get("ports") or ()]
    if not port:
        port = str(ports[0]["containerPort"]) if ports else ("443" if scheme == "https" else "80")
    return await _proxy(call, dialer(call).address(scheme, address, _number(port, "pod", call)), owned=True)


async def service_proxy(server: Any, call: Call) -> Answer:
    """Any method on services/[scheme:]NAME[:port]/proxy/…"""
    await connecting(call)
    scheme, name, port = _split(call, "service")
    service = call.storage.get(call.kind, call.info.namespace, name).obj()
    if port.isdecimal():
        found = next((p for p in service["spec"].get("ports") or () if str(p["port"]) == port), None)
        if found is None:
            raise errors.unavailable(f'no service port {port} found for service "{name}"')
        port = found.get("name", "")
    host, number = _endpoint(call, name, port)
    _check_address(host)
    return await _proxy(call, dialer(call).address(scheme, host, number), owned=True)


async def node_proxy(server: Any, call: Call) -> Answer:
    """Any method on nodes/[scheme:]NAME[:port]/proxy/…: the kubelet's own API, or another port of the node."""
    await connecting(call)
    scheme, name, port = _split(call, "node")
    node = call.storage.get(call.kind, "", name).obj()
    status = node.get("status") or {}
    kubelet = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or 10250
    if not port or port == str(kubelet):
        return await _proxy(call, dialer(call).kubelet(node))
    known = {each["type"]: each["address"] for each in status.get("addresses") or ()}
    address = known.get("InternalIP") or known.get("ExternalIP") or ""
    _check_address(address)
    return await _proxy(call, dialer(call).address(scheme, address, _number(port, "node", call)), owned=True)


def _split(call: Call, what: str) -> tuple[str, str, str]:
    """`[scheme:]name[:port]` of the proxied object. Raises ApiError."""
    parts = call.info.name.split(":")
    if len(parts) == 1:
        scheme, name, port = "", parts[0], ""
    elif len(parts) == 2:
        scheme, (name, port) = "", parts
    elif len(parts) == 3:
        scheme, name, port = parts
    else:
        scheme = "bad"
        name = port = ""
    if scheme not in ("", "http", "https") or not name or call.request.method not in _METHODS:
        raise errors.bad_request(f'invalid {what} request "{call.info.name}"')
    return scheme or "http", name, port


def _number(port: str, what: str, call: Call) -> int:
    if port.isdecimal() and 0 < int(port) < 65536:
        return int(port)
    raise errors.bad_request(f'invalid {what} request "{call.info.name}"')


def _check_address(address: str) -> None:
    """Only what Go calls a global unicast address: neither this machine nor its link. Raises ApiError."""
    try:
        ip = ip_address(address)
    except ValueError:
        raise errors.bad_request("address not allowed") from None
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255":
        raise errors.bad_request("address not allowed")


def _endpoint(call: Call, service: str, port: str) -> tuple[str, int]:
    """One of the addresses behind a service's port, by chance."""
    found = [
        (address, number)
        for slice_ in serviceref.slices_of(call.services, call.info.namespace, service)
        for number in serviceref.port_numbers(slice_, port)
        for address in serviceref.ready_addresses(slice_)
    ]
    if not found:
        raise errors.unavailable(f'no endpoints available for service "{call.info.name}"')
    chosen: tuple[str, int] = call.services.random.choice(found)
    return chosen


async def _proxy(call: Call, transport: Transport, *, owned: bool = False) -> Answer:
    request = call.request
    start = _prefix_length(request.path)
    prefix, rest = request.path[:start], request.path[start:]
    if request.header("upgrade"):
        return await tunnel(transport, request, _target(rest or "/", request.query), owned=owned)
    if not rest and request.method in ("GET", "HEAD"):  # relative links need the slash
        return Response(301, [("location", _target(f"{prefix}/", request.query))], b"")
    headers = passed_on(request.headers)
    headers.append(("x-forwarded-uri", request.path))
    if request.peer.address:
        headers.append(("x-forwarded-for", request.peer.address))
    hosts = frozenset({"", request.header("host") or ""})

    def rewrite(status: int, answer: list[tuple[str, str]]) -> Any:
        return _rewrite(answer, prefix, hosts)

    target = _target(rest or "/", request.query)
    return await relay(transport, request.method, target, headers, request.body, rewrite=rewrite, owned=owned)


def _target(path: str, query: str) -> str:
    return f"{path}?{query}" if query else path


def _prefix_length(path: str) -> int:
    """Where the proxied path begins: after the `proxy` that follows the object's name."""
    parts = path.split("/")
    at = 3 if parts[1] == "api" else 4
    at += 2 if parts[at] == "namespaces" else 0
    return len("/".join(parts[: at + 3]))


def _rewrite(answer: list[tuple[str, str]], prefix: str, hosts: frozenset[str]) -> Any:
    """Lead redirects and the links of HTML pages through the proxy; CORS headers of the other side say nothing here."""
    answer[:] = [(k, v) for k, v in answer if not k.startswith("access-control-allow-")]
    fields = dict(answer)
    if "location" in fields:
        answer[:] = [(k, rewrite_url(v, prefix, hosts) if k == "location" else v) for k, v in answer]
        return None
    coding = fields.get("content-encoding", "")
    if fields.get("content-type", "").partition(";")[0].strip() != "text/html" or coding not in ("", "gzip"):
        return None

    def change(body: bytes) -> bytes:
        page = _unzipped(body) if coding else body
        if page is None or len(page) > _PAGE_MOST:
            return body
        moved = rewrite_html(page, prefix, hosts)
        return gzip.compress(moved, 1, mtime=0) if coding else moved

    return change


def _unzipped(body: bytes) -> bytes | None:
    """None when it is no gzip, or a bomb."""
    reader = zlib.decompressobj(31)
    try:
        page = reader.decompress(body, _PAGE_MOST + 1)
    except zlib.error:
        return None
    return None if reader.unconsumed_tail else page
