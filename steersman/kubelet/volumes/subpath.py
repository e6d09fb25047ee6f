"""A part of a volume, mounted so that what runs in the pod cannot make it point elsewhere.

Owns the way from a subPath to a path that is safe to hand to the engine: every step is opened without following links
that leave the volume, and the open file itself is bound to a place of the pod's that containers never see.
Source: Pod API, VolumeMount.subPath; CVE-2017-1002101, CVE-2021-25741.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from steersman.kubelet import mounts
from steersman.kubelet.volumes.context import VolumeFailed


def check(sub_path: str) -> None:
    """Raises VolumeFailed when the path is absolute or steps back."""
    if sub_path.startswith("/"):
        raise VolumeFailed(f"error SubPath `{sub_path}` must not be an absolute path")
    if ".." in PurePosixPath(sub_path).parts:
        raise VolumeFailed(f"unable to provision SubPath `{sub_path}`: must not contain '..'")


def bind(volume: Path, sub_path: str, target: Path) -> Path:
    """Bind `sub_path` of `volume` (made as a directory when missing) to `target`; returns `target`."""
    check(sub_path)
    root = Path(os.path.realpath(volume))
    real = Path(os.path.realpath(root / sub_path))
    if not real.is_relative_to(root):
        raise VolumeFailed(f"subPath `{sub_path}` leaves the volume")
    descriptor = _open(root, real.relative_to(root).parts)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        if mounts.is_mount(target):
            mounts.unmount(str(target))
        mounts.bind(descriptor, target)
    finally:
        os.close(descriptor)
    return target


def _open(root: Path, parts: tuple[str, ...]) -> int:
    """Open a path step by step, following no link; makes directories that are missing, with the volume's mode."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(root, flags)
    mode = stat.S_IMODE(os.fstat(here).st_mode)
    try:
        for part in parts:
            try:
                following = os.open(part, flags, dir_fd=here)
            except FileNotFoundError:
                os.mkdir(part, dir_fd=here)
                following = os.open(part, flags, dir_fd=here)
                os.chmod(f"/proc/self/fd/{following}", mode)
            if stat.S_ISLNK(os.fstat(following).st_mode):
                os.close(following)
                raise VolumeFailed(f"subPath leads through a link: {part}")
            os.close(here)
            here = following
    except BaseException:
        os.close(here)
        raise
    return here
