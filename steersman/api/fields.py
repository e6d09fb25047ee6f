"""Field selectors: `spec.nodeName=n1,status.phase!=Running`.

Owns parsing and matching. Which fields a kind offers is in its `Kind.fields`; metadata.name and metadata.namespace are
there for all. Called for list, watch and deletecollection. Pure. Errors are ValueError with the original's text.
Source: apimachinery's fields, and each group's field label conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from steersman.api.resource import Object

Getter = Callable[[Object], str]


class Selectable(Protocol):
    """What is asked of a `Kind`."""

    @property
    def kind(self) -> str:
        """The kind's name."""
        ...

    @property
    def namespaced(self) -> bool:
        """Whether its objects live in namespaces."""
        ...

    @property
    def custom(self) -> bool:
        """Whether it came from a CustomResourceDefinition."""
        ...

    @property
    def fields(self) -> Mapping[str, Getter]:
        """What can be selected by, besides name and namespace."""
        ...


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison."""

    field: str
    value: str
    equal: bool = True

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
        return f"{self.field}{'=' if self.equal else '!='}{escaped}"


class FieldSelector:
    """All of some comparisons, bound to one kind."""

    __slots__ = ("_getters", "terms")

    def __init__(self, terms: Iterable[Term] = (), getters: Mapping[str, Getter] | None = None) -> None:
        self.terms = tuple(terms)
        known = {**_METADATA, **(getters or {})}
        self._getters = tuple((known[term.field], term.value, term.equal) for term in self.terms)

    def matches(self, obj: Object) -> bool:
        """Whether the object is selected."""
        return all((get(obj) == value) is equal for get, value, equal in self._getters)

    @property
    def everything(self) -> bool:
        """True when there is nothing to check."""
        return not self.terms

    def exact(self, field: str) -> str | None:
        """The one value that this field must have, if so."""
        return next((term.value for term in self.terms if term.field == field and term.equal), None)

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))


def select(text: str, kind: Selectable) -> FieldSelector:
    """The selector that `text` describes, for objects of `kind`. Raises ValueError."""
    if not text:
        return EVERYTHING
    terms: list[Term] = []
    for term in parse(text):
        if not term.field and not term.value:
            continue
        renamed = _RENAMED.get((kind.kind, term.field))
        term = Term(renamed, term.value, term.equal) if renamed else term
        if not _known(term.field, kind):
            raise ValueError(_unknown(term.field, kind))
        terms.append(term)
    return FieldSelector(terms, kind.fields)


def exact_name(text: str) -> str:
    """The one name that a selector asks for; empty where there is none, or it can be no name in a path."""
    try:
        terms = parse(text)
    except ValueError:
        return ""
    found = next((term.value for term in terms if term.field == "metadata.name" and term.equal), "")
    return "" if not found or found in (".", "..") or "/" in found or "%" in found else found


@lru_cache(maxsize=512)
def parse(text: str) -> tuple[Term, ...]:
    """The comparisons in `text`, sorted as the original does. Raises ValueError."""
    return tuple(_term(part, text) for part in sorted(_split(text)) if part)


def text_at(*path: str) -> Getter:
    """A getter for a field by its path: booleans as `true` and `false`, numbers in digits, nothing as empty."""

    def get(obj: Object) -> str:
        value: Any = obj
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)

    return get


def flag_at(*path: str) -> Getter:
    """A getter for a boolean: `false` when it is not there."""
    get = text_at(*path)
    return lambda obj: get(obj) or "false"


def number_at(*path: str) -> Getter:
    """A getter for a number: `0` when it is not there."""
    get = text_at(*path)
    return lambda obj: get(obj) or "0"


_METADATA: dict[str, Getter] = {
    "metadata.name": text_at("metadata", "name"),
    "metadata.namespace": text_at("metadata", "namespace"),
}
_RENAMED = {("Pod", "spec.host"): "spec.nodeName"}

EVERYTHING = FieldSelector()


def _known(field: str, kind: Selectable) -> bool:
    if field == "metadata.namespace":
        return kind.namespaced or not (kind.fields or kind.custom)
    return field == "metadata.name" or field in kind.fields


def _unknown(field: str, kind: Selectable) -> str:
    if kind.kind == "Job" and not kind.custom:
        return f'field label "{field}" not supported for Job'
    if kind.fields or kind.custom:
        return f"field label not supported: {field}"
    return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'


def _split(text: str) -> list[str]:
    """Parts between commas that no backslash precedes."""
    parts: list[str] = []
    start, escaped = 0, False
    for i, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def _term(part: str, text: str) -> Term:
    for i, char in enumerate(part):
        if char == "!" and part.startswith("!=", i):
            return Term(part[:i], _unescape(part[i + 2 :]), equal=False)
        if char == "=":
            return Term(part[:i], _unescape(part[i + 2 if part.startswith("==", i) else i + 1 :]))
    raise ValueError(f"invalid selector: '{text}'; can't understand '{part}'")


def _unescape(value: str) -> str:
    out: list[str] = []
    chars = iter(value)
    for char in chars:
        if char in ",=":
            raise ValueError(f"invalid field selector: unescaped character in value: {ord(char)}")
        if char == "\\":
            char = next(chars, "")
            if char not in ("\\", ",", "="):
                raise ValueError(f"invalid field selector: invalid escape sequence: \\{char}")
        out.append(char)
    return "".join(out)
