"""Values at rest: sealed as the original seals them, opened by whichever key fits, and never in clear beside it."""

from __future__ import annotations

import base64
import os
from collections.abc import Awaitable, Callable
from random import Random

import pytest

from steersman.store.ciphers import AesCbc, AesGcm, Secretbox
from steersman.store.memory import MemoryStore
from steersman.store.sealed import CannotOpen, Identity, Prefixed, SealedStore, Transformer, Unopened
from steersman.testing.suites import store as suite

KEY, OTHER = bytes(range(32)), bytes(32)
CONTEXT = b"/core/secrets/default/a"
CIPHERS = [AesCbc, AesGcm, Secretbox]


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("cipher", CIPHERS)
async def test_contract(cipher: type[AesCbc], check: Callable[[SealedStore], Awaitable[None]]) -> None:
    choice = Prefixed([(b"k8s:enc:x:", cipher(KEY, os.urandom))], "no matching prefix found")
    await check(SealedStore(MemoryStore(), lambda key: choice))


@pytest.mark.parametrize(
    ("cipher", "sealed"),
    [
        (AesCbc, "qbaqqwYnJ/NETVEC5OQgTC/Cx0d1Z1nsR0BoUX5XY8Q="),
        (AesGcm, "6i290Xen3rUKXZGZ5osCKMxg3vWT8+uLfwpEJFreL0F1IaQlgF0pkNhO"),
        (Secretbox, "EZGFSSM8RgnqXLvNCX5Us3cxfWsMiqBjMwYx8Tacfg1KiZXtHRf2TrOTcu2Ezt98N8z5Zz0E"),
    ],
)
def test_what_the_original_sealed_is_opened(cipher: type[AesCbc], sealed: str) -> None:
    assert cipher(KEY, os.urandom).open(base64.b64decode(sealed), CONTEXT) == (b"a small secret", False)


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 100_000])
def test_every_size_comes_back_and_none_shows(cipher: type[AesCbc], size: int) -> None:
    made = cipher(KEY, Random(size).randbytes)  # of real chance's 100,000 bytes, three are "sss" once in 170 runs
    value = b"s" * size
    sealed = made.seal(value, CONTEXT)
    assert made.open(sealed, CONTEXT) == (value, False)
    assert b"sss" not in sealed
    assert made.seal(value, CONTEXT) != sealed


@pytest.mark.parametrize("cipher", CIPHERS)
def test_broken_values_are_refused(cipher: type[AesCbc]) -> None:
    made = cipher(KEY, os.urandom)
    sealed = made.seal(b"value", CONTEXT)
    for broken in (b"", sealed[:5], sealed[:-1], sealed + b"x"):
        with pytest.raises(CannotOpen):
            made.open(broken, CONTEXT)


@pytest.mark.parametrize("cipher", [AesGcm, Secretbox])
def test_a_changed_byte_is_noticed(cipher: type[AesCbc]) -> None:
    made = cipher(KEY, os.urandom)
    sealed = made.seal(b"value", CONTEXT)
    with pytest.raises(CannotOpen):
        made.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), CONTEXT)
    with pytest.raises(CannotOpen):
        cipher(OTHER, os.urandom).open(sealed, CONTEXT)


def test_gcm_binds_a_value_to_its_key() -> None:
    made = AesGcm(KEY, os.urandom)
    with pytest.raises(CannotOpen, match="cipher: message authentication failed"):
        made.open(made.seal(b"value", CONTEXT), b"/core/secrets/default/b")


def keyed(*named: tuple[str, bytes]) -> Prefixed:
    keys: list[tuple[bytes, Transformer]] = [(f"{name}:".encode(), AesGcm(key, os.urandom)) for name, key in named]
    return Prefixed([(b"k8s:enc:aesgcm:v1:", Prefixed(keys, "no matching key")), (b"", Identity())], "no prefix")


async def test_rotation_reads_what_was_written_and_says_what_is_stale() -> None:
    inner = MemoryStore()
    plain = await inner.create("/a", b"in clear")
    old = SealedStore(inner, lambda key: keyed(("one", KEY)))
    one = await old.create("/b", b"by one")
    new = SealedStore(inner, lambda key: keyed(("two", OTHER), ("one", KEY)))
    assert [entry.value for entry in (await new.list("/")).entries] == [b"in clear", b"by one"]
    assert await new.stale("/a", plain) and await new.stale("/b", one)
    assert not await new.stale("/a", plain - 1) and not await new.stale("/none", 1)
    revision = await new.update("/a", b"in clear", plain)
    assert not await new.stale("/a", revision)
    stored = await inner.get("/a")
    assert stored is not None
    assert stored.value.startswith(b"k8s:enc:aesgcm:v1:two:")


async def test_what_no_key_opens_is_handed_on_as_such() -> None:
    inner = MemoryStore()
    await SealedStore(inner, lambda key: keyed(("one", KEY))).create("/a", b"x")
    for other, why in ((keyed(("two", KEY)), "no matching key"), (keyed(("one", OTHER)), "message authentication")):
        entry = await SealedStore(inner, lambda key, other=other: other).get("/a")
        assert entry is not None
        assert isinstance(entry.value, Unopened)
        assert why in entry.value.why
