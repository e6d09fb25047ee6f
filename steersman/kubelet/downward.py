"""The downward API: a pod's own fields and a container's resources as text.

Pure: called by `env` and by the downwardAPI and projected volumes. Source: documentation of the downward API.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from steersman.api.resource import Object
from steersman.kubelet import podspec, resources


@dataclass(frozen=True, slots=True)
class Facts:
    """What the pod object does not say. `allocatable`: the node's, in place of limits that are not set."""

    host_ips: Sequence[str] = ()
    pod_ips: Sequence[str] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)


_SUBSCRIPT = re.compile(r"^metadata\.(annotations|labels)\['(.+)'\]$")


def field_value(pod: Object, path: str, facts: Facts) -> str:
    """The text of a field path. Raises ValueError when the downward API has no such field."""
    meta, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return str((meta.get(subscript[1]) or {}).get(subscript[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(meta.get(path.removeprefix("metadata."), ""))
        case "metadata.labels" | "metadata.annotations":
            return _lines(meta.get(path.removeprefix("metadata.")) or {})
        case "spec.nodeName":
            return str(spec.get("nodeName", ""))
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName", ""))
        case "status.hostIP":
            return facts.host_ips[0] if facts.host_ips else ""
        case "status.hostIPs":
            return ",".join(facts.host_ips)
        case "status.podIP":
            return facts.pod_ips[0] if facts.pod_ips else ""
        case "status.podIPs":
            return ",".join(facts.pod_ips)
    raise ValueError(f"unsupported fieldPath: {path}")


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={json.dumps(values[key], ensure_ascii=False)}" for key in sorted(values))


def resource_value(pod: Object, container: Object | None, ref: Object, facts: Facts) -> str:
    """The text of a resourceFieldRef, in units of its divisor, rounded up. Raises ValueError."""
    name = ref.get("containerName")
    if name:
        found = podspec.container_named(pod, name)
        if found is None:
            raise ValueError(f"container {name} not found")
        container = found[1]
    if container is None:
        raise ValueError("a resource needs a container name here")
    which, _, resource = ref["resource"].partition(".")
    if which not in ("limits", "requests") or not resource:
        raise ValueError(f"Unsupported container resource : {ref['resource']}")
    limits, requests = resources.limits(container), resources.requests(container)
    quantity = (limits if which == "limits" else requests).get(resource)
    if quantity is None and which == "requests":
        quantity = limits.get(resource)
    if (quantity is None or not resources.amount(quantity)) and which == "limits":
        quantity = facts.allocatable.get(resource)
    divisor = str(ref.get("divisor") or "0")
    by = resources.amount(divisor) or 1
    return str(math.ceil(resources.amount(quantity or "0") / by))
