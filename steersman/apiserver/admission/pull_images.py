"""AlwaysPullImages: every image is pulled, so that nobody starts what another's credentials fetched.

Source: plugin/pkg/admission/alwayspullimages; KEP-4639 (image volumes).
"""

from __future__ import annotations

from steersman.api.resource import Object
from steersman.apiserver.admission.podsecurity.checks import containers
from steersman.apiserver.call import Call


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Set the policy of every container and image volume."""
    if obj is None or (call.kind.group, call.kind.plural) != ("", "pods"):
        return
    if call.info.subresource not in ("", "ephemeralcontainers") or call.operation not in ("CREATE", "UPDATE"):
        return
    if old is not None and _images(obj) <= _images(old):
        return
    for container in containers(obj["spec"]):
        container["imagePullPolicy"] = "Always"
    for volume in obj["spec"].get("volumes") or ():
        if volume.get("image") is not None:
            volume["image"]["pullPolicy"] = "Always"


def _images(pod: Object) -> set[str]:
    return {container.get("image", "") for container in containers(pod["spec"])}
