"""Unpacking a layer: our reader against GNU tar on the same bytes, and the digest alone as the floor.

Prints milliseconds and ratios. The layer: 6,000 small files and a few large ones, about 100 MB. The argument is the
directory to work in (default: the temporary one).
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from steersman.engine.images.unpack import discard, unpack

_RUNS = 5


def _layer(path: Path) -> str:
    numbers = random.Random(1)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(6000):
            if number % 40 == 0:
                directory = tarfile.TarInfo(f"usr/share/d{number // 40}")
                directory.type, directory.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(directory)
            size = 1 << numbers.randrange(8, 15)
            size = 700_000 if number % 60 == 0 else size
            info = tarfile.TarInfo(f"usr/share/d{number // 40}/file-{number}")
            info.size, info.mode = size, 0o644
            tar.addfile(info, io.BytesIO(numbers.randbytes(size)))
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _best(works: Sequence[Callable[[Path], object]], directory: Path) -> list[float]:
    """The best time of each in milliseconds; they take turns, since the disk has good and bad minutes."""
    best = [float("inf")] * len(works)
    for _ in range(_RUNS):
        for number, work in enumerate(works):
            target = directory / "out"
            os.sync()
            began = time.perf_counter()
            work(target)
            best[number] = min(best[number], time.perf_counter() - began)
            discard(target)
    return [seconds * 1000 for seconds in best]


def main() -> None:
    """Measure and print."""
    directory = Path(tempfile.mkdtemp(prefix="bench-images", dir=sys.argv[1] if len(sys.argv) > 1 else None))
    try:
        layer = directory / "layer.tar"
        diff_id = _layer(layer)
        size = layer.stat().st_size / 1e6

        def by_tar(target: Path) -> None:
            target.mkdir()
            subprocess.run(["tar", "-xf", str(layer), "-C", str(target)], check=True)

        def digest(target: Path) -> None:
            with layer.open("rb") as file:
                hashlib.file_digest(file, "sha256")

        floor, peer, ours = _best((digest, by_tar, lambda target: unpack(layer, target, diff_id)), directory)
        print(
            f"layer of {size:.0f} MB: digest alone {floor:.0f} ms, tar {peer:.0f} ms, unpack with digest {ours:.0f} ms"
        )
        print(f"ratio to tar {ours / peer:.2f}, to tar and digest {ours / (peer + floor):.2f}")
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
