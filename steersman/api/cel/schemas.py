"""Structural schemas as CEL types, and plain JSON as values of those types.

A property whose name is no CEL name is escaped; strings with a format become timestamps, durations and bytes. What a
schema does not bound gets the most that fits in a request. Source: apiserver's pkg/cel/common and KEP-2876.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from steersman.api import formats
from steersman.api.cel import types
from steersman.api.cel.estimate import REQUEST_MOST
from steersman.api.cel.syntax import CelError
from steersman.api.cel.types import DYN, Type
from steersman.api.cel.values import Keyed, duration, timestamp

Schema = Mapping[str, Any]

_KEYWORDS = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return", "var", "void", "while"}
)
_NAME = re.compile(r"[a-zA-Z_./-][a-zA-Z0-9_./-]*")
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_TEXT = Type("string", (), REQUEST_MOST - 2)
_META = types.object_of("metadata", {"name": _TEXT, "generateName": _TEXT}.get)
_SCALARS = {"boolean": types.BOOL, "integer": types.INT, "number": types.DOUBLE}
_LEAST_TEXT = {"duration": 3, "date": 12, "date-time": 21}
_LEAST = {"boolean": 4, "integer": 1, "number": 1, "string": 2, "array": 2, "object": 2}


def escape(name: str) -> str:
    """A property's name in expressions; empty when it has none."""
    if name in _KEYWORDS:
        return f"__{name}__"
    if not _NAME.fullmatch(name):
        return ""
    return re.sub(r"__|[.\-/]", lambda found: _ESCAPES[found[0]], name)


def type_of(schema: Schema, *, root: bool = False, name: str = "selfType") -> Type:
    """The type of what a schema describes; objects are named after their place below `name`."""
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        most = schema.get("maxLength")
        return Type("dyn", (), REQUEST_MOST - 2 if most is None else max(int(most), 0) * 4)
    if not kind:
        return DYN
    if kind == "array":
        items = schema.get("items") or {}
        return types.list_of(type_of(items, name=f"{name}.@idx"), most_items(schema))
    if kind == "object":
        return _object(schema, name, root=root or bool(schema.get("x-kubernetes-embedded-resource")))
    if kind == "string":
        return _string(schema)
    return _SCALARS.get(kind, DYN)


def most_items(schema: Schema) -> int:
    """How many items, or entries, there may be."""
    inner = schema.get("items") if schema.get("type") == "array" else schema.get("additionalProperties")
    given = schema.get("maxItems" if schema.get("type") == "array" else "maxProperties")
    if given is not None:
        return max(int(given), 0)
    least = _least(inner) if isinstance(inner, dict) else 1
    return (REQUEST_MOST - 2) // (least + (1 if schema.get("type") == "array" else 6))


def most_often(schema: Schema) -> int:
    """How many values of this kind fit in a request."""
    return REQUEST_MOST // (_least(schema) + 1)


def _least(schema: Schema) -> int:
    if schema.get("x-kubernetes-int-or-string"):
        return 1
    if schema.get("type") == "string":
        return _LEAST_TEXT.get(schema.get("format", ""), 2)
    if schema.get("type") != "object" or isinstance(schema.get("additionalProperties"), dict):
        return _LEAST.get(schema.get("type", ""), 1)
    must, found = schema.get("required") or (), 2
    for name, each in (schema.get("properties") or {}).items():
        if name in must and each.get("default") is None and _typed(each):
            found += len(name) + 4 + _least(each)
    return found


def _string(schema: Schema) -> Type:
    form, most = schema.get("format"), schema.get("maxLength")
    if form in ("date-time", "date"):
        return replace(types.TIMESTAMP, size=12 if form == "date" else 32)
    if form == "duration":
        return replace(types.DURATION, size=32)
    if form == "byte":
        return Type("bytes", (), REQUEST_MOST - 2 if most is None else max(int(most), 0))
    if most is not None:
        return Type("string", (), max(int(most), 0) * 4)
    if enum := schema.get("enum"):
        return Type("string", (), max((len(each.encode()) for each in enum if isinstance(each, str)), default=0))
    return Type("string", (), REQUEST_MOST - 2)


def _object(schema: Schema, name: str, *, root: bool) -> Type:
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        value = type_of(extra, name=f"{name}.@elem")
        return types.map_of(Type("string", (), 0), value, most_items(schema))
    fields = {escape(key): each for key, each in (schema.get("properties") or {}).items()}
    known: dict[str, Type] = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": _META} if root else {}

    def find(field: str) -> Type | None:
        if field not in known and field in fields and _typed(fields[field]):
            known[field] = type_of(fields[field], name=f"{name}.{field}")
        return known.get(field)

    return types.object_of(name, find)


def _typed(schema: Schema) -> bool:
    """Whether expressions know of it; what has no type is no field to them."""
    return bool(schema.get("type") or schema.get("x-kubernetes-int-or-string"))


def value_of(value: Any, schema: Schema) -> Any:
    """A JSON value as CEL has it. Raises CelError for a string that is not of its format."""
    if isinstance(value, dict):
        properties, extra = schema.get("properties") or {}, schema.get("additionalProperties")
        if isinstance(extra, dict):
            return {key: value_of(each, extra) for key, each in value.items()}
        return {
            escape(key) or key: value_of(each, properties[key]) if key in properties else each
            for key, each in value.items()
        }
    if isinstance(value, list):
        items = schema.get("items") or {}
        found = [value_of(each, items) for each in value]
        kind = schema.get("x-kubernetes-list-type")
        if kind == "map":
            return Keyed(found, [escape(key) or key for key in schema.get("x-kubernetes-list-map-keys") or ()])
        return Keyed(found) if kind == "set" else found
    if isinstance(value, str):
        return _text(value, schema)
    number = schema.get("type") == "number" and isinstance(value, int) and not isinstance(value, bool)
    whole = schema.get("type") == "integer" and isinstance(value, float)
    return float(value) if number else int(value) if whole else value


def _text(value: str, schema: Schema) -> Any:
    form = schema.get("format") if schema.get("type") == "string" else None
    if form == "date-time":
        return timestamp(value)
    if form == "date":
        return timestamp(f"{value}T00:00:00Z")
    if form == "duration":
        return duration(formats.go_duration(value))
    if form == "byte":
        try:
            return base64.b64decode(value)
        except (binascii.Error, ValueError) as error:
            raise CelError(f"cannot decode base64: {error}") from error
    return value
