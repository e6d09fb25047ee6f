"""What holds for every kind: defaults settle at once, a small valid object is accepted and stays so, rows render."""

from __future__ import annotations

import copy

import pytest

from steersman.api import kinds, table
from tests.api.kinds import stage

NAMES = stage.example_names()
WITHOUT_EXAMPLE = {
    "CertificateSigningRequest",  # needs a real request: test_certificates.py
    "ComponentStatus",  # only read: test_components.py
    "ClusterTrustBundle",  # served by no release without a feature gate
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
}


def test_every_special_kind_has_an_example() -> None:
    shown = {name.rpartition("/")[2] for name in NAMES}
    assert {behavior.kind for behavior in kinds.ALL} - shown == WITHOUT_EXAMPLE


def test_no_kind_is_listed_twice() -> None:
    found = [(behavior.group, behavior.kind) for behavior in kinds.ALL]
    assert len(found) == len(set(found))


@pytest.mark.parametrize("name", NAMES)
def test_a_small_object_is_accepted(name: str) -> None:
    assert stage.create(stage.example(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_defaults_settle_at_once(name: str) -> None:
    obj = stage.example(name)
    kind = stage.kind_of(obj)
    kind.default(obj)
    once = copy.deepcopy(obj)
    kind.default(obj)
    assert obj == once


@pytest.mark.parametrize("name", NAMES)
def test_an_update_that_changes_nothing_is_accepted_and_changes_nothing(name: str) -> None:
    old = stage.stored(stage.example(name))
    kind = stage.kind_of(old)
    for subresource in ["", *kind.updates]:
        before, new = copy.deepcopy(old), copy.deepcopy(old)
        assert stage.update(new, old, subresource) == [], subresource
        assert new == before, subresource
        assert old == before, subresource


WITH_STATUS = [
    name for name in NAMES if any(sub.name == "status" for sub in stage.kind_of(stage.example(name)).subresources)
]


@pytest.mark.parametrize("name", sorted({*WITH_STATUS} - {"v1/Node"}))  # a kubelet registers itself with its status
def test_a_status_from_the_author_is_dropped(name: str) -> None:
    wanted = stage.stored(stage.example(name)).get("status")
    obj = stage.example(name)
    obj["status"] = {"observedGeneration": 5, "phase": "Unheard"}
    stage.create(obj)
    assert obj.get("status") == wanted


@pytest.mark.parametrize("name", WITH_STATUS)
def test_an_update_of_the_spec_leaves_the_status_alone(name: str) -> None:
    old = stage.stored(stage.example(name))
    new = copy.deepcopy(old)
    new["status"] = {"observedGeneration": 5}
    stage.update(new, old)
    assert new.get("status") == old.get("status")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dropped", ["metadata/uid", "metadata/resourceVersion"])
def test_what_identifies_an_object_stays(name: str, dropped: str) -> None:
    old = stage.stored(stage.example(name))
    new = copy.deepcopy(old)
    stage.put(new, dropped, None)
    found = stage.update(new, old)
    if dropped == "metadata/resourceVersion":
        assert found == ['metadata.resourceVersion: Invalid value: "": must be specified for an update']
    else:
        assert found == []
        assert new["metadata"] == old["metadata"]


@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_a_cell_for_every_column(name: str) -> None:
    obj = stage.stored(stage.example(name))
    kind = stage.kind_of(obj)
    version = obj["apiVersion"].rpartition("/")[2]
    for include in ("None", "Metadata", "Object"):
        made = table.table(table.columns(kind, version), [obj], 1767323105.0, include=include)
        assert len(made["columnDefinitions"]) == len(made["rows"][0]["cells"])
        assert made["rows"][0]["cells"].count(obj["metadata"]["name"]) >= 1
