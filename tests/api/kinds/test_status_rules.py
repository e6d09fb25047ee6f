"""Counters of a status that contradict each other are told of, whatever is missing."""

from __future__ import annotations

import copy

import pytest

from tests.api.kinds import stage


@pytest.mark.parametrize("name", ["Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"])
def test_fewer_than_none(name: str) -> None:
    old = stage.stored(stage.example(name))
    new = copy.deepcopy(old)
    new["status"] = {"replicas": -1, "terminatingReplicas": 1}
    found = stage.update(new, old, "status")
    assert found[0] == "status.replicas: Invalid value: -1: must be greater than or equal to 0"
    assert "status.readyReplicas: Invalid value: 0: cannot be greater than status.replicas" in found
