"""Calls to the webhooks that objects of the API name: by URL or by Service, with their caBundle.

Owns the address of a clientConfig and one POST to it. Called by admission webhooks and by conversion. It follows no
redirect. Source: apiserver's pkg/util/webhook (ClientManager).
"""

from __future__ import annotations

import asyncio
import base64
import json
import posixpath
import ssl
from urllib.parse import urlsplit

from steersman.api.resource import Object
from steersman.apiserver import serviceref
from steersman.apiserver.call import Services
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.messages import TooLong, read_at_most

_MOST = 64 << 20  # bytes of an answer


class CallFailed(Exception):
    """The webhook cannot be reached or did not answer in time."""


async def post(services: Services, config: Object, timeout: float, body: Object) -> tuple[int, bytes]:
    """The answer's status and body. Raises CallFailed."""
    address, path, shown = _address(services, config)
    target = f"{path}{'&' if '?' in path else '?'}timeout={timeout}s"
    client = HttpClient(address, connect_timeout=timeout, answer_timeout=None)
    try:
        async with asyncio.timeout(timeout):
            headers = [("content-type", "application/json"), ("accept", "application/json")]
            answer = await client.request("POST", target, headers, json.dumps(body).encode())
            return answer.status, await read_at_most(answer, _MOST)
    except TooLong as error:
        raise CallFailed(str(error)) from None
    except TimeoutError:
        raise CallFailed(f'Post "{shown}?timeout={timeout}s": context deadline exceeded') from None
    except (OSError, ssl.SSLError) as error:
        raise CallFailed(f'Post "{shown}?timeout={timeout}s": {error}') from error
    finally:
        await client.close()


def _address(services: Services, config: Object) -> tuple[Address, str, str]:
    """Where to send it, the path, and the URL as errors show it. Raises CallFailed."""
    bundle = config.get("caBundle")
    try:
        tls = client_tls(authority_data=base64.b64decode(bundle).decode() if bundle else "")
    except (ValueError, ssl.SSLError) as error:
        raise CallFailed(f"the caBundle cannot be used: {error}") from error
    if url := config.get("url"):
        parts = urlsplit(url)
        path = _cleaned(parts.path)
        return Address(parts.hostname or "", parts.port or 443, tls), path, f"{parts.scheme}://{parts.netloc}{path}"
    service = config["service"]
    port, path = service.get("port") or 443, _cleaned(service.get("path") or "")
    name = f"{service['name']}.{service['namespace']}.svc"
    try:
        host, number = serviceref.resolve(services, service["namespace"], service["name"], port)
    except serviceref.Unroutable as error:
        raise CallFailed(str(error)) from error
    return Address(host, number, tls, server_name=name), path, f"https://{name}:{port}{path}"


def _cleaned(path: str) -> str:
    """The path as client-go sends it, without empty and dotted steps: envtest names webhooks `//path`."""
    return posixpath.normpath("/" + path.lstrip("/"))
