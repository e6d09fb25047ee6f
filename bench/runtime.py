"""Pods per second of the local runtime, against the floor of the same machine.

Prints, in milliseconds (median and least of N), a pod's way from nothing to running, its parts, and an exec; each as
a ratio to the least that the same work can cost here: starting the OCI runtime's binary with the same configuration,
without network, monitor or records. Needs root. `python -m bench.runtime [N]`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from steersman.engine.interface import ContainerConfig, Image, ImageConfig, Resources, Runtime, SandboxConfig
from steersman.engine.runtime import LocalRuntime, purge
from steersman.lib.clock import SystemClock

_CGROUP = "steerbench"


class _Busybox:
    """One image: a static busybox."""

    def __init__(self, directory: Path) -> None:
        binary = shutil.which("busybox", path="/bin:/usr/bin")
        if binary is None:
            sys.exit("busybox-static is not installed")
        self._layer = directory / "layer"
        for name in ("bin", "etc", "proc", "sys", "dev"):
            (self._layer / name).mkdir(parents=True)
        shutil.copy(binary, self._layer / "bin/busybox")
        (self._layer / "bin/sh").symlink_to("busybox")
        (self._layer / "bin/sleep").symlink_to("busybox")

    def find(self, reference: str) -> Image | None:
        """The only image."""
        return Image("sha256:0", (reference,), (), 0, ImageConfig())

    def hold(self, owner: str, image: Image) -> Sequence[Path]:
        """Its only layer."""
        return [self._layer]

    def release(self, owner: str) -> None:
        """Nothing is held."""


def _sandbox(number: int, logs: Path) -> SandboxConfig:
    return SandboxConfig(f"pod{number}", "bench", f"uid{number}", hostname=f"pod{number}", log_directory=str(logs))


async def _pod(runtime: Runtime, number: int, logs: Path) -> list[float]:
    """Start a pod; seconds for sandbox, create, start."""
    marks = [time.perf_counter()]
    sandbox = await runtime.run_sandbox(_sandbox(number, logs))
    marks.append(time.perf_counter())
    limits = Resources(memory_limit=64 << 20, cpu_shares=100)
    config = ContainerConfig("main", "busybox", command=("sleep", "1000"), log_path=f"{number}/0.log", resources=limits)
    container = await runtime.create_container(sandbox.id, config)
    marks.append(time.perf_counter())
    await runtime.start_container(container.id)
    marks.append(time.perf_counter())
    return [after - before for before, after in itertools.pairwise(marks)]


def _floor(command: Sequence[str], count: int) -> list[float]:
    """Seconds for starting a program and waiting for its end."""
    times: list[float] = []
    for _ in range(count):
        before = time.perf_counter()
        os.waitpid(os.posix_spawn(command[0], list(command), {}, file_actions=[(os.POSIX_SPAWN_CLOSE, 1)]), 0)
        times.append(time.perf_counter() - before)
    return times


def _report(name: str, seconds: Sequence[float], floor: float) -> None:
    median, least = statistics.median(seconds) * 1000, min(seconds) * 1000
    print(f"{name:24} median {median:7.2f} ms   least {least:7.2f} ms   {median / floor / 1000:6.1f} x floor")


async def _measure(directory: Path, count: int) -> None:
    runtime = LocalRuntime(
        directory / "state", _Busybox(directory), clock=SystemClock(), pod_cidr="10.198.0.0/16", cgroup_root=_CGROUP
    )
    logs = directory / "logs"
    before = time.perf_counter()
    await runtime.start()
    started = time.perf_counter() - before
    crun = shutil.which("crun", path="/usr/sbin:/usr/bin") or shutil.which("runc", path="/usr/sbin:/usr/bin") or ""
    floor = statistics.median(_floor([crun, "--version"], count))
    print(f"floor: {os.path.basename(crun)} --version {floor * 1000:.2f} ms; runtime ready in {started * 1000:.1f} ms")
    await _pod(runtime, 0, logs)
    rows = [await _pod(runtime, number, logs) for number in range(1, count + 1)]
    for name, column in zip(("sandbox", "create", "start"), zip(*rows, strict=True), strict=True):
        _report(name, column, floor)
    _report("pod, one at a time", [sum(row) for row in rows], floor)
    container = runtime.containers()[0]
    execs: list[float] = []
    for _ in range(count):
        before = time.perf_counter()
        await runtime.exec_sync(container.id, ["/bin/busybox", "true"], 10)
        execs.append(time.perf_counter() - before)
    _report("exec", execs, floor)
    await asyncio.gather(*(runtime.remove_sandbox(sandbox.id) for sandbox in runtime.sandboxes()))
    before = time.perf_counter()
    await asyncio.gather(*(_pod(runtime, number, logs) for number in range(30)))
    _report("30 pods at once", [time.perf_counter() - before], floor)
    before = time.perf_counter()
    await asyncio.gather(*(runtime.remove_sandbox(sandbox.id) for sandbox in runtime.sandboxes()))
    _report("their removal", [time.perf_counter() - before], floor)
    await runtime.close()


def main() -> None:
    """Measure and clean up."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as name:
        try:
            asyncio.run(_measure(Path(name), count))
        finally:
            purge(Path(name) / "state", _CGROUP)


if __name__ == "__main__":
    main()
