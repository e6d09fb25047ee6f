"""What made a Service's endpoints change, by its time: dashboards measure from it how long a change takes to arrive.

Owns the memory of the times already told. Called by the controllers that write Endpoints and EndpointSlices.
Source: kubernetes' staging/src/k8s.io/endpointslice/util/trigger_time_tracker.go.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from steersman.api import pods
from steersman.api.resource import Object

ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"


class TriggerTimes:
    """The latest readiness of each pod of each Service that was looked at. Times are RFC 3339, as objects have them."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[str, dict[str, str]]] = {}

    def of(self, key: Hashable, service: Object, behind: Iterable[Object]) -> str:
        """When the first of the changes since the last look was; empty when there was none."""
        made = str(service["metadata"].get("creationTimestamp") or "")
        times = {pod["metadata"]["name"]: _ready_since(pod) for pod in behind}
        known = self._known.get(key)
        self._known[key] = made, times
        if known is None:
            return made
        new = [time for name, time in times.items() if time > known[1].get(name, "")]
        return min([*new, *([made] if made > known[0] else [])], default="")

    def forget(self, key: Hashable) -> None:
        """The Service is gone."""
        self._known.pop(key, None)


def _ready_since(pod: Object) -> str:
    return str((pods.condition(pod, "Ready") or {}).get("lastTransitionTime") or "")


def stamped(obj: Object, time: str) -> Object:
    """The object with its annotation; without one when `time` is empty."""
    noted = {name: value for name, value in (obj["metadata"].get("annotations") or {}).items() if name != ANNOTATION}
    if time:
        noted[ANNOTATION] = time
    meta = {name: value for name, value in obj["metadata"].items() if name != "annotations"}
    return {**obj, "metadata": meta | ({"annotations": noted} if noted else {})}
