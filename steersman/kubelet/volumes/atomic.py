"""A directory of files that changes all at once.

Owns the layout that programs inside containers rely on to notice updates: real files in a time-stamped directory, a
symbolic link `..data` to it that is replaced by rename, and for each top-level name a link through `..data`. Called by
the volume types whose content comes from the API.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_DATA = "..data"


@dataclass(frozen=True, slots=True)
class File:
    """Content and permission bits; `owner`: a user id, or None for the kubelet's."""

    data: bytes
    mode: int = 0o644
    owner: int | None = None


def write(directory: Path, files: Mapping[str, File], group: int | None = None) -> bool:
    """Make `directory` hold exactly `files` (relative path to file); False when it already did.

    `group`: owner group of every file and directory (fsGroup). Raises ValueError for a path that leaves the directory,
    OSError as the file system does.
    """
    for path in files:
        check(path)
    current = _target(directory)
    if current is not None and _same(current, files):
        return False
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=directory))
    fresh.chmod(0o755)
    _fill(fresh, files, group)
    link = directory / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.rename(directory / _DATA)
    wanted = {PurePosixPath(path).parts[0] for path in files}
    for name in wanted:
        visible = directory / name
        if not visible.is_symlink():
            visible.symlink_to(f"{_DATA}/{name}")
    for name in os.listdir(directory):
        if not name.startswith("..") and name not in wanted:
            (directory / name).unlink()
    if current is not None:
        shutil.rmtree(current, ignore_errors=True)
    if group is not None:
        with contextlib.suppress(OSError):
            os.chown(directory, -1, group)
    return True


def check(path: str) -> None:
    """Raises ValueError when a file of that path would not be inside the volume."""
    parts = PurePosixPath(path).parts
    if not path or path.startswith("/") or ".." in parts:
        raise ValueError(f"invalid path: must be relative and not contain '..': {path}")
    if parts[0].startswith(".."):
        raise ValueError(f"invalid path: must not start with '..': {path}")


def _target(directory: Path) -> Path | None:
    try:
        return directory / os.readlink(directory / _DATA)
    except OSError:
        return None


def _same(current: Path, files: Mapping[str, File]) -> bool:
    found = {str((Path(root) / name).relative_to(current)) for root, _, names in os.walk(current) for name in names}
    if found != {str(PurePosixPath(path)) for path in files}:
        return False
    for path, file in files.items():
        there = current / path
        if there.read_bytes() != file.data:
            return False
    return True


def _fill(fresh: Path, files: Mapping[str, File], group: int | None) -> None:
    for path, file in files.items():
        place = fresh / path
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(file.data)
            mode = file.mode
            if group is not None or file.owner is not None:
                os.fchown(descriptor, -1 if file.owner is None else file.owner, -1 if group is None else group)
            if group is not None:
                mode |= 0o440
            os.fchmod(descriptor, mode)
    if group is not None:
        for root, _, _ in os.walk(fresh):
            os.chown(root, -1, group)
            os.chmod(root, 0o2775)
