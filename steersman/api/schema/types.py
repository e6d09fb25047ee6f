"""Python types made from schemas at run time, for msgspec to decode with.

Owns the translation: a definition becomes a TypedDict whose fields are all optional and may be null, as Go's decoder
has it. Unknown fields are dropped by msgspec. Called by `decode.py` only.
"""

from __future__ import annotations

import keyword
from typing import Annotated, Any, TypedDict

import msgspec

from steersman.api.schema import Schema, Schemas
from steersman.api.schema.scalars import Base64, MicroTime, Quantity, Time

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
SPECIAL: dict[str, Any] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": Quantity,
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": int | str,
    f"{_META}.Time": Time,
    f"{_META}.MicroTime": MicroTime,
}
"""Definitions that are scalars on the wire."""

_INTEGERS = {
    "int32": Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)],
    "int64": Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
}


class Types:
    """The types of one release, made when first asked for."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._made: dict[str, Any] = dict(SPECIAL)

    def of(self, name: str) -> Any:
        """The type of a definition. Raises KeyError."""
        if name not in self._made:
            self._made[name] = self._define(name, self._schemas.definitions[name])
        return self._made[name]

    def _define(self, name: str, schema: Schema) -> Any:
        properties = schema.get("properties")
        if not properties:
            return (
                Any
                if schema.get("type") in (None, "object") and "additionalProperties" not in schema
                else self._node(schema)
            )
        title = name.rpartition(".")[2]
        made: Any = TypedDict(title if not keyword.iskeyword(title) else f"{title}_", {}, total=False)  # pyrefly: ignore
        self._made[name] = made  # before its fields: a definition may contain itself
        made.__annotations__.update({prop: self._node(node) | None for prop, node in properties.items()})
        made.__optional_keys__ = frozenset(properties)
        return made

    def _node(self, node: Schema) -> Any:
        if "$ref" in node:
            return self.of(node["$ref"])
        kind = node.get("type")
        if kind == "string":
            if node.get("format") == "int-or-string":
                return int | str
            return Base64 if node.get("format") == "byte" else str
        if kind == "integer":
            return _INTEGERS.get(node.get("format", ""), int)
        if kind == "array":
            item = self._node(node["items"]) | None
            return list.__class_getitem__(item) | None
        if kind == "object" and isinstance(node.get("additionalProperties"), dict):
            value = self._node(node["additionalProperties"]) | None
            return dict.__class_getitem__((str, value)) | None
        return {"number": float | int, "boolean": bool}.get(kind or "", Any)
