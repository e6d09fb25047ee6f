"""What probes and lifecycle hooks do: run a command, ask over HTTP, open a TCP connection, ask a gRPC health service.

Owns the actions and their outcomes as text; when to act is up to `probes` and `hooks`. Never raises for a failing
target: that is an outcome. Source: Pod API (Probe, LifecycleHandler); grpc.health.v1.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from steersman.api.resource import Object
from steersman.engine.interface import Runtime, RuntimeFailure

_MAX_BODY = 10 * 1024
_REDIRECTS = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """`ok`: the target is well. `warning`: well, but worth telling. `unknown`: it could not be asked at all."""

    ok: bool
    output: str = ""
    warning: bool = False
    unknown: bool = False


def port_number(port: int | str, container: Object) -> int:
    """A port given by number or by the name of a container port. Raises ValueError."""
    if isinstance(port, int) or port.isdigit():
        number = int(port)
    else:
        number = next(
            (int(each["containerPort"]) for each in container.get("ports") or () if each.get("name") == port), 0
        )
    if not 0 < number < 65536:
        raise ValueError(f"invalid port number: {port}" if isinstance(port, int) else f"couldn't find port: {port}")
    return number


async def run_command(runtime: Runtime, container_id: str, command: Sequence[str], timeout: float) -> Outcome:
    """Well when the command ends with 0."""
    try:
        result = await runtime.exec_sync(container_id, command, timeout)
    except TimeoutError:
        text = f"command timed out: {' '.join(command)!r} timed out after {timeout:g}s"
        return Outcome(False, text)
    except RuntimeFailure as error:
        return Outcome(False, str(error), unknown=True)
    output = (result.stdout + result.stderr)[:_MAX_BODY].decode("utf-8", "replace")
    return Outcome(result.exit_code == 0, output)


async def connect(host: str, port: int, timeout: float) -> Outcome:
    """Well when a TCP connection opens."""
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return Outcome(False, f"dial tcp {_join(host, port)}: i/o timeout")
    except OSError as error:
        return Outcome(False, f"dial tcp {_join(host, port)}: {_dial_error(error)}")
    writer.transport.abort()
    return Outcome(True)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _dial_error(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    return f"connect: {(error.strerror or str(error)).lower()}"


async def http_get(action: Object, container: Object, pod_ip: str, timeout: float, agent: str) -> Outcome:
    """Well for a status from 200 to 399. Redirects on the same host are followed, others are a warning."""
    try:
        port = port_number(action["port"], container)
    except ValueError as error:
        return Outcome(False, str(error), unknown=True)
    scheme = (action.get("scheme") or "HTTP").lower()
    host = action.get("host") or pod_ip
    path = action.get("path") or "/"
    url = f"{scheme}://{_join(host, port)}{path if path.startswith('/') else '/' + path}"
    headers = [(each["name"], each.get("value") or "") for each in action.get("httpHeaders") or ()]
    try:
        async with asyncio.timeout(timeout):
            for _ in range(_REDIRECTS):
                status, location, body = await _fetch(url, headers, agent)
                if not (300 <= status < 400 and location):
                    break
                target = _redirected(url, location)
                if urlsplit(target).hostname != urlsplit(url).hostname:
                    return Outcome(True, f"Probe terminated redirects, Response body: {body}", warning=True)
                url = target
            else:
                return Outcome(False, f'Get "{url}": stopped after 10 redirects')
    except TimeoutError:
        text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Outcome(False, f'Get "{url}": {text}')
    except OSError as error:
        return Outcome(False, f'Get "{url}": dial tcp {_join(host, port)}: {_dial_error(error)}')
    except (ValueError, EOFError) as error:
        return Outcome(False, f'Get "{url}": {error}')
    if 200 <= status < 400:
        return Outcome(True, body)
    return Outcome(False, f"HTTP probe failed with statuscode: {status}")


def _redirected(url: str, location: str) -> str:
    if "://" in location:
        return location
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{location if location.startswith('/') else '/' + location}"


async def _fetch(url: str, headers: Sequence[tuple[str, str]], agent: str) -> tuple[int, str, str]:
    """One GET: (status, Location, start of the body). Raises OSError, ValueError, EOFError."""
    parts = urlsplit(url)
    secure = None
    if parts.scheme == "https":
        secure = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        secure.check_hostname = False
        secure.verify_mode = ssl.CERT_NONE  # a probe asks whether it answers, not who it is
    port = parts.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure)
    try:
        writer.write(_head(parts.netloc, parts.path + (f"?{parts.query}" if parts.query else ""), headers, agent))
        status_line = (await reader.readline()).decode("latin-1").split(None, 2)
        if len(status_line) < 2 or not status_line[0].startswith("HTTP/") or not status_line[1].isdigit():
            raise ValueError("malformed HTTP response" if status_line else "EOF")
        location, length = "", ""
        while line := (await reader.readline()).strip():
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "location":
                location = value.strip()
            elif name.lower() == "content-length":
                length = value.strip()
        status = int(status_line[1])
        empty = status >= 400 or status == 204 or length == "0"
        body = b"" if empty else await reader.read(_MAX_BODY)  # a start: some bodies never end
        return status, location, body.decode("utf-8", "replace")
    finally:
        writer.transport.abort()


def _head(host: str, path: str, headers: Sequence[tuple[str, str]], agent: str) -> bytes:
    given = {name.lower() for name, value in headers if value}
    named = {name.lower() for name, _ in headers}
    lines = [f"GET {path or '/'} HTTP/1.1"]
    lines += [f"Host: {host}"] if "host" not in given else []
    lines += [f"User-Agent: {agent}"] if "user-agent" not in named else []
    lines += ["Accept: */*"] if "accept" not in named else []
    lines += [f"{name}: {value}" for name, value in headers if value]
    lines += ["Connection: close", "", ""]
    text = "\r\n".join(lines)
    return text.encode("latin-1", "replace")
