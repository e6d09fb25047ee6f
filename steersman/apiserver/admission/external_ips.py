"""DenyServiceExternalIPs: no Service gets new external addresses (CVE-2020-8554).

Source: plugin/pkg/admission/denyserviceexternalips.
"""

from __future__ import annotations

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.call import Call


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse external addresses that were not there before. Raises ApiError."""
    if obj is None or (call.kind.group, call.kind.plural) != ("", "services") or call.info.subresource:
        return
    before = set(((old or {}).get("spec") or {}).get("externalIPs") or ())
    if not set((obj.get("spec") or {}).get("externalIPs") or ()) <= before:
        text = "Use of external IPs is denied by admission control."
        raise errors.forbidden("", "services", obj["metadata"].get("name", ""), text)
