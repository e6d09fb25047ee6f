"""Whether the schemas of a CustomResourceDefinition are structural, and what it says beside them is in order.

Owns what makes a schema structural, defaults, scale paths and selectable fields; what no schema may say is
`plainschema`'s, CEL rules are `rules`'. Called when a definition is written. Pure. Source: KEP-1111 (structural
schemas), apiextensions-apiserver's pkg/apiserver/schema and its validation of definitions.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from steersman.api import structural
from steersman.api.errors import FieldError
from steersman.api.validation import forbidden, invalid, required, too_many

Schema = Mapping[str, Any]
Complaints = list[FieldError]

_UNREADABLE = ("id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions")
_PRESERVE, _EMBEDDED = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"
_EITHER, _LIST, _MAP = "x-kubernetes-int-or-string", "x-kubernetes-list-type", "x-kubernetes-map-type"
_KEYS, _RULES = "x-kubernetes-list-map-keys", "x-kubernetes-validations"
_EMPTY = {"root": "at the root", "item": "for specified array items", "field": "for specified object fields"}
_EITHER_TYPE = [{"type": "integer"}, {"type": "string"}]
_NESTED = {
    "type": "empty", "additionalProperties": "undefined", "default": "undefined", "title": "empty",
    "description": "empty", "nullable": "false", _PRESERVE: "false", _EMBEDDED: "false", _EITHER: "false",
    _KEYS: "empty", _LIST: "undefined", _MAP: "undefined", _RULES: "empty",
}  # fmt: skip
_MOST_SELECTABLE = 8


def check_structure(schema: Schema, path: str) -> Complaints:
    """Whether a schema is structural; its defaults when it is."""
    deeper = _level(schema, path, "root") + _complete(schema, schema, path, path)
    deeper += structural.check_patterns(schema, path)
    return sorted(deeper, key=lambda each: (each.field, each.detail)) if deeper else _defaults(schema, path)


def unreadable(schema: Schema) -> str:
    """Why a schema can be no structural one at all; what it says otherwise is not looked at then."""
    for key in _UNREADABLE:
        if schema.get(key) or (key in ("$ref", "dependencies") and schema.get(key) is not None):
            return f"OpenAPIV3Schema '{key.removeprefix('$') if key == '$schema' else key}' is not supported"
    below = [each for _, each, _ in _inner(schema)] + [each for _, each in _junctors(schema)]
    return next((found for each in below if (found := unreadable(each))), "")


def _inner(schema: Schema) -> Iterator[tuple[str, Schema, str]]:
    """(where, schema, level) of what is directly below."""
    if isinstance(items := schema.get("items"), dict):
        yield ".items", items, "item"
    for name, each in (schema.get("properties") or {}).items():
        yield f".properties[{name}]", each, "field"
    if isinstance(extra := schema.get("additionalProperties"), dict):
        yield ".additionalProperties", extra, "field"


def _junctors(schema: Schema) -> Iterator[tuple[str, Schema]]:
    if isinstance(found := schema.get("not"), dict):
        yield ".not", found
    for key in ("allOf", "anyOf", "oneOf"):
        for at, each in enumerate(schema.get(key) or ()):
            yield f".{key}[{at}]", each


def _typed(path: str, kind: str, wanted: str, when: str) -> FieldError:
    text = f"must be {wanted} if {when}"
    return invalid(f"{path}.type", kind, text) if kind else required(f"{path}.type", text)


def _level(schema: Schema, path: str, level: str) -> Complaints:
    """The invariants of a structural schema, here and below."""
    out: Complaints = []
    kind, properties = schema.get("type") or "", schema.get("properties") or {}
    embedded, either = bool(schema.get(_EMBEDDED)), bool(schema.get(_EITHER))
    if kind == "array" and schema.get("items") is None:
        out.append(required(f"{path}.items", "must be specified"))
    for where, each, below in _inner(schema):
        out += _level(each, path + where, below)
    if schema.get("additionalProperties") is not None and level == "root":
        out.append(forbidden(f"{path}.additionalProperties", "must not be used at the root"))
    for key in (_PRESERVE, _EMBEDDED):
        if either and schema.get(key):
            out.append(invalid(f"{path}.{key}", True, f"must be false if {_EITHER} is true"))
    for where, each in _junctors(schema):
        if not (where.startswith(".anyOf") and schema["anyOf"] == _EITHER_TYPE):
            out += _nested(each, path + where, plain=where == ".allOf[0]" and each.get("anyOf") == _EITHER_TYPE)
    if embedded and kind != "object":
        out.append(_typed(path, kind, "object", f"{_EMBEDDED} is true"))
    elif not kind and not either and not schema.get(_PRESERVE):
        out.append(required(f"{path}.type", f"must not be empty {_EMPTY[level]}"))
    if embedded and schema.get("additionalProperties") is not None:
        out.append(forbidden(f"{path}.additionalProperties", f"must not be used if {_EMBEDDED} is set"))
    if level == "root" and kind not in ("", "object"):
        out.append(invalid(f"{path}.type", kind, "must be object at the root"))
    if embedded and not schema.get(_PRESERVE) and not properties:
        text = f"must not be empty if {_EMBEDDED} is true without {_PRESERVE}"
        out.append(required(f"{path}.properties", text))
    return out + (_meta(properties, path, level) if level == "root" or embedded else [])


def _meta(properties: Schema, path: str, level: str) -> Complaints:
    """What a resource's own schema may say about apiVersion, kind and metadata."""
    out: Complaints = []
    for key, wanted in (("kind", "string"), ("apiVersion", "string"), ("metadata", "object")):
        found = properties.get(key)
        if found is not None and found.get("type") != wanted:
            here = f"{path}.properties[{key}].type"
            out.append(invalid(here, found.get("type") or "", f"must be {wanted}"))
    found = properties.get("metadata")
    if found is not None and level == "root":
        said = set(found) - {"type", "properties", "default", "description"}
        if said or set(found.get("properties") or ()) - {"name", "generateName"}:
            text = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            out.append(forbidden(f"{path}.properties[metadata]", text))
    return out


