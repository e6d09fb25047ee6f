"""fsGroup: the files of a volume belong to the pod's group.

Owns the walk over a volume's files. Called by the types whose content outlives the pod. Source: Pod API,
PodSecurityContext.fsGroup and fsGroupChangePolicy (KEP-695). Links are never followed.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from steersman.api.resource import Object
from steersman.kubelet.volumes.context import fs_group

_GROUP_MAY, _DIRECTORY = 0o060, 0o2010


def apply(root: Path, pod: Object) -> None:
    """Give everything below `root` to the pod's fsGroup, if it has one. Raises OSError.

    With OnRootMismatch nothing is done when the root directory is right already.
    """
    group = fs_group(pod)
    if group is None:
        return
    policy = (pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy") or "Always"
    if policy == "OnRootMismatch" and _right(root, group):
        return
    for parent, directories, files in os.walk(root, topdown=False):
        for name in (*files, *directories):
            _give(os.path.join(parent, name), group)
    _give(str(root), group)  # last: it says that the rest is done


def _right(root: Path, group: int) -> bool:
    found = root.stat()
    return found.st_gid == group and found.st_mode & (_GROUP_MAY | _DIRECTORY) == _GROUP_MAY | _DIRECTORY


def _give(path: str, group: int) -> None:
    mode = os.lstat(path).st_mode
    os.lchown(path, -1, group)
    if stat.S_ISDIR(mode):
        os.chmod(path, stat.S_IMODE(mode) | _GROUP_MAY | _DIRECTORY)
    elif stat.S_ISREG(mode):
        os.chmod(path, stat.S_IMODE(mode) | _GROUP_MAY)
