"""DefaultTolerationSeconds: pods stay five minutes on a node that is not ready or out of reach.

Source: plugin/pkg/admission/defaulttolerationseconds.
"""

from __future__ import annotations

from steersman.api.resource import Object
from steersman.apiserver.call import Call

_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
SECONDS = "toleration seconds"
"""In a server's extras: how long, for each of the two; five minutes where it is not there."""
_USUAL = (300, 300)


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Add the two tolerations that a pod does not have in some form."""
    if obj is None or (call.kind.group, call.kind.kind) != ("", "Pod") or call.info.subresource:
        return
    tolerations = obj["spec"].get("tolerations") or []
    added = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}
        for key, seconds in zip(_TAINTS, call.services.extras.get(SECONDS, _USUAL), strict=True)
        if not any(t.get("key") in (key, "", None) and t.get("effect") in ("NoExecute", "", None) for t in tolerations)
    ]
    if added:
        obj["spec"]["tolerations"] = [*tolerations, *added]
