"""Whatever valid pieces a pod is put together from: defaults settle, the pod is accepted, and nothing moves after."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steersman.api.resource import Object
from tests.api.kinds import stage

PROBE = st.fixed_dictionaries(
    {},
    optional={
        "periodSeconds": st.integers(1, 60),
        "timeoutSeconds": st.integers(1, 60),
        "initialDelaySeconds": st.integers(0, 60),
    },
).flatmap(
    lambda base: st.sampled_from(
        [
            {**base, "httpGet": {"port": 80}},
            {**base, "tcpSocket": {"port": "web"}},
            {**base, "exec": {"command": ["true"]}},
            {**base, "grpc": {"port": 1}},
        ]
    )
)
ENV = st.sampled_from(
    [
        {"name": "A"},
        {"name": "B", "value": "x"},
        {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "D", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
)
RESOURCES = st.sampled_from(
    [{}, {"limits": {"cpu": "1"}}, {"requests": {"cpu": "0.1", "memory": "1e9"}}, {"limits": {"memory": "1.5Gi"}}]
)
CONTAINER = st.fixed_dictionaries(
    {"image": st.sampled_from(["a", "a:1", "r.example:5000/a/b@sha256:" + "0" * 64])},
    optional={
        "env": st.lists(ENV, max_size=3),
        "resources": RESOURCES,
        "livenessProbe": PROBE,
        "readinessProbe": PROBE,
        "volumeMounts": st.just([{"name": "v", "mountPath": "/v"}]),
        "securityContext": st.sampled_from(
            [{"runAsUser": 5}, {"privileged": True}, {"capabilities": {"drop": ["ALL"]}}]
        ),
        "lifecycle": st.just({"preStop": {"exec": {"command": ["x"]}}}),
    },
)
VOLUME = st.sampled_from(
    [
        {"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"hostPath": {"path": "/x"}},
        {"configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}},
        {"downwardAPI": {"items": [{"path": "p", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"persistentVolumeClaim": {"claimName": "c"}},
        {},
    ]
)
SPEC = st.fixed_dictionaries(
    {"volumes": VOLUME.map(lambda source: [{"name": "v", **source}])},
    optional={
        "restartPolicy": st.sampled_from(["Always", "OnFailure", "Never"]),
        "hostNetwork": st.booleans(),
        "terminationGracePeriodSeconds": st.integers(0, 100),
        "nodeSelector": st.just({"a": "b"}),
        "tolerations": st.just([{"operator": "Exists"}]),
        "hostname": st.just("h"),
        "schedulingGates": st.just([{"name": "g"}]),
        "topologySpreadConstraints": st.just(
            [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]
        ),
    },
)


@st.composite
def pods(draw: st.DrawFn) -> Object:
    found = draw(st.lists(CONTAINER, min_size=1, max_size=3))
    web: list[Any] = [{"name": "web", "containerPort": 80}]
    named = [
        {**each, "name": f"c{i}", "ports": [{**port, "containerPort": 80 + i} for port in web]}
        for i, each in enumerate(found)
    ]
    return stage.example("Pod", **copy.deepcopy(draw(SPEC)), containers=copy.deepcopy(named))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(pods())
def test_any_pod_of_valid_pieces(pod: Object) -> None:
    kind = stage.kind_of(pod)
    assert stage.create(pod) == []
    pod["metadata"]["resourceVersion"] = "7"
    settled = copy.deepcopy(pod)
    kind.default(settled)
    assert settled == pod
    for subresource in ["", *kind.updates]:
        again = copy.deepcopy(pod)
        assert stage.update(again, pod, subresource) == []
        assert again == pod
