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


def _told(value: Any, schema: dict[str, Any]) -> list[str]:
    return [str(found).partition(" in body ")[2] for found in structural.validate(value, schema, "f", root=False)]


ADDRESS = {
    "type": "object",
    "properties": {"type": {"type": "string"}, "value": {"type": "string"}},
    "oneOf": [
        {
            "properties": {
                "type": {"enum": ["IPAddress"]},
                "value": {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
            }
        },
        {"properties": {"type": {"not": {"enum": ["IPAddress"]}}}},
    ],
}


def test_the_option_that_most_was_found_right_in_tells_what_is_wrong() -> None:
    value = {"type": "IPAddress", "value": "1.2.3.4:8080"}
    *joined, found = structural.validate(value, ADDRESS, "f", root=False)
    assert [error.field for error in joined] == ["<nil>", "<nil>"]
    assert str(found) == 'f.value: Invalid value: "1.2.3.4:8080": f.value in body must be of type ipv4: "1.2.3.4:8080"'


@pytest.mark.parametrize("key", ["anyOf", "oneOf"])
@pytest.mark.parametrize(
    ("value", "options", "nearest"),
    [
        # equals: the first, even where it says more
        ("x", [{"minLength": 9, "format": "ipv4"}, {"format": "ipv6"}], 0),
        ("x", [{"format": "ipv6"}, {"minLength": 9, "format": "ipv4"}], 0),
        # a format that is applied counts, one that is none does not
        ("x", [{"minLength": 9, "format": "odd"}, {"maxLength": 0, "format": "password"}], 1),
        # a right type counts, and a wrong one is nearer than none
        (3, [{"type": "string"}, {"type": "integer", "minimum": 5}], 1),
        (3, [{"minimum": 5}, {"type": "string"}], 1),
        # what is below counts: items, fields, additional ones, nulls where they may be
        ([1, 2], [{"minItems": 3}, {"items": {"type": "string"}}], 1),
        ({"a": 1}, [{"minProperties": 3}, {"additionalProperties": {"maximum": 0}}], 1),
        ({"a": None}, [{"minProperties": 3}, {"properties": {"a": {"nullable": True}}, "maxProperties": 0}], 1),
        # so do the options of an option: the first that takes the value, or else the nearest
        ("x", [{"minLength": 9}, {"anyOf": [{"minLength": 8}, {"type": "string"}], "maxLength": 0}], 1),
        ("x", [{"minLength": 9}, {"allOf": [{"minLength": 8}]}], 1),
        ("x", [{"minLength": 9}, {"oneOf": [{"minLength": 8}, {"minLength": 7}]}], 1),
        ("x", [{"minLength": 9}, {"oneOf": [{"maxLength": 4}, {"maxLength": 5}]}], 0),
    ],
)
def test_the_nearest_option(key: str, value: Any, options: list[dict[str, Any]], nearest: int) -> None:
    first, *rest = structural.validate(value, {key: options}, "f", root=False)
    told = structural.validate(value, options[nearest], "f", root=False)
    assert rest == [error for error in told if error != first]


def test_what_two_parts_of_a_schema_say_is_told_once() -> None:
    schema = {"minLength": 3, "allOf": [{"minLength": 3}, {"minLength": 3}]}
    assert _told("x", schema).count("should be at least 3 chars long") == 1


@pytest.mark.parametrize(
    ("schema", "value", "told"),
    [
        ({"type": "string", "format": "odd"}, 5, ['must be of type string: "integer"']),
        ({"type": "object", "format": "date"}, [], ['must be of type object: "array"']),
        ({"x-kubernetes-int-or-string": True, "format": "ipv4"}, "x", ['must be of type ipv4: "x"']),
    ],
)
def test_a_format_that_means_nothing_for_a_type_is_none(schema: dict[str, Any], value: Any, told: list[str]) -> None:
    assert _told(value, schema) == told


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
