"""What Go's encoder leaves out: empty text, lists and maps, zero and false in fields that are omitted when empty.

Owns the walk that takes such values out of a decoded object, so that a field which an author wrote out empty is stored
as one that was never there. Called by `decode.py` for bodies in which something empty is written. Pointers keep their
zero, structures stay. Kinds that the table of fields does not know are left as they are.
"""

from __future__ import annotations

from typing import Any

from steersman.api.protobuf.table import Message, Table, table

_EMPTY = (b"{}", b":0,", b":0}", b":false", b"[]", b'""')

_TOLD_APART = {("HPAScalingRules", "policies")}
"""Lists whose defaults tell an empty one from one that is not there."""


class _Plan:
    """One message: which fields go when they are empty, and where to look further."""

    __slots__ = ("below", "droppable", "inner")

    def __init__(self) -> None:
        self.droppable: frozenset[str] = frozenset()
        self.below: dict[str, _Plan] = {}
        self.inner: dict[str, _Plan] = {}  # of maps and lists


class Zeros:
    """The walks, planned when first needed."""

    def __init__(self) -> None:
        self._plans: dict[str, _Plan] = {}

    def drop(self, encoded: bytes, obj: dict[str, Any], api_version: str, kind: str) -> None:
        """Take what Go would not write out of `obj`, in place. Most have nothing of the kind in `encoded`."""
        if not any(empty in encoded for empty in _EMPTY):
            return
        known = table()
        message = known.find(api_version, kind)
        if message is not None:
            _walk(obj, self._plan(known, message))

    def _plan(self, known: Table, message: Message) -> _Plan:
        plan = self._plans.get(message.name)
        if plan is not None:
            return plan
        plan = self._plans[message.name] = _Plan()  # before its fields: a message may contain itself
        droppable: set[str] = set()
        for field in message.fields:
            if field.type == "@" and field.inline:
                inner = self._plan(known, known.message(field.message))
                droppable |= inner.droppable
                plan.below.update(inner.below)
                plan.inner.update(inner.inner)
                continue
            told = (message.name.partition(":")[2], field.name) in _TOLD_APART
            if not told and (field.drop_zero or (field.many and field.omitted)):
                droppable.add(field.name)
            if field.type == "@":
                below = self._plan(known, known.message(field.message))
                (plan.inner if field.many else plan.below)[field.name] = below
        plan.droppable = frozenset(droppable)
        return plan


def _walk(value: dict[str, Any], plan: _Plan) -> None:
    gone: list[str] = []
    for key, item in value.items():
        if not item:
            if key in plan.droppable:
                gone.append(key)
        elif key in plan.below:
            if isinstance(item, dict):
                _walk(item, plan.below[key])
        elif key in plan.inner:
            inner = plan.inner[key]
            for each in item.values() if isinstance(item, dict) else item:
                if isinstance(each, dict):
                    _walk(each, inner)
    for key in gone:
        del value[key]
