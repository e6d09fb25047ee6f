"""Whether the schemas of a CustomResourceDefinition are structural, and what it says beside them is in order.

Owns the complaints about a definition's schemas (not their CEL rules, which are `rules`'), scale paths and selectable
fields. Called when a definition is written. Pure. Source: KEP-1111 (structural schemas), apiextensions-apiserver's
pkg/apiserver/schema and its validation of definitions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from steersman.api import structural
from steersman.api.errors import FieldError
from steersman.api.validation import forbidden, invalid, not_supported, required, too_many

Schema = Mapping[str, Any]
Complaints = list[FieldError]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_ABSENT = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
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


def check_definition(definition: Schema) -> Complaints:
    """Complaints about every version's schema, scale and selectable fields."""
    spec = definition["spec"]
    versions: Sequence[Schema] = spec.get("versions") or ()
    out: Complaints = []
    for path, schema in _places(versions, lambda each: (each.get("schema") or {}).get("openAPIV3Schema"),
                                "validation.openAPIV3Schema", "schema.openAPIV3Schema"):  # fmt: skip
        out += check_schema(schema, path)
    for path, found in _places(versions, lambda each: each.get("subresources"), "subresources", "subresources"):
        if isinstance(scale := found.get("scale"), dict):
            out += check_scale(scale, f"{path}.scale")
    for at, version in enumerate(versions):
        path = "spec.selectableFields" if len(versions) == 1 else f"spec.versions[{at}].selectableFields"
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        out += check_selectable(version.get("selectableFields") or (), schema, path)
    return out


def _places(
    versions: Sequence[Schema], get: Callable[[Schema], Any], top: str, below: str
) -> Iterator[tuple[str, Schema]]:
    """What versions have and where; what they all share is shown once, at the top, as the original keeps it."""
    found = [get(each) for each in versions]
    if found and all(each == found[0] for each in found):
        if isinstance(found[0], dict):
            yield f"spec.{top}", found[0]
        return
    for at, each in enumerate(found):
        if isinstance(each, dict):
            yield f"spec.versions[{at}].{below}", each


def check_schema(schema: Schema, path: str) -> Complaints:
    """Complaints about one schema; `path` is where it is. First its structure, or its defaults, then its keywords."""
    return check_structure(schema, path) + check_plain(schema, path)


def check_structure(schema: Schema, path: str) -> Complaints:
    """Whether a schema is structural; its defaults when it is."""
    out = [forbidden(f"{path}.nullable", "nullable cannot be true at the root")] if schema.get("nullable") else []
    deeper = _level(schema, path, "root") + _complete(schema, schema, path, path)
    return out + (sorted(deeper, key=lambda each: (each.field, each.detail)) if deeper else _defaults(schema, path))


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


