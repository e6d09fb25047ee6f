"""What OpenAPI documents say of built-in types beside their schemas: the values of enumerations, and defaults.

Owns the reading of `schema/published.txt`, and the rule that most defaults follow. A block of that file is a line with
a fact (`enum [...]` or `default ...`, values as JSON), then indented lines with the fields that it is true of, as
`group.Type.field` for every version of the group; a `/` at the end means the elements of a list or map. Called by
`openapi_schemas.py` and `scripts/build_published.py`. Source: kube-openapi's generators.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from steersman.api.schema import Schema

_FILE = Path(__file__).parent / "schema" / "published.txt"
_ZERO: Mapping[str, Any] = {"string": "", "integer": 0, "boolean": False, "number": 0}
_NEVER = ("Quantity", "Time", "MicroTime", "IntOrString", "Duration", "FieldsV1", "RawExtension", "JSON")

Facts = tuple[Mapping[str, Any], Mapping[str, Any]]


def short(name: str) -> str:
    """A definition's name without what all have, and without its version: `core.Container`."""
    group, _, kind = name.split(".")[-3:]
    return f"{group}.{kind}"


def usual(node: Schema, *, inner: bool, required: bool, metadata: bool) -> Any:
    """The default of a field, or with `inner` of an element, of which the file says nothing; None for none."""
    target = node.get("$ref")
    if target is not None:
        return {} if (inner or required or metadata) and target.split(".")[-1] not in _NEVER else None
    if node.get("format") == "int-or-string":
        return None
    return _ZERO.get(node.get("type", "")) if inner or required else None


@functools.cache
def facts() -> Facts:
    """The enumerations, and the defaults that are not as usual, by place."""
    enums: dict[str, Any] = {}
    defaults: dict[str, Any] = {}
    into: dict[str, Any] = enums
    value: Any = None
    for line in _FILE.read_text().splitlines():
        if line.startswith("#"):
            continue
        if line.startswith(" "):
            into.update(dict.fromkeys(line.split(), value))
            continue
        what, _, text = line.partition(" ")
        into, value = (enums if what == "enum" else defaults), msgspec.json.decode(text)
    return enums, defaults
