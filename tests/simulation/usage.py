"""The metrics API as the simulation plays it: a load for each workload, which its ready pods share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Mapping
from urllib.parse import parse_qs

import msgspec

from steersman.api import labels
from steersman.client.transport import InProcess
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Answer, Request, Response
from steersman.testing.simulation import Simulation

from .limits import app_of
from .scenarios import available


class Usage:
    """Stands before a world's API server. `loads`: millicores by label `app`; they may change."""

    def __init__(self, world: Simulation, loads: Mapping[str, int]) -> None:
        self._world, self._loads = world, loads
        self._server = world.cluster.server
        world.cluster.transport = InProcess(self._handle)

    def _handle(self, request: Request) -> Answer | Awaitable[Answer]:
        ours = request.path.startswith("/apis/metrics.k8s.io/v1beta1/")
        return self._metrics(request) if ours else self._server.handle(request)

    def _metrics(self, request: Request) -> Answer:
        (selector,) = map(labels.parse, parse_qs(request.query).get("labelSelector", [""]))
        there = [each for each in available(self._world) if selector.matches(each["metadata"].get("labels"))]
        sharing = Counter(map(app_of, there))
        stamp = {"timestamp": rfc3339(self._world.clock.now()), "window": "30s"}
        items = []
        for each in there:
            cpu = f"{self._loads.get(app_of(each), 0) // sharing[app_of(each)]}m"
            usage = [{"name": "c", "usage": {"cpu": cpu}}]
            items.append({"metadata": {"name": each["metadata"]["name"]}, **stamp, "containers": usage})
        return Response(200, [("content-type", "application/json")], msgspec.json.encode({"items": items}))


def autoscaler(name: str, kind: str, least: int, most: int, **spec: object) -> dict[str, object]:
    """One that wants 100 millicores a pod."""
    target = {"type": "AverageValue", "averageValue": "100m"}
    metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    about = {"apiVersion": "apps/v1", "kind": kind, "name": name}
    body = {"minReplicas": least, "maxReplicas": most, "scaleTargetRef": about, "metrics": metrics, **spec}
    return {"metadata": {"name": name}, "spec": body}
