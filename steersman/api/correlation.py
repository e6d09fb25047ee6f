"""What a custom resource was, beside what it is: which old value belongs to which new one (KEP-4008).

Owns the walk by a schema over a value and the one that it replaces. Called by the checks of custom objects, which let
what was wrong before stay. Pure. Source: apiserver's pkg/cel/common (CorrelatedObject).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

Schema = Mapping[str, Any]


class Correlated:
    """A value and its old one at one place of a schema."""

    __slots__ = ("_children", "_equal", "new", "old", "schema")

    def __init__(self, new: Any, old: Any, schema: Schema) -> None:
        self.new, self.old, self.schema = new, old, schema
        self._equal: bool | None = None
        self._children: dict[str | int, Correlated | None] = {}

    def key(self, name: str) -> Correlated | None:
        """A field or an entry that both have, and that the schema knows."""
        if name not in self._children:
            self._children[name] = self._key(name)
        return self._children[name]

    def _key(self, name: str) -> Correlated | None:
        if not isinstance(self.new, dict) or not isinstance(self.old, dict):
            return None
        if name not in self.new or name not in self.old:
            return None
        schema = (self.schema.get("properties") or {}).get(name, self.schema.get("additionalProperties"))
        return Correlated(self.new[name], self.old[name], schema) if isinstance(schema, dict) else None

    def index(self, at: int) -> Correlated | None:
        """An item of a list of type map, beside the old one with its keys; those of other lists have no old ones."""
        if at not in self._children:
            self._children[at] = self._index(at)
        return self._children[at]

    def _index(self, at: int) -> Correlated | None:
        items = self.schema.get("items")
        if not self._keyed or not isinstance(items, dict) or not isinstance(self.old, list):
            return None
        old = same_item(self.schema, self.new[at], self.old)
        return None if old is None else Correlated(self.new[at], old, items)

    @property
    def _keyed(self) -> bool:
        return self.schema.get("x-kubernetes-list-type") == "map"

    @property
    def equal(self) -> bool:
        """Whether nothing changed here, as far as the schema can tell."""
        if self._equal is None:
            self._equal = self._same()
        return self._equal

    def _same(self) -> bool:
        new, old = self.new, self.old
        if isinstance(new, list) and isinstance(old, list):
            if len(new) != len(old):
                return False
            if not self._keyed:
                return _alike(new, old)
            return all((child := self.index(at)) is not None and child.equal for at in range(len(new)))
        if isinstance(new, dict) and isinstance(old, dict):
            if len(new) != len(old):
                return False
            return all((child := self.key(name)) is not None and child.equal for name in new)
        return _alike(new, old)


def _alike(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 and true are not."""
    if one != other:
        return False
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")


def same_item(schema: Schema, item: Any, old: Any) -> Any:
    """The item of the old list that has the same keys; None where there is none, or the list is not of type map."""
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    if not isinstance(old, list) or schema.get("x-kubernetes-list-type") != "map" or not isinstance(item, dict):
        return None
    if not all(key in item for key in keys):
        return None
    wanted = [item[key] for key in keys]
    return next((each for each in old if isinstance(each, dict) and [each.get(key) for key in keys] == wanted), None)
