"""What Go's encoder writes though nobody said it: times as null, structures as `{}`, required text and numbers as zero.

Owns the walk that puts such values into a status, so that it is stored as the original stores it. Called where a status
is written through its own endpoint; defaults of kinds do it for specs. Pure. Kinds that the table of fields does not
know are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from steersman.api.protobuf.table import Field, Message, table

_ZEROS: Mapping[str, Any] = {"s": "", "b": False, "i": 0, "d": 0, "Q": "0", "O": 0, "T": None, "U": None, "D": "0s"}


class _Plan:
    """One message: what is written in any case, and where to look further."""

    __slots__ = ("below", "inner", "scalars", "structures")

    def __init__(self) -> None:
        self.scalars: dict[str, Any] = {}
        self.structures: tuple[str, ...] = ()
        self.below: dict[str, _Plan] = {}
        self.inner: dict[str, _Plan] = {}  # of lists and maps

    def __bool__(self) -> bool:
        return bool(self.scalars or self.structures or self.below or self.inner)


def fill(status: dict[str, Any], api_version: str, kind: str) -> None:
    """Write out `status`, in place: that of an object of `kind`."""
    plan = _plan_of(api_version, kind)
    if plan is not None:
        _walk(status, plan)


@cache
def _plan_of(api_version: str, kind: str) -> _Plan | None:
    known = table()
    message = known.find(api_version, kind)
    field = next((each for each in message.fields if each.name == "status"), None) if message else None
    if field is None or field.type != "@":
        return None
    return _plan(known.message(field.message), {})


def _plan(message: Message, made: dict[str, _Plan]) -> _Plan:
    if message.name in made:
        return made[message.name]
    plan = made[message.name] = _Plan()
    for field in message.fields:
        if field.type == "@" and not field.inline:
            below = _plan(table().message(field.message), made)
            if below:
                (plan.inner if field.many else plan.below)[field.name] = below
        if _structure(field):
            plan.structures = (*plan.structures, field.name)
        elif not field.many and not field.pointer and (not field.omitted or field.type in "TUQ"):
            if field.type in _ZEROS and not (field.type in "TU" and field.name == "creationTimestamp"):
                plan.scalars[field.name] = _ZEROS[field.type]
        elif field.many and not field.omitted:
            plan.scalars[field.name] = None
    return plan


def _structure(field: Field) -> bool:
    return field.type == "@" and not (field.many or field.pointer or field.inline or field.drop_zero)


def _walk(value: dict[str, Any], plan: _Plan) -> None:
    for key, zero in plan.scalars.items():
        if key not in value:
            value[key] = zero
    for key in plan.structures:
        if key not in value:
            value[key] = {}
    for key, below in plan.below.items():
        found = value.get(key)
        if isinstance(found, dict):
            _walk(found, below)
    for key, inner in plan.inner.items():
        found = value.get(key)
        if found:
            for each in found.values() if isinstance(found, dict) else found:
                if isinstance(each, dict):
                    _walk(each, inner)
