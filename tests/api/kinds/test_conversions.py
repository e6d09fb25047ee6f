"""PriorityLevelConfigurations in the versions that older releases serve."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.kind import Kind
from steersman.api.kinds.flowcontrol import PRESERVE
from steersman.api.registry import Registry
from steersman.api.resource import Object

GROUP = "flowcontrol.apiserver.k8s.io"


def kind_of(release: str) -> Kind:
    found = Registry(release).find(GROUP, "prioritylevelconfigurations")
    assert found is not None
    return found


def level(version: str, annotations: dict[str, str] | None = None, **limited: Any) -> Object:
    metadata = {"name": "a"} | ({"annotations": annotations} if annotations else {})
    spec = {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}, **limited}}
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "PriorityLevelConfiguration",
        "metadata": metadata,
        "spec": spec,
    }


def stored(release: str, obj: Object) -> dict[str, Any]:
    """`spec.limited` as the store has it."""
    kind = kind_of(release)
    wanted = f"{GROUP}/{kind.storage_version.name}"
    if obj["apiVersion"] != wanted:
        assert kind.convert is not None
        obj = kind.convert(obj, wanted)
    kind.default(obj)
    kind.default(obj)
    assert kind.validate(obj) == []
    return {key: value for key, value in obj["spec"]["limited"].items() if key != "limitResponse"}


@pytest.mark.parametrize(
    ("release", "obj", "limited"),
    [
        ("1.25", level("v1beta2"), {"assuredConcurrencyShares": 30}),
        ("1.25", level("v1beta1", assuredConcurrencyShares=0), {"assuredConcurrencyShares": 30}),
        ("1.26", level("v1beta2", assuredConcurrencyShares=7), {"nominalConcurrencyShares": 7, "lendablePercent": 0}),
        ("1.26", level("v1beta2"), {"nominalConcurrencyShares": 30, "lendablePercent": 0}),
        ("1.28", level("v1beta3", nominalConcurrencyShares=0), {"nominalConcurrencyShares": 30, "lendablePercent": 0}),
        ("1.30", level("v1beta3", nominalConcurrencyShares=0), {"nominalConcurrencyShares": 30, "lendablePercent": 0}),
        (
            "1.30",
            level("v1beta3", {PRESERVE: ""}, nominalConcurrencyShares=0),
            {"nominalConcurrencyShares": 0, "lendablePercent": 0},
        ),
        ("1.30", level("v1", nominalConcurrencyShares=0), {"nominalConcurrencyShares": 0, "lendablePercent": 0}),
        ("1.36", level("v1", lendablePercent=5), {"nominalConcurrencyShares": 30, "lendablePercent": 5}),
    ],
)
def test_what_is_stored(release: str, obj: Object, limited: dict[str, Any]) -> None:
    assert stored(release, obj) == limited


def test_what_is_read() -> None:
    convert = kind_of("1.30").convert
    assert convert is not None
    none = convert(level("v1", nominalConcurrencyShares=0), f"{GROUP}/v1beta3")
    assert (
        none["metadata"]["annotations"] == {PRESERVE: ""} and none["spec"]["limited"]["nominalConcurrencyShares"] == 0
    )
    back = convert(none, f"{GROUP}/v1")
    assert "annotations" not in back["metadata"] and back["spec"]["limited"]["nominalConcurrencyShares"] == 0
    older = convert(level("v1beta3", nominalConcurrencyShares=9), f"{GROUP}/v1beta2")
    assert older["spec"]["limited"] == {"limitResponse": {"type": "Reject"}, "assuredConcurrencyShares": 9}


def test_the_annotation_is_for_v1beta3() -> None:
    kind = kind_of("1.36")
    obj = level("v1", {PRESERVE: ""})
    kind.default(obj)
    assert [str(each) for each in kind.validate(obj)] == [
        f"metadata.annotations: Forbidden: annotation '{PRESERVE}' is forbidden"
    ]
