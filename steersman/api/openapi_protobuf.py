"""OpenAPI v2 as the protobuf that kubectl asks for.

Owns the encoding of a v2 document (a dict) in gnostic's `openapi.v2.Document`. kubectl 1.27 and 1.28 cannot do without
it. Called by `openapi.py`. Field numbers are those of gnostic's OpenAPIv2.proto; vendor extensions are YAML text
there, for which JSON will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from steersman.api.protobuf.encode import delimited, varint

CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
ASKED = (CONTENT_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
"""What clients ask for; the one with @ is no valid media type, so it is never answered with."""

_SCHEMA_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_SCHEMA_NUMBERS = {
    "maxLength": 11,
    "minLength": 12,
    "maxItems": 14,
    "minItems": 15,
    "maxProperties": 17,
    "minProperties": 18,
}
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}


def encode(document: Mapping[str, Any]) -> bytes:
    """The bytes of a v2 document with `swagger`, `info`, `paths` and `definitions`."""
    info = delimited(1, _text(document["info"]["title"])) + delimited(2, _text(document["info"]["version"]))
    paths = b"".join(delimited(2, _named(path, _path(item))) for path, item in document["paths"].items())
    definitions = _schemas(document["definitions"])
    return (
        delimited(1, _text(document["swagger"])) + delimited(2, info) + delimited(8, paths) + delimited(9, definitions)
    )


def _text(value: str) -> bytes:
    return value.encode()


def _named(name: str, value: bytes) -> bytes:
    return delimited(1, _text(name)) + delimited(2, value)


def _extensions(number: int, node: Mapping[str, Any]) -> bytes:
    return b"".join(
        delimited(number, _named(key, delimited(2, msgspec.json.encode(value) + b"\n")))
        for key, value in node.items()
        if key.startswith("x-")
    )


def _schemas(nodes: Mapping[str, Any]) -> bytes:
    return b"".join(delimited(1, _named(name, _schema(node))) for name, node in nodes.items())


def _schema(node: Mapping[str, Any]) -> bytes:
    out = [delimited(number, _text(node[key])) for key, number in _SCHEMA_TEXTS.items() if key in node]
    out += [varint(number << 3) + varint(node[key]) for key, number in _SCHEMA_NUMBERS.items() if key in node]
    out += [delimited(19, _text(name)) for name in node.get("required", ())]
    out += [delimited(20, delimited(2, msgspec.json.encode(value))) for value in node.get("enum", ())]
    extra = node.get("additionalProperties")
    if isinstance(extra, Mapping):
        out.append(delimited(21, delimited(1, _schema(extra))))
    elif extra is not None:
        out.append(delimited(21, varint(2 << 3) + varint(bool(extra))))
    if "type" in node:
        out.append(delimited(22, delimited(1, _text(node["type"]))))
    if "items" in node:
        out.append(delimited(23, delimited(1, _schema(node["items"]))))
    if "properties" in node:
        out.append(delimited(25, _schemas(node["properties"])))
    out.append(_extensions(31, node))
    return b"".join(out)


def _path(item: Mapping[str, Any]) -> bytes:
    methods = (delimited(number, _operation(item[key])) for key, number in _METHODS.items() if key in item)
    return b"".join(methods) + _parameters(9, item.get("parameters", ()))


def _operation(node: Mapping[str, Any]) -> bytes:
    answers = node.get("responses", {}).items()
    responses = b"".join(delimited(1, _named(code, delimited(1, _response(answer)))) for code, answer in answers)
    out = [delimited(1, _text(tag)) for tag in node.get("tags", ())]
    out += [delimited(3, _text(node.get("description", ""))), delimited(5, _text(node.get("operationId", "")))]
    out += [delimited(6, _text(media)) for media in node.get("produces", ())]
    out += [delimited(7, _text(media)) for media in node.get("consumes", ())]
    out += [_parameters(8, node.get("parameters", ())), delimited(9, responses), delimited(10, b"https")]
    return b"".join(out) + _extensions(13, node)


def _response(node: Mapping[str, Any]) -> bytes:
    schema = delimited(2, delimited(1, _schema(node["schema"]))) if "schema" in node else b""
    return delimited(1, _text(node.get("description", ""))) + schema


def _parameters(number: int, parameters: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(delimited(number, delimited(1, _parameter(parameter))) for parameter in parameters)


def _parameter(node: Mapping[str, Any]) -> bytes:
    required = varint(node.get("required", False))
    if node["in"] == "body":
        texts = delimited(2, _text(node["name"])) + delimited(3, b"body")
        return delimited(1, texts + varint(4 << 3) + required + delimited(5, _schema(node.get("schema", {}))))
    query = node["in"] == "query"
    shift = 1 if query else 0  # a query parameter has one field more, allowEmptyValue, before its type
    inner = (
        varint(1 << 3) + required + delimited(2, _text(node["in"])) + delimited(3, _text(node.get("description", "")))
    )
    inner += delimited(4, _text(node["name"])) + delimited(5 + shift, _text(node.get("type", "string")))
    inner += varint((19 + shift) << 3) + varint(1)
    return delimited(2, delimited(3 if query else 4, inner))
