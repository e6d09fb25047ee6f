"""The JSONPath that columns and field lists are written in."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api import jsonpath

DOC = {
    "a": {"b": [{"n": "x", "v": 1}, {"n": "y", "v": 2}, {"n": "z", "v": 3}]},
    "m": {"example.com/key": "dotted"},
    "empty": [],
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b[0].n", ["x"]),
        (".a.b[-1].n", ["z"]),
        (".a.b[*].v", [1, 2, 3]),
        (".a.b[0:2].n", ["x", "y"]),
        ('.a.b[?(@.n=="y")].v', [2]),
        (".a.b[?(@.v>1)].n", ["y", "z"]),
        (".m['example\\.com/key']", ["dotted"]),
        (".m.example\\.com/key", ["dotted"]),
        ("..n", ["x", "y", "z"]),
        ("{.a.b[1].n}", ["y"]),
        (".missing.more", []),
        (".a.b[9]", []),
        (".empty[*]", []),
    ],
)
def test_paths(path: str, found: list[Any]) -> None:
    assert list(jsonpath.compile(path)(DOC)) == found


@pytest.mark.parametrize("path", [".a[", ".a[?(", ".a[0:1:0]", "[" * 5000])
def test_nonsense_is_a_value_error(path: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        jsonpath.compile(path)


@pytest.mark.parametrize("path", [".a.b[0].n.deeper", ".a[0]", ".a.b.n"])
def test_a_path_through_something_else_finds_nothing(path: str) -> None:
    assert list(jsonpath.compile(path)(DOC)) == []
