"""Label selectors: what they select, and what the original says about bad ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api import labels

LABELS = {"app": "web", "tier": "front", "n": "5", "empty": ""}

SELECTED = [
    ("", True),
    ("app", True),
    ("!app", False),
    ("!other", True),
    ("app=web", True),
    ("app==web", True),
    ("app!=web", False),
    ("other!=x", True),
    ("app in (web, db)", True),
    ("app notin (web,db)", False),
    ("other notin (web)", True),
    ("other in (web)", False),
    ("app=web,tier=front", True),
    ("app=web,tier=back", False),
    ("n>4", True),
    ("n>5", False),
    ("n<6", True),
    ("app>4", False),
    ("empty=", True),
    ("empty in ()", True),
    ("app=", False),
    ("app in (,web)", True),
    (" app = web , tier in ( front ) ", True),
    ("in=in", False),
]


@pytest.mark.parametrize(("text", "wanted"), SELECTED)
def test_selected(text: str, wanted: bool) -> None:
    selector = labels.parse(text)
    assert selector.matches(LABELS) is wanted
    assert labels.parse(str(selector)) == selector


NAME = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a==(b)", "unable to parse requirement: found '(', expected: identifier"),
        ("-a=b", f'unable to parse requirement: <nil>: Invalid value: "-a": {NAME}'),
        (
            "a=-b",
            'unable to parse requirement: values[0][a]: Invalid value: "-b": a valid label must be an empty string or '
            "consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
            "character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
            "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be "
            "an integer",
        ),
    ],
)
def test_refused(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        labels.parse(text)
    assert str(caught.value) == error


def test_objects() -> None:
    assert not labels.from_object(None).matches(LABELS)
    assert labels.from_object({}).everything
    both = {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "n", "operator": "Exists"}]}
    selector = labels.from_object(both)
    assert selector.matches(LABELS)
    assert not selector.matches({"app": "web"})
    assert selector.exact("app") == "web"
    assert selector.exact("n") is None
    assert str(selector) == "app=web,n"
    with pytest.raises(ValueError, match='"Near" is not a valid label selector operator'):
        labels.from_object({"matchExpressions": [{"key": "n", "operator": "Near"}]})


@pytest.mark.parametrize(
    ("selector", "errors"),
    [
        (None, []),
        ({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}, []),
        (
            {"matchExpressions": [{"key": "a", "operator": "In"}]},
            ["x.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"],
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
            [
                "x.matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or "
                "'DoesNotExist'"
            ],
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "Near"}]},
            ['x.matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator'],
        ),
        ({"matchLabels": {"-a": "b"}}, [f'x.matchLabels: Invalid value: "-a": {NAME}']),
    ],
)
def test_validated(selector: dict[str, object] | None, errors: list[str]) -> None:
    assert [str(error) for error in labels.validate(selector, "x")] == errors


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        selector = labels.parse(text)
    except ValueError as error:
        assert str(error)
    else:
        assert labels.parse(str(selector)) == selector
