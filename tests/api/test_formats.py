"""Formats of strings and numbers in schemas; every answer is kube-apiserver 1.36's."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.correlation import Correlated
from steersman.api.structural import check, validate


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date", ("2020-01-02",), ("2020-13-02", "x")),
        ("date-time", ("2020-01-02T03:04:05Z", "2020-01-02t03:04:05z", "2020-01-02T03:04:05.123+01:00"),
         ("2020-01-02 03:04:05", "2020-01-02T03:04:05", "2020-01-02T25:04:05Z")),
        ("ipv4", ("1.2.3.4", "01.2.3.4"), ("::1", "1.2.3")),
        ("ipv6", ("::1", "::ffff:1.2.3.4"), ("1.2.3.4",)),
        ("cidr", ("1.2.3.0/24", "::/0"), ("1.2.3.4",)),
        ("uuid", ("12345678-1234-1234-1234-123456789abc", "123456781234123412341234567890ab"), ("x",)),
        ("byte", ("YWI=",), ("a", "%%")),
        ("email", ("a@b.c", "A <a@b.c>"), ("ab",)),
        ("uri", ("http://a", "/x"), ("a b", "foo")),
        ("hostname", ("a.bc",), ("a.b", "a_b", "-a")),
        ("mac", ("00:00:5e:00:53:01",), ("0",)),
        ("duration", ("1h", "1 day", "22 ns", "1.5s"), ("x",)),
        ("hexcolor", ("#fff",), ("x",)),
        ("k8s-short-name", ("a-b",), ("A",)),
        ("k8s-long-name", ("a.b",), ("A",)),
        ("unheard-of", ("", "x"), ()),
    ],
)  # fmt: skip
def test_texts(name: str, good: tuple[str, ...], bad: tuple[str, ...]) -> None:
    schema = {"type": "string", "format": name}
    assert [validate(text, schema, "spec.f", root=False) for text in good] == [[] for _ in good]
    found = [str(each) for text in bad for each in validate(text, schema, "spec.f", root=False)]
    said = "spec.f: Invalid value: {0}: spec.f in body must be of type {1}: {0}"
    assert found == [said.format(f'"{text}"', name) for text in bad]


@pytest.mark.parametrize(
    ("kind", "name", "value", "good"),
    [
        ("integer", "int32", 2**31 - 1, True),
        ("integer", "int32", 2**31, False),
        ("integer", "int64", 2**31, True),
        ("number", "float", 1e38, True),
        ("number", "float", 1e300, False),
    ],
)
def test_numbers(kind: str, name: str, value: float, good: bool) -> None:
    found = [str(each) for each in validate(value, {"type": kind, "format": name}, "spec.n", root=False)]
    said = f'<nil>: Invalid value: "": Checked value must be of type {kind} with format {name} in spec.n'
    assert found == ([] if good else [said])


def test_the_first_complaint_about_a_text_and_its_format() -> None:
    schema = {"type": "string", "maxLength": 3, "pattern": "^a", "format": "date"}
    kinds = [each.kind for each in validate("bbbb", schema, "spec.s", root=False)]
    assert kinds == ["FieldValueTooLong", "FieldValueTypeInvalid"]


def test_what_an_update_leaves_as_it_was_may_be_wrong() -> None:
    text = {"type": "string", "maxLength": 1}
    below = {"type": "object", "properties": {"a": text, "l": {"type": "array", "items": text}}, "required": ["r"]}
    schema = {"type": "object", "properties": {"spec": below}}

    def left(new: Any, old: Any) -> list[str]:
        fresh = {"spec": new}
        return [each.field for each in check(fresh, schema, was=Correlated(fresh, {"spec": old}, schema))]

    old = {"a": "long", "l": ["long", "x"]}
    assert left(old, old) == []
    assert left({**old, "b": 1}, old) == ["spec.r"]  # of the level that changed
    assert left({**old, "a": "longer"}, old) == ["spec.a", "spec.r"]
    assert left({**old, "l": ["long", "y"]}, old) == ["spec.l[0]", "spec.r"]
