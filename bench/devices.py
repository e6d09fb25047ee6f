"""What claims of devices cost the scheduler, and what they cost pods that have none.

python -m bench.devices [--nodes 1000] [--devices 8] [--pods 200]

The floor is the same pods on the same nodes where nobody publishes devices, in the same run: what pods without claims
pay is a ratio of about 1 to it. Of pods with a claim, the first of a kind is shown apart: it alone has every device
looked at.
"""

from __future__ import annotations

import argparse
import time
from random import Random

from steersman.api.resource import Object
from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.profiles import DEFAULT
from steersman.scheduler.repeats import Repeats

DRIVER = "gpu.example.com"


def cluster(nodes: int, devices: int) -> Columns:
    """Nodes, each with devices of its own."""
    columns = Columns()
    for number in range(nodes):
        name = f"n{number}"
        allocatable = {"cpu": "640", "memory": "256Gi", "pods": "1100"}
        columns.set_node({"metadata": {"name": name}, "status": {"allocatable": allocatable}})
        if devices:
            given = [{"name": f"d{each}", "attributes": {"model": {"string": "m"}}} for each in range(devices)]
            pool = {"name": name, "generation": 1, "resourceSliceCount": 1}
            spec = {"driver": DRIVER, "nodeName": name, "pool": pool, "devices": given}
            columns.devices.set_slice(name, {"metadata": {"name": name}, "spec": spec})
    expression = {"cel": {"expression": f"device.driver == '{DRIVER}'"}}
    columns.devices.set_class("gpu", {"metadata": {"name": "gpu"}, "spec": {"selectors": [expression]}})
    return columns


def claim(name: str) -> Object:
    """One device of a model."""
    selector = {"cel": {"expression": f"device.attributes['{DRIVER}'].model == 'm'"}}
    exactly = {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1, "selectors": [selector]}
    meta = {"name": name, "namespace": "d", "uid": f"uid-{name}"}
    return {"metadata": meta, "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}}


def place(columns: Columns, repeats: Repeats, name: str, *, claims: bool) -> float:
    """Seconds that one pod takes, from being popped to being assumed."""
    spec: Object = {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}
    if claims:
        columns.devices.set_claim(("d", name), claim(name))
        spec["resourceClaims"] = [{"name": "x", "resourceClaimName": name}]
    pod = podinfo.read({"metadata": {"uid": name, "name": name, "namespace": "d"}, "spec": spec})
    began = time.perf_counter()
    for plugin in DEFAULT.holds:
        assert plugin.hold is None or plugin.hold(columns, pod) is None
    choice = repeats.decide(pod, DEFAULT, Random(1))
    assert choice is not None
    for plugin in DEFAULT.reserves:
        if plugin.reserve is not None:
            plugin.reserve(columns, pod, choice.node)
    columns.add_pod(pod, choice.node)
    return time.perf_counter() - began


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--pods", type=int, default=200)
    given = parser.parse_args()
    with_devices, without = cluster(given.nodes, given.devices), cluster(given.nodes, 0)
    many, few = Repeats(with_devices), Repeats(without)
    taken = [place(with_devices, many, f"c{number}", claims=True) for number in range(given.pods)]
    floor, plain = 0.0, 0.0
    for number in range(given.pods):  # in turn, so that both see the same machine
        floor += place(without, few, f"p{number}", claims=False)
        plain += place(with_devices, many, f"p{number}", claims=False)
    each = floor / given.pods
    print(f"{given.nodes} nodes, {given.nodes * given.devices} devices, {given.pods} pods of each kind")
    print(f"no claim, no devices published  {each * 1e6:9.0f} us  (floor)")
    print(f"no claim, devices published     {plain / given.pods * 1e6:9.0f} us  {plain / floor:6.2f} x floor")
    print(f"first pod with a claim          {taken[0] * 1e6:9.0f} us  {taken[0] / each:6.1f} x floor")
    rest = sum(taken[1:]) / max(len(taken) - 1, 1)
    print(f"pods alike with a claim         {rest * 1e6:9.0f} us  {rest / each:6.1f} x floor")


if __name__ == "__main__":
    main()
