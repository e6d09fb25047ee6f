"""JSON Patch: the RFC's examples and what the original refuses."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.patch import json


@pytest.mark.parametrize(
    ("document", "patch", "wanted"),
    [
        ({"a": 1}, [], {"a": 1}),
        ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"foo": "bar", "baz": "qux"}),
        ({"foo": [1, 3]}, [{"op": "add", "path": "/foo/1", "value": 2}], {"foo": [1, 2, 3]}),
        ({"foo": [1]}, [{"op": "add", "path": "/foo/-", "value": [2]}], {"foo": [1, [2]]}),
        ({"a": 1, "b": 2}, [{"op": "remove", "path": "/a"}], {"b": 2}),
        ({"a": [1, 2, 3]}, [{"op": "remove", "path": "/a/1"}], {"a": [1, 3]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": {"b": 1}, "c": {}}, [{"op": "move", "from": "/a/b", "path": "/c/d"}], {"a": {}, "c": {"d": 1}}),
        ({"a": [1, 2]}, [{"op": "move", "from": "/a/0", "path": "/a/1"}], {"a": [2, 1]}),
        ({"a": {"b": [1]}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": [1]}, "c": {"b": [1]}}),
        ({"a": [1, {"b": 2.0}]}, [{"op": "test", "path": "/a", "value": [1, {"b": 2}]}], {"a": [1, {"b": 2.0}]}),
        ({"a/b": {"m~n": 1}}, [{"op": "replace", "path": "/a~1b/m~0n", "value": 2}], {"a/b": {"m~n": 2}}),
        ({"a": 1}, [{"op": "copy", "from": "/missing", "path": "/b"}], {"a": 1, "b": None}),
        ({"a": 1}, [{"op": "replace", "path": "/missing", "value": 2}], {"a": 1, "missing": 2}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": 1}, [{"op": "add", "path": "", "value": {"b": 2}}], {"b": 2}),
    ],
)
def test_applied(document: Any, patch: list[Any], wanted: Any) -> None:
    assert json.apply(document, patch) == wanted


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/missing"},
        {"op": "replace", "path": "/missing/x", "value": 1},
        {"op": "add", "path": "/missing/x", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "add", "path": "/list/x", "value": 1},
        {"op": "add", "path": "/a"},
        {"op": "add", "value": 1},
        {"op": "add", "path": "a", "value": 1},
        {"op": "test", "path": "/a", "value": 2},
        {"op": "test", "path": "/a", "value": True},
        {"op": "move", "path": "/b"},
        {"op": "move", "from": "/map", "path": "/map/inner"},
        {"op": "copy", "from": "/missing/x", "path": "/b"},
        {"op": "shrink", "path": "/a"},
        {"op": "remove", "path": ""},
        {"op": "add", "path": "/a/b", "value": 1},
        {"op": "add", "path": "/list/99999999999999999999", "value": 1},
    ],
)
def test_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        json.apply({"a": 1, "list": [1], "map": {}}, [operation])
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")


@pytest.mark.parametrize(("patch", "code"), [({}, 400), (["x"], 400), ([{"op": "test"}] * 10_001, 413)])
def test_not_a_patch(patch: Any, code: int) -> None:
    with pytest.raises(ApiError) as caught:
        json.apply({}, patch)
    assert caught.value.code == code


def test_a_copy_is_its_own() -> None:
    out = json.apply({"a": {"x": 1}}, [{"op": "copy", "from": "/a", "path": "/b"}])
    out["b"]["x"] = 2
    assert out["a"]["x"] == 1
