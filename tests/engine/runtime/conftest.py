"""A busybox image and a runtime over it, in directories and cgroups of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from steersman.engine.interface import Image, ImageConfig
from steersman.engine.runtime import LocalRuntime
from steersman.engine.runtime.purge import purge
from steersman.lib.clock import SystemClock

PASSWD = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1000:\nextra:x:50000:web\n"


class BusyboxImages:
    """An image store with the images that tests put in."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._images: dict[str, tuple[Image, list[Path]]] = {}

    def add(self, name: str, layers: list[Path], config: ImageConfig) -> None:
        self._images[name] = (Image(f"sha256:{len(self._images):064x}", (name,), (), 0, config), layers)

    def find(self, reference: str) -> Image | None:
        return self._images[reference][0] if reference in self._images else None

    def layers(self, image: Image) -> Sequence[Path]:
        return next(layers for found, layers in self._images.values() if found.id == image.id)


def busybox_layer(directory: Path) -> Path:
    binary = shutil.which("busybox", path="/bin:/usr/bin")
    assert binary, "busybox-static is not installed"
    for name in ("bin", "etc", "tmp", "root", "proc", "sys", "dev"):
        (directory / name).mkdir(parents=True)
    (directory / "tmp").chmod(0o1777)
    shutil.copy(binary, directory / "bin/busybox")
    for name in ("sh", "echo", "sleep", "cat", "id", "nc", "ps", "wget", "httpd", "kill", "ls", "hostname", "stty"):
        os.symlink("busybox", directory / "bin" / name)
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    return directory


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> BusyboxImages:
    directory = tmp_path_factory.mktemp("images")
    images = BusyboxImages(directory)
    base = busybox_layer(directory / "base")
    top = directory / "top"
    top.mkdir()
    (top / "marker").write_text("top\n")
    images.add("busybox", [base], ImageConfig(cmd=("sh",), env=(("FROM_IMAGE", "yes"),)))
    images.add("layered", [top, base], ImageConfig(entrypoint=("echo", "entry"), cmd=("cmd",)))
    images.add("data", [top], ImageConfig())
    return images


@pytest.fixture
async def runtime(tmp_path: Path, images: BusyboxImages) -> AsyncIterator[LocalRuntime]:
    runtime = LocalRuntime(
        tmp_path / "state", images, clock=SystemClock(), pod_cidr="10.199.0.0/24", cgroup_root="steertest"
    )
    await runtime.start()
    yield runtime
    await runtime.close()
    purge(tmp_path / "state", "steertest")