def _nested(schema: Schema, path: str, *, plain: bool = False) -> Complaints:
    """What a schema under a junctor may not say. `plain`: its anyOf is that of integers and strings."""
    out: Complaints = []
    for where, each in _junctors(schema):
        if not (plain and where.startswith(".anyOf")):
            out += _nested(each, path + where)
    for where, each, _ in _inner(schema):
        if where != ".additionalProperties":
            out += _nested(each, path + where)
    for key, wanted in _NESTED.items():
        if schema.get(key) not in (None, "", False, []) or (key == "default" and key in schema):
            out.append(forbidden(f"{path}.{key}", f"must be {wanted} to be structural"))
    if "metadata" in (schema.get("properties") or {}):
        out.append(forbidden(f"{path}.properties[metadata]", "must not be specified in a nested context"))
    return out


def _complete(said: Schema, schema: Schema, path: str, where: str) -> Complaints:
    """Whatever is said under a junctor about a field, the field is there outside of them too."""
    out: Complaints = []
    for below, each in _junctors(said):
        out += _complete_fields(each, schema, path, where + below)
    return out


def _complete_fields(said: Schema, schema: Schema, path: str, where: str) -> Complaints:
    out = _complete(said, schema, path, where)
    known = {below: each for below, each, _ in _inner(schema)}
    for below, each, _ in _inner(said):
        if below == ".additionalProperties":
            continue
        if below not in known:
            out.append(required(path + below, f"because it is defined in {where}{below}"))
        else:
            out += _complete_fields(each, known[below], path + below, where + below)
    return out


def _defaults(schema: Schema, path: str) -> Complaints:
    """Defaults are themselves valid."""
    out: Complaints = []
    for where, each, _ in _inner(schema):
        here = path + where
        if each.get("default") is not None:
            value = copy.deepcopy(each["default"])
            if structural.prune(value, each, root=False):
                out.append(invalid(f"{here}.default", each["default"], "must not have unknown fields"))
            for found in structural.validate(value, each, root=False):
                below = "" if found.field in ("", "<nil>") else f".{found.field}"
                out.append(FieldError(found.kind, f"{here}.default{below}", found.detail))
        out += _defaults(each, here)
    return out


def check_scale(scale: Schema, path: str) -> Complaints:
    """Where a scale has its numbers and its selector."""
    out: Complaints = []
    for key, roots in (
        ("specReplicasPath", (".spec.",)),
        ("statusReplicasPath", (".status.",)),
        ("labelSelectorPath", (".spec.", ".status.")),
    ):
        found = scale.get(key) or ""
        if not found:
            out += [required(f"{path}.{key}")] if key != "labelSelectorPath" else []
        elif not found.startswith("."):
            out.append(invalid(f"{path}.{key}", found, "must be a simple json path starting with ."))
        elif not found.startswith(roots):
            text = roots[0][:-1] if len(roots) == 1 else "either .spec or .status"
            out.append(invalid(f"{path}.{key}", found, f"should be a json path under {text}"))
    return out


_TOKEN = re.compile(r"\.[^.\[]*|\[[^\]]*\]?|[^.\[]+")


def follow(path: str, schema: Schema) -> tuple[list[str], Schema]:
    """The names in a path such as `.spec.color`, and the schema that it leads to. Raises ValueError with the reason."""
    names: list[str] = []
    for token in _TOKEN.findall(path):
        if token[0] == "[":
            raise ValueError("array notation is not allowed")
        if token[0] != ".":
            raise ValueError(f"expected [ or . but got: {token}")
        if token == "." and path.endswith("."):
            raise ValueError("unexpected end of JSON path")
        properties, extra = schema.get("properties"), schema.get("additionalProperties")
        inner = properties.get(token[1:]) if properties is not None else extra
        if not isinstance(inner, dict):
            raise ValueError("does not refer to a valid field")
        names.append(token[1:])
        schema = inner
    return names, schema


def check_selectable(fields: Sequence[Schema], schema: Schema, path: str) -> Complaints:
    """Fields that selectors may name are there and are scalars."""
    out: Complaints = []
    seen: set[str] = set()
    for at, each in enumerate(fields):
        here, text = f"{path}[{at}].jsonPath", each.get("jsonPath") or ""
        if not text:
            out.append(required(here))
            continue
        try:
            names, found = follow(text, schema)
        except ValueError as error:
            out.append(invalid(here, text, f"is an invalid path: {error}"))
            continue
        if names[0] == "metadata":
            out.append(invalid(here, text, "must not point to fields in metadata"))
        if found.get("type") not in ("string", "boolean", "integer"):
            kinds = "string, boolean or integer. Enum string fields and strings with formats are allowed."
            out.append(invalid(here, text, f"must point to a field of type {kinds}"))
        if text in seen:
            out.append(FieldError("FieldValueDuplicate", here, f'Duplicate value: "{text}"', text))
        seen.add(text)
    if len(seen) > _MOST_SELECTABLE:
        out.append(too_many(path, len(seen), _MOST_SELECTABLE))
    return out
