"""Device nodes of the host for containers that ask for them.

Owns the look at /dev; never makes a node (the OCI runtime does). Runs in workers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from steersman.engine.interface import ContainerConfig, Device, RuntimeFailure
from steersman.engine.runtime.spec import HostDevice

_NOT_FOR_CONTAINERS = frozenset({"/dev/console", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/ptmx"})


def wanted(config: ContainerConfig) -> list[HostDevice]:
    """The devices of a container: what it asks for, and all of /dev when privileged. Raises RuntimeFailure."""
    found = {device.path: device for device in _everything()} if config.security.privileged else {}
    for request in config.devices:
        for device in _requested(request):
            found[device.path] = device
    return list(found.values())


def _everything(directory: str = "/dev") -> Iterator[HostDevice]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.path in _NOT_FOR_CONTAINERS or entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _everything(entry.path)
            elif (device := _look(entry.path, entry.path, "rwm")) is not None:
                yield device


def _requested(request: Device) -> Iterator[HostDevice]:
    if not request.permissions or set(request.permissions) - set("rwm"):
        raise RuntimeFailure(f"device permissions {request.permissions!r} must be some of r, w and m")
    if os.path.isdir(request.host_path):
        for device in _everything(request.host_path):
            inside = os.path.relpath(device.path, request.host_path)
            path = os.path.normpath(os.path.join(request.container_path, inside))
            yield HostDevice(path, *_rest(device), request.permissions)
        return
    device = _look(os.path.realpath(request.host_path), request.container_path, request.permissions)
    if device is None:
        raise RuntimeFailure(f"no device {request.host_path!r} on this node")
    yield device


def _rest(device: HostDevice) -> tuple[str, int, int, int, int, int]:
    return device.kind, device.major, device.minor, device.mode, device.uid, device.gid


def _look(path: str, container_path: str, permissions: str) -> HostDevice | None:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    kind = "c" if stat.S_ISCHR(info.st_mode) else "b" if stat.S_ISBLK(info.st_mode) else ""
    if not kind:
        return None
    number = info.st_rdev
    mode = stat.S_IMODE(info.st_mode)
    return HostDevice(
        container_path, kind, os.major(number), os.minor(number), mode, info.st_uid, info.st_gid, permissions
    )
