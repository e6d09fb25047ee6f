"""Structural schemas as CEL types, and plain JSON as values of those types.

A property whose name is no CEL name is escaped; strings with a format become timestamps, durations and bytes. What a
schema does not bound gets the most that fits in a request. Source: apiserver's pkg/cel/common and KEP-2876.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from steersman.api import formats
from steersman.api.cel import types
from steersman.api.cel.estimate import REQUEST_MOST
from steersman.api.cel.syntax import CelError
from steersman.api.cel.types import DYN, STRING, Type
from steersman.api.cel.values import Keyed, duration, timestamp

Schema = Mapping[str, Any]

_KEYWORDS = frozenset(
    {"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"}
    | {"let", "loop", "package", "namespace", "return", "var", "void", "while"}
)
_NAME = re.compile(r"[a-zA-Z_./-][a-zA-Z0-9_./-]*")
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_META = types.object_of("metadata", {"name": STRING, "generateName": STRING}.get)
_SCALARS = {"boolean": types.BOOL, "integer": types.INT, "number": types.DOUBLE}
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
    if schema.get("x-kubernetes-int-or-string") or not kind:
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
    least = _least(inner) if isinstance(inner, dict) else 1
    return int(given) if given is not None else REQUEST_MOST // (least + 1)


def most_often(schema: Schema) -> int:
    """How many values of this kind fit in a request."""
    return REQUEST_MOST // (_least(schema) + 1)


def _least(schema: Schema) -> int:
    if schema.get("type") != "object":
        return _LEAST.get(schema.get("type", ""), 1)
    properties = schema.get("properties") or {}
    return 2 + sum(len(name) + 3 + _least(properties.get(name) or {}) for name in schema.get("required") or ())


def _string(schema: Schema) -> Type:
    form = schema.get("format")
    if form in ("date-time", "date"):
        return types.TIMESTAMP
    if form == "duration":
        return types.DURATION
    if schema.get("enum"):
        return Type("string", (), max(len(str(each)) for each in schema["enum"]))
    most = schema.get("maxLength")
    size = REQUEST_MOST if most is None else min(REQUEST_MOST, int(most) * 4)
    return Type("bytes" if form == "byte" else "string", (), size)


def _object(schema: Schema, name: str, *, root: bool) -> Type:
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict):
        value = type_of(extra, name=f"{name}.@elem")
        return types.map_of(Type("string", (), REQUEST_MOST), value, most_items(schema))
    fields = {escape(key): each for key, each in (schema.get("properties") or {}).items()}
    known: dict[str, Type] = {"apiVersion": STRING, "kind": STRING, "metadata": _META} if root else {}

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
