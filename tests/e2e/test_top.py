"""kubectl top over a real node, and an autoscaler that acts on what it shows."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Steer
from tests.e2e.kubectl import Kubectl

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

BUSY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: spinner
        image: nginx:1.7.9
        command: [sh, -c, "while :; do :; done"]
        resources: {requests: {cpu: 50m}, limits: {cpu: 100m}}
      - name: sleeper
        image: nginx:1.7.9
        command: [sleep, "3600"]
        resources: {requests: {cpu: 10m}}
"""


@pytest.fixture(scope="module")
def busy(steer: Steer) -> Iterator[Steer]:
    """A Deployment that uses a tenth of a core."""
    kubectl = steer.kubectl()
    kubectl("create", "-f", "-", given=BUSY)
    kubectl("rollout", "status", "deployment/busy", "--timeout=60s", timeout=70)
    yield steer
    kubectl("delete", "deployment", "busy", "--wait=true")


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_top(busy: Steer, kubectl: Kubectl) -> None:
    head, node = rows(kubectl("top", "node"))
    assert head[:4] == ["NAME", "CPU(cores)", "CPU(%)" if head[2] == "CPU(%)" else "CPU%", "MEMORY(bytes)"]
    assert node[1].endswith("m")
    assert node[3].endswith("Mi")
    head, pod = rows(kubectl("top", "pod", "-l", "app=busy"))
    assert head == ["NAME", "CPU(cores)", "MEMORY(bytes)"]
    assert pod[0].startswith("busy-")
    assert 50 < int(pod[1].removesuffix("m")) < 150
    _, first, second = rows(kubectl("top", "pod", "--containers", "--sort-by=cpu"))
    assert (first[1], second[1]) == ("spinner", "sleeper")
    everywhere = rows(kubectl("top", "pod", "-A", "--sort-by=memory"))
    assert ["default", pod[0]] in [row[:2] for row in everywhere]
    assert "v1beta1.metrics.k8s.io" in kubectl("get", "apiservices")
    assert "PodMetrics" in kubectl("explain", "pods", "--api-version=metrics.k8s.io/v1beta1")


def test_an_autoscaler_acts_on_it(busy: Steer) -> None:
    kubectl = busy.kubectl()
    kubectl("autoscale", "deployment", "busy", "--min=1", "--max=3", "--cpu=50%")
    kubectl("wait", "deployment/busy", "--for=jsonpath={.spec.replicas}=3", "--timeout=120s", timeout=130)
    kubectl("rollout", "status", "deployment/busy", "--timeout=60s", timeout=70)
    status = json.loads(kubectl("get", "hpa", "busy", "-o", "json"))["status"]
    conditions = {each["type"]: each["status"] for each in status["conditions"]}
    assert (conditions["ScalingActive"], conditions["AbleToScale"]) == ("True", "True")
    used = status["currentMetrics"][0]["resource"]["current"]["averageUtilization"]
    assert used > 100
    kubectl("delete", "hpa", "busy")
