"""projected volumes: ConfigMaps, Secrets, the downward API and service account tokens in one directory.

Source: Pod API, ProjectedVolumeSource; KEP-1205 (bound tokens), KEP-2451 (who owns the token's file).
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, SECRETS, Object
from steersman.kubelet.volumes import downwardapi, keys
from steersman.kubelet.volumes.atomic import File
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed, fs_group, only_user

_TOKEN_SECONDS = 3600


async def files(context: VolumeContext, pod: Object, source: Object) -> Mapping[str, File]:
    """Every source's files; a later source wins over an earlier one. Raises VolumeFailed."""
    out: dict[str, File] = {}
    mode = keys.mode(source)
    for each in source.get("sources") or ():
        out.update(await _source(context, pod, each, mode))
    return out


async def _source(context: VolumeContext, pod: Object, each: Object, mode: int) -> Mapping[str, File]:
    namespace = pod["metadata"]["namespace"]
    if each.get("configMap"):
        found = await context.objects.get(CONFIGMAPS, namespace, each["configMap"].get("name", ""))
        return keys.files("configmap", each["configMap"], found, mode)
    if each.get("secret"):
        found = await context.objects.get(SECRETS, namespace, each["secret"].get("name", ""))
        return keys.files("secret", each["secret"], found, mode)
    if each.get("downwardAPI"):
        return downwardapi.items(context, pod, each["downwardAPI"].get("items") or [], mode)
    if each.get("serviceAccountToken"):
        return await _token(context, pod, each["serviceAccountToken"], mode)
    raise VolumeFailed(f"projected volume source is not supported: {', '.join(each) or 'empty'}")


async def _token(context: VolumeContext, pod: Object, wanted: Object, mode: int) -> Mapping[str, File]:
    seconds = int(wanted.get("expirationSeconds") or _TOKEN_SECONDS)
    try:
        token = await context.tokens.token(pod, wanted.get("audience") or "", seconds)
    except (ApiError, OSError) as error:
        raise VolumeFailed(f"failed to fetch token: {error}") from None
    owner = only_user(pod)
    if owner is not None or fs_group(pod) is not None:
        mode = 0o600
    return {wanted["path"]: File(token.encode(), mode, owner)}
