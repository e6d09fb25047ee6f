"""emptyDir volumes: a directory of the pod, on disk or in memory. Source: Pod API, EmptyDirVolumeSource."""

from __future__ import annotations

import os
from pathlib import Path

from steersman.api.resource import Object
from steersman.kubelet import mounts, resources
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed, fs_group


def place(context: VolumeContext, pod: Object, source: Object, directory: Path) -> Path:
    """Make the directory, once for the pod's life; everyone may write in it."""
    medium = source.get("medium") or ""
    if medium not in ("", "Memory"):
        raise VolumeFailed(f'unknown storage medium "{medium}"')
    directory.mkdir(parents=True, exist_ok=True)
    if medium == "Memory" and not mounts.is_mount(directory):
        mounts.tmpfs(directory, size=resources.whole(source.get("sizeLimit") or "0"), mode=0o777)
    group = fs_group(pod)
    if group is not None:
        os.chown(directory, -1, group)
    os.chmod(directory, 0o2777 if group is not None else 0o777)
    return directory
