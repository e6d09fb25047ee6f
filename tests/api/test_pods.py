"""What a pod asks for, its class of service, and whether it is ready: the rules that many parts share."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api import pods, quantity
from steersman.api.resource import Object
from tests.api.kinds import stage


def container(name: str, requests: Any = None, limits: Any = None, **more: Any) -> Object:
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    return {"name": name, "image": "b", "resources": resources, **more}


@pytest.mark.parametrize(
    ("spec", "cpu"),
    [
        ({"containers": [container("a", {"cpu": "1"}), container("b", {"cpu": "500m"})]}, "1500m"),
        ({"initContainers": [container("i", {"cpu": "2"})], "containers": [container("a", {"cpu": "1"})]}, "2"),
        (
            {
                "initContainers": [container("s", {"cpu": "1"}, restartPolicy="Always"), container("i", {"cpu": "2"})],
                "containers": [container("a", {"cpu": "1"})],
            },
            "3",
        ),
        (
            {
                "initContainers": [container("i", {"cpu": "2"}), container("s", {"cpu": "1"}, restartPolicy="Always")],
                "containers": [container("a", {"cpu": "1"})],
            },
            "2",
        ),
        ({"containers": [container("a", {"cpu": "1"})], "overhead": {"cpu": "250m"}}, "1250m"),
        ({"containers": [container("a", {"cpu": "1"})], "resources": {"requests": {"cpu": "4"}}}, "4"),
    ],
)
def test_requests_add_up(spec: Object, cpu: str) -> None:
    found = pods.requests({"spec": spec})["cpu"]
    assert quantity.compare(str(found), cpu) == 0


FULL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("containers", "cls"),
    [
        ([container("a")], "BestEffort"),
        ([container("a", {"example.com/gpu": "1"}, {"example.com/gpu": "1"})], "BestEffort"),
        ([container("a", FULL, FULL)], "Guaranteed"),
        ([container("a", FULL, FULL), container("b")], "Burstable"),
        ([container("a", {"cpu": "1"})], "Burstable"),
        ([container("a", {"cpu": "500m", "memory": "1Gi"}, FULL)], "Burstable"),
        ([container("a", {"cpu": "1000m", "memory": "1024Mi"}, FULL)], "Guaranteed"),
    ],
)
def test_class_of_service(containers: list[Object], cls: str) -> None:
    assert pods.qos_class({"spec": {"containers": containers}}) == cls
    pod = stage.example("Pod", containers=containers)
    assert stage.create(pod) == []
    assert pod["status"]["qosClass"] == cls


@pytest.mark.parametrize(
    ("status", "ready", "terminal"),
    [
        ({}, False, False),
        ({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}, True, False),
        ({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}, False, False),
        ({"phase": "Succeeded"}, False, True),
        ({"phase": "Failed"}, False, True),
    ],
)
def test_readiness_and_end(status: Object, ready: bool, terminal: bool) -> None:
    pod = {"metadata": {}, "spec": {}, "status": status}
    assert (pods.is_ready(pod), pods.is_terminal(pod), pods.is_active(pod)) == (ready, terminal, not terminal)
    pod["metadata"] = {"deletionTimestamp": stage.NOW}
    assert not pods.is_active(pod)


def test_what_a_pod_refers_to() -> None:
    env = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}]
    spec = {
        "containers": [container("a", env=env, envFrom=[{"configMapRef": {"name": "c1"}}])],
        "imagePullSecrets": [{"name": "s2"}],
        "volumes": [{"name": "v", "secret": {"secretName": "s3"}}, {"name": "w", "configMap": {"name": "c2"}}],
    }
    found: set[tuple[str, str]] = set()
    pods.references(spec, lambda kind, name: found.add((kind, name)))
    assert {name for _, name in found} == {"s1", "s2", "s3", "c1", "c2"}


def test_host_ports() -> None:
    ports = [
        {"containerPort": 1, "hostPort": 8080},
        {"containerPort": 2},
        {"containerPort": 3, "hostPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"},
    ]
    spec = {"containers": [container("a", ports=ports)]}
    assert sorted(port for *_, port in pods.host_ports(spec)) == [53, 8080]
