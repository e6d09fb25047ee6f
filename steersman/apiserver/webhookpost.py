"""Calls to the webhooks that objects of the API name: by URL or by Service, with their caBundle.

Owns the address of a clientConfig, one POST to it, and the connections that are kept for the next one: by where it goes
and whom it believes, so that a changed Service or caBundle is never met by an old connection. Called by admission
webhooks and by conversion. It follows no redirect. Source: apiserver's pkg/util/webhook (ClientManager).
"""

from __future__ import annotations

import asyncio
import base64
import json
import posixpath
import ssl
from collections import Counter, OrderedDict
from urllib.parse import urlsplit

from steersman.api.resource import Object
from steersman.apiserver import serviceref, webhookwords
from steersman.apiserver.call import Services
from steersman.apiserver.dialing import dial
from steersman.apiserver.webhookclient import load_pair
from steersman.apiserver.webhookusers import NOBODY, Caller, Users
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.messages import TooLong, read_at_most

CLIENTS = "webhook_clients"
"""Where the `Clients` of an API server are in `Services.extras`."""

_MOST = 64 << 20  # bytes of an answer
_CLIENTS = 200  # remembered, as in the original
_LONGEST = 30.0  # seconds that a webhook may be waited for
_IDLE, _IDLE_SECONDS = 25, 90.0  # connections that one client keeps, and for how long: client-go's transport
_HEADERS = [
    ("content-type", "application/json"),
    ("accept", "application/json, */*"),
    ("user-agent", "kube-apiserver-admission"),
]


class CallFailed(Exception):
    """The webhook cannot be reached or did not answer in time."""


class Clients:
    """One client for each place and caBundle; those that were not needed for longest are forgotten."""

    def __init__(self) -> None:
        self._made: OrderedDict[tuple[str, int, str, str, str], HttpClient] = OrderedDict()
        self.asked = Counter[tuple[str, str]]()  # by the answer's code and host, for the metrics

    def to(self, host: str, port: int, bundle: str, server_name: str = "", caller: Caller = NOBODY) -> HttpClient:
        """The client of a place; `bundle` is base64. Raises CallFailed."""
        key = host, port, bundle, server_name, caller.name
        found = self._made.get(key)
        if found is not None:
            self._made.move_to_end(key)
            return found
        try:
            tls = client_tls(authority_data=base64.b64decode(bundle).decode() if bundle else "")
            if caller.certificate:
                load_pair(tls, caller.certificate)
        except (ValueError, ssl.SSLError) as error:
            raise CallFailed(f"the caBundle cannot be used: {error}") from error
        made = HttpClient(
            Address(host, port, tls, server_name=server_name), headers=caller.headers,
            connect_timeout=_LONGEST, answer_timeout=None, pool=_IDLE, idle_seconds=_IDLE_SECONDS, dial=dial,
        )  # fmt: skip
        self._made[key] = made
        while len(self._made) > _CLIENTS:
            self._made.popitem(last=False)[1].close_idle()
        return made

    async def close(self) -> None:
        """Close every connection."""
        while self._made:
            await self._made.popitem()[1].close()


async def post(services: Services, config: Object, timeout: float, body: Object, users: Users | None = None) -> bytes:
    """The answer's body, asked as one of `users`. Raises CallFailed, also when it is no success."""
    client, path, shown = _client(services, config, timeout, users)
    code = "<error>"
    target = f"{path}{'&' if '?' in path else '?'}timeout={timeout}s"
    try:
        async with asyncio.timeout(timeout):
            answer = await client.request("POST", target, _HEADERS, json.dumps(body).encode(), repeatable=True)
            code = str(answer.status)
            data = await read_at_most(answer, _MOST)
    except TooLong as error:
        raise CallFailed(str(error)) from None
    except TimeoutError:
        raise CallFailed(f'Post "{shown}?timeout={timeout}s": context deadline exceeded') from None
    except OSError as error:
        raise CallFailed(f'Post "{shown}?timeout={timeout}s": {webhookwords.broken(error)}') from error
    finally:
        services.extras[CLIENTS].asked[code, urlsplit(shown).netloc] += 1
    if not webhookwords.success(answer.status):
        raise CallFailed(webhookwords.refused(answer, data))
    return data


def _client(services: Services, config: Object, timeout: float, users: Users | None) -> tuple[HttpClient, str, str]:
    """By which client to send it, the path, and the URL as errors show it. Raises CallFailed."""
    clients: Clients = services.extras[CLIENTS]
    bundle = config.get("caBundle") or ""
    if url := config.get("url"):
        parts = urlsplit(url)
        path = _cleaned(parts.path)
        host, port = parts.hostname or "", parts.port or 443
        client = clients.to(host, port, bundle, caller=users.of(host, port) if users is not None else NOBODY)
        return client, path, f"{parts.scheme}://{parts.netloc}{path}"
    service = config["service"]
    port, path = service.get("port") or 443, _cleaned(service.get("path") or "")
    name = f"{service['name']}.{service['namespace']}.svc"
    try:
        host, number = serviceref.resolve(services, service["namespace"], service["name"], port)
    except serviceref.Unroutable as error:
        raise CallFailed(f'Post "https://{name}:{port}{path}?timeout={timeout}s": {error}') from error
    caller = users.of(name, port) if users is not None else NOBODY
    return clients.to(host, number, bundle, name, caller), path, f"https://{name}:{port}{path}"


def _cleaned(path: str) -> str:
    """The path as client-go sends it, without empty and dotted steps: envtest names webhooks `//path`."""
    return posixpath.normpath("/" + path.lstrip("/"))
