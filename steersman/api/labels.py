"""Label selectors: `app in (a, b), !old` and the LabelSelector object, compiled to a fast matcher.

Owns `Selector`. Called for list and watch requests and by whoever selects objects: controllers, scheduler, proxy. Pure.
Errors are ValueError with apimachinery's text. Source: apimachinery's labels and metav1.LabelSelectorAsSelector.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.validation import Struct, forbidden, invalid, not_supported, required

Labels = Mapping[str, str]

_OPERATORS = ("in", "notin", "=", "==", "!=", "gt", "lt")
_ALL_OPERATORS = ("!", "=", "==", "in", "!=", "notin", "exists", "gt", "lt")
_OBJECT_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
_SYMBOLS = {"=": "=", "==": "==", "!=": "!=", ">": "gt", "<": "lt", "in": "in", "notin": "notin"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One term. `operator` is one of `=`, `==`, `!=`, `in`, `notin`, `exists`, `!`, `gt`, `lt`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether an object with these labels is meant."""
        value = labels.get(self.key)
        match self.operator:
            case "in" | "=" | "==":
                return value is not None and value in self.values
            case "notin" | "!=":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                number, bound = _integer(value), _integer(self.values[0])
                if number is None or bound is None:
                    return False
                return number > bound if self.operator == "gt" else number < bound

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"
            case _:
                sign = {"gt": ">", "lt": "<"}.get(self.operator, self.operator)
                return f"{self.key}{sign}{self.values[0]}"


class Selector:
    """All of some requirements. One without any matches everything; `NOTHING` matches nothing."""

    __slots__ = ("_equal", "_rest", "requirements")

    def __init__(self, requirements: Iterable[Requirement] | None) -> None:
        """`None` gives the selector that matches nothing."""
        self.requirements = None if requirements is None else tuple(sorted(requirements, key=lambda term: term.key))
        terms = self.requirements or ()
        self._equal = tuple((term.key, term.values[0]) for term in terms if _exact(term))
        self._rest = tuple(term for term in terms if not _exact(term))

    def matches(self, labels: Labels | None) -> bool:
        """Whether an object with these labels is selected."""
        if self.requirements is None:
            return False
        labels = labels or {}
        for key, value in self._equal:
            if labels.get(key) != value:
                return False
        return not self._rest or all(term.matches(labels) for term in self._rest)

    @property
    def everything(self) -> bool:
        """True when there is nothing to check."""
        return self.requirements == ()

    def exact(self, key: str) -> str | None:
        """The one value that this label must have, if so."""
        return next((value for name, value in self._equal if name == key), None)

    @property
    def equal(self) -> Iterator[str]:
        """Every `label=value` that is asked for."""
        return (f"{key}={value}" for key, value in self._equal)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements or ()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selector) and self.requirements == other.requirements

    def __hash__(self) -> int:
        return hash(self.requirements)


EVERYTHING = Selector(())
NOTHING = Selector(None)


@lru_cache(maxsize=1024)
def parse(text: str) -> Selector:
    """The selector that `text` describes. Raises ValueError."""
    return Selector(_Parser(text).parse()) if text else EVERYTHING


def from_set(labels: Labels | None) -> Selector:
    """Every one of these labels; nothing given selects everything. Not checked."""
    return Selector(Requirement(key, "=", (value,)) for key, value in (labels or {}).items())


