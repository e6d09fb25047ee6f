"""A busybox image and a runtime over it, in directories and cgroups of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steersman.engine.interface import Container, ContainerConfig, Image, ImageConfig, Sandbox, SandboxConfig
from steersman.engine.runtime import LocalRuntime, purge
from steersman.lib.clock import SystemClock

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1000:\nextra:x:50000:web\n"
APPLETS = "sh echo sleep cat id nc ps wget httpd kill ls hostname stty ping mount touch mkdir stat chroot dd true mknod"
CGROUP = "steertest"
CIDR = "10.199.0.0/24"


class BusyboxImages:
    """An image store with the images that tests put in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._images: dict[str, tuple[Image, list[Path]]] = {}
        self.held: set[str] = set()

    def add(self, name: str, layers: list[Path], config: ImageConfig) -> None:
        self._images[name] = (Image(f"sha256:{len(self._images):064x}", (name,), (), 0, config), layers)

    def find(self, reference: str) -> Image | None:
        return self._images[reference][0] if reference in self._images else None

    def hold(self, owner: str, image: Image) -> Sequence[Path]:
        self.held.add(owner)
        return next(layers for found, layers in self._images.values() if found.id == image.id)

    def release(self, owner: str) -> None:
        self.held.discard(owner)


def busybox_layer(directory: Path) -> Path:
    binary = shutil.which("busybox", path="/bin:/usr/bin")
    assert binary, "busybox-static is not installed"
    for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev", "data"):
        (directory / name).mkdir(parents=True)
    (directory / "tmp").chmod(0o1777)
    (directory / "data/seed").write_text("from the image\n")
    shutil.copy(binary, directory / "bin/busybox")
    for name in APPLETS.split():
        os.symlink("busybox", directory / "bin" / name)
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    return directory


def busybox_images(directory: Path) -> BusyboxImages:
    images = BusyboxImages(directory)
    base = busybox_layer(directory / "base")
    top = directory / "top"
    (top / "sub").mkdir(parents=True)
    (top / "marker").write_text("top\n")
    (top / "sub/file").write_text("below\n")
    thin = [directory / "thin" / str(number) for number in range(60)]
    for number, layer in enumerate(thin):
        layer.mkdir(parents=True)
        (layer / f"file{number}").write_text(str(number))
    images.add("busybox", [base], ImageConfig(cmd=("sh",), env=(("FROM_IMAGE", "yes"),)))
    images.add("layered", [*thin, top, base], ImageConfig(entrypoint=("echo", "entry"), cmd=("cmd",)))
    images.add("data", [top], ImageConfig())
    images.add("volume", [base], ImageConfig(cmd=("sh",), volumes=("/data", "/empty"), user="web"))
    return images


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> BusyboxImages:
    return busybox_images(tmp_path_factory.mktemp("images"))


def make_runtime(root: Path, images: BusyboxImages, **options: Any) -> LocalRuntime:
    return LocalRuntime(root, images, clock=SystemClock(), pod_cidr=CIDR, cgroup_root=CGROUP, **options)


@pytest.fixture
async def runtime(tmp_path: Path, images: BusyboxImages) -> AsyncIterator[LocalRuntime]:
    runtime = make_runtime(tmp_path / "state", images)
    await runtime.start()
    yield runtime
    await runtime.close()
    purge(tmp_path / "state", CGROUP)


@dataclass
class Pods:
    """Shorthand for sandboxes and containers."""

    runtime: LocalRuntime
    logs: Path

    async def sandbox(self, name: str = "pod", **options: Any) -> Sandbox:
        config = SandboxConfig(name, "default", f"uid-{name}", hostname=name, log_directory=str(self.logs), **options)
        return await self.runtime.run_sandbox(config)

    async def start(self, script: str, sandbox: Sandbox | None = None, name: str = "main", **options: Any) -> Container:
        """Run a shell script as a container."""
        sandbox = sandbox or await self.sandbox()
        options = {"image": "busybox", "command": ("sh", "-c", script), "log_path": f"{name}/0.log"} | options
        container = await self.runtime.create_container(sandbox.id, ContainerConfig(name, **options))
        await self.runtime.start_container(container.id)
        return self.runtime.container(container.id)

    async def result(self, script: str, sandbox: Sandbox | None = None, **options: Any) -> tuple[int, str]:
        """Run a shell script to its end; exit code and what it printed."""
        events = self.runtime.events()
        container = await self.start(script, sandbox, **options)
        await until(events, container.id, "exited")
        ended = self.runtime.container(container.id)
        return ended.exit_code, output(ended)

    async def sh(self, container: Container, script: str) -> str:
        """What a shell script prints inside a running container."""
        result = await self.runtime.exec_sync(container.id, ["sh", "-c", script], 20)
        return (result.stdout + result.stderr).decode()


async def until(events: Any, container_id: str, kind: str) -> None:
    async with asyncio.timeout(30):
        async for event in events:
            if (event.container_id, event.kind) == (container_id, kind):
                return


def output(container: Container) -> str:
    """A container's log without times and stream names."""
    entries = [line.split(" ", 3) for line in Path(container.log_path).read_text().splitlines()]
    return "".join(text + ("\n" if tag == "F" else "") for _, _, tag, text in entries)


@pytest.fixture
def pods(runtime: LocalRuntime, tmp_path: Path) -> Pods:
    return Pods(runtime, tmp_path / "logs")


Eventually = Callable[[Callable[[], bool]], Awaitable[None]]


async def eventually(true: Callable[[], bool]) -> None:
    """Wait for something that nobody announces, at most 20 seconds."""
    clock = SystemClock()
    async with asyncio.timeout(20):
        while not true():
            await clock.sleep(0.01)
