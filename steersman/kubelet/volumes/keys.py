"""Keys of a ConfigMap or Secret as files of a volume.

Owns `items`, modes and the texts for missing keys. Pure; shared by the configMap, secret and projected types.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from steersman.api.resource import Object
from steersman.kubelet.volumes.atomic import File, check
from steersman.kubelet.volumes.context import VolumeFailed


def contents(kind: str, found: Object) -> Mapping[str, bytes]:
    """Every key of a ConfigMap (text and binary) or Secret as bytes."""
    data = found.get("data") or {}
    if kind == "secret":
        return {key: base64.b64decode(value or "") for key, value in data.items()}
    out = {key: str(value).encode() for key, value in data.items()}
    out.update({key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()})
    return out


def files(kind: str, source: Object, found: Object | None, default_mode: int) -> dict[str, File]:
    """The files that `source` (items, optional) makes of an object. Raises VolumeFailed for a key that is missing."""
    optional = bool(source.get("optional"))
    if found is None:
        if optional:
            return {}
        name = source.get("secretName") or source.get("name") or ""
        raise VolumeFailed(f'{kind} "{name}" not found')
    data = contents(kind, found)
    items = source.get("items")
    if not items:
        return {key: File(value, default_mode) for key, value in data.items()}
    out = {}
    for item in items:
        key, path = item["key"], item["path"]
        if key not in data:
            if optional:
                continue
            raise VolumeFailed(f"references non-existent {'secret' if kind == 'secret' else 'config'} key: {key}")
        try:
            check(path)
        except ValueError as error:
            raise VolumeFailed(str(error)) from None
        mode = item.get("mode")
        out[path] = File(data[key], default_mode if mode is None else int(mode))
    return out


def mode(source: Object) -> int:
    """defaultMode, 0644 when it is not set."""
    value = source.get("defaultMode")
    return 0o644 if value is None else int(value)
