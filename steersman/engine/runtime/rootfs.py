"""A container's root file system, in a mount namespace that lives as long as its monitor.

Owns overlay mounts and image volumes. They are made in a private copy of the node's mount namespace, in which conmon
and the OCI runtime are then started, so that they vanish with the container and nothing is left to unmount after a
crash. Mounts and unmounts of the node still arrive there where the node's mounts are shared. Runs in workers.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import kernel
from steersman.engine.runtime.oci import OciRuntime
from steersman.engine.runtime.records import Layout
from steersman.engine.runtime.workers import Workers

_MAX_TEXT = 1 << 20  # of /etc/passwd and /etc/group


@contextlib.contextmanager
def private_mounts(
    workers: Workers, oci: OciRuntime, layout: Layout, bundle: Path, *, share_back: bool
) -> Iterator[None]:
    """Put the calling thread into a copy of the node's mounts; its working directory becomes `bundle`.

    With `share_back`, mounts that the container makes in shared places reach the node (Bidirectional propagation).
    """
    with workers.away("mnt"):
        kernel.unshare(kernel.CLONE_NEWNS)
        if share_back:
            # everything stays shared but where something is about to be mounted or unmounted
            for path in ("/sys", str(layout.run)):
                kernel.mount("", path, flags=kernel.MS_REC | kernel.MS_SLAVE)
        else:
            kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
        oci.hide_unified()
        os.chdir(bundle)
        yield


def mount_overlay(bundle: Path, layers: Sequence[Path], target: str, written: Path | None = None) -> None:
    """Mount `layers` (top first) at `target` in `bundle`, read-only unless `written` takes what is written there.

    A mount's options fit in one page, so layers go by short links; `volatile` because a container's changes need not
    survive a power failure.
    """
    if not layers:
        raise RuntimeFailure("the image has no layers")
    links = bundle / f"{target}.layers"
    links.mkdir()
    for number, layer in enumerate(layers):
        (links / _short(number)).symlink_to(layer)
    os.chdir(links)
    lower = ":".join(_short(number) for number in range(len(layers)))
    (bundle / target).mkdir()
    if written is not None:
        for name in ("upper", "work"):
            (written / name).mkdir()
            (links / f".{name}").symlink_to(written / name)
        (written / "upper").chmod(layers[0].stat().st_mode & 0o7777)
        options = f"lowerdir={lower},upperdir=.upper,workdir=.work,volatile"
        kernel.mount("overlay", f"../{target}", "overlay", 0, options)
    elif len(layers) > 1:
        kernel.mount("overlay", f"../{target}", "overlay", kernel.MS_RDONLY, f"lowerdir={lower}")
    else:
        kernel.mount(str(layers[0]), f"../{target}", flags=kernel.MS_BIND)
        flags = kernel.MS_BIND | kernel.MS_REMOUNT | kernel.MS_RDONLY
        kernel.mount("", f"../{target}", flags=flags)
    os.chdir(bundle)


def _short(number: int) -> str:
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return digits[number] if number < 36 else _short(number // 36 - 1) + digits[number % 36]


def read_file(root: str, path: str) -> str:
    """A small text file of a container, as the container would see it; empty when it is not there."""
    try:
        fd = kernel.open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(fd, "rb") as file:
        try:
            return file.read(_MAX_TEXT).decode(errors="replace")
        except OSError:
            return ""


def inside(root: str, path: str) -> str:
    """Where `path` of a container's (or an image's) tree lies on the node, links followed within the tree only."""
    try:
        fd = kernel.open_in_root(root, path, os.O_PATH)
    except OSError as error:
        raise RuntimeFailure(f"no path {path!r} in the image: {error.strerror}") from error
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
