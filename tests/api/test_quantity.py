"""Quantities, against cases worked out from resource.Quantity's rules and against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api import quantity

CANONICAL = [
    ("0", "0"),
    ("0m", "0"),
    ("1", "1"),
    ("100m", "100m"),
    ("0.1", "100m"),
    ("1.5", "1500m"),
    ("1000m", "1"),
    ("1000", "1k"),
    ("1.5Gi", "1536Mi"),
    ("1024Ki", "1Mi"),
    ("1024", "1024"),
    ("0.5Ki", "512"),
    ("1Ki", "1Ki"),
    ("1000Ki", "1000Ki"),
    ("0.5Mi", "512Ki"),
    ("12e6", "12e6"),
    ("1e3", "1e3"),
    ("12E6", "12e6"),
    ("-1.5", "-1500m"),
    ("+3", "3"),
    ("0.1n", "1n"),
    ("1.1i".replace("i", ""), "1100m"),
    ("5.", "5"),
    (".5", "500m"),
    ("9223372036854775808Ki", "9223372036854775807"),
    ("1000000000000000000000", "1000E"),
]


@pytest.mark.parametrize(("text", "wanted"), CANONICAL)
def test_canonical(text: str, wanted: str) -> None:
    assert quantity.canonical(text) == wanted
    assert quantity.canonical(wanted) == wanted


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", quantity.FORMAT_ERROR),
        ("aoeu", quantity.FORMAT_ERROR),
        ("1.1.M", quantity.FORMAT_ERROR),
        ("1+1.0M", quantity.FORMAT_ERROR),
        (" 1", quantity.FORMAT_ERROR),
        ("1 Gi", quantity.FORMAT_ERROR),
        ("+", quantity.FORMAT_ERROR),
        ("0.1mi", quantity.SUFFIX_ERROR),
        ("1i", quantity.SUFFIX_ERROR),
        ("1e", quantity.SUFFIX_ERROR),
        ("1e999999999", quantity.SUFFIX_ERROR),
        ("9" * 2000, quantity.NUMBER_ERROR),
    ],
)
def test_refused(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        quantity.parse(text)
    assert str(caught.value) == error


def test_numbers() -> None:
    assert quantity.milli("1.0001") == 1001
    assert quantity.milli("250m") == 250
    assert quantity.whole("1500m") == 2
    assert quantity.whole("-1500m") == -2
    assert quantity.whole("1Gi") == 2**30
    assert quantity.compare("1Gi", "1073741824") == 0
    assert quantity.compare("999m", "1") == -1
    assert quantity.compare("2", "1999m") == 1


def test_sums() -> None:
    assert quantity.add("1Gi", "512Mi") == "1536Mi"
    assert quantity.add("0", "1Gi") == "1Gi"
    assert quantity.add("100m", "0.9") == "1"
    assert str(quantity.parse("1") - quantity.parse("250m")) == "750m"
    assert not quantity.ZERO


@given(st.integers(0, 10**15), st.sampled_from(["", "m", "u", "n", "k", "M", "G", "Ki", "Mi", "Gi", "e3"]))
def test_canonical_form_keeps_the_amount(number: int, suffix: str) -> None:
    parsed = quantity.parse(f"{number}{suffix}")
    again = quantity.parse(str(parsed))
    assert again == parsed
    assert str(again) == str(parsed)


@given(st.fractions(min_value=-1000, max_value=1000), st.fractions(min_value=-1000, max_value=1000))
def test_order_is_that_of_numbers(one: Fraction, other: Fraction) -> None:
    left, right = quantity.parse(f"{float(one):.9f}"), quantity.parse(f"{float(other):.9f}")
    assert (left < right) == (left.value < right.value)
    assert (left + right).value == left.value + right.value
