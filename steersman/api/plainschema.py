"""What no schema of a CustomResourceDefinition may say, structural or not; and what its rules say beside expressions.

Owns the walk over everything in a schema, in the original's order: what is below comes before what is at a level's end.
Called for definitions that are written, beside `structure` (whether schemas are structural) and `rules` (expressions).
Pure. Source: apiextensions-apiserver's pkg/apis/apiextensions/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steersman.api import rules
from steersman.api.errors import FieldError
from steersman.api.validation import forbidden, invalid, not_supported, required

Schema = Mapping[str, Any]
Complaints = list[FieldError]

_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_ABSENT = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_PRESERVE, _EMBEDDED = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"
_LIST, _MAP, _KEYS = "x-kubernetes-list-type", "x-kubernetes-map-type", "x-kubernetes-list-map-keys"
_META = ("metadata", "kind", "apiVersion")
_NO_DEFAULTS_IN_MAPS = "inside additionalProperties applying to object metadata"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a schema is: at the root, in the metadata of an object; `undefaulted`: why it may have no defaults."""

    root: bool = False
    meta: bool = False
    undefaulted: str = ""


def check(schema: Schema, path: str) -> Complaints:
    """Complaints about a whole schema."""
    return _check(schema, path, _Place(root=True))


def _check(schema: Schema, path: str, place: _Place) -> Complaints:
    out = _standard(schema, path, place)
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        out.append(forbidden(f"{path}.uniqueItems", text))
    if schema.get("properties") and schema.get("additionalProperties") not in (None, True):
        text = "additionalProperties and properties are mutual exclusive"
        out.append(forbidden(f"{path}.additionalProperties", text))
    for where, each, below in _below(schema, place):
        out += _check(each, path + where, below)
    if schema.get(_PRESERVE) is False:
        out.append(invalid(f"{path}.{_PRESERVE}", False, "must be true or undefined"))
    return out + _topology(schema, path) + rules.check_keywords(schema, path)


def _standard(schema: Schema, path: str, place: _Place) -> Complaints:
    kind = schema.get("type") or ""
    out = [not_supported(f"{path}.type", kind, _TYPES)] if kind and kind not in _TYPES else []
    if schema.get("default") is not None and place.undefaulted:
        out.append(forbidden(f"{path}.default", f"must not be set {place.undefaulted}"))
    out += [
        forbidden(f"{path}.{key}", f"{key} is not supported")
        for key in _ABSENT
        if schema.get(key) or (key in ("dependencies", "$ref") and schema.get(key) is not None)
    ]
    if kind == "null":
        out.append(forbidden(f"{path}.type", "type cannot be set to null, use nullable as an alternative"))
    if isinstance(schema.get("items"), list):
        out.append(forbidden(f"{path}.items", "items must be a schema object and not an array"))
    if place.meta and schema.get(_EMBEDDED):
        out.append(forbidden(f"{path}.{_EMBEDDED}", "must not be used inside of resource meta"))
    return out


def _below(schema: Schema, place: _Place) -> Iterator[tuple[str, Schema, _Place]]:
    inner = replace(place, root=False)
    if isinstance(extra := schema.get("additionalProperties"), dict):
        yield ".additionalProperties", extra, replace(inner, undefaulted=_NO_DEFAULTS_IN_MAPS) if place.meta else inner
    for name, each in (schema.get("properties") or {}).items():
        below = inner
        if (place.root or schema.get(_EMBEDDED)) and name in _META:
            below = replace(inner, meta=True, undefaulted=f"in top-level {name}" if place.root else inner.undefaulted)
        yield f".properties[{name}]", each, below
    if isinstance(found := schema.get("not"), dict):
        yield ".not", found, inner
    for key in ("allOf", "oneOf", "anyOf"):
        for at, each in enumerate(schema.get(key) or ()):
            yield f".{key}[{at}]", each, inner
    for name, each in (schema.get("definitions") or {}).items():
        yield f".definitions[{name}]", each, inner
    items = schema.get("items")
    if isinstance(items, dict):
        yield ".items", items, inner
    for at, each in enumerate(items if isinstance(items, list) else ()):
        yield f".items[{at}]", each, inner


