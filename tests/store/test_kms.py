"""KMS v2: a real plugin over gRPC seals the seed; what it may do wrong, and what stays readable meanwhile."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from steersman.lib.grpc import wire
from steersman.store.interface import Event, StoreUnavailable
from steersman.store.kms import Envelope, Kms, decode
from steersman.store.kmsmetrics import KmsMetrics, hashed
from steersman.store.kmsplugin import Plugin
from steersman.store.memory import MemoryStore
from steersman.store.sealed import CannotOpen, CannotSeal, Locked, Prefixed, SealedStore, Unopened
from steersman.testing.suites import store as suite
from tests.store.kmsserver import HandClock, KmsServer

CONTEXT = b"/core/secrets/default/a"
PREFIX = b"k8s:enc:kms:v2:vault:"


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[KmsServer]:
    server = KmsServer(tmp_path / "kms.sock").start()
    yield server
    server.stop()


@pytest.fixture
async def kms(plugin: KmsServer) -> AsyncIterator[Kms]:
    made = new(plugin)
    assert await made.check() == ""
    yield made
    made.close()


def new(plugin: KmsServer, clock: HandClock | None = None, timeout: float = 3.0) -> Kms:
    clock = clock or HandClock()
    return Kms(Plugin("vault", plugin.endpoint, timeout, clock), clock, os.urandom)


def over(inner: MemoryStore, kms: Kms) -> SealedStore:
    choice = Prefixed([(PREFIX, kms)], "no matching prefix found")
    return SealedStore(inner, lambda key: choice)


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
async def test_contract(kms: Kms, check: Callable[[SealedStore], Awaitable[None]]) -> None:
    await check(over(MemoryStore(), kms))


async def test_the_layout_is_the_originals(kms: Kms, plugin: KmsServer) -> None:
    envelope, inner = decode(kms.seal(b"a small secret", CONTEXT))
    assert (envelope.key_id, envelope.annotations, envelope.kind) == ("key-1", plugin.annotations, 1)
    assert len(inner) == 32 + 12 + len(b"a small secret") + 16  # info, nonce, value, tag
    assert decode(kms.seal(b"a small secret", CONTEXT))[0] == envelope  # one seed for many values


async def test_one_call_seals_and_opens_everything(kms: Kms, plugin: KmsServer) -> None:
    sealed = [kms.seal(b"%d" % number, CONTEXT) for number in range(50)]
    assert [kms.open(value, CONTEXT) for value in sealed] == [(b"%d" % number, False) for number in range(50)]
    assert (plugin.count("Encrypt"), plugin.count("Decrypt")) == (1, 0)
    with pytest.raises(CannotOpen, match="cipher: message authentication failed"):
        kms.open(sealed[0], b"/core/secrets/default/b")


async def test_another_server_asks_the_plugin_once(kms: Kms, plugin: KmsServer) -> None:
    inner = MemoryStore()
    await over(inner, kms).create("/a", b"one")
    await over(inner, kms).create("/b", b"two")
    other = new(plugin)
    assert await other.check() == ""
    store = over(inner, other)
    assert [entry.value for entry in (await store.list("/")).entries] == [b"one", b"two"]
    assert (await store.get("/a")) is not None
    assert plugin.count("Decrypt") == 1
    other.close()


async def test_a_new_key_makes_values_stale(plugin: KmsServer) -> None:
    clock = HandClock()
    kms = new(plugin, clock)
    await kms.check()
    inner = MemoryStore()
    store = over(inner, kms)
    revision = await store.create("/a", b"x")
    assert not await store.stale("/a", revision)
    plugin.key_id = "key-2"
    clock.time += 21
    assert await kms.check() == ""
    assert await store.stale("/a", revision)
    assert (entry := await store.get("/a")) is not None and entry.value == b"x"
    revision = await store.update("/a", b"x", revision)
    assert not await store.stale("/a", revision)
    assert (stored := await inner.get("/a")) is not None
    assert decode(stored.value[len(PREFIX) :])[0].key_id == "key-2"
    kms.close()


async def test_what_a_key_itself_sealed_is_opened(kms: Kms, plugin: KmsServer) -> None:
    """The older form, of before 1.29: the plugin sealed the key and not a seed."""
    key, nonce = os.urandom(32), os.urandom(12)
    fields = dict(wire.fields(plugin._encrypt(wire.data(1, key), None)))
    source = fields[1]
    assert isinstance(source, bytes)
    old = Envelope(source, "key-1", plugin.annotations, 0).encode(nonce + AESGCM(key).encrypt(nonce, b"old", CONTEXT))
    with pytest.raises(Locked) as locked:
        kms.open(old, CONTEXT)
    await locked.value.unlock()
    assert kms.open(old, CONTEXT) == (b"old", True)


async def test_a_plugin_that_dies_is_coasted_over_and_comes_back(plugin: KmsServer) -> None:
    clock = HandClock()
    kms = new(plugin, clock, timeout=0.2)
    await kms.check()
    store = over(MemoryStore(), kms)
    revision = await store.create("/a", b"1")
    plugin.stop()
    clock.time += 60
    assert "failed to perform status section of the healthz check for KMS Provider vault" in await kms.check()
    revision = await store.update("/a", b"2", revision)
    clock.time += 121
    with pytest.raises(StoreUnavailable, match=r"encryptedDEKSource with keyID hash .*expired at"):
        await store.update("/a", b"3", revision)
    assert (entry := await store.get("/a")) is not None and entry.value == b"2"
    plugin.start()
    assert await kms.check() == ""
    await store.update("/a", b"3", revision)
    kms.close()


async def test_a_plugin_that_is_not_there_yet(tmp_path: Path) -> None:
    plugin, clock = KmsServer(tmp_path / "kms.sock"), HandClock()
    kms = new(plugin, clock, timeout=0.2)
    assert "code = DeadlineExceeded" in await kms.check()
    with pytest.raises(CannotSeal, match="got unexpected nil transformer"):
        kms.seal(b"x", CONTEXT)
    plugin.start()
    clock.time += 3
    assert await kms.check() == ""
    kms.close()
    plugin.stop()


async def test_a_slow_plugin_is_not_waited_for(plugin: KmsServer) -> None:
    clock = HandClock()
    inner, first, kms = MemoryStore(), new(plugin), new(plugin, clock, timeout=0.2)
    await first.check()
    await kms.check()
    await over(inner, first).create("/a", b"x")
    plugin.open.clear()
    store = over(inner, kms)
    entry = await store.get("/a")
    assert entry is not None and isinstance(entry.value, Unopened)
    assert entry.value.why == (
        "failed to decrypt DEK, error: rpc error: code = DeadlineExceeded desc = context deadline exceeded"
    )
    plugin.open.set()
    clock.time += 2
    told: list[bytes] = []
    store.on_reopen.append(lambda entry: told.append(entry.value))
    await store.reopen()
    assert told == [b"x"]
    first.close()
    kms.close()


async def test_events_wait_for_their_key_and_keep_their_order(kms: Kms, plugin: KmsServer) -> None:
    inner, other = MemoryStore(), new(plugin)
    await other.check()
    mine, theirs = over(inner, kms), over(inner, other)
    seen: list[Event] = []
    await mine.watch("/", 1, seen.extend)
    first = await theirs.create("/theirs", b"1")
    assert (seen, mine.revision) == ([], first - 1)  # sealed by a seed that was never opened here
    second = await mine.create("/mine", b"2")
    assert [(event.revision, event.value) for event in seen] == [(first, b"1"), (second, b"2")]
    assert mine.revision == second
    await mine.fresh()
    resumed: list[Event] = []
    await over(inner, other).watch("/", 1, resumed.extend)
    assert resumed == seen
    other.close()


LIES = [
    ({"version": "v3"}, "expected KMSv2 API version v2, got v3"),
    ({"healthz": "out of coffee"}, "got unexpected healthz status: out of coffee"),
    ({"key_id": ""}, 'got invalid KMSv2 KeyID hash "": keyID is empty'),
    ({"key_id": "k" * 1025}, "keyID is 1025 bytes, which exceeds the max size of 1024"),
    ({"annotations": {"novault": b"x"}}, "should be a domain with at least two segments separated by dots"),
    (
        {"annotations": {"a.b": bytes(40_000)}},
        "total size of annotations is 40003, which exceeds the max size of 32768",
    ),
    ({"answers": {"Encrypt": b""}}, "encrypted DEK source is empty"),
    (
        {"answers": {"Encrypt": wire.data(1, bytes(1025)) + wire.data(2, b"key-1")}},
        "encrypted DEK source is 1025 bytes",
    ),
    ({"answers": {"Encrypt": wire.data(1, b"x") + wire.data(2, b"other")}}, "failed to rotate DEK"),
    ({"answers": {"Encrypt": b"\xff\xff"}}, "code = Internal desc = grpc: failed to unmarshal"),
    ({"answers": {"Status": wire.data(1, b"\xff")}}, "code = Internal desc = grpc: failed to unmarshal"),
    ({"answers": {"Status": wire.number(1, 7)}}, "code = Internal desc = grpc: failed to unmarshal"),
    ({"answers": {"Status": bytes(5 << 20)}}, "code = ResourceExhausted desc = grpc: received message larger than max"),
    ({"failing": {"Status": grpc.StatusCode.UNAVAILABLE}}, "code = Unavailable desc = the vault is shut"),
    ({"failing": {"Encrypt": grpc.StatusCode.INTERNAL}}, "failed to encrypt DEK, error: rpc error: code = Internal"),
]


@pytest.mark.parametrize(("lies", "said"), LIES, ids=[said[:40] for _, said in LIES])
async def test_a_lying_plugin_is_found_out(plugin: KmsServer, lies: dict[str, object], said: str) -> None:
    vars(plugin).update(lies)
    kms = new(plugin)
    assert said in await kms.check()
    if lies.keys() & {"version", "healthz"}:  # it is unwell, but it gave a seed
        assert kms.open(kms.seal(b"x", CONTEXT), CONTEXT) == (b"x", False)
    else:
        with pytest.raises(CannotSeal):
            kms.seal(b"x", CONTEXT)
    kms.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (wire.data(1, bytes(31)), "invalid seed length 31 used for key generation"),
        (b"", "invalid seed length 0"),
        (wire.data(1, bytes(32)), "cipher: message authentication failed"),
        (b"\x0a\xff", "failed to unmarshal"),
    ],
)
async def test_a_plugin_that_gives_the_wrong_seed(kms: Kms, plugin: KmsServer, answer: bytes, said: str) -> None:
    inner, other = MemoryStore(), new(plugin)
    await over(inner, kms).create("/a", b"x")
    await other.check()
    plugin.answers["Decrypt"] = answer
    entry = await over(inner, other).get("/a")
    assert entry is not None and isinstance(entry.value, Unopened)
    assert said in entry.value.why
    other.close()


@pytest.mark.parametrize(
    ("sealed", "said"),
    [
        (b"", "encrypted data is empty"),
        (b"\xff", "cannot parse invalid wire-format data"),
        (wire.number(1, 1), "cannot parse"),
        (wire.data(1, b"x"), "encrypted DEK source is empty"),
        (wire.data(1, b"x") + wire.data(3, b"s"), "keyID is empty"),
        (Envelope(b"s", "k", {}, 7).encode(b"x"), "unknown encryptedDEKSourceType: 7"),
        (Envelope(b"s", "k", {"a..b": b""}).encode(b"x"), "should be a domain"),
    ],
)
def test_broken_values_are_refused(sealed: bytes, said: str) -> None:
    with pytest.raises(CannotOpen, match=said):
        decode(sealed)


async def test_what_is_told_of_a_plugin(plugin: KmsServer) -> None:
    clock, metrics = HandClock(), KmsMetrics("apiserver-here")
    kms = Kms(Plugin("vault", plugin.endpoint, 3.0, clock, metrics), clock, os.urandom)
    await kms.check()
    for _ in range(3):
        kms.open(kms.seal(b"x", CONTEXT), CONTEXT)
    plugin.key_id = ""
    plugin.failing["Encrypt"] = grpc.StatusCode.UNAVAILABLE
    clock.time += 21
    await kms.check()
    plugin.key_id = "key-2"
    clock.time += 4
    await kms.check()
    lines = metrics.registry.text().splitlines()
    start, vault = "apiserver_envelope_encryption_", 'provider_name="vault"'
    key, here = f'key_id_hash="{hashed("key-1")}"', f'apiserver_id_hash="{hashed("apiserver-here")}"'
    service = 'method_name="/v2.KeyManagementService/'
    for line in (
        f'{start}key_id_hash_total{{{here},{key},{vault},transformation_type="to_storage"}} 3',
        f'{start}key_id_hash_total{{{here},{key},{vault},transformation_type="from_storage"}} 3',
        f"{start}key_id_hash_status_last_timestamp_seconds{{{here},{key},{vault}}} 1.7672256e+09",
        f'{start}invalid_key_id_from_status_total{{error="empty",{vault}}} 1',
        f"{start}dek_source_cache_size{{{vault}}} 1",
        f'{start}kms_operations_latency_seconds_count{{grpc_status_code="OK",{service}Status",{vault}}} 3',
        f'{start}kms_operations_latency_seconds_count{{grpc_status_code="Unavailable",{service}Encrypt",{vault}}} 1',
    ):
        assert line in lines, line
    assert "key-1" not in metrics.registry.text()
    kms.close()
