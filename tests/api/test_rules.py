"""x-kubernetes-validations: what is wrong with rules, and what they say of objects."""

from __future__ import annotations

from typing import Any

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api import plainschema, rules
from steersman.api.correlation import Correlated
from steersman.api.kinds import definitionspec


def schema(spec: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": spec}}


def complaints(spec: dict[str, Any], value: Any, old: Any = None, *, previous: bool = False) -> list[str]:
    level, wrong = rules.compile_rules(schema(spec), "root")
    assert wrong == []
    before = {"spec": old} if previous else None
    new = {"spec": value}
    was = Correlated(new, before, schema(spec)) if before is not None else None
    return [str(each) for each in rules.check_object(level, new, before, was)[0]]


def with_rule(kind: dict[str, Any], rule: str, **more: Any) -> dict[str, Any]:
    return {**kind, rules.RULES: [{"rule": rule, **more}]}


INTEGER = {"type": "integer"}
TEXTS = {"type": "array", "items": {"type": "string"}}
POINT = {"type": "object", "properties": {"x": INTEGER, "my-name": {"type": "string"}, "n": {"type": "number"}}}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (with_rule(POINT, "self.z == 100"), "undefined field 'z'"),
        (with_rule(POINT, "self = 42"), "Syntax error"),
        (with_rule(POINT, "self.x"), "cel expression must evaluate to a bool"),
        (with_rule(POINT, " "), "Required value: rule is not specified"),
        (with_rule(POINT, "self.x > 0", messageExpression="1"), "messageExpression must evaluate to a string"),
        (with_rule(POINT, "self.x > 0", optionalOldSelf=True), "may not be set if oldSelf is not used in rule"),
        (
            {
                "type": "array",
                "items": with_rule(TEXTS, "self.all(s, s == 'a')"),
            },
            "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule",
        ),
    ],
)
def test_a_bad_rule_is_told(spec: dict[str, Any], text: str) -> None:
    path = "spec.versions[0].schema.openAPIV3Schema"
    found = plainschema.check(schema(spec), path) + rules.compile_rules(schema(spec), path)[1]
    assert any(text in str(each) for each in found)
    assert found[0].field.startswith("spec.versions[0].schema.openAPIV3Schema.properties[spec]")


def test_a_rule_refuses_with_its_words() -> None:
    assert complaints(with_rule(POINT, "self.x > 0"), {"x": 1}) == []
    said = complaints(with_rule(POINT, "self.x > 0"), {"x": 0})
    assert said == ["spec: Invalid value: failed rule: self.x > 0"]
    assert complaints(with_rule(POINT, "self.x > 0", message="no"), {"x": 0}) == ["spec: Invalid value: no"]
    made = with_rule(POINT, "self.x > 0", messageExpression="'got %d'.format([self.x])", fieldPath=".x")
    assert complaints(made, {"x": -2}) == ["spec.x: Invalid value: got -2"]
    assert complaints(with_rule(POINT, "self.x > 0", reason="FieldValueForbidden"), {"x": 0}) == [
        "spec: Forbidden: failed rule: self.x > 0"
    ]


def test_a_missing_field_is_an_error() -> None:
    assert complaints(with_rule(POINT, "self.x > 0"), {}) == [
        'spec: Invalid value: "object": no such key: x evaluating rule: self.x > 0'
    ]


def test_names_are_escaped_and_numbers_are_doubles() -> None:
    assert complaints(with_rule(POINT, "self.my__dash__name == 'a' && self.n == 1.0"), {"my-name": "a", "n": 1}) == []


def test_transitions_compare_with_what_was() -> None:
    rule = with_rule(INTEGER, "self > oldSelf")
    assert complaints(rule, 1) == []
    assert complaints(rule, 2, 1, previous=True) == []
    assert complaints(rule, 1, 2, previous=True) == ["spec: Invalid value: 1: failed rule: self > oldSelf"]
    first = with_rule(INTEGER, "oldSelf.hasValue() || self == 1", optionalOldSelf=True)
    assert complaints(first, 1) == [] and complaints(first, 2) != []


