"""What a test pays for a control plane of its own: in this process, and as a process.

The floor, measured in the same run: a Python process that does nothing. Run: `python -m bench.testing`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from steersman.cluster.plane import ControlPlane
from steersman.testing.client import LoopThread, SyncClient

ROUNDS = 20


def floor() -> float:
    """Milliseconds of a Python process that does nothing."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", ""], check=True)
    return (time.perf_counter() - began) * 1000


def inside(thread: LoopThread, folder: Path) -> tuple[float, float]:
    """Milliseconds until a control plane in this process answers, and until it has ended."""
    began = time.perf_counter()
    plane = ControlPlane(folder)
    thread.call(plane.__aenter__())
    SyncClient(thread, plane.client).get("Namespace", "default")
    ready = time.perf_counter()
    thread.call(plane.__aexit__(None, None, None))
    return (ready - began) * 1000, (time.perf_counter() - ready) * 1000


def outside(folder: Path) -> float:
    """Milliseconds from exec of `steer up --nodes 0` to its end: the API is ready."""
    environment = {**os.environ, "STEER_HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig")}

    def steer(*words: str) -> None:
        command = [sys.executable, "-m", "steersman.cli", *words, "-p", "bench"]
        subprocess.run(command, check=True, capture_output=True, env=environment)

    began = time.perf_counter()
    steer("up", "--nodes", "0")
    took = (time.perf_counter() - began) * 1000
    steer("delete")
    return took


def main() -> None:
    """Measure and print."""
    least = statistics.median(floor() for _ in range(ROUNDS))
    print(f"floor: a Python process       {least:7.1f} ms")
    thread = LoopThread()
    with tempfile.TemporaryDirectory() as folder:
        first, _ = inside(thread, Path(folder))
        both = [inside(thread, Path(folder)) for _ in range(ROUNDS)]
        ready, ended = (statistics.median(side) for side in zip(*both, strict=True))
        print(f"in this process, the first    {first:7.1f} ms   ratio {first / least:.1f}")
        print(f"in this process, each after   {ready:7.1f} ms   ratio {ready / least:.1f}   end {ended:.1f} ms")
    thread.close()
    with tempfile.TemporaryDirectory() as folder:
        took = statistics.median(outside(Path(folder)) for _ in range(5))
        print(f"as a process, exec to ready   {took:7.1f} ms   ratio {took / least:.1f}")


if __name__ == "__main__":
    main()
