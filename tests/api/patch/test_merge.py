"""Merge patch: the table of RFC 7386, appendix A, as far as documents are objects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api.errors import ApiError
from steersman.api.patch import merge

VALUES = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


@pytest.mark.parametrize(
    ("document", "patch", "wanted"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": 1}, {"a": {"b": 2}}, {"a": {"b": 2}}),
    ],
)
def test_merged(document: dict[str, Any], patch: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert merge.apply(document, patch) == wanted


@pytest.mark.parametrize("patch", [[], "x", None, 1])
def test_refused(patch: Any) -> None:
    with pytest.raises(ApiError) as caught:
        merge.apply({}, patch)
    assert caught.value.code == 400


@given(OBJECTS, OBJECTS)
def test_twice_is_once(document: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge.apply(dict(document), patch)
    assert merge.apply(dict(once), patch) == once
