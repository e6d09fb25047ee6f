"""Typed decoding of JSON bodies, and errors in the words of Go's decoder.

Owns `Decoders`: one msgspec decoder per definition, made when first asked for. A body becomes a dict whose types are
checked, whose unknown fields are dropped and whose nulls are gone, as a Go server would have it. Called by `body.py`
for requests and by whoever decodes a built-in object from JSON. No Python loop visits every field unless the body
has a null in it or is wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from steersman.api.errors import escaped
from steersman.api.schema import Schema, Schemas, scalars, strict
from steersman.api.schema.nulls import Nulls
from steersman.api.schema.types import Types
from steersman.api.schema.zeros import Zeros


class DecodeError(ValueError):
    """The body is not what it should be; the text is Go's."""


class YamlError(ValueError):
    """The body is not YAML that is understood here. It is not in `yaml.py`, whose import most processes never need."""


class Decoders:
    """The decoders of one release."""

    def __init__(self, schemas: Schemas) -> None:
        self.schemas = schemas
        self._types = Types(schemas)
        self._nulls = Nulls(schemas)
        self._zeros = Zeros()
        self._decoders: dict[str, Callable[[bytes], Any]] = {}

    def decode(
        self, name: str, body: bytes, problems: list[str] | None = None, kind: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        """The object in `body`, typed by the definition `name`; unknown and repeated fields are added to `problems`.

        With `kind`, its apiVersion and kind, it holds nothing empty that Go would leave out.
        Raises DecodeError, and KeyError for an unknown name.
        """
        decode = self._decoders.get(name) or self._make(name)
        try:
            obj = decode(body)
        except msgspec.ValidationError as error:
            raise DecodeError(self._explain(name, body, str(error))) from None
        except UnicodeDecodeError:  # Go puts U+FFFD where the text is not UTF-8
            return self.decode(name, body.decode(errors="replace").encode(), problems, kind)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DecodeError(malformed(body, error)) from None
        encoded = msgspec.json.encode(obj)  # shorter than to look for what is told of it below
        if problems is not None and not strict.clean(body, encoded):
            problems.extend(strict.problems(self.schemas, name, body))
        if b"null" in encoded:
            self._nulls.drop(obj, name)
        if kind is not None:
            self._zeros.drop(encoded, obj, *kind)
        return obj

    def _make(self, name: str) -> Callable[[bytes], Any]:
        decoder = msgspec.json.Decoder(self._types.of(name), dec_hook=scalars.hook)
        self._decoders[name] = decoder.decode
        return decoder.decode

    def _explain(self, name: str, body: bytes, text: str) -> str:
        """msgspec's complaint in the words of Go's encoding/json."""
        complaint, _, path = text.partition(" - at `")
        steps = _STEP.findall(path)
        fields: list[str] = []
        struct, node = name, self.schemas.definitions[name]
        for field, index in steps:
            node = self.schemas.resolve(node)
            if index:
                node = node.get("items") or node.get("additionalProperties") or {}
            else:
                fields.append(field)
                node = node.get("properties", {}).get(field, {})
            if node.get("$ref") and (field, index) != steps[-1] and "properties" in self.schemas.resolve(node):
                struct = node["$ref"]
        if not complaint.startswith("Expected"):
            return complaint
        value = _found(body, steps, complaint)
        if not fields:
            return f"json: cannot unmarshal {value} into Go value of type {go_name(name)}"
        where = f"{struct.rpartition('.')[2]}.{'.'.join(fields)}"
        wanted = "v1.ExtraValue" if fields[-1] == "extra" and node.get("type") == "array" else self._go_type(node)
        return f"json: cannot unmarshal {value} into Go struct field {where} of type {wanted}"

    def _go_type(self, node: Schema) -> str:
        if "$ref" in node:
            return go_name(node["$ref"])
        kind = node.get("type")
        if kind == "array":
            return f"[]{self._go_type(node['items'])}"
        if kind == "object":
            inner = node.get("additionalProperties")
            return f"map[string]{self._go_type(inner)}" if isinstance(inner, dict) else "map[string]interface {}"
        if kind == "integer":
            return str(node.get("format", "int64"))
        return {"boolean": "bool", "number": "float64", "string": "string"}.get(kind or "", "interface {}")


def go_name(name: str) -> str:
    """`v1.Deployment` for `io.k8s.api.apps.v1.Deployment`."""
    return ".".join(name.split(".")[-2:])


def malformed(body: bytes, error: Exception | None = None) -> str:
    """Why `body` is not JSON, in the words of Go's encoding/json."""
    if isinstance(error, RecursionError):
        return "invalid character '{' exceeded max depth"
    text = body.decode("latin-1")  # Go complains of bytes
    try:
        json.loads(text, parse_constant=_no_constant)
    except _Constant as found:
        return f"invalid character '{found}' looking for beginning of value"
    except json.JSONDecodeError as found:
        if found.pos >= len(text.rstrip()):
            return "unexpected end of JSON input"
        where = next((words for start, words in _PLACES.items() if found.msg.startswith(start)), "in literal")
        return f"invalid character '{escaped(text[found.pos])}' {where}"
    except RecursionError:
        return "invalid character '{' exceeded max depth"
    return str(error)


class _Constant(ValueError):
    """NaN and Infinity, which Python reads and JSON has not."""


def _no_constant(text: str) -> None:
    raise _Constant(text[0])


def _found(body: bytes, steps: list[tuple[str, str]], complaint: str) -> str:
    """What is there instead: `string`, `number 1.5`, …"""
    match = _GOT.search(complaint)
    wanted_int = complaint.startswith("Expected `int")
    got = {"str": "string", "int": "number", "float": "number"}.get(match[1], match[1]) if match else "number"
    if got != "number" or not wanted_int:
        return got
    value: Any = msgspec.json.decode(body)
    for field, index in steps:
        if index == "...":
            return got
        value = value[int(index)] if index else value[field]
    return f"number {value}"


_STEP = re.compile(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]")
_GOT = re.compile(r"got `(\w+)`")
_PLACES = {
    "Expecting value": "looking for beginning of value",
    "Extra data": "after top-level value",
    "Expecting property name": "looking for beginning of object key string",
    "Expecting ':'": "after object key",
    "Expecting ','": "after object key:value pair",
    "Illegal trailing comma": "looking for beginning of value",
    "Invalid control character": "in string literal",
    "Invalid \\escape": "in string escape code",
    "Unterminated string": "in string literal",
}
"""Python's words for what is wrong in JSON, and Go's."""
