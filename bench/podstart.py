"""Pod create to Running on a real node: kubelet, API server and engine in one process, over the memory store.

The floor is the engine alone, asked for the same sandbox and container in the same run. Needs root and a kernel.
Run: `python bench/podstart.py [pods]`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from steersman.api.resource import PODS, Object
from steersman.client.events import EventRecorder
from steersman.client.informer import Informer, Informers
from steersman.engine.interface import ContainerConfig, Credentials, Image, ImageConfig, SandboxConfig
from steersman.engine.runtime import LocalRuntime
from steersman.engine.runtime.purge import purge
from steersman.kubelet.agent import Kubelet
from steersman.kubelet.settings import NodeConfig
from steersman.lib.clock import SystemClock
from steersman.lib.tasks import Tasks
from steersman.testing.cluster import ApiCluster

CGROUP = "steerbench"
COMMAND = ("sleep", "1000")


class OneImage:
    """An image store that holds busybox."""

    def __init__(self, directory: Path) -> None:
        binary = shutil.which("busybox", path="/bin:/usr/bin")
        if binary is None:
            raise SystemExit("busybox-static is not installed")
        for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            (directory / name).mkdir(parents=True)
        shutil.copy(binary, directory / "bin/busybox")
        os.symlink("busybox", directory / "bin/sleep")
        (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        self._layer = directory
        self._image = Image("sha256:" + "b" * 64, ("docker.io/library/busybox:latest",), (), 1 << 20, ImageConfig())

    def find(self, reference: str) -> Image | None:
        """By name or id."""
        return self._image if reference in ("busybox", self._image.id) else None

    def hold(self, owner: str, image: Image) -> Sequence[Path]:
        """The one layer."""
        return [self._layer]

    def release(self, owner: str) -> None:
        """The layer stays."""

    async def pull(self, reference: str, credentials: Sequence[Credentials] = ()) -> Image:
        """It is here."""
        return self._image

    def list(self) -> Sequence[Image]:
        """The one image."""
        return [self._image]

    async def remove(self, reference: str) -> None:
        """It stays."""

    def used_bytes(self) -> tuple[int, int]:
        """Bytes and inodes."""
        return self._image.size, 1


def pod(name: str) -> Object:
    """A pod that does nothing for a long time."""
    container = {"name": "main", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": list(COMMAND)}
    spec = {"nodeName": "node", "containers": [container], "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": spec}


async def floor(runtime: LocalRuntime, logs: Path, count: int) -> list[float]:
    """Milliseconds that the engine alone takes for a sandbox with one running container."""
    out = []
    for number in range(count):
        began = time.perf_counter()
        config = SandboxConfig(f"f{number}", "default", f"floor-{number}", log_directory=str(logs))
        sandbox = await runtime.run_sandbox(config)
        wanted = ContainerConfig("main", "busybox", command=COMMAND, log_path="main/0.log")
        container = await runtime.create_container(sandbox.id, wanted)
        await runtime.start_container(container.id)
        out.append((time.perf_counter() - began) * 1000)
        await runtime.remove_sandbox(sandbox.id)
    return out


class Phases:
    """Waits for pods by watch."""

    def __init__(self, informer: Informer) -> None:
        self._running: set[str] = set()
        self._changed = asyncio.Event()
        informer.add_handler(self._note)

    def _note(self, old: Object | None, new: Object | None) -> None:
        if new is not None and (new.get("status") or {}).get("phase") == "Running":
            self._running.add(new["metadata"]["name"])
            self._changed.set()

    async def running(self, names: set[str]) -> None:
        """Until all of them are Running."""
        while not names <= self._running:
            self._changed.clear()
            await self._changed.wait()


async def measure(directory: Path, count: int) -> None:
    """Run everything and print."""
    clock = SystemClock()
    images = OneImage(directory / "busybox")
    runtime = LocalRuntime(directory / "state", images, clock=clock, pod_cidr="10.197.0.0/22", cgroup_root=CGROUP)
    await runtime.start()
    settings = NodeConfig(
        name="node",
        addresses=["127.0.0.1"],
        root=directory / "kubelet",
        logs=directory / "logs",
        memory=directory / "memory",
        capacity={"cpu": "8", "memory": "16Gi", "pods": "500"},
    )
    async with ApiCluster(clock=clock) as cluster, Tasks() as tasks:
        informers = Informers(cluster.client, clock=clock, tasks=tasks)
        kubelet = Kubelet(
            settings=settings,
            client=cluster.client,
            informers=informers,
            runtime=runtime,
            images=images,
            clock=clock,
            recorder=EventRecorder(cluster.client, clock, tasks, component="kubelet"),
        )
        watched = informers.informer(PODS)
        await watched.synced()
        phases = Phases(watched)
        least = await floor(runtime, directory / "floor", count)
        async with kubelet.running():
            took = []
            for number in range(count):
                began = time.perf_counter()
                await cluster.client.create(PODS, pod(f"p{number}"), "default")
                await phases.running({f"p{number}"})
                took.append((time.perf_counter() - began) * 1000)
            began = time.perf_counter()
            names = {f"q{number}" for number in range(30)}
            await asyncio.gather(*(cluster.client.create(PODS, pod(name), "default") for name in names))
            await phases.running(names)
            together = time.perf_counter() - began
            before = time.process_time()
            await clock.sleep(5)
            idle = (time.process_time() - before) / 5 * 100
    await runtime.close()
    middle, least_middle = statistics.median(took), statistics.median(least)
    last = sorted(took)[min(len(took) - 1, int(len(took) * 0.99))]
    print(f"engine alone                p50 {least_middle:6.1f} ms")
    print(f"pod create to Running       p50 {middle:6.1f} ms   p99 {last:6.1f} ms   ratio {middle / least_middle:.2f}")
    print(f"30 pods at once             {together:6.2f} s")
    print(f"idle with {count + 30} pods           {idle:6.2f} % of one core")


def main() -> None:
    """Measure in a directory of its own and leave nothing behind."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    directory = Path(tempfile.mkdtemp(prefix="steer-bench-"))
    try:
        asyncio.run(measure(directory, count))
    finally:
        purge(directory / "state", CGROUP)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
