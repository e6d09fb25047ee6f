"""What Go's decoder makes of null: a field is absent, an item or a map's value is its type's zero.

Owns the walk that takes nulls out of a decoded object. Called by `decode.py` for bodies that have a null in them: Go
clients write `creationTimestamp: null` into most of what they send. Only lists and maps that the schema knows are
entered; what has no type keeps its nulls.
"""

from __future__ import annotations

from typing import Any

import msgspec

from steersman.api.schema import Schema, Schemas
from steersman.api.schema.scalars import Quantity
from steersman.api.schema.types import SPECIAL

_ZEROS: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False}


class _Plan:
    """How to walk one type: the containers among an object's fields, or the items of a list or map."""

    __slots__ = ("fields", "items", "known", "zero")

    def __init__(self) -> None:
        self.known: frozenset[str] = frozenset()
        self.fields: dict[str, _Plan] = {}
        self.items: _Plan | None = None
        self.zero: Any = None


class Nulls:
    """The walks of one release, planned when first needed."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._plans: dict[str, _Plan] = {}

    def drop(self, obj: dict[str, Any], name: str) -> None:
        """Take the nulls out of `obj`, in place; `name` is its definition."""
        plan = self._plan({"$ref": name})
        if plan.items is not None or not plan.known:
            _walk(obj, plan)
            return
        for key in list(obj):  # looking for a null is much faster than walking: mostly there is one in the status only
            if key in plan.known and b"null" in msgspec.json.encode(obj[key]):
                part = {key: obj[key]}
                _walk(part, plan)
                if not part:
                    del obj[key]

    def _plan(self, node: Schema) -> _Plan:
        name = node.get("$ref", "")
        if name in self._plans:
            return self._plans[name]
        plan = _Plan()
        if name:
            self._plans[name] = plan  # before its fields: a definition may contain itself
        node = self._schemas.resolve(node)
        plan.known = frozenset(node.get("properties", ()))
        for prop, inner in node.get("properties", {}).items():
            if self._schemas.resolve(inner).get("type") in ("object", "array"):
                plan.fields[prop] = self._plan(inner)
        inner = node.get("items") or node.get("additionalProperties")
        if isinstance(inner, dict):
            plan.items = self._plan(inner)
            plan.zero = self._zero(inner)
        return plan

    def _zero(self, node: Schema) -> Any:
        if SPECIAL.get(node.get("$ref", "")) is Quantity:
            return "0"
        kind = self._schemas.resolve(node).get("type")
        return dict[str, Any]() if kind == "object" else _ZEROS.get(kind or "")


def _walk(value: Any, plan: _Plan) -> None:
    if plan.items is not None:
        for key, item in enumerate(value) if isinstance(value, list) else list(value.items()):
            if item is None:
                value[key] = dict(plan.zero) if isinstance(plan.zero, dict) else plan.zero
            elif isinstance(item, (dict, list)):
                _walk(item, plan.items)
        return
    if not plan.known or isinstance(value, list):
        return  # RawExtension and the like
    fields = plan.fields
    gone = None
    for key, item in value.items():
        if item is None:
            if key in plan.known:
                gone = [key] if gone is None else [*gone, key]
        elif key in fields:
            _walk(item, fields[key])
    if gone:
        for key in gone:
            del value[key]
