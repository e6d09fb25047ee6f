"""configMap volumes. Source: Pod API, ConfigMapVolumeSource."""

from __future__ import annotations

from collections.abc import Mapping

from steersman.api.resource import CONFIGMAPS, Object
from steersman.kubelet.volumes import keys
from steersman.kubelet.volumes.atomic import File
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed


async def files(context: VolumeContext, pod: Object, source: Object) -> Mapping[str, File]:
    """The ConfigMap's keys as files. Raises VolumeFailed when it or a key is missing and not optional."""
    found = await context.objects.get(CONFIGMAPS, pod["metadata"]["namespace"], source.get("name", ""))
    try:
        return keys.files("configmap", source, found, keys.mode(source))
    except VolumeFailed as error:
        raise VolumeFailed(_said(str(error))) from None


def _said(text: str) -> str:
    return f"configmap {text}" if text.startswith("references") else text
