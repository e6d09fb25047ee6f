"""x-kubernetes-validations: what is wrong with rules, and what they say of objects."""

from __future__ import annotations

from typing import Any

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api import rules


def schema(spec: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"spec": spec}}


def complaints(spec: dict[str, Any], value: Any, old: Any = None, *, previous: bool = False) -> list[str]:
    level, wrong = rules.compile_rules(schema(spec), "root")
    assert wrong == []
    before = {"spec": old} if previous else None
    return [str(each) for each in rules.check_object(level, {"spec": value}, before)]


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
    found = rules.compile_rules(schema(spec), "spec.versions[0].schema.openAPIV3Schema")[1]
    assert any(text in str(each) for each in found)
    assert found[0].field.startswith("spec.versions[0].schema.openAPIV3Schema.properties[spec]")


def test_a_rule_refuses_with_its_words() -> None:
    assert complaints(with_rule(POINT, "self.x > 0"), {"x": 1}) == []
    said = complaints(with_rule(POINT, "self.x > 0"), {"x": 0})
    assert said == ['spec: Invalid value: "object": failed rule: self.x > 0']
    assert complaints(with_rule(POINT, "self.x > 0", message="no"), {"x": 0}) == ['spec: Invalid value: "object": no']
    made = with_rule(POINT, "self.x > 0", messageExpression="'got ' + string(self.x)", fieldPath=".x")
    assert complaints(made, {"x": -2}) == ['spec.x: Invalid value: "object": got -2']
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
    assert complaints(rule, 1, 2, previous=True) == ['spec: Invalid value: "integer": failed rule: self > oldSelf']
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
