from __future__ import annotations

import asyncio
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, PODS, REPLICASETS, SECRETS
from steersman.client.client import Client
from steersman.client.controller import DONE, Context, Controller, For, Key, Owns, Result, Watch, run
from steersman.client.events import EventRecorder
from steersman.client.expectations import Expectations
from steersman.client.informer import Informers
from steersman.client.transport import Credentials, InProcess, connect
from steersman.lib.http.client import HttpClient
from steersman.lib.http.messages import Request, Response, Stream, Writer
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster


@pytest.fixture
def context(cluster: ApiCluster, tasks: Tasks) -> Context:
    informers = Informers(cluster.client, clock=cluster.clock, tasks=tasks, detect_mutation=True)
    recorder = EventRecorder(cluster.client, cluster.clock, tasks, component="test")
    return Context(cluster.client, informers, cluster.clock, recorder, Random(1))


async def test_keys_are_worked_on_until_they_succeed(cluster: ApiCluster, context: Context, tasks: Tasks) -> None:
    seen: list[Key] = []

    async def reconcile(_: Context, key: Key) -> Result:
        seen.append(key)
        if len(seen) < 3:
            raise ApiError(500, "InternalError", "not yet")
        if len(seen) == 3:
            raise LookupError("a bug")
        return Result(requeue_after=1000) if len(seen) == 4 else DONE

    tasks.spawn(run(Controller("test", reconcile, (For(CONFIGMAPS),)), context), "controller")
    await cluster.client.create(CONFIGMAPS, {"metadata": {"name": "a"}}, "default")
    await cluster.clock.sleep(10)
    assert seen == [Key("default", "a")] * 4
    await cluster.clock.sleep(1000)
    assert len(seen) == 5
    await cluster.clock.sleep(100_000)
    assert len(seen) == 5, "nothing happens when nothing happens"


async def test_watches_map_objects_to_keys(cluster: ApiCluster, context: Context, tasks: Tasks) -> None:
    seen: set[str] = set()

    async def reconcile(_: Context, key: Key) -> Result:
        seen.add(str(key))
        return DONE

    watches = (
        Watch(SECRETS, lambda _, obj: [Key("", f"mapped-{obj['metadata']['name']}")]),
        Owns(CONFIGMAPS, REPLICASETS),
    )
    tasks.spawn(run(Controller("test", reconcile, watches), context), "controller")
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": True}
    await cluster.client.create(CONFIGMAPS, {"metadata": {"name": "owned", "ownerReferences": [owner]}}, "default")
    other = {**owner, "apiVersion": "v1", "kind": "Pod", "name": "other"}
    await cluster.client.create(CONFIGMAPS, {"metadata": {"name": "other", "ownerReferences": [other]}}, "default")
    await cluster.client.create(SECRETS, {"metadata": {"name": "s"}}, "default")
    await cluster.clock.sleep(1)
    assert seen == {"default/rs", "mapped-s"}


async def test_expectations_hold_until_the_informer_shows_our_own_writes(cluster: ApiCluster, context: Context) -> None:
    informer = context.informer(CONFIGMAPS)
    await informer.synced()
    expectations = Expectations(cluster.clock)
    assert expectations.fulfilled("owner", informer)
    made = await cluster.client.create(CONFIGMAPS, {"metadata": {"name": "a"}}, "default")
    expectations.created("owner", made)
    if informer.get("default", "a") is None:
        assert not expectations.fulfilled("owner", informer)
    await cluster.clock.sleep(1)
    assert expectations.fulfilled("owner", informer)
    expectations.deleted("owner", made)
    assert not expectations.fulfilled("owner", informer)
    await cluster.client.delete(CONFIGMAPS, "a", "default")
    await cluster.clock.sleep(1)
    assert expectations.fulfilled("owner", informer)
    expectations.created("owner", {"metadata": {"resourceVersion": "99999999"}})
    assert not expectations.fulfilled("owner", informer)
    await cluster.clock.sleep(301)
    assert expectations.fulfilled("owner", informer), "patience ends"


async def test_the_in_process_transport_streams_and_tells_when_the_reader_leaves() -> None:
    gone = asyncio.Event()

    async def pour(writer: Writer) -> None:
        writer.on_close(gone.set)
        writer.write(b"one")
        await asyncio.get_running_loop().create_future()

    def handle(request: Request) -> Response | Stream:
        if request.path == "/stream":
            return Stream(200, [("content-type", "text/plain")], pour)
        return Response(200, [], [request.method.encode(), b" ", request.query.encode(), b" ", request.body])

    transport = InProcess(handle)
    answer = await transport.request("POST", "/x?y=1", (), b"body")
    assert await answer.read() == b"POST y=1 body"
    streaming = await transport.request("GET", "/stream")
    chunks = streaming.chunks()
    assert await anext(chunks) == b"one"
    await streaming.close()
    assert gone.is_set()
    with pytest.raises(ConnectionError):
        await transport.upgrade("GET", "/")
    await transport.close()


async def test_answers_that_are_no_status_become_errors_too() -> None:
    answers = {"/api/v1/pods": Response(502, [], b"<html>bad gateway</html>"), "/cut": Response(200, [], b"")}

    async def half(writer: Writer) -> None:
        writer.write(b'{"type": "ADDED", "obj')

    def handle(request: Request) -> Response | Stream:
        return Stream(200, (), half) if "watch" in request.query else answers[request.path]

    client = Client(InProcess(handle), clock=None, user_agent="t")  # type: ignore[arg-type]
    with pytest.raises(ApiError, match="bad gateway") as caught:
        await client.list(PODS)
    assert caught.value.code == 502
    with pytest.raises(ConnectionResetError):
        async for _ in client.watch(PODS, resource_version="1"):
            pass


@pytest.mark.parametrize("url", ["", "ftp://x", "https://", "not a url", "unix:///x"])
def test_a_bad_server_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not a server's URL"):
        connect(Credentials(url))


def a_certificate() -> tuple[str, str]:
    """A certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=9999))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.decode(), secret.decode()


def test_credentials_may_be_data_and_leave_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    certificate, key = a_certificate()
    made = connect(
        Credentials("https://api:6443", authority_data=certificate, certificate_data=certificate, key_data=key)
    )
    assert isinstance(made, HttpClient)
    assert made.address.tls is not None
    assert made.address.tls.cert_store_stats()["x509"] == 1
    with pytest.raises(ssl.SSLError):
        connect(Credentials("https://api:6443", certificate_data=certificate, key_data="nonsense"))
    with pytest.raises(ssl.SSLError):
        connect(Credentials("https://api:6443", authority_data="nonsense"))
    assert list(tmp_path.iterdir()) == []


async def test_a_watch_event_of_kind_error_is_raised(cluster: ApiCluster) -> None:
    with pytest.raises(ApiError):
        await anext(aiter(cluster.client.watch(PODS, resource_version="not-a-version")))
