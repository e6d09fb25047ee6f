"""Durable compare-and-swaps per second of the SQLite store, against the disk's own fdatasync rate.

python -m bench.store [seconds]
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from steersman.store.sqlite import SqliteStore

VALUE = b"x" * 3_000


def fdatasync_rate(folder: Path, seconds: float) -> float:
    """Appends of one value made durable one at a time, per second: the floor for one writer."""
    count, end = 0, time.monotonic() + seconds
    with (folder / "floor").open("wb", buffering=0) as file:
        while time.monotonic() < end:
            file.write(VALUE)
            os.fdatasync(file.fileno())
            count += 1
    return count / seconds


async def store_rate(folder: Path, writers: int, seconds: float) -> float:
    """Updates per second of `writers` closed-loop writers, each on its own key."""
    store = await SqliteStore.open(folder / f"store-{writers}.db")
    end, done = time.monotonic() + seconds, 0

    async def write(key: str) -> None:
        nonlocal done
        revision = await store.create(key, VALUE)
        while time.monotonic() < end:
            revision = await store.update(key, VALUE, revision)
            done += 1

    await asyncio.gather(*(write(f"/{number}") for number in range(writers)))
    await store.close()
    return done / seconds


def main() -> None:
    """Print a table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    with tempfile.TemporaryDirectory() as name:
        floor = fdatasync_rate(Path(name), seconds)
        print(f"fdatasync of 3 KB, one at a time  {floor:8.0f}/s")
        for writers in (1, 10, 100):
            rate = asyncio.run(store_rate(Path(name), writers, seconds))
            print(f"store, {writers:3} writers                {rate:8.0f}/s   {rate / floor:5.2f} x fdatasync")


if __name__ == "__main__":
    main()
