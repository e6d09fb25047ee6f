"""Leaves nothing of an engine behind: its processes, mounts, namespaces, interfaces, cgroups and directory.

Owns the last clean-up of a state directory, with or without readable records in it. For `steer delete` and for tests;
no runtime may be using the directory. Works by the ids of directories and by paths, so that a corrupt record hides
nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
from pathlib import Path

from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import cgrouptuning, kernel, network
from steersman.engine.runtime.cgroups import Cgroups
from steersman.engine.runtime.container import LayeredImages, named, release
from steersman.engine.runtime.oci import send_signal
from steersman.engine.runtime.records import Corrupt, Layout, SandboxRecord, is_id, load


def purge(root: Path, cgroup_root: str = "steersman", images: LayeredImages | None = None) -> None:
    """Remove everything that a `LocalRuntime(root, images, cgroup_root=...)` made; idempotent. Blocks.

    `images`: the store whose layers the containers held, when it is to be kept.

    Raises RuntimeFailure while a runtime uses the directory, OSError when something cannot be removed.
    """
    layout = Layout(root.resolve())
    if not layout.root.is_dir():
        return
    lock = os.open(layout.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _own(lock, layout.root)
        for container_id in _ids(layout.containers):
            for process in named(container_id):
                send_signal(process, signal.SIGKILL)
        for sandbox_id in _ids(layout.sandboxes):
            with contextlib.suppress(Corrupt):
                send_signal(load(layout.sandbox(sandbox_id) / "sandbox.json", SandboxRecord).pause, signal.SIGKILL)
        with contextlib.suppress(FileNotFoundError):
            cgroups = Cgroups()
            cgroups.remove(cgroup_root)
        for sandbox_id in {*_ids(layout.sandboxes), *_ids(layout.pins)}:
            network.disconnect(sandbox_id)
        if images is not None:
            for container_id in _ids(layout.writable):
                release(images, layout, container_id)
        cgrouptuning.restore(layout.tuned)
        _unmount_below(layout.root)
        shutil.rmtree(layout.root)
    finally:
        os.close(lock)


def _own(lock: int, root: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RuntimeFailure(f"another process is using {root}") from None


def _ids(directory: Path) -> list[str]:
    try:
        return [name for name in os.listdir(directory) if is_id(name)]
    except FileNotFoundError:
        return []


def _unmount_below(root: Path) -> None:
    prefix = f"{root}/"
    for path in reversed(kernel.mount_points()):
        if path.startswith(prefix):
            kernel.unmount(path)
