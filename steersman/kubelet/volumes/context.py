"""What a volume type may use, and what it gives back.

Owns the `VolumeContext` that `volumes.mounter` fills in and hands to every type. No type keeps state of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from steersman.api.resource import Object, Resource
from steersman.kubelet import downward
from steersman.kubelet.volumes.atomic import File


class VolumeFailed(Exception):
    """A volume can not be set up; the text goes to a FailedMount event."""


class Getter(Protocol):
    """How a type gets ConfigMaps and Secrets."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object, or None when there is none."""
        ...


class TokenSource(Protocol):
    """How a type gets tokens of the pod's service account."""

    async def token(self, pod: Object, audience: str, seconds: int) -> str:
        """A token bound to the pod. Raises ApiError or OSError."""
        ...


@dataclass(frozen=True, slots=True)
class VolumeContext:
    """One pod's volumes in the making. `facts`: for the downward API; `claims`: claims and volumes, read each time."""

    objects: Getter
    tokens: TokenSource
    facts: downward.Facts
    now: float
    claims: Getter


Contents = Callable[[VolumeContext, Object, Object], Awaitable[Mapping[str, File]]]
"""A type whose content comes from the API: (context, pod, source) to files. Raises VolumeFailed."""

Place = Callable[[VolumeContext, Object, Object, Path], Path]
"""A type that is a place: (context, pod, source, own directory) to the path to mount. Raises VolumeFailed."""


def fs_group(pod: Object) -> int | None:
    """spec.securityContext.fsGroup."""
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return None if group is None else int(group)


def only_user(pod: Object) -> int | None:
    """The user id that every container of the pod runs as, if there is one."""
    default = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    users = {
        (each.get("securityContext") or {}).get("runAsUser", default)
        for name in ("initContainers", "containers", "ephemeralContainers")
        for each in pod["spec"].get(name) or ()
    }
    return users.pop() if len(users) == 1 else None
