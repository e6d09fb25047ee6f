"""The API over an encrypted store: nothing in clear below it, and 500 in the original's words where no key fits."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import SECRETS, Object
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.store.ciphers import AesGcm
from steersman.store.kms import Kms
from steersman.store.kmsplugin import Plugin
from steersman.store.memory import MemoryStore
from steersman.store.sealed import Identity, Prefixed, SealedStore, Transformer
from steersman.testing.cluster import ApiCluster
from tests.store.kmsserver import HandClock, KmsServer

ONE, TWO = bytes(16), bytes(range(16))
KEY = "/core/secrets/default/a"


def under(**keys: bytes) -> Callable[[str], Transformer | None]:
    named: list[tuple[bytes, Transformer]] = [(f"{n}:".encode(), AesGcm(key, os.urandom)) for n, key in keys.items()]
    found = Prefixed([(b"k8s:enc:aesgcm:v1:", Prefixed(named, "no matching key")), (b"", Identity())], "none")
    return lambda key: found if key.startswith("/core/secrets/") else None


def secret(name: str = "a") -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "stringData": {"word": "hunter2"}}


def cluster(inner: MemoryStore, of: Callable[[str], Transformer | None] | None) -> ApiCluster:
    return ApiCluster(clock=SystemClock(), store=inner if of is None else SealedStore(inner, of))


class Kept(MemoryStore):
    """A store that outlives its servers, but for the namespaces that every one of them makes."""

    async def close(self) -> None:
        for entry in (await self.list("/core/namespaces/")).entries:
            await self.delete(entry.key, entry.revision)


async def test_nothing_is_in_clear_and_stale_values_are_written_anew() -> None:
    inner = Kept()
    async with cluster(inner, None) as plain:
        await plain.client.create(SECRETS, secret(), "default")
        stored = await inner.get(KEY)
        assert stored is not None and b"word" in stored.value
    for name, keys in {"one": {"one": ONE}, "two": {"two": TWO, "one": ONE}}.items():
        async with cluster(inner, under(**keys)) as sealed:
            for _ in range(2):
                there = await sealed.client.get(SECRETS, "a", "default")
                again = await sealed.client.update(SECRETS, there)
                stored = await inner.get(KEY)
                assert stored is not None
                assert stored.value.startswith(f"k8s:enc:aesgcm:v1:{name}:".encode())
                assert b"word" not in stored.value
            assert again["metadata"]["resourceVersion"] == there["metadata"]["resourceVersion"]  # now it is not stale
            assert again["data"] == {"word": "aHVudGVyMg=="}


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (None, "identity transformer tried to read encrypted data"),
        (under(one=TWO), "cipher: message authentication failed"),
        (under(two=ONE), "no matching key"),
    ],
)
async def test_what_no_key_opens(of: Callable[[str], Transformer | None] | None, why: str) -> None:
    inner = Kept()
    async with cluster(inner, under(one=ONE)) as first:
        await first.client.create(SECRETS, secret(), "default")
    async with cluster(inner, of) as other:
        client = other.client
        await client.create(SECRETS, secret("b"), "default")
        assert (await client.get(SECRETS, "b", "default"))["metadata"]["name"] == "b"
        in_list = f'unable to transform key "/registry/secrets/default/a": {why}'
        for call, said in (
            (client.get(SECRETS, "a", "default"), why),
            (client.delete(SECRETS, "a", "default"), why),
            (client.update(SECRETS, secret()), why),
            (client.list(SECRETS), in_list),
            (client.list(SECRETS, "default"), in_list),
        ):
            with pytest.raises(ApiError) as error:
                await call
            assert (error.value.code, error.value.reason) == (500, "InternalError")
            assert error.value.message == f"Internal error occurred: {said}"
        with pytest.raises(ApiError) as taken:
            await client.create(SECRETS, secret(), "default")
        assert taken.value.code == 409
    stored = await inner.get(KEY)
    assert stored is not None and stored.value.startswith(b"k8s:enc:aesgcm:v1:one:")


async def test_a_watch_ends_where_nobody_can_read_and_goes_on_from_a_list() -> None:
    """Another server writes with a key that is not here; and then it has gone, or its value is written anew."""
    inner = Kept()
    async with cluster(inner, under(one=ONE)) as here:
        client = here.client
        seen: list[tuple[str, str]] = []

        async def follow(after: str) -> str:
            """The last revision told when the watch was ended."""
            async for event in client.watch(SECRETS, "default", resource_version=after, bookmarks=False):
                after = event.object["metadata"]["resourceVersion"]
                seen.append((event.type, event.object["metadata"]["name"]))
            return after

        at = (await client.create(SECRETS, secret("first"), "default"))["metadata"]["resourceVersion"]
        async with Tasks() as tasks:
            watching = tasks.spawn(follow(at), "watch")
            await client.create(SECRETS, secret("second"), "default")
            while not seen:
                await here.clock.sleep(0)
            theirs = SealedStore(inner, under(two=TWO, one=ONE))
            revision = await theirs.create(KEY, b"{}")  # nobody looks into what cannot be read
            last = await watching
            assert seen == [("ADDED", "second")]
            with pytest.raises(ApiError, match="no matching key"):
                await follow(last)
            with pytest.raises(ApiError, match='unable to transform key "/registry/secrets/default/a"'):
                await client.list(SECRETS)
            await theirs.delete(KEY, revision)
            with pytest.raises(ApiError) as gone:  # what happened meanwhile cannot be told, but a list can
                await follow(last)
            assert gone.value.code == 410
            page = await client.list(SECRETS)
            assert [each["metadata"]["name"] for each in page.items] == ["first", "second"]
            again = tasks.spawn(follow(page.resource_version), "watch")
            await client.create(SECRETS, secret("third"), "default")
            while len(seen) < 2:
                await here.clock.sleep(0)
            again.cancel()
            assert seen[1:] == [("ADDED", "third")]


async def test_what_a_plugin_could_not_open_is_there_when_it_can(tmp_path: Path) -> None:
    plugin = KmsServer(tmp_path / "kms.sock").start()
    clock, inner = HandClock(), Kept()

    def kms() -> Kms:
        return Kms(Plugin("vault", plugin.endpoint, 0.3, clock), clock, os.urandom)

    def by(made: Kms) -> Callable[[str], Transformer | None]:
        choice = Prefixed([(b"k8s:enc:kms:v2:vault:", made)], "none")
        return lambda key: choice if key.startswith("/core/secrets/") else None

    first, second = kms(), kms()
    await first.check()
    async with cluster(inner, by(first)) as before:
        made = await before.client.create(SECRETS, secret(), "default")
    await second.check()
    plugin.stop()
    store = SealedStore(inner, by(second))
    async with ApiCluster(clock=SystemClock(), store=store) as after:
        said = "failed to decrypt DEK, error: rpc error: code = "
        for call in (after.client.get(SECRETS, "a", "default"), after.client.list(SECRETS)):
            with pytest.raises(ApiError, match=said) as error:
                await call
            assert error.value.code == 500
        plugin.start()
        clock.time += 5
        await store.reopen()
        assert (await after.client.get(SECRETS, "a", "default")) == made
        assert [each["metadata"]["name"] for each in (await after.client.list(SECRETS)).items] == ["a"]
        await after.client.delete(SECRETS, "a", "default")
    for each in (first, second):
        each.close()
    plugin.stop()
