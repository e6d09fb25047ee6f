"""Structural schemas: what they drop, fill in and refuse."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api import structural

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 9, "default": 3},
                "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
                "mode": {"type": "string", "enum": ["on", "off"]},
                "port": {"x-kubernetes-int-or-string": True},
                "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "maxItems": 3},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "map": {"type": "object", "additionalProperties": {"type": "integer"}},
                "maybe": {"type": "string", "nullable": True},
            },
        }
    },
}


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"size": "x"}, 'spec.size in body must be of type integer: "string"'),
        ({"size": 0}, "spec.size in body should be greater than or equal to 1"),
        ({"size": 10}, "spec.size in body should be less than or equal to 9"),
        ({"size": True}, 'must be of type integer: "boolean"'),
        ({"name": "toolong"}, "Too long: may not be more than 5 bytes"),
        ({"name": "A1"}, "spec.name in body should match '^[a-z]+$'"),
        ({"mode": "dim"}, 'Unsupported value: "dim": supported values: "on", "off"'),
        ({"port": 1.5}, "must be of type integer,string"),
        ({"tags": ["a", "a"]}, 'Duplicate value: "a"'),
        ({"tags": ["a", "b", "c", "d"]}, "Too many: 4: must have at most 3 items"),
        ({"map": {"a": "b"}}, "spec.map.a in body must be of type integer"),
    ],
)
def test_each_rule_refuses_in_the_original_words(spec: dict[str, Any], complaint: str) -> None:
    found = structural.validate({"spec": spec}, SCHEMA)
    assert len(found) == 1
    assert complaint in str(found[0])


def test_a_good_object_passes() -> None:
    spec = {"size": 1, "name": "abc", "mode": "on", "port": "http", "tags": ["a"], "free": {"x": [1]}, "maybe": None}
    assert structural.validate({"apiVersion": "v1", "spec": spec}, SCHEMA) == []
    assert str(structural.validate({}, SCHEMA)[0]) == "spec: Required value"


def test_pruning_names_what_it_drops() -> None:
    obj = {"metadata": {"name": "a", "odd": 1}, "spec": {"size": 1, "odd": {"x": 1}, "free": {"kept": 1}}, "odd": 2}
    assert sorted(structural.prune(obj, SCHEMA)) == ["metadata.odd", "odd", "spec.odd"]
    assert obj == {"metadata": {"name": "a"}, "spec": {"size": 1, "free": {"kept": 1}}}


def test_defaulting_settles_at_once() -> None:
    obj: dict[str, Any] = {"spec": {}}
    structural.default(obj, SCHEMA)
    once = copy.deepcopy(obj)
    structural.default(obj, SCHEMA)
    assert obj == once == {"spec": {"size": 3}}


@pytest.mark.parametrize(
    ("value", "good"),
    [({"a": 1}, True), ({"b": "x"}, True), ({"a": 1, "b": "x"}, False), ({}, False)],
)
def test_one_of(value: dict[str, Any], good: bool) -> None:
    schema = {"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert (structural.validate(value, schema, "spec", root=False) == []) is good


def test_no_pattern_makes_a_text_slow_to_judge() -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    assert "should match" in str(structural.validate("a" * 10_000 + "!", schema, "spec", root=False)[0])
    assert structural.validate("a" * 10_000, schema, "spec", root=False) == []


def test_a_pattern_that_is_none_is_refused_when_it_is_written() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array", "items": {"type": "string", "pattern": "(?=a)["}}},
    }
    (found,) = structural.check_patterns(schema, "schema")
    assert found.field == "schema.properties[a].items.pattern" and "must be a valid regular expression" in str(found)


def test_a_long_set_is_judged_at_once() -> None:
    schema = {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}
    assert structural.validate(list(range(100_000)), schema, "spec", root=False) == []
    assert "Duplicate value: 7" in str(structural.validate([7, 8, 7], schema, "spec", root=False)[0])
