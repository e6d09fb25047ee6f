"""Sets of fields on the wire come to the same as sets that were decoded."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steersman.api.patch import fieldset
from steersman.api.patch.fieldset import MEMBER

_KEYS = st.sampled_from(["f:a", "f:b", 'k:{"name":"a"}', 'v:"x"', "f:spec"])
_LEAF = st.just({MEMBER: {}})


def _branch(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    below = st.dictionaries(_KEYS, inner, min_size=1, max_size=3)
    return st.tuples(below, st.booleans()).map(lambda pair: {**({MEMBER: {}} if pair[1] else {}), **pair[0]})


_ANY = st.recursive(_LEAF, _branch, max_leaves=12)
_SETS = st.dictionaries(_KEYS, _ANY, min_size=1, max_size=3)


@given(_SETS, _SETS)
def test_joined_is_the_union(one: dict[str, Any], other: dict[str, Any]) -> None:
    wire = fieldset.encode(one)
    before = json.dumps(wire)
    found = fieldset.joined(wire, other)
    assert json.dumps(found) == json.dumps(fieldset.encode(fieldset.union(one, other)))  # in the same order
    assert json.dumps(wire) == before


@given(_SETS, _SETS)
def test_reduced_is_the_difference(one: dict[str, Any], other: dict[str, Any]) -> None:
    wire = fieldset.encode(one)
    before = json.dumps(wire)
    left = fieldset.difference(one, other)
    found = fieldset.reduced(wire, other)
    assert json.dumps(found) == (json.dumps(fieldset.encode(left)) if left else "null")
    assert json.dumps(wire) == before


@given(_SETS)
def test_the_wire_and_back(one: dict[str, Any]) -> None:
    assert fieldset.decode(fieldset.encode(one)) == one
