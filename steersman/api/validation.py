"""The complaints of validation: one constructor per reason, with the wording of apimachinery's field errors.

Owns how a FieldError's text is put together from a reason, a bad value and a detail, and the few rules every kind
uses (immutable, not negative, one of). Called by `meta.py` and everything in `kinds`. Paths are plain text:
`spec.containers[0].name`. Source: apimachinery's util/validation/field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from steersman.api import errors
from steersman.api.errors import FieldError

IMMUTABLE = "field is immutable"
NOT_NEGATIVE = "must be greater than or equal to 0"

_INITIALS = {"UID": "uid", "APIVersion": "apiVersion", "APIGroup": "apiGroup", "IP": "ip"}
_HTML = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


class Struct(dict[str, Any]):
    """What a Go structure looks like in an error: its fields in their own order, where a map's keys are sorted."""


def invalid(path: str, value: Any, detail: str) -> FieldError:
    """FieldValueInvalid: malformed, out of bounds."""
    return FieldError("FieldValueInvalid", path, _text("Invalid value", value, detail), value)


def type_invalid(path: str, value: Any, detail: str) -> FieldError:
    """FieldValueTypeInvalid: not of the schema's type."""
    return FieldError("FieldValueTypeInvalid", path, _text("Invalid value", value, detail), value)


def required(path: str, detail: str = "") -> FieldError:
    """FieldValueRequired: missing or empty."""
    return FieldError("FieldValueRequired", path, _join("Required value", detail))


def forbidden(path: str, detail: str) -> FieldError:
    """FieldValueForbidden: fine in itself, but not here."""
    return FieldError("FieldValueForbidden", path, _join("Forbidden", detail))


def duplicate(path: str, value: Any) -> FieldError:
    """FieldValueDuplicate: there already."""
    return FieldError("FieldValueDuplicate", path, _text("Duplicate value", value, ""), value)


def not_found(path: str, value: Any, detail: str = "") -> FieldError:
    """FieldValueNotFound: what is referred to is not there."""
    return FieldError("FieldValueNotFound", path, _text("Not found", value, detail), value)


def not_supported(path: str, value: Any, supported: Iterable[str]) -> FieldError:
    """FieldValueNotSupported: not one of the values that there are, listed in the given order."""
    names = ", ".join(quote(name) for name in supported)
    detail = f"supported values: {names}" if names else ""
    return FieldError("FieldValueNotSupported", path, _text("Unsupported value", value, detail), value)


def too_long(path: str, limit: int, unit: str = "byte") -> FieldError:
    """FieldValueTooLong; the value is not repeated."""
    detail = f"may not be more than {limit} {unit}{'' if limit == 1 else 's'}" if limit >= 0 else "value is too long"
    return FieldError("FieldValueTooLong", path, _join("Too long", detail))


def too_many(path: str, actual: int, limit: int) -> FieldError:
    """FieldValueTooMany: a list has too many items."""
    detail = f"must have at most {limit} item{'' if limit == 1 else 's'}" if limit >= 0 else "has too many items"
    text = f"Too many: {actual}: {detail}" if actual >= 0 else f"Too many: {detail}"
    return FieldError("FieldValueTooMany", path, text, actual)


def each_invalid(path: str, value: Any, details: Iterable[str]) -> list[FieldError]:
    """One complaint per detail, as the functions of `names` return them."""
    return [invalid(path, value, detail) for detail in details]


def immutable(path: str, new: Any, old: Any) -> list[FieldError]:
    """`new` must equal `old`; absent and empty are the same."""
    return [] if same(new, old) else [invalid(path, new, IMMUTABLE)]


def same(one: Any, other: Any) -> bool:
    """Semantic equality: absent, empty string, zero and empty list or map are all nothing."""
    return one == other or (not one and not other)


def alike(one: Any, other: Any) -> bool:
    """Equality of what `godump` makes, as Go has it: no list is an empty list, no map an empty map, and that is all."""
    if isinstance(one, Struct) and isinstance(other, Struct):
        return all(alike(one.get(key), other.get(key)) for key in one.keys() | other.keys())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(item, other[key]) for key, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if one is None or other is None:
        found = other if one is None else one
        return found is None or (not found and isinstance(found, (list, dict)) and not isinstance(found, Struct))
    return type(one) is type(other) and one == other


def internal_error(path: str, text: str) -> FieldError:
    """InternalError: a check that could not be made."""
    return FieldError("InternalError", path, f"Internal error: {text}")


def not_negative(path: str, value: int | None) -> list[FieldError]:
    """A number of at least zero."""
    return [invalid(path, value, NOT_NEGATIVE)] if value is not None and value < 0 else []


def one_of(path: str, value: Any, supported: Iterable[str]) -> list[FieldError]:
    """One of these values, and there at all."""
    if value in supported:
        return []
    return [not_supported(path, value or "", sorted(supported))]


def struct(value: Mapping[str, Any] | None, **fields: Any) -> Struct | None:
    """A Go structure without JSON names: `Key=""` takes `key` of `value`, or this zero where there is none."""
    if value is None:
        return None
    return Struct({name: value.get(_lower(name), zero) for name, zero in fields.items()})


def _lower(name: str) -> str:
    return _INITIALS.get(name) or name[0].lower() + name[1:]


quote = errors.quoted


def show(value: Any) -> str:
    """A bad value as an error shows it: text quoted, all else as JSON."""
    return quote(value) if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    """As Go's encoder writes it."""
    if isinstance(value, dict):
        items = value.items() if isinstance(value, Struct) else sorted(value.items())
        return "{" + ",".join(f"{_json(key)}:{_json(item)}" for key, item in items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_json, value)) + "]"
    return msgspec.json.encode(value).decode().translate(_HTML)


def _text(reason: str, value: Any, detail: str) -> str:
    return _join(f"{reason}: {show(value)}", detail)


def _join(head: str, detail: str) -> str:
    return f"{head}: {detail}" if detail else head
