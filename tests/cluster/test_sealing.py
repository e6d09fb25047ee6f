"""Encryption while the server runs: plugins are asked how they are, keys change, and the file is read anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.cluster import encryption
from steersman.cluster.sealing import Sealing
from steersman.lib.tasks import Tasks
from steersman.store.memory import MemoryStore
from tests.cluster.test_encryption import FLAG, HEAD, KEYS, rule
from tests.store.kmsserver import HandClock, KmsServer

KEY = "/core/secrets/default/a"


class World:
    """One store under one file, with a plugin."""

    def __init__(self, folder: Path, tasks: Tasks) -> None:
        self.file = folder / "encryption.yaml"
        self.plugin = KmsServer(folder / "kms.sock").start()
        self.clock, self.tasks, self.inner = HandClock(), tasks, MemoryStore()
        self.loops = 0

    def write(self, *providers: str) -> None:
        self.file.write_text(f"{HEAD}resources:\n{rule('secrets', ', '.join(providers))}")

    def kms(self, timeout: str = "1s") -> str:
        return f"{{kms: {{apiVersion: v2, name: vault, endpoint: '{self.plugin.endpoint}', timeout: {timeout}}}}}"

    async def begin(self, *, reloads: bool = True) -> Sealing:
        flags = {FLAG: str(self.file), f"{FLAG}-automatic-reload": str(reloads).lower()}
        made = await Sealing.begin(flags, self.clock, self.tasks)
        assert made is not None
        self.loops += 1 + reloads  # that care for plugins, and for the file
        return made

    async def prefix(self) -> bytes:
        entry = await self.inner.get(KEY)
        assert entry is not None
        return entry.value.partition(b"v2:" if b"kms" in entry.value else b"v1:")[0]

    async def passes(self, seconds: float = 61.0) -> None:
        """Time goes by, and what was due is done."""
        await self.clock.asleep(self.loops)
        await self.clock.passes(seconds)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with Tasks() as tasks:
        made = World(tmp_path, tasks)
        yield made
        made.plugin.stop()


async def test_a_changed_file_is_taken_into_use(world: World) -> None:
    world.write(f"{{aescbc: {{{KEYS}}}}}", "{identity: {}}")
    sealing = await world.begin()
    store = sealing.seal(world.inner)
    revision = await store.create(KEY, b"{}")
    assert (await world.prefix(), await sealing.check(), sealing.checked) == (b"k8s:enc:aescbc:", "", True)
    world.write(world.kms(), f"{{aescbc: {{{KEYS}}}}}")
    await world.passes()
    entry = await store.get(KEY)
    assert entry is not None and entry.value == b"{}"
    await store.update(KEY, b"{}", revision)
    assert await world.prefix() == b"k8s:enc:kms:"


async def test_without_the_flag_it_is_not(world: World) -> None:
    world.write(f"{{aescbc: {{{KEYS}}}}}")
    sealing = await world.begin(reloads=False)
    store = sealing.seal(world.inner)
    world.write(f"{{aesgcm: {{{KEYS}}}}}")
    await world.passes(600)
    await store.create(KEY, b"{}")
    assert (await world.prefix(), sealing.checked) == (b"k8s:enc:aescbc:", False)


@pytest.mark.parametrize("broken", ["", "kind: Pod", "[", None])
async def test_a_broken_file_changes_nothing_until_it_is_mended(world: World, broken: str | None) -> None:
    world.write(f"{{aescbc: {{{KEYS}}}}}")
    sealing = await world.begin()
    store = sealing.seal(world.inner)
    if broken is None:
        world.file.unlink()
    else:
        world.file.write_text(broken)
    await world.passes()
    revision = await store.create(KEY, b"{}")
    assert await world.prefix() == b"k8s:enc:aescbc:"
    world.write(f"{{aesgcm: {{{KEYS}}}}}", f"{{aescbc: {{{KEYS}}}}}")
    await world.passes()
    await store.update(KEY, b"{}", revision)
    assert await world.prefix() == b"k8s:enc:aesgcm:"
    told = sealing.metrics.registry.text()
    for status in ("failure", "success"):
        assert f',status="{status}"}} 1' in told
    assert f'hash="{encryption.digest(world.file)}"}} 1' in told


async def test_a_file_whose_plugin_is_ill_is_not_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steersman.cluster.sealing._PATIENCE", 0.05)
    world.write(f"{{aescbc: {{{KEYS}}}}}")
    sealing = await world.begin()
    store = sealing.seal(world.inner)
    world.plugin.stop()
    world.write(world.kms("20ms"), f"{{aescbc: {{{KEYS}}}}}")
    await world.passes()
    await store.create(KEY, b"{}")
    assert (await world.prefix(), await sealing.check()) == (b"k8s:enc:aescbc:", "")


async def test_what_no_key_opened_is_opened_by_a_new_file(world: World) -> None:
    world.write(f"{{aescbc: {{{KEYS}}}}}")
    await (await world.begin()).seal(world.inner).create(KEY, b"{}")
    world.write(f"{{aesgcm: {{{KEYS}}}}}")
    store = (await world.begin()).seal(world.inner)
    told: list[bytes] = []
    store.on_reopen.append(lambda entry: told.append(entry.value))
    await store.list("/")
    world.write(f"{{aesgcm: {{{KEYS}}}}}", f"{{aescbc: {{{KEYS}}}}}")
    await world.passes()
    assert told == [b"{}"]


async def test_a_key_that_the_plugin_changes_is_used_within_a_minute(world: World) -> None:
    world.write(world.kms())
    sealing = await world.begin()
    store = sealing.seal(world.inner)
    revision = await store.create(KEY, b"{}")
    world.plugin.key_id = "key-2"
    await world.passes()
    assert await store.stale(KEY, revision)


async def test_health_names_the_plugin_that_is_ill(world: World) -> None:
    world.write(world.kms("50ms"))
    sealing = await world.begin()
    assert await sealing.check() == ""
    world.plugin.healthz = "out of coffee"
    await world.passes()
    assert await sealing.check() == (
        "kms-provider-0: kmsv2 Provider vault is not healthy, error: got unexpected healthz status: out of coffee"
    )
    world.plugin.healthz = "ok"
    await world.passes(11)
    assert await sealing.check() == ""
