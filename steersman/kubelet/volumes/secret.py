"""secret volumes. Source: Pod API, SecretVolumeSource."""

from __future__ import annotations

from collections.abc import Mapping

from steersman.api.resource import SECRETS, Object
from steersman.kubelet.volumes import keys
from steersman.kubelet.volumes.atomic import File
from steersman.kubelet.volumes.context import VolumeContext


async def files(context: VolumeContext, pod: Object, source: Object) -> Mapping[str, File]:
    """The Secret's keys as files. Raises VolumeFailed when it or a key is missing and not optional."""
    found = await context.objects.get(SECRETS, pod["metadata"]["namespace"], source.get("secretName", ""))
    return keys.files("secret", source, found, keys.mode(source))
