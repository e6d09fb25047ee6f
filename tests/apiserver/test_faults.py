"""The API server over the durable store when the disk is full, or the process ends in the middle of a write."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS
from steersman.lib import failpoint
from steersman.lib.clock import SystemClock
from steersman.store.sqlite import SqliteStore
from steersman.testing.cluster import ApiCluster

_WRITER = """
import asyncio, sys
from pathlib import Path
from steersman.api.resource import CONFIGMAPS
from steersman.lib.clock import SystemClock
from steersman.lib.failpoint import arm_from_environment
from steersman.store.sqlite import SqliteStore
from steersman.testing.cluster import ApiCluster

async def main(path, point):
    async with ApiCluster(clock=SystemClock(), store=await SqliteStore.open(Path(path))) as cluster:
        async def write(number):
            made = {"metadata": {"name": f"a{number}", "namespace": "default"}}
            made = await cluster.client.create(CONFIGMAPS, made)
            print(made["metadata"]["name"], made["metadata"]["resourceVersion"], flush=True)
        for number in range(6):
            if number == 3:
                arm_from_environment(point + "=exit")
            await asyncio.gather(*(write(number * 4 + each) for each in range(4)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("point", ["store.before_commit", "store.after_commit"])
async def test_what_was_acknowledged_is_kept(tmp_path: Path, point: str) -> None:
    path = tmp_path / "store.db"
    ran = subprocess.run([sys.executable, "-c", _WRITER, str(path), point], capture_output=True, text=True, check=False)
    assert ran.returncode == 86, ran.stderr
    acknowledged = dict(line.split() for line in ran.stdout.splitlines())
    assert len(acknowledged) == 12
    store = await SqliteStore.open(path)
    kept = {entry.key.rpartition("/")[2]: entry for entry in (await store.list("/core/configmaps/default/")).entries}
    assert {name: str(kept[name].revision) for name in acknowledged} == acknowledged
    await store.close()


async def test_a_full_disk_stops_writes_only(tmp_path: Path) -> None:
    async with ApiCluster(clock=SystemClock(), store=await SqliteStore.open(tmp_path / "store.db")) as cluster:
        client = cluster.client
        made = await client.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "default"}})

        def full() -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        disarm = failpoint.arm("store.before_commit", full)
        try:
            with pytest.raises(ApiError, match="No space left on device") as refused:
                await client.create(CONFIGMAPS, {"metadata": {"name": "b", "namespace": "default"}})
            assert refused.value.code == 500
            for write in (
                client.update(CONFIGMAPS, {**made, "data": {"a": "b"}}),
                client.delete(CONFIGMAPS, "a", "default"),
            ):
                with pytest.raises(ApiError, match="No space left on device"):
                    await write
            assert await client.get(CONFIGMAPS, "a", "default") == made
            assert [each["metadata"]["name"] for each in (await client.list(CONFIGMAPS)).items] == ["a"]
        finally:
            disarm()
        await client.create(CONFIGMAPS, {"metadata": {"name": "b", "namespace": "default"}})
        assert (await client.update(CONFIGMAPS, {**made, "data": {"a": "b"}}))["data"] == {"a": "b"}