def _typed(path: str, kind: str, wanted: str, when: str) -> FieldError:
    text = f"must be {wanted} if {when}"
    return invalid(f"{path}.type", kind, text) if kind else required(f"{path}.type", text)


def _topology(schema: Schema, path: str) -> Complaints:
    """List and map types."""
    out: Complaints = []
    kind, items = schema.get("type") or "", schema.get("items")
    map_type, list_type, keys = schema.get(_MAP), schema.get(_LIST), schema.get(_KEYS) or []
    if map_type is not None:
        if kind != "object":
            out.append(_typed(path, kind, "object", f"{_MAP} is specified"))
        if map_type not in ("atomic", "granular"):
            out.append(not_supported(f"{path}.{_MAP}", map_type, ("atomic", "granular")))
    if list_type is not None and kind != "array":
        out.append(_typed(path, kind, "array", f"{_LIST} is specified"))
    elif list_type == "set" and isinstance(items, dict):
        for wanted, key, fine in (("array", _LIST, (None, "atomic")), ("object", _MAP, ("atomic",))):
            if items.get("type") == wanted and items.get(key) not in fine:
                text = f"must be atomic as item of a list with {_LIST}=set"
                out.append(invalid(f"{path}.items.{key}", items.get(_LIST), text))
    if list_type is not None and list_type not in ("atomic", "set", "map"):
        out.append(not_supported(f"{path}.{_LIST}", list_type, ("atomic", "set", "map")))
    if keys and list_type != "map":
        text = f"must be map if {_KEYS} is non-empty"
        here = f"{path}.{_LIST}"
        out.append(required(here, text) if list_type is None else invalid(here, list_type, text))
    if list_type == "map":
        out += _map_list(schema, path, keys)
    if list_type in ("set", "map") and isinstance(items, dict):
        if items.get("nullable"):
            out.append(forbidden(f"{path}.items.nullable", f"cannot be nullable when {_LIST} is {list_type}"))
        out += _keys(items, f"{path}.items", keys) if list_type == "map" else []
    return out


def _map_list(schema: Schema, path: str, keys: Sequence[str]) -> Complaints:
    """A list whose items are found by keys."""
    out: Complaints = []
    if not keys:
        out.append(required(f"{path}.{_KEYS}", f"must not be empty if {_LIST} is map"))
    items = schema.get("items")
    if not isinstance(items, dict):
        return out if items else [*out, required(f"{path}.items", f"must have a schema if {_LIST} is map")]
    if items.get("type") != "object":
        text = f"must be object if parent array's {_LIST} is map"
        return [*out, invalid(f"{path}.items.type", items.get("type") or "", text)]
    properties = items.get("properties") or {}
    for at, key in enumerate(keys):
        here, found = f"{path}.items.properties[{key}]", properties.get(key)
        if found is None:
            out.append(invalid(f"{path}.{_KEYS}", list(keys), "entries must all be names of item properties"))
        elif found.get("type") in ("array", "object"):
            text = f"must be a scalar type if parent array's {_LIST} is map"
            out.append(invalid(f"{here}.type", "object", text))
        if key in keys[:at]:
            out.append(invalid(f"{path}.{_KEYS}", list(keys), "must not contain duplicate entries"))
    return out


def _keys(items: Schema, path: str, keys: Sequence[str]) -> Complaints:
    """What a key of items must be."""
    out: Complaints = []
    properties, must = items.get("properties") or {}, items.get("required") or ()
    this = f"this property is in {_KEYS}, so it"
    for key in (key for key in keys if key in properties):
        here, found = f"{path}.properties[{key}]", properties[key]
        if key not in must and found.get("default") is None:
            out.append(required(f"{here}.default", f"{this} must have a default or be a required property"))
        if found.get("nullable"):
            out.append(forbidden(f"{here}.nullable", f"{this} cannot be nullable"))
    return out
