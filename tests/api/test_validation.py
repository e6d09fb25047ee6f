"""The wording of complaints, value by value."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api import validation


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a", '"a"'),
        ('quo"te\n', '"quo\\"te\\n"'),
        ("é", '"é"'),
        (5, "5"),
        (True, "true"),
        (None, "null"),
        (["a"], '["a"]'),
        ({"b": 1, "a": {}}, '{"a":{},"b":1}'),
    ],
)
def test_bad_values_are_shown(value: Any, shown: str) -> None:
    error = validation.invalid("spec.x", value, "no")
    assert str(error) == f"spec.x: Invalid value: {shown}: no"
    assert error.kind == "FieldValueInvalid"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (validation.required("p"), "FieldValueRequired", "p: Required value"),
        (validation.required("p", "why"), "FieldValueRequired", "p: Required value: why"),
        (validation.forbidden("p", "why"), "FieldValueForbidden", "p: Forbidden: why"),
        (validation.duplicate("p", "v"), "FieldValueDuplicate", 'p: Duplicate value: "v"'),
        (validation.not_found("p", "v"), "FieldValueNotFound", 'p: Not found: "v"'),
        (
            validation.not_supported("p", "v", ("a", "b")),
            "FieldValueNotSupported",
            'p: Unsupported value: "v": supported values: "a", "b"',
        ),
        (validation.too_long("p", 5), "FieldValueTooLong", "p: Too long: may not be more than 5 bytes"),
    ],
)
def test_every_reason_has_its_words(error: Any, kind: str, text: str) -> None:
    assert (error.kind, str(error)) == (kind, text)


def test_small_rules() -> None:
    assert validation.immutable("p", 1, 1) == []
    assert [str(error) for error in validation.immutable("p", 1, 2)] == ["p: Invalid value: 1: field is immutable"]
    assert validation.not_negative("p", 0) == validation.not_negative("p", None) == []
    text = "p: Invalid value: -1: must be greater than or equal to 0"
    assert [str(error) for error in validation.not_negative("p", -1)] == [text]
