"""Webhooks that a kubeconfig file names: token reviews, access reviews, image reviews, audit events.

Owns the reading of such files and one POST with retries. Called by authn, authz, admission and audit. It follows no
redirect: an answer that is not a success is a failure. Source: apiserver's pkg/util/webhook.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from steersman.api import durations
from steersman.api.resource import Object
from steersman.apiserver import webhookwords
from steersman.apiserver.dialing import dial
from steersman.lib.clock import Clock
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.messages import ClientResponse, TooLong, read_at_most

_MOST = 10 << 20  # bytes of an answer
_AGAIN = (429, 500, 504)
_TRIES, _FIRST_WAIT, _FACTOR = 5, 0.5, 1.5  # seconds, as in the original's default back-off


class WebhookFailed(Exception):
    """The webhook did not answer, or not sensibly."""


class _Passing(Exception):
    """It did not work, and may the next time."""


class Webhook:
    """One remote service. Made from a kubeconfig's current context."""

    def __init__(
        self, address: Address, path: str, headers: Mapping[str, str], clock: Clock, timeout: float = 30.0
    ) -> None:
        self._client = HttpClient(
            address, connect_timeout=timeout, answer_timeout=timeout, pool=25, idle_seconds=90.0, dial=dial
        )
        seconds = durations.show(round(timeout * 1e9))
        self._path = f"{path}{'&' if '?' in path else '?'}timeout={seconds}"
        self._shown = f'Post "{"https" if address.tls else "http"}://{address.host_header}{self._path}"'
        self._headers = [*headers.items(), ("content-type", "application/json"), ("accept", "application/json, */*")]
        self._clock = clock
        self._timeout = timeout

    async def post(self, body: Object, tries: int = _TRIES, first_wait: float = _FIRST_WAIT) -> Object:
        """The answer's object. A connection that is reset, 429, 500 and 504 are tried again, first after `first_wait`
        seconds. Raises WebhookFailed."""
        wait = first_wait
        for left in reversed(range(tries)):
            try:
                return _object(await self._once(msgspec.json.encode(body)), body)
            except _Passing as error:
                if not left:
                    raise WebhookFailed(str(error)) from None
            await self._clock.sleep(wait)
            wait *= _FACTOR
        raise WebhookFailed("the webhook was not asked")

    async def _once(self, body: bytes) -> bytes:
        """The body of a success. Raises WebhookFailed, and _Passing where another try may help."""
        try:
            answer, data = await self._exchange(body)
        except TimeoutError:
            raise WebhookFailed(f"{self._shown}: context deadline exceeded") from None
        except OSError as error:
            reset = isinstance(error, ConnectionResetError) and error.errno
            raise (_Passing if reset else WebhookFailed)(f"{self._shown}: {webhookwords.broken(error)}") from error
        if webhookwords.success(answer.status):
            return data
        again = answer.status in _AGAIN or (answer.status > 500 and answer.header("retry-after"))
        raise (_Passing if again else WebhookFailed)(webhookwords.refused(answer, data))

    async def _exchange(self, body: bytes) -> tuple[ClientResponse, bytes]:
        async with asyncio.timeout(self._timeout):
            answer = await self._client.request("POST", self._path, self._headers, body, repeatable=True)
            try:
                return answer, await read_at_most(answer, _MOST)
            except TooLong:
                raise WebhookFailed(f"the webhook's answer is over {_MOST} bytes") from None

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()


def _object(data: bytes, asked: Object) -> Object:
    if not data.strip():
        return {}
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise WebhookFailed(f"the webhook's answer is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise WebhookFailed("the webhook's answer is no object")
    if found.get("kind") and found["kind"] != asked["kind"]:
        raise WebhookFailed(f"converting ({_shown(found)}) to ({_shown(asked)}): unknown conversion")
    return found


def _shown(obj: Object) -> str:
    return f"{str(obj.get('apiVersion')).rpartition('/')[2]}.{obj['kind']}"


def kubeconfig(path: Path) -> Object:
    """A kubeconfig's content. Raises OSError, and ValueError when it is none."""
    import yaml  # here: it costs a start milliseconds

    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no kubeconfig: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: no kubeconfig")
    return config


def from_kubeconfig(path: Path, clock: Clock, timeout: float = 30.0) -> Webhook:
    """The service of a kubeconfig's current context. Raises OSError, and ValueError naming what is wrong."""
    config = kubeconfig(path)
    context = _named(path, config, "contexts", "context", config.get("current-context", ""))
    cluster = _named(path, config, "clusters", "cluster", context.get("cluster", ""))
    user = _named(path, config, "users", "user", context["user"]) if context.get("user") else {}
    server = cluster.get("server")
    parts = urlsplit(server if isinstance(server, str) else "")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{path}: server {server!r}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{path}: server {server!r} is not an http or https URL")
    try:
        tls = _tls(path.parent, cluster, user) if parts.scheme == "https" else None
    except (ssl.SSLError, binascii.Error, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: a certificate or key cannot be used: {error}") from None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    address = Address(parts.hostname, port or (443 if tls else 80), tls, server_name=cluster.get("tls-server-name", ""))
    return Webhook(address, target, credentials(path.parent, user), clock, timeout)


def _named(path: Path, config: Object, plural: str, key: str, name: str) -> Any:
    for entry in config.get(plural) or ():
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(key), dict):
            return entry[key]
    raise ValueError(f'{path}: {key} "{name}" does not exist')


def credentials(folder: Path, user: Mapping[str, Any]) -> dict[str, str]:
    """The Authorization header of a kubeconfig's user, if it has one. Raises OSError."""
    if token := user.get("token"):
        return {"authorization": f"Bearer {token}"}
    if file := user.get("tokenFile"):
        return {"authorization": f"Bearer {(folder / file).read_text().strip()}"}
    if user.get("username"):
        pair = f"{user['username']}:{user.get('password', '')}"
        return {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _tls(folder: Path, cluster: Object, user: Object) -> ssl.SSLContext:
    skip = bool(cluster.get("insecure-skip-tls-verify"))
    context = client_tls(authority_data=data_of(folder, cluster, "certificate-authority").decode(), verify=not skip)
    certificate, key = data_of(folder, user, "client-certificate"), data_of(folder, user, "client-key")
    if certificate:
        load_pair(context, certificate + b"\n" + key)
    return context


def load_pair(context: ssl.SSLContext, pair: bytes) -> None:
    """Show this certificate, in PEM with its key. Raises ssl.SSLError."""
    import tempfile  # here: it costs a start milliseconds

    with tempfile.TemporaryDirectory(prefix="steer-webhook-") as made:  # Python loads keys only from files
        chain = Path(made, "pair.pem")
        chain.touch(mode=0o600)
        chain.write_bytes(pair)
        context.load_cert_chain(chain)


def data_of(folder: Path, where: Mapping[str, Any], key: str) -> bytes:
    """What a kubeconfig holds itself or in a file; nothing where it says nothing. Raises OSError, binascii.Error."""
    if encoded := where.get(f"{key}-data"):
        return base64.b64decode(encoded, validate=True)
    return (folder / where[key]).read_bytes() if where.get(key) else b""
