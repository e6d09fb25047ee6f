"""A kubelet over the real engine, with one busybox image, for tests that need a kernel."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from steersman.engine.interface import Credentials, Image, ImageConfig
from steersman.engine.runtime import LocalRuntime
from steersman.engine.runtime.purge import purge
from steersman.kubelet.agent import Kubelet
from steersman.kubelet.settings import NodeConfig
from steersman.lib.clock import SystemClock

from .apistub import Api

APPLETS = "sh echo sleep cat id wget httpd kill ls hostname mkdir stat true test touch"
CGROUP = "steerkubelet"


class BusyboxImages:
    """An image store that holds busybox and can pull nothing."""

    def __init__(self, directory: Path) -> None:
        binary = shutil.which("busybox", path="/bin:/usr/bin")
        assert binary, "busybox-static is not installed"
        for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev"):
            (directory / name).mkdir(parents=True)
        shutil.copy(binary, directory / "bin/busybox")
        for name in APPLETS.split():
            os.symlink("busybox", directory / "bin" / name)
        (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (directory / "etc/group").write_text("root:x:0:\n")
        config = ImageConfig(cmd=("sh",))
        self._layer = directory
        self._image = Image("sha256:" + "b" * 64, ("docker.io/library/busybox:latest",), (), 1 << 20, config)

    def find(self, reference: str) -> Image | None:
        return self._image if reference in ("busybox", self._image.id, *self._image.tags) else None

    def layers(self, image: Image) -> Sequence[Path]:
        return [self._layer]

    def hold(self, owner: str, image: Image) -> Sequence[Path]:
        return self.layers(image)

    def release(self, owner: str) -> None:
        return

    async def pull(self, reference: str, credentials: Sequence[Credentials] = ()) -> Image:
        return self._image

    def list(self) -> Sequence[Image]:
        return [self._image]

    async def remove(self, reference: str) -> None:
        return

    def used_bytes(self) -> tuple[int, int]:
        return self._image.size, 1


class RealNode:
    """One real node; its kubelet can be ended and started again, with the engine's memory lost."""

    def __init__(self, directory: Path) -> None:
        self.clock = SystemClock()
        self.api = Api(self.clock)
        self.directory = directory
        self.images = BusyboxImages(directory / "busybox")
        self.settings = NodeConfig(
            name="node-1",
            addresses=["127.0.0.1"],
            root=directory / "kubelet",
            logs=directory / "logs",
            memory=directory / "memory",
            capacity={"cpu": "4", "memory": "8Gi", "pods": "110"},
        )
        self.runtime: LocalRuntime

    @asynccontextmanager
    async def kubelet(self) -> AsyncIterator[Kubelet]:
        self.api.forget_informers()
        self.runtime = LocalRuntime(
            self.directory / "state", self.images, clock=self.clock, pod_cidr="10.198.0.0/24", cgroup_root=CGROUP
        )
        await self.runtime.start()
        kubelet = Kubelet(
            settings=self.settings,
            client=self.api,  # type: ignore[arg-type]
            informers=self.api,  # type: ignore[arg-type]
            runtime=self.runtime,
            images=self.images,
            clock=self.clock,
            recorder=self.api,
        )
        try:
            async with kubelet.running():
                yield kubelet
        finally:
            await self.runtime.close()

    def phase(self, name: str) -> str:
        found = self.api.pod(name)
        return "" if found is None else (found.get("status") or {}).get("phase", "")

    async def until_phase(self, name: str, phase: str) -> dict[str, object]:
        await self.api.until(lambda: self.phase(name) == phase, 30)
        found = self.api.pod(name)
        assert found is not None
        return found

    def purge(self) -> None:
        purge(self.directory / "state", CGROUP)


@asynccontextmanager
async def real_node(directory: Path) -> AsyncIterator[RealNode]:
    """A node that leaves nothing behind."""
    node = RealNode(directory)
    try:
        yield node
    finally:
        await asyncio.sleep(0)  # noqa: TID251 - lets cancelled tasks end before their engine goes
        node.purge()
