"""A pod's volumes: set up before its containers, kept up to date, taken away after them.

Owns the layout under the pod's directory (`volumes/kubernetes.io~<type>/<name>`, `volume-subpaths`). Called by
`worker`; everything can be found again from the directory alone. Content of API volumes lives under `memory`, which
the caller should make a tmpfs, so that no secret reaches a disk.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.kubelet import mounts
from steersman.kubelet.blocking import in_thread
from steersman.kubelet.volumes import CONTENTS, PLACES, atomic, claim
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed, fs_group


@dataclass(frozen=True, slots=True)
class PodDirectories:
    """Where a pod's things are: `root` on disk, `memory` for what must not be on disk."""

    root: Path
    memory: Path

    def volume(self, kind: str, name: str) -> Path:
        """The directory of a volume."""
        base = self.memory if kind in CONTENTS else self.root
        return base / "volumes" / f"kubernetes.io~{kind.lower()}" / name

    def sub_path(self, volume: str, container: str, index: int) -> Path:
        """Where a container's sub-path mount is bound."""
        return self.root / "volume-subpaths" / volume / container / str(index)


def kind_of(volume: Object) -> str:
    """The field that says what the volume is; a volume without one is an emptyDir."""
    return next((key for key in volume if key != "name"), "emptyDir")


async def set_up(context: VolumeContext, pod: Object, directories: PodDirectories) -> Mapping[str, Path]:
    """Make every volume ready: name to host path (image volumes have none). Raises VolumeFailed with all the reasons.

    Safe to call again at any time: it brings content up to date.
    """
    volumes = pod["spec"].get("volumes") or ()
    results = await asyncio.gather(*(_one(context, pod, each, directories) for each in volumes), return_exceptions=True)
    out: dict[str, Path] = {}
    failures = []
    for volume, result in zip(volumes, results, strict=True):
        if isinstance(result, Path):
            out[volume["name"]] = result
        elif isinstance(result, VolumeFailed | ApiError | OSError):
            failures.append(f'MountVolume.SetUp failed for volume "{volume["name"]}" : {result}')
        elif isinstance(result, BaseException):
            raise result
    if failures:
        raise VolumeFailed("\n".join(failures))
    return out


async def _one(context: VolumeContext, pod: Object, volume: Object, directories: PodDirectories) -> Path | None:
    kind = kind_of(volume)
    directory = directories.volume(kind, volume["name"])
    source = volume.get(kind) or {}
    if kind in CONTENTS:
        files = await CONTENTS[kind](context, pod, source)
        await in_thread(_write, directory, files, fs_group(pod))
        return directory
    if kind in claim.KINDS:
        return await _claimed(context, pod, volume, directories)
    if kind in PLACES:
        return await in_thread(PLACES[kind], context, pod, source, directory)
    if kind == "image":
        return None
    raise VolumeFailed(f"no volume plugin matched: {kind}")


async def _claimed(context: VolumeContext, pod: Object, volume: Object, directories: PodDirectories) -> Path:
    found = await claim.behind(context, pod, volume)
    if found.kind not in PLACES:
        raise VolumeFailed(f"no volume plugin matched: {found.kind}")
    directory = directories.volume(found.kind, volume["name"])
    path = await in_thread(PLACES[found.kind], context, pod, found.source, directory)
    if found.block and not path.is_block_device():
        raise VolumeFailed(f"{path} is not a block device")
    return path


def _write(directory: Path, files: Mapping[str, atomic.File], group: int | None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    os.chmod(directory, 0o755)
    atomic.write(directory, files, group)


def follows_api(pod: Object) -> bool:
    """Whether some volume's content may change while the pod runs."""
    return any(kind_of(each) in CONTENTS for each in pod["spec"].get("volumes") or ())


def take_down(directories: PodDirectories, *, everything: bool) -> None:
    """Unmount and remove the pod's volumes; with `everything` also its directory. hostPaths are not touched."""
    for base in (directories.root, directories.memory):
        if not base.exists():
            continue
        for point in mounts.mounted_under(str(base)):
            mounts.unmount(point)
        for part in [base] if everything else [base / "volumes", base / "volume-subpaths"]:
            if not mounts.mounted_under(str(part)):
                shutil.rmtree(part, ignore_errors=True)


def pods_on_disk(root: Path) -> set[str]:
    """Uids of the pods that have a directory under `root`."""
    try:
        return {each.name for each in root.iterdir() if each.is_dir()}
    except FileNotFoundError:
        return set()