def from_object(selector: Mapping[str, Any] | None) -> Selector:
    """A metav1.LabelSelector; None selects nothing, an empty one everything. Raises ValueError."""
    if selector is None:
        return NOTHING
    terms = [requirement(key, "=", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        operator = _OBJECT_OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            raise ValueError(f'"{expression.get("operator", "")}" is not a valid label selector operator')
        terms.append(requirement(expression.get("key") or "", operator, tuple(expression.get("values") or ())))
    return Selector(terms)


def requirement(key: str, operator: str, values: tuple[str, ...] = ()) -> Requirement:
    """A checked requirement. Raises ValueError."""
    found = _key_errors("key", key)
    if operator in ("in", "notin"):
        if not values:
            found.append(invalid("values", [], "for 'in', 'notin' operators, values set can't be empty"))
    elif operator in ("=", "==", "!="):
        if len(values) != 1:
            found.append(invalid("values", list(values), "exact-match compatibility requires one single value"))
    elif operator in ("exists", "!"):
        if values:
            text = "values set must be empty for exists and does not exist"
            found.append(invalid("values", list(values), text))
    elif operator in ("gt", "lt"):
        if len(values) != 1:
            text = "for 'Gt', 'Lt' operators, exactly one value is required"
            found.append(invalid("values", list(values), text))
        for i, value in enumerate(values):
            if _integer(value) is None:
                text = "for 'Gt', 'Lt' operators, the value must be an integer"
                found.append(invalid(f"values[{i}]", value, text))
    else:
        found.append(not_supported("operator", operator, _ALL_OPERATORS))
    for i, value in enumerate(values):
        if texts := names.label_value(value):
            found.append(invalid(f"values[{i}][{key}]", value, "; ".join(texts)))
    _raise(found)
    return Requirement(key, operator, values)


def validate(selector: Mapping[str, Any] | None, path: str, *, lenient: bool = False) -> list[FieldError]:
    """Complaints about a LabelSelector object in a field; `lenient` lets bad values in expressions pass."""
    if not selector:
        return []
    found = validate_labels(selector.get("matchLabels"), f"{path}.matchLabels")
    for i, expression in enumerate(selector.get("matchExpressions") or ()):
        here = f"{path}.matchExpressions[{i}]"
        operator, values = expression.get("operator", ""), expression.get("values") or ()
        if operator in ("In", "NotIn"):
            if not values:
                found.append(required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                found.append(forbidden(f"{here}.values", text))
        else:
            found.append(invalid(f"{here}.operator", operator, "not a valid selector operator"))
        key = expression.get("key", "")
        found += [invalid(f"{here}.key", key, text) for text in names.qualified(key)]
        if not lenient:
            for j, value in enumerate(values):
                found += [invalid(f"{here}.values[{j}]", value, text) for text in names.label_value(value)]
    return found


def validate_labels(labels: Labels | None, path: str) -> list[FieldError]:
    """Complaints about a map of labels."""
    found: list[FieldError] = []
    for key, value in (labels or {}).items():
        found += [invalid(path, key, text) for text in names.qualified(key)]
        found += [invalid(path, value, text) for text in names.label_value(value)]
    return found


_SYMBOL = re.compile(r"==|!=|[=!(),><]")
_TOKEN = re.compile(r"[ \t\r\n]*(?:(==|!=|[=!(),><])|([^=!(),>< \t\r\n]+))")


class _Parser:
    """Reads one selector, token by token; `` is the end of the text."""

    def __init__(self, text: str) -> None:
        self._tokens = [match[1] or match[2] for match in _TOKEN.finditer(text.split("\0", 1)[0])]
        self._next = 0

    def parse(self) -> list[Requirement]:
        terms: list[Requirement] = []
        while token := self._peek():
            if _SYMBOL.fullmatch(token) and token != "!":
                raise ValueError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                terms.append(self._term())
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from None
            separator = self._take()
            if separator not in ("", ","):
                raise ValueError(f"found '{separator}', expected: ',' or 'end of string'")
            following = self._peek()
            if separator and (not following or (_SYMBOL.fullmatch(following) and following != "!")):
                raise ValueError(f"found '{following}', expected: identifier after ','")
        return terms

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _term(self) -> Requirement:
        key = self._take()
        negated = key == "!"
        if negated:
            key = self._take()
        if not key or _SYMBOL.fullmatch(key):
            raise ValueError(f"found '{key}', expected: identifier")
        _raise(_key_errors("<nil>", key))
        if negated:
            return requirement(key, "!")
        if self._peek() in ("", ","):
            return requirement(key, "exists")
        found = self._take()
        operator = _SYMBOLS.get(found)
        if operator is None:
            raise ValueError(f"found '{found}', expected: {', '.join(_OPERATORS)}")
        values = self._values() if operator in ("in", "notin") else {self._value()}
        return requirement(key, operator, tuple(sorted(values)))

    def _value(self) -> str:
        if self._peek() in ("", ","):
            return ""
        token = self._take()
        if _SYMBOL.fullmatch(token):
            raise ValueError(f"found '{token}', expected: identifier")
        return token

    def _values(self) -> set[str]:
        token = self._take()
        if token != "(":
            raise ValueError(f"found '{token}' expected: '('")
        token = self._peek()
        if token == ")":
            self._take()
            return {""}
        if not token or (_SYMBOL.fullmatch(token) and token != ","):
            raise ValueError(f"found '{token}', expected: ',', ')' or identifier")
        values: set[str] = set()
        after_comma = True
        while (token := self._take()) != ")":
            if token == ",":
                if after_comma:
                    values.add("")
                after_comma = True
            elif after_comma and (not token or _SYMBOL.fullmatch(token)):
                raise ValueError(f"found '{token}', expected: ',', or identifier")
            elif not after_comma:
                raise ValueError(f"found '{token}', expected: ',' or ')'")
            else:
                values.add(token)
                after_comma = False
        if after_comma:
            values.add("")
        return values


def _key_errors(path: str, key: str) -> list[FieldError]:
    texts = names.qualified(key)
    return [invalid(path, key, "; ".join(texts))] if texts else []


def _raise(found: list[FieldError]) -> None:
    if found:
        texts = list(dict.fromkeys(map(str, found)))
        raise ValueError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")


def _exact(term: Requirement) -> bool:
    return term.operator in ("=", "==", "in") and len(term.values) == 1


_INTEGER = re.compile(r"[+-]?[0-9]+")


def _integer(text: str | None) -> int | None:
    if text is None or not _INTEGER.fullmatch(text):
        return None
    number = int(text) if len(text) < 21 else 2**64
    return number if -(2**63) <= number < 2**63 else None


def in_go(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector as Go's generated String methods write it, which messages of the original show."""
    if selector is None:
        return "nil"
    pairs = "".join(f"{key}: {value}," for key, value in sorted((selector.get("matchLabels") or {}).items()))
    wanted = "".join(
        f"LabelSelectorRequirement{{Key:{each['key']},Operator:{each['operator']},"
        f"Values:[{' '.join(each.get('values') or ())}],}},"
        for each in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{pairs}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{wanted}}},}}"
    )


def shown(selector: Mapping[str, Any] | None) -> Struct | None:
    """A selector as an error shows it."""
    if selector is None:
        return None
    out = Struct({"matchLabels": selector["matchLabels"]} if selector.get("matchLabels") else {})
    if expressions := selector.get("matchExpressions"):
        out["matchExpressions"] = [
            Struct({"key": each.get("key") or "", "operator": each.get("operator") or "", **_values(each)})
            for each in expressions
        ]
    return out


def _values(expression: Mapping[str, Any]) -> dict[str, Any]:
    return {"values": expression["values"]} if expression.get("values") else {}
