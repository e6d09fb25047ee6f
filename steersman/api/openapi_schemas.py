"""Definitions as OpenAPI documents show them.

Owns the step from the shared schemas (bare `$ref`s, descriptions apart) and from custom resources' schemas to the
`components.schemas` of v3 and the `definitions` of v2. Called by `openapi.py`. Source for custom resources:
apiextensions-apiserver's openapi builder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from steersman.api import published
from steersman.api.kind import Kind
from steersman.api.openapi_paths import META, definition_name
from steersman.api.schema import Schema, Schemas

V2, V3 = "#/definitions/", "#/components/schemas/"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_ANY_NUMBER: dict[str, Any] = {"oneOf": [{"type": "string"}, {"type": "number"}]}
_NOT_IN_V2 = ("nullable", "oneOf", "anyOf", "allOf", "not", "default")
_DESCRIBED = "io.k8s.api.core.v1.ConfigMap"  # its fields of every object have the words that custom ones get too


def closure(schemas: Schemas, names: Iterable[str]) -> list[str]:
    """`names` and everything they refer to, sorted. Names that are no definitions are left out."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found and name in schemas.definitions:
            found.add(name)
            left.extend(_references(schemas.definitions[name]))
    return sorted(found)


def _references(node: Schema) -> list[str]:
    found = [node["$ref"]] if "$ref" in node else []
    for inner in (*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")):
        if isinstance(inner, dict):
            found.extend(_references(inner))
    return found


def built_in(schemas: Schemas, name: str, prefix: str) -> dict[str, Any]:
    """A definition with its descriptions; `prefix` is V2 or V3."""
    texts = schemas.descriptions(name)
    out = dict(_ANY_NUMBER) if name == _QUANTITY and prefix == V3 else _node(schemas.definitions[name], prefix)
    if texts.get(""):
        out["description"] = texts[""]
    source, place = schemas.definitions[name], published.short(name) if name.count(".") > 1 else name
    for prop, node in out.get("properties", {}).items():
        required = prop in source.get("required", ())
        node = _filled(node, source["properties"][prop], f"{place}.{prop}", prefix, required=required)
        text = texts.get(prop, "")
        if "enum" in node:
            text += "\n\nPossible enum values:" + "".join(f'\n - `"{value}"`' for value in node["enum"])
        if text and prefix == V3:
            node = _apart(node)
        if text:
            node["description"] = text
        out["properties"][prop] = node
    return out


def _filled(
    node: dict[str, Any], source: Schema, place: str, prefix: str, *, required: bool, inner: bool = False
) -> dict[str, Any]:
    """A field with its enumeration and, in v3, its default; its elements with theirs."""
    enums, defaults = published.facts()
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            node[key] = _filled(node[key], source[key], f"{place}/", prefix, required=False, inner=True)
    if place in enums:
        node["enum"] = enums[place]
    if prefix == V3:
        usual = published.usual(source, inner=inner, required=required, metadata=place.endswith(".metadata"))
        default = defaults.get(place, usual)
        if default is not None:
            node = _apart(node)
            node["default"] = default
    return node


def _apart(node: dict[str, Any]) -> dict[str, Any]:
    """A reference that something can stand beside."""
    if "$ref" not in node:
        return node
    return {"allOf": [{"$ref": node["$ref"]}], **{key: value for key, value in node.items() if key != "$ref"}}


def _node(node: Schema, prefix: str) -> dict[str, Any]:
    out: dict[str, Any] = dict(node)
    if "$ref" in node:
        out["$ref"] = prefix + node["$ref"]
    if "properties" in node:
        out["properties"] = {prop: _node(inner, prefix) for prop, inner in node["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            out[key] = _node(node[key], prefix)
    if prefix == V3 and node.get("format") == "int-or-string":
        out = {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    return out


def custom(schemas: Schemas, kind: Kind, version: str, prefix: str) -> dict[str, dict[str, Any]]:
    """The definitions of a custom kind and of its list, by name."""
    found = kind.version(version)
    given = found.schema if found is not None and isinstance(found.schema, Mapping) else {}
    schema: dict[str, Any] = dict(given) if prefix == V3 else _for_v2(given)
    schema.setdefault("type", "object")
    words = schemas.descriptions(_DESCRIBED)
    type_meta = {name: {"type": "string", "description": words.get(name, "")} for name in ("apiVersion", "kind")}
    if prefix == V2 and schema.get("x-kubernetes-preserve-unknown-fields"):
        schema = {"type": "object"}  # older kubectls refuse unknown fields wherever there are known ones
    else:
        metadata = {"$ref": f"{prefix}{META}.ObjectMeta"}
        own = {key: value for key, value in schema.get("properties", {}).items() if key != "metadata"}
        shown = {"allOf": [metadata], "description": words.get("metadata", "")} if prefix == V3 else metadata
        schema["properties"] = {**own, **type_meta, "metadata": shown}
    identity = {"group": kind.group, "version": version, "kind": kind.kind}
    schema["x-kubernetes-group-version-kind"] = [identity]
    name = definition_name(schemas, kind, version)
    items = {"type": "array", "items": {"$ref": prefix + name}, "description": f"List of {kind.plural}."}
    listing = {
        "type": "object",
        "description": f"{kind.list_kind} is a list of {kind.kind}",
        "required": ["items"],
        "properties": {**type_meta, "metadata": {"$ref": f"{prefix}{META}.ListMeta"}, "items": items},
        "x-kubernetes-group-version-kind": [{**identity, "kind": kind.list_kind or f"{kind.kind}List"}],
    }
    return {name: schema, definition_name(schemas, kind, version, of_list=True): listing}


def _for_v2(node: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAPI v2 cannot say all that v3 can: what it cannot is left out, and with it the type of nullable values."""
    loose = node.get("nullable") or node.get("x-kubernetes-int-or-string")
    if node.get("x-kubernetes-preserve-unknown-fields"):
        kept = ("description", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-group-version-kind")
        return {key: node[key] for key in (*kept, "type") if key in node and not (key == "type" and loose)}
    out: dict[str, Any] = {}
    for key, value in node.items():
        if key in _NOT_IN_V2 or (loose and key in ("type", "items", "properties", "additionalProperties")):
            continue
        if key == "properties":
            out[key] = {prop: _for_v2(inner) for prop, inner in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, Mapping):
            out[key] = _for_v2(value)
        else:
            out[key] = value
    return out
