"""New objects of one shape are owned alike: what is remembered of one is what the next would have come to."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steersman.api.kind import Kind
from steersman.api.patch import ownership
from steersman.api.patch.fieldmanager import FieldManager
from steersman.api.patch.ownership import Manager
from steersman.api.registry import Registry

_REGISTRY = Registry()
_POD = _REGISTRY.by_kind("", "v1", "Pod")
assert _POD is not None
_WARM = FieldManager(_REGISTRY.schemas)
_COLD = FieldManager(_REGISTRY.schemas)
_KEYS = st.sampled_from(["a", "b", "example.com/c"])
_TEXTS = st.sampled_from(["", "x", "y"])
_OWNER = st.fixed_dictionaries({"uid": _TEXTS, "name": _TEXTS, "kind": _TEXTS}, optional={"controller": st.booleans()})
_METADATA = st.fixed_dictionaries(
    {"name": _TEXTS},
    optional={
        "generateName": _TEXTS,
        "namespace": _TEXTS,
        "labels": st.dictionaries(_KEYS, _TEXTS),
        "annotations": st.dictionaries(_KEYS, _TEXTS),
        "finalizers": st.lists(_TEXTS, unique=True, max_size=2),
        "ownerReferences": st.lists(_OWNER, max_size=2, unique_by=lambda owner: owner["uid"]),
        "deletionGracePeriodSeconds": st.integers(0, 2),
        "creationTimestamp": st.sampled_from([None, "2026-01-01T00:00:00Z"]),
    },
)
_CONTAINER = st.fixed_dictionaries(
    {"name": _TEXTS},
    optional={
        "image": _TEXTS,
        "ports": st.lists(st.fixed_dictionaries({"containerPort": st.integers(1, 3)}), max_size=2),
        "args": st.lists(_TEXTS, max_size=2),
    },
)
_PODS = st.fixed_dictionaries(
    {"metadata": _METADATA, "spec": st.fixed_dictionaries({"containers": st.lists(_CONTAINER, max_size=2)})},
    optional={"status": st.fixed_dictionaries({}, optional={"phase": _TEXTS, "message": _TEXTS})},
)


def _owned(fields: FieldManager, obj: dict[str, Any], subresource: str, kind: Kind | None = _POD) -> Any:
    assert kind is not None
    made = copy.deepcopy({"apiVersion": "v1", "kind": kind.kind, **obj})
    fields.track(kind, "v1", made, None, manager="m", now=0.0, subresource=subresource)
    return made["metadata"].get("managedFields")


_EVENT = _REGISTRY.by_kind("", "v1", "Event")
_REFERENCE = st.fixed_dictionaries({}, optional={"kind": _TEXTS, "name": _TEXTS, "uid": st.none() | _TEXTS})
_EVENTS = st.fixed_dictionaries(
    {"metadata": _METADATA},
    optional={
        "involvedObject": _REFERENCE,
        "related": st.none() | _REFERENCE,
        "reason": _TEXTS,
        "message": _TEXTS,
        "count": st.integers(0, 2),
        "source": st.fixed_dictionaries({}, optional={"component": _TEXTS}),
        "series": st.fixed_dictionaries({"count": st.integers(0, 2)}),
    },
)


@given(_EVENTS)
def test_events_are_owned_by_their_fields(event: dict[str, Any]) -> None:
    type = _COLD.type(_EVENT, "v1")  # type: ignore[arg-type]
    type.shapes.clear()
    found = _owned(_COLD, event, "", _EVENT)
    assert _owned(_WARM, event, "", _EVENT) == found
    assert _owned(_WARM, event, "", _EVENT) == found


@given(_PODS, st.sampled_from(["", "", "status", "ephemeralcontainers"]))
def test_what_is_remembered_is_what_would_be_found(pod: dict[str, Any], subresource: str) -> None:
    type = _COLD.type(_POD, "v1")  # type: ignore[arg-type]
    type.shapes.clear()
    type.specs.clear()
    found = _owned(_COLD, pod, subresource)
    assert _owned(_WARM, pod, subresource) == found
    assert _owned(_WARM, pod, subresource) == found


def test_another_value_is_no_other_shape_and_another_key_is() -> None:
    def shaped(**labels: str) -> dict[str, Any]:
        return {"metadata": {"name": labels["a"], "labels": labels}, "spec": {"containers": [{"name": "c"}]}}

    fields = FieldManager(_REGISTRY.schemas)
    first, same, other = (_owned(fields, pod, "") for pod in (shaped(a="1"), shaped(a="2"), shaped(a="1", b="")))
    assert first == same
    assert other[0]["fieldsV1"]["f:metadata"]["f:labels"] == {".": {}, "f:a": {}, "f:b": {}}
    assert len(fields.type(_POD, "v1").shapes) == 2  # type: ignore[arg-type]


def test_memory_is_bounded() -> None:
    known: dict[bytes, Any] = {}
    for number in range(2000):
        ownership.remember(known, b"%d" % number, {})
    ownership.remember(known, b"x" * 20_000, {})
    assert 0 < len(known) <= 512
    assert b"x" * 20_000 not in known


def test_managers_are_told_apart_by_what_they_do() -> None:
    assert Manager("m", "Apply", "v1").key == Manager("m", "Apply", "v2").key
    assert Manager("m", "Update", "v1").key != Manager("m", "Update", "v2").key
