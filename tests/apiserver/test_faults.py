"""The API server over the durable store when the disk is full."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, Object
from steersman.lib import failpoint
from steersman.lib.clock import SystemClock
from steersman.store.sqlite import SqliteStore
from steersman.testing.cluster import ApiCluster


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """4 MiB, and no more."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "small", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.node
async def test_a_disk_that_runs_full_and_has_room_again(small_disk: Path) -> None:
    path = small_disk / "store.db"
    kept: dict[str, Object] = {}
    async with ApiCluster(clock=SystemClock(), store=await SqliteStore.open(path)) as cluster:
        client = cluster.client

        async def fill() -> None:
            """Write until that is refused."""
            while True:
                meta = {"name": f"a{len(kept)}", "namespace": "default"}
                made = await client.create(CONFIGMAPS, {"metadata": meta, "data": {"a": "x" * 20_000}})
                kept[made["metadata"]["name"]] = made

        for filler, size in (("first", 1 << 20), ("second", 1 << 19)):
            (small_disk / filler).write_bytes(bytes(size))
            before = len(kept)
            with pytest.raises(ApiError, match=r"cannot write to .*full") as refused:
                await fill()
            assert (refused.value.code, len(kept) > before) == (500, True)
            with pytest.raises(ApiError, match="full"):
                await client.patch(CONFIGMAPS, "a0", "default", {"data": {"b": "y" * 100_000}})
            assert await client.get(CONFIGMAPS, "a0", "default") == kept["a0"]
            assert {each["metadata"]["name"] for each in (await client.list(CONFIGMAPS)).items} == set(kept)
            page = await client.list(CONFIGMAPS, limit=3)
            assert len(page.items) == 3
            (small_disk / filler).unlink()
            name = f"room-{filler}"
            kept[name] = await client.create(CONFIGMAPS, {"metadata": {"name": name, "namespace": "default"}})
    async with ApiCluster(clock=SystemClock(), store=await SqliteStore.open(path)) as again:
        found = {each["metadata"]["name"]: each for each in (await again.client.list(CONFIGMAPS)).items}
        assert {name: each["metadata"]["uid"] for name, each in found.items()} == {
            name: each["metadata"]["uid"] for name, each in kept.items()
        }
