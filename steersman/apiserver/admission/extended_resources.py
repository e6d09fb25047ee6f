"""ExtendedResourceToleration: who asks for a device tolerates the taint that keeps others off its nodes.

Source: plugin/pkg/admission/extendedresourcetoleration.
"""

from __future__ import annotations

from steersman.api.resource import Object
from steersman.apiserver.call import Call


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Add one toleration for each extended resource."""
    if obj is None or (call.kind.group, call.kind.plural) != ("", "pods") or call.info.subresource:
        return
    if call.operation not in ("CREATE", "UPDATE"):
        return
    spec = obj["spec"]
    asked: set[str] = set()
    for container in [*spec["containers"], *(spec.get("initContainers") or ())]:
        asked |= set((container.get("resources") or {}).get("requests") or {})
    for name in sorted(filter(_extended, asked)):
        wanted = {"key": name, "operator": "Exists", "effect": "NoSchedule"}
        if wanted not in (spec.get("tolerations") or ()):
            spec["tolerations"] = [*(spec.get("tolerations") or ()), wanted]


def _extended(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")
