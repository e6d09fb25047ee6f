"""The process ends at each named failpoint of a write, on SQLite and on etcd: what was acknowledged is kept."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

import steersman
from steersman.api.resource import CONFIGMAPS
from steersman.lib.clock import SystemClock
from steersman.store.etcd.store import EtcdStore
from steersman.store.interface import Store
from steersman.store.sqlite import SqliteStore
from steersman.testing.cluster import ApiCluster
from steersman.testing.etcd import Etcd

CLOCK = SystemClock()

# Creates, changes and removes, some at a time; says what was acknowledged; half way it is armed.
_WRITER = """
import asyncio, sys
from pathlib import Path
from steersman.api.resource import CONFIGMAPS
from steersman.lib.clock import SystemClock
from steersman.lib.failpoint import arm_from_environment
from steersman.store.etcd.link import Servers
from steersman.store.etcd.store import EtcdStore
from steersman.store.sqlite import SqliteStore
from steersman.testing.cluster import ApiCluster

async def main(where, life, point):
    clock = SystemClock()
    http = where.startswith("http")
    store = await (EtcdStore.open(Servers([where]), clock) if http else SqliteStore.open(Path(where)))
    async with ApiCluster(clock=clock, store=store) as cluster:
        client = cluster.client
        async def write(number):
            name = f"a{life}-{number}"
            made = await client.create(CONFIGMAPS, {"metadata": {"name": name, "namespace": "default"}})
            print(name, "made", flush=True)
            await client.update(CONFIGMAPS, {**made, "data": {"step": "2"}})
            print(name, "changed", flush=True)
            if number % 2:
                await client.delete(CONFIGMAPS, name, "default")
                print(name, "removed", flush=True)
        for number in range(6):
            if number == 3:
                arm_from_environment(point + "=exit")
            await asyncio.gather(*(write(number * 4 + each) for each in range(4)))

asyncio.run(main(*sys.argv[1:]))
"""
POINTS = {
    "sqlite": ("write.before_store", "store.before_commit", "store.after_commit", "write.after_store"),
    "etcd": ("write.before_store", "etcd.before_swap", "etcd.after_swap", "write.after_store"),
}


def test_every_failpoint_of_a_write_is_tried() -> None:
    sources = [path.read_text() for path in Path(steersman.__file__).parent.rglob("*.py")]
    named = {name for text in sources for name in re.findall(r'failpoint\("((?:write|store|etcd)\.\w+)"\)', text)}
    assert named == {point for points in POINTS.values() for point in points}


async def _crash(where: str, point: str) -> dict[str, str]:
    """Three lives, each ended at the failpoint; the last that was acknowledged, by name."""
    last: dict[str, str] = {}
    for life in range(3):
        command = [sys.executable, "-c", _WRITER, where, str(life), point]
        ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        assert ran.returncode == 86, ran.stderr
        last |= dict(line.split() for line in ran.stdout.splitlines())
        assert len(last) >= 12 * (life + 1)
    return last


async def _check(store: Store, last: dict[str, str]) -> None:
    """What is there is what was acknowledged, or what the write after it would have made of it."""
    async with ApiCluster(clock=CLOCK, store=store) as cluster:
        found = {each["metadata"]["name"]: each for each in (await cluster.client.list(CONFIGMAPS, "default")).items}
        for name, state in last.items():
            there = found.get(name)
            if state == "removed":
                assert there is None, name
            elif state == "changed":
                gone = there is None and int(name.partition("-")[2]) % 2
                assert gone or (there is not None and there["data"] == {"step": "2"}), name
            else:
                assert there is not None, name
        await cluster.client.create(CONFIGMAPS, {"metadata": {"name": "after", "namespace": "default"}})


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS["sqlite"])
async def test_on_sqlite(tmp_path: Path, point: str) -> None:
    path = tmp_path / "store.db"
    last = await _crash(str(path), point)
    await _check(await SqliteStore.open(path), last)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS["etcd"])
async def test_on_etcd(tmp_path: Path, point: str) -> None:
    async with Etcd(tmp_path) as etcd:
        last = await _crash(etcd.servers.urls[0], point)
        await _check(await EtcdStore.open(etcd.servers, CLOCK), last)
