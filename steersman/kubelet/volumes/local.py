"""local volumes: a directory or a block device of the node. Source: PersistentVolume API, LocalVolumeSource."""

from __future__ import annotations

from pathlib import Path

from steersman.api.resource import Object
from steersman.kubelet.volumes import ownership
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed


def place(context: VolumeContext, pod: Object, source: Object, directory: Path) -> Path:
    """The node's path, which must be there; its files belong to the pod's fsGroup. Raises VolumeFailed."""
    path = Path(source["path"])
    if ".." in path.parts:
        raise VolumeFailed(f"invalid path: {path} must not contain '..'")
    if not path.exists():
        raise VolumeFailed(f'path "{path}" does not exist')
    if path.is_dir():
        ownership.apply(path, pod)
    return path
