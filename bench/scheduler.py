"""The scheduler's decisions alone, without the API: pods a second over all nodes, against a naive pass over them.

python -m bench.scheduler [NODES ...]     (default 5000 and 15000)

Each pod is decided and then counted on its node, as the loop does. The floor is the cheapest scheduler that looks at
every node: one Python comparison a node.
"""

from __future__ import annotations

import sys
import time
from random import Random
from typing import Any

from steersman.api.resource import Object
from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.profiles import DEFAULT
from steersman.scheduler.repeats import Repeats

_PODS = 1000
_ZONE, _HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def _node(number: int) -> Object:
    name = f"node-{number}"
    return {
        "metadata": {"name": name, "labels": {_HOST: name, _ZONE: f"zone-{number % 10}"}},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}},
    }


def _pod(uid: str, spec: dict[str, Any]) -> Object:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}
    meta = {"uid": uid, "name": uid, "namespace": "default", "labels": {"color": "blue"}}
    return {"metadata": meta, "spec": {"containers": [container], **spec}}


def _shapes() -> dict[str, dict[str, Any]]:
    blue = {"matchLabels": {"color": "blue"}}
    zones = {"key": _ZONE, "operator": "In", "values": ["zone-1", "zone-2"]}
    spread = {"maxSkew": 5, "topologyKey": _ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": blue}
    near = [{"topologyKey": _ZONE, "labelSelector": blue}]
    far = [{"topologyKey": _HOST, "labelSelector": blue}]
    terms = {"nodeSelectorTerms": [{"matchExpressions": [zones]}]}
    return {
        "basic": {},
        "node affinity": {"affinity": {"nodeAffinity": {_REQUIRED: terms}}},
        "spread": {"topologySpreadConstraints": [spread]},
        "affinity": {"affinity": {"podAffinity": {_REQUIRED: near}}},
        "anti-affinity": {"affinity": {"podAntiAffinity": {_REQUIRED: far}}},
    }


def _floor(nodes: int) -> float:
    """Seconds for one comparison a node, in Python."""
    free = [4000] * nodes
    start = time.perf_counter()
    for _ in range(20):
        sum(1 for each in free if each >= 100)
    return (time.perf_counter() - start) / 20


def measure(nodes: int, spec: dict[str, Any]) -> float:
    """CPU seconds a pod: reading it, deciding, counting it."""
    columns, random = Columns(), Random(1)
    repeats = Repeats(columns)
    for number in range(nodes):
        columns.set_node(_node(number))
    start = time.process_time()
    for number in range(_PODS):
        info = podinfo.read(_pod(f"pod-{number}", spec))
        choice = repeats.decide(info, DEFAULT, random)
        if choice is None:
            raise RuntimeError(f"pod {number} fits nowhere")
        columns.add_pod(info, choice.node)
    return (time.process_time() - start) / _PODS


def main() -> None:
    """Print a line per kind of pod and size of cluster."""
    for nodes in [int(each) for each in sys.argv[1:]] or [5000, 15000]:
        floor = _floor(nodes)
        print(f"{nodes} nodes; one comparison a node in Python: {floor * 1e3:.2f} ms")
        for name, spec in _shapes().items():
            took = measure(nodes, spec)
            print(f"  {name}: {1 / took:.0f} pods/s, {took * 1e3:.2f} ms CPU a pod, {took / floor:.2f}x the comparison")


if __name__ == "__main__":
    main()
