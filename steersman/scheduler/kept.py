"""What is kept of pods: of one that waits all but its managedFields, of one on a node what scheduling asks of it.

Owns the shapes, and `Shared`, by which equal parts are kept once. Called by the observer's informer with a pod's JSON:
what is not kept is never made into objects, which is half of what an event costs. Pure.
"""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar

import msgspec
from msgspec.structs import replace

from steersman.api.resource import Object
from steersman.client.informer import Meta
from steersman.scheduler.podinfo import PodInfo

T = TypeVar("T")
_SHARED = 8192  # values that are shared at most
_NOTHING: dict[str, str] = {}
_PLACED = b'"nodeName":"'  # in the JSON of every pod on a node, and of few others


class _Meta(TypedDict, total=False):
    name: Any
    namespace: Any
    uid: Any
    labels: Any
    resourceVersion: Any
    creationTimestamp: Any
    deletionTimestamp: Any
    generation: Any


class _Whole(TypedDict, total=False):
    apiVersion: Any
    kind: Any
    metadata: Meta
    spec: Any
    status: Any


class _Container(TypedDict, total=False):
    name: Any
    image: Any
    resources: Any
    ports: Any
    restartPolicy: Any
    restartPolicyRules: Any


class _Volume(TypedDict, total=False):
    name: Any
    persistentVolumeClaim: Any
    ephemeral: Any


class _Spec(TypedDict, total=False):
    nodeName: Any
    schedulerName: Any
    priority: Any
    overhead: Any
    resources: Any
    topologySpreadConstraints: Any
    affinity: Any
    nodeSelector: Any
    tolerations: Any
    hostNetwork: Any
    hostUsers: Any
    containers: list[_Container] | None
    initContainers: list[_Container] | None
    volumes: list[_Volume] | None


class _Status(TypedDict, total=False):
    phase: Any
    startTime: Any


class _Placed(TypedDict, total=False):
    metadata: _Meta
    spec: _Spec
    status: _Status | None


_whole = msgspec.json.Decoder(_Whole).decode
_placed = msgspec.json.Decoder(_Placed).decode


class Shared:
    """Equal values once: pods of one owner differ in little but their names. What it returns must not be changed."""

    def __init__(self) -> None:
        self._values: dict[bytes, Any] = {}

    def __call__(self, value: T) -> T:
        """The value, or an equal one that was there before."""
        if len(self._values) >= _SHARED:
            self._values.clear()
        found: T = self._values.setdefault(msgspec.json.encode(value), value)
        return found

    def info(self, info: PodInfo) -> PodInfo:
        """A pod's facts with what others have too; nothing in them is empty twice."""
        return replace(
            info,
            requests=self(info.requests),
            nonzero=self(info.nonzero),
            labels=self(info.labels),
            tolerations=info.pod["spec"].get("tolerations") or (),
            node_selector=info.pod["spec"].get("nodeSelector") or _NOTHING,
            ports=info.ports or (),
            gates=(),
            spread=info.spread or (),
            preferred_terms=info.preferred_terms or (),
            claims=info.claims or (),
        )


def whole(body: bytes | memoryview) -> Object:
    """A pod without its managedFields."""
    found: Any = _whole(body)
    return found


def lean(body: bytes | memoryview, share: Shared) -> Object:
    """A pod on a node without what scheduling does not ask of it; one that waits is kept whole."""
    if _PLACED not in bytes(body):
        return whole(body)
    pod: Any = _placed(body)
    spec = pod["spec"]
    if not spec.get("nodeName"):
        return whole(body)
    for name in ("containers", "initContainers", "tolerations", "affinity", "topologySpreadConstraints"):
        if name in spec:
            spec[name] = share(spec[name])
    if "volumes" in spec:
        claims = [each for each in spec["volumes"] or () if "persistentVolumeClaim" in each or "ephemeral" in each]
        if claims:
            spec["volumes"] = claims
        else:
            del spec["volumes"]
    meta = pod["metadata"]
    if "labels" in meta:
        meta["labels"] = share(meta["labels"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec, "status": pod.get("status") or {}}