def test_items_of_a_map_list_are_compared_by_key() -> None:
    item = with_rule({"type": "object", "properties": {"k": {"type": "string"}, "v": INTEGER}}, "self.v >= oldSelf.v")
    spec = {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    old = [{"k": "a", "v": 1}, {"k": "b", "v": 5}]
    assert complaints(spec, [{"k": "b", "v": 5}, {"k": "a", "v": 2}], old, previous=True) == []
    assert complaints(spec, [{"k": "b", "v": 4}], old, previous=True)[0].startswith("spec[0]: ")


def test_what_did_not_change_may_stay() -> None:
    spec = {"type": "object", "properties": {"x": with_rule(INTEGER, "self > 10"), "y": INTEGER}}
    assert complaints(spec, {"x": 1, "y": 2}, {"x": 1, "y": 1}, previous=True) == []
    assert complaints(spec, {"x": 2, "y": 2}, {"x": 1, "y": 1}, previous=True) != []


def test_a_run_has_a_budget() -> None:
    items = {"type": "array", "maxItems": 725, "items": INTEGER}
    found = complaints(with_rule(items, "self.all(x, self.all(y, y == x))"), [20] * 725)
    assert len(found) == 1 and "call cost exceeds limit" in found[0]


SET = {**TEXTS, "x-kubernetes-list-type": "set"}
KEYED = {"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "the-v": INTEGER}}
MAP = {"type": "array", "items": KEYED, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
LISTS = {"type": "object", "properties": {"a": SET, "b": SET, "p": TEXTS, "m": MAP}}


def keyed(**values: int) -> list[dict[str, Any]]:
    return [{"k": key, "the-v": value} for key, value in values.items()]


@pytest.mark.parametrize(
    ("rule", "holds"),
    [
        ("self.a == self.b", True),
        ("self.a == self.p", True),
        ("self.p == self.a", False),  # the list on the left decides
        ("self.a == ['x']", False),
        ("self.a == ['x', 'z']", False),
        ("self.a + ['z', 'x', 'w'] == ['w', 'x', 'y', 'z']", True),
        ("(self.a + ['z', 'x'])[2] == 'z' && size(self.a + ['z', 'x']) == 3", True),
        ("self.p + self.a == ['y', 'x', 'x', 'y']", True),
        ("self.m == oldSelf.m", True),
        ("oldSelf.m + self.m == self.m", True),
        ("self.m == self.m + [self.m[0]]", True),
        ("self.m != self.m.filter(i, i.k == 'a')", True),
        ("self.a != self.b", False),
    ],
)
def test_lists_are_equal_by_their_type(rule: str, holds: bool) -> None:
    old = {"a": ["x"], "m": keyed(a=1, b=2)}
    new = {"a": ["x", "y"], "b": ["y", "x"], "p": ["y", "x"], "m": keyed(b=2, a=1)}
    assert complaints(with_rule(LISTS, rule), new, old, previous=True) == (
        [] if holds else [f"spec: Invalid value: failed rule: {rule}"]
    )


def test_what_has_the_same_key_is_replaced_where_it_stands() -> None:
    both = "(oldSelf + self)"
    rule = f"{both}[1].the__dash__v == 5 && {both}[2].k == 'c' && size({both}) == 3"
    assert complaints(with_rule(MAP, rule), keyed(c=3, b=5), keyed(a=1, b=2), previous=True) == []
    assert complaints(with_rule(MAP, rule), keyed(c=3, d=5), keyed(a=1, b=2), previous=True) != []


def test_objects_of_different_places_are_of_different_types() -> None:
    both = {"type": "object", "properties": {"p": POINT, "q": POINT}}
    (error,) = rules.compile_rules(schema(with_rule(both, "self.p == self.q && 1 < 2")), "root")[1]
    assert "applied to '(selfType.p, selfType.q)'" in str(error)
    assert 'Invalid value: {"Rule":"self.p == self.q \\u0026\\u0026 1 \\u003c 2","Message":"",' in str(error)
    assert '"MessageExpression":"","Reason":null,"FieldPath":"","OptionalOldSelf":null}: compilation failed: ' in str(
        error
    )


def test_scalars_are_shown_and_schemas_of_all_versions_are_one() -> None:
    assert complaints(with_rule(INTEGER, "self > 0"), -1) == ["spec: Invalid value: -1: failed rule: self > 0"]
    bad = {"openAPIV3Schema": with_rule({"type": "object"}, "x")}
    for others, path in (
        ({"schema": bad}, "spec.validation.openAPIV3Schema"),
        ({}, "spec.versions[0].schema.openAPIV3Schema"),
    ):
        found = definitionspec.check({"versions": [{"schema": bad}, others]}, schemas=True)
        assert f"{path}.x-kubernetes-validations[0].rule" in [each.field for each in found]
        assert not any(
            "rule" in each.field for each in definitionspec.check({"versions": [{"schema": bad}]}, schemas=False)
        )
