"""What a schema says about ownership: which lists merge by which key, what is atomic.

Owns `Types`, which turns schemas into `Type`s once and keeps them. Called by `ownership.py` and `apply.py`, one per
release or per custom resource. Source: KEP-555 and the x-kubernetes-list-type, -list-map-keys and -map-type keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

Node = Mapping[str, Any]

SCALAR = "scalar"
ATOMIC = "atomic"
STRUCT = "struct"
MAP = "map"
KEYED = "keyed"
SET = "set"
UNKNOWN = "unknown"

_KEY_DEFAULTS = {"protocol": "TCP"}  # the one default that keys of built-in lists have
_ZEROS = {"integer": 0, "number": 0, "boolean": False}
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_ALWAYS = frozenset(
    (
        "metadata",
        "spec",
        "status",
        "template",
        "strategy",
        "updateStrategy",
        "jobTemplate",
        "resources",
        "nodeInfo",
        "containers",
    )
)
"""Fields that Go's types always have, even when nothing is in them: nobody owns the field itself."""


_STRUCTS = frozenset(("devices", "pool", "source", "deprecatedSource"))
"""The same, where they are structs; elsewhere lists have these names."""


_RAW = "io.k8s.apimachinery.pkg.runtime.RawExtension"


class Resolver(Protocol):
    """Follows `$ref`; `schema.Schemas` is one."""

    def resolve(self, node: Node) -> Node:
        """The node, or the definition that it refers to."""
        ...


class NoReferences:
    """A resolver for schemas without `$ref`, as custom resources have them."""

    def resolve(self, node: Node) -> Node:
        """The node itself."""
        return node


class Type:
    """One node. `kind` is one of the constants above; what is below is made when first asked for."""

    __slots__ = ("_element", "_fields", "_node", "_properties", "_types", "_zeros", "keys", "kind", "shapes", "specs")

    def __init__(self, types: Types, node: Node, kind: str, keys: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.keys = tuple(sorted(keys))
        self.specs: dict[bytes, Any] = {}  # `ownership.py` remembers here who would own what in a spec
        self.shapes: dict[bytes, Mapping[str, Any]] = {}  # and here the FieldsV1 of new objects
        self._types = types
        self._node = node
        self._properties: Mapping[str, Any] = node.get("properties") or {}
        self._zeros = types.zeros(node, keys) if keys else {}
        self._fields: dict[str, Type] = {}
        self._element: Type | None = None

    def field(self, name: str) -> Type:
        """The type of a field or map value."""
        found = self._fields.get(name)
        if found is None:
            if name in self._properties:
                found = self._fields[name] = self._types.of(self._properties[name])
            else:
                found = self.element
        return found

    @property
    def expects(self) -> str:
        """The JSON type that a value must have, in the schema's word; empty where several are good."""
        if "x-kubernetes-int-or-string" in self._node or self._node.get("format") in ("quantity", "int-or-string"):
            return ""
        return str(self._node.get("type") or "")

    def named(self, name: str) -> bool:
        """Whether the schema names this field."""
        return name in self._properties

    @property
    def closed(self) -> bool:
        """Whether only the named fields are allowed."""
        return self.kind == STRUCT and "additionalProperties" not in self._node and not self._node.get(_PRESERVE)

    def absent(self, name: str) -> Any:
        """What an absent field is compared as: `{}` or `[]` for one that is never absent, else None."""
        if not self._refers(name):
            return None
        if name in _STRUCTS and self.named(name) and self.field(name).kind == STRUCT:
            return {}
        if name not in _ALWAYS or not self.named(name):
            return None
        return {STRUCT: {}, KEYED: []}.get(self.field(name).kind)

    def _refers(self, name: str) -> bool:
        """Whether a field is of a Go type: a custom resource's schema, which refers to none, has fields or has not."""
        node = self._properties.get(name) or {}
        return "$ref" in node or "$ref" in (node.get("items") or {})

    @property
    def element(self) -> Type:
        """The type of list items, or of map values that have no name."""
        if self._element is None:
            inner = self._node.get("items") or self._node.get("additionalProperties")
            self._element = self._types.of(inner) if isinstance(inner, Mapping) else self._types.unknown
        return self._element

    def path(self, item: Any) -> str:
        """The path element of an item of a keyed list or set. Raises ValueError when it has no key."""
        if self.kind == SET:
            return f"v:{_dumps(item)}"
        if not isinstance(item, dict):
            raise ValueError("associative list with keys may not have non-map elements")
        keys = {}
        for key in self.keys:
            if key in item:
                keys[key] = item[key]
            elif key in _KEY_DEFAULTS:
                keys[key] = _KEY_DEFAULTS[key]
            elif key in self._zeros:
                keys[key] = self._zeros[key]
        if not keys:
            names = ", ".join(f'"{key}"' for key in self.keys)
            raise ValueError(f"associative list with keys has an element that omits all key fields {names}")
        return f"k:{_dumps(keys)}"


class Types:
    """The types of some schemas. Made when first asked for; nodes are told apart by identity and kept alive."""

    def __init__(self, schemas: Resolver | None = None) -> None:
        self._schemas: Resolver = schemas or NoReferences()
        self._made: dict[int, tuple[Node, Type]] = {}
        self.unknown = Type(self, {}, UNKNOWN)

    def of(self, node: Node) -> Type:
        """The type of a schema node."""
        found = self._made.get(id(node))
        if found is None:
            found = self._made[id(node)] = (node, self._make(node))
        return found[1]

    def zeros(self, node: Node, keys: tuple[str, ...]) -> dict[str, Any]:
        """What stands for a key that an item of a built-in list leaves out, where Go's type always has it."""
        if isinstance(self._schemas, NoReferences):
            return {}
        item = self._schemas.resolve(node.get("items") or {})
        required, properties = item.get("required") or (), item.get("properties") or {}
        return {key: _ZEROS.get(properties.get(key, {}).get("type"), "") for key in keys if key in required}

    def _make(self, node: Node) -> Type:
        resolved = self._schemas.resolve(node)
        kind = resolved.get("type")
        if resolved.get("x-kubernetes-int-or-string") or resolved.get("x-kubernetes-embedded-resource"):
            return Type(self, resolved, SCALAR if "x-kubernetes-int-or-string" in resolved else MAP)
        if kind == "array":
            how = node.get("x-kubernetes-list-type") or resolved.get("x-kubernetes-list-type")
            if how == "map":
                return Type(self, resolved, KEYED, tuple(node.get("x-kubernetes-list-map-keys") or ()))
            return Type(self, resolved, SET if how == "set" else ATOMIC)
        if kind == "object" or "properties" in resolved:
            if node.get("$ref") == _RAW:
                return Type(self, resolved, ATOMIC)
            if "atomic" in (node.get("x-kubernetes-map-type"), resolved.get("x-kubernetes-map-type")):
                return Type(self, resolved, ATOMIC)
            if "properties" in resolved:
                return Type(self, resolved, STRUCT)
            return Type(self, resolved, MAP)
        return Type(self, resolved, UNKNOWN if kind is None else SCALAR)


def _dumps(value: Any) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()
