"""hostPath volumes: a file or directory of the node. Source: Pod API, HostPathVolumeSource."""

from __future__ import annotations

import stat
from pathlib import Path

from steersman.api.resource import Object
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed

_CHECKS = {
    "Directory": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}


def place(context: VolumeContext, pod: Object, source: Object, directory: Path) -> Path:
    """The node's path, made or checked as its type asks. Raises VolumeFailed when the check fails."""
    path, kind = Path(source["path"]), source.get("type") or ""
    if ".." in path.parts:
        raise VolumeFailed(f"invalid HostPath `{path}`: must not contain '..'")
    if not kind:
        # The engine makes a missing directory for a mount without a type, as Docker always has.
        if not path.exists():
            path.mkdir(parents=True, exist_ok=True)
        return path
    if kind == "DirectoryOrCreate":
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        kind = "Directory"
    elif kind == "FileOrCreate":
        if not path.exists():
            path.touch(mode=0o644)
        kind = "File"
    if kind not in _CHECKS:
        raise VolumeFailed(f"{kind} is an invalid volume type")
    matches, name = _CHECKS[kind]
    try:
        mode = path.stat().st_mode
    except OSError:
        raise VolumeFailed(f"hostPath type check failed: {path} is not a {name}") from None
    if not matches(mode):
        raise VolumeFailed(f"hostPath type check failed: {path} is not a {name}")
    return path