def check_plain(schema: Schema, path: str) -> Complaints:
    """What no schema may have, structural or not."""
    out: Complaints = []
    kind = schema.get("type") or ""
    if kind and kind not in _TYPES:
        out.append(not_supported(f"{path}.type", kind, _TYPES))
    out += [forbidden(f"{path}.{key}", f"{key} is not supported") for key in _ABSENT if schema.get(key)]
    if kind == "null":
        out.append(forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative"))
    if isinstance(schema.get("items"), list):
        out.append(forbidden(f"{path}.items", "items must be a schema object and not an array"))
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        out.append(forbidden(f"{path}.uniqueItems", text))
    if schema.get("properties") and schema.get("additionalProperties") not in (None, True):
        text = "additionalProperties and properties are mutual exclusive"
        out.append(forbidden(f"{path}.additionalProperties", text))
    if schema.get(_PRESERVE) is False:
        out.append(invalid(f"{path}.{_PRESERVE}", False, "must be true or undefined"))
    out += _topology(schema, path, kind)
    for where, each, _ in _inner(schema):
        out += check_plain(each, path + where)
    for where, each in _junctors(schema):
        out += check_plain(each, path + where)
    return out


def _typed(path: str, kind: str, wanted: str, when: str) -> FieldError:
    text = f"must be {wanted} if {when}"
    return invalid(f"{path}.type", kind, text) if kind else required(f"{path}.type", text)


def _topology(schema: Schema, path: str, kind: str) -> Complaints:
    """List and map types."""
    out: Complaints = []
    map_type, list_type, keys = schema.get(_MAP), schema.get(_LIST), schema.get(_KEYS) or []
    if map_type is not None:
        if kind != "object":
            out.append(_typed(path, kind, "object", f"{_MAP} is specified"))
        if map_type not in ("atomic", "granular"):
            out.append(not_supported(f"{path}.{_MAP}", map_type, ("atomic", "granular")))
    if list_type is not None:
        if kind != "array":
            out.append(_typed(path, kind, "array", f"{_LIST} is specified"))
        if list_type not in ("atomic", "set", "map"):
            out.append(not_supported(f"{path}.{_LIST}", list_type, ("atomic", "set", "map")))
    if keys and list_type != "map":
        text = f"must be map if {_KEYS} is non-empty"
        here = f"{path}.{_LIST}"
        out.append(required(here, text) if list_type is None else invalid(here, list_type, text))
    items = schema.get("items")
    if list_type == "set" and kind == "array" and isinstance(items, dict):
        for wanted, key, fine in (("array", _LIST, (None, "atomic")), ("object", _MAP, ("atomic",))):
            if items.get("type") == wanted and items.get(key) not in fine:
                text = f"must be atomic as item of a list with {_LIST}=set"
                out.append(invalid(f"{path}.items.{key}", items.get(_LIST), text))
    if list_type == "map":
        out += _map_list(schema, path, keys)
    return out


def _map_list(schema: Schema, path: str, keys: Sequence[str]) -> Complaints:
    """A list whose items are found by keys."""
    out: Complaints = []
    if not keys:
        out.append(required(f"{path}.{_KEYS}", f"must not be empty if {_LIST} is map"))
    items = schema.get("items")
    if not isinstance(items, dict):
        return [*out, required(f"{path}.items", f"must have a schema if {_LIST} is map")]
    if items.get("type") != "object":
        text = f"must be object if parent array's {_LIST} is map"
        return [*out, invalid(f"{path}.items.type", items.get("type") or "", text)]
    properties, must = items.get("properties") or {}, items.get("required") or ()
    for at, key in enumerate(keys):
        here, found = f"{path}.items.properties[{key}]", properties.get(key)
        if found is None:
            out.append(invalid(f"{path}.{_KEYS}", list(keys), "entries must all be names of item properties"))
        elif found.get("type") in ("array", "object"):
            text = f"must be a scalar type if parent array's {_LIST} is map"
            out.append(invalid(f"{here}.type", "object", text))
        if key in keys[:at]:
            out.append(invalid(f"{path}.{_KEYS}", list(keys), "must not contain duplicate entries"))
    this = f"this property is in {_KEYS}, so it"
    for key in dict.fromkeys(key for key in keys if key in properties):
        here, found = f"{path}.items.properties[{key}]", properties[key]
        if key not in must and "default" not in found:
            out.append(required(f"{here}.default", f"{this} must have a default or be a required property"))
        if found.get("nullable"):
            out.append(forbidden(f"{here}.nullable", f"{this} cannot be nullable"))
    return out


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


def check_selectable(fields: Sequence[Schema], schema: Schema, path: str) -> Complaints:
    """Fields that selectors may name are there and are scalars."""
    out: Complaints = []
    seen: set[str] = set()
    for at, each in enumerate(fields):
        here, text = f"{path}[{at}].jsonPath", each.get("jsonPath") or ""
        if not text:
            out.append(required(here))
            continue
        found: Schema | None = schema
        names = text.removeprefix(".").split(".")
        for name in names:
            found = ((found or {}).get("properties") or {}).get(name)
        if found is None:
            out.append(invalid(here, text, "is an invalid path: does not refer to a valid field"))
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
