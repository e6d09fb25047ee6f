"""downwardAPI volumes: fields of the pod as files. Source: Pod API, DownwardAPIVolumeSource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steersman.api.resource import Object
from steersman.kubelet import downward
from steersman.kubelet.volumes import keys
from steersman.kubelet.volumes.atomic import File, check
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed


async def files(context: VolumeContext, pod: Object, source: Object) -> Mapping[str, File]:
    """One file for each item. Raises VolumeFailed for a field that does not exist."""
    return items(context, pod, source.get("items") or (), keys.mode(source))


def items(context: VolumeContext, pod: Object, wanted: Sequence[Object], default_mode: int) -> dict[str, File]:
    """As `files`, for the items alone (projected volumes share it)."""
    out = {}
    for item in wanted:
        try:
            check(item["path"])
            if item.get("fieldRef"):
                text = downward.field_value(pod, item["fieldRef"]["fieldPath"], context.facts)
            else:
                text = downward.resource_value(pod, None, item["resourceFieldRef"], context.facts)
        except ValueError as error:
            raise VolumeFailed(str(error)) from None
        mode = item.get("mode")
        out[item["path"]] = File(text.encode(), default_mode if mode is None else int(mode))
    return out
