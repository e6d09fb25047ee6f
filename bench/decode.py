"""A Pod in and out of the API's codecs, against untyped JSON in the same run.

python -m bench.decode
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec

from steersman.api import protobuf, schema
from steersman.api.registry import Registry
from steersman.api.schema.body import STRICT, GroupVersionKind, read

CONTAINER = {
    "name": "web",
    "image": "nginx:1.7.9",
    "ports": [{"containerPort": 80, "protocol": "TCP"}],
    "env": [{"name": "A", "value": "b"}, {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
    "resources": {"limits": {"cpu": "100m", "memory": "128Mi"}, "requests": {"cpu": "100m", "memory": "1Gi"}},
    "volumeMounts": [{"name": "v", "mountPath": "/x"}],
    "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 5},
}
POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web-0",
        "namespace": "default",
        "labels": {"app": "web", "tier": "front"},
        "annotations": {"note": "y" * 200},
        "creationTimestamp": "2026-01-02T03:04:05Z",
    },
    "spec": {
        "containers": [{**CONTAINER, "name": f"c{i}"} for i in range(3)],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        "terminationGracePeriodSeconds": 30,
    },
}


def microseconds(work: Callable[[], object], count: int = 2000) -> float:
    """The best of five rounds, per call."""
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(count):
            work()
        best = min(best, time.perf_counter() - start)
    return best / count * 1e6


def main() -> None:
    """Print a line per codec: microseconds, and the ratio to msgspec's untyped decode of the same Pod."""
    start = time.perf_counter()
    schema.load()
    registry = Registry(behaviors=())
    print(f"schemas and registry: {(time.perf_counter() - start) * 1e3:.1f} ms")
    pod = GroupVersionKind("", "v1", "Pod")
    body = json.dumps(POD, separators=(",", ":")).encode()
    holed = body.replace(b'"2026-01-02T03:04:05Z"', b"null")
    wire = protobuf.encode(POD)
    floor = microseconds(lambda: msgspec.json.decode(body))
    print(f"untyped JSON decode of {len(body)} bytes: {floor:.1f} us")
    for name, work, count in (
        ("typed decode", lambda: registry.decoders.decode("io.k8s.api.core.v1.Pod", body), 2000),
        ("request body, strict", lambda: read(registry.decoders, pod, body, validation=STRICT), 2000),
        ("request body with a null, strict", lambda: read(registry.decoders, pod, holed, validation=STRICT), 1000),
        ("protobuf decode", lambda: protobuf.decode(wire), 500),
        ("protobuf encode", lambda: protobuf.encode(POD), 500),
    ):
        took = microseconds(work, count)
        print(f"{name}: {took:.1f} us, {took / floor:.1f}x")


if __name__ == "__main__":
    main()
