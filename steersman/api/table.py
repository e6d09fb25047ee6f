"""Objects as rows: what `kubectl get` prints.

Owns the building blocks of printer columns, the meta.k8s.io Table made from them, and columns from a
CustomResourceDefinition. Kinds declare their own columns; a kind without any shows name and creation time. Called by
the API server when a client asks for `as=Table`. Pure: time now (Unix seconds) is an argument. Source: KEP-2906's
server-side printing, pkg/printers, and apiextensions-apiserver's tableconvertor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from steersman.api import labels
from steersman.api.kind import Cell, Column, Kind
from steersman.api.resource import Object

NONE = "<none>"
UNKNOWN = "<unknown>"
UNSET = "<unset>"

_MINUTE, _HOUR = 60, 3600


def human(seconds: float) -> str:
    """A duration as people read it: 45s, 3m20s, 5h2m, 3d4h, 2y10d."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    minutes, hours = total // _MINUTE, total // _HOUR
    if total < 2 * _MINUTE:
        return f"{total}s"
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        return _two(hours // 24, "d", hours % 24, "h")
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    if hours < 24 * 365 * 8:
        return _two(hours // 24 // 365, "y", hours // 24 % 365, "d")
    return f"{hours // 24 // 365}y"


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large}{unit}{small}{small_unit}" if small else f"{large}{unit}"


@lru_cache(maxsize=4096)
def seconds(stamp: str) -> float:
    """An RFC 3339 stamp in Unix seconds. Raises ValueError."""
    return datetime.fromisoformat(stamp).timestamp()


def since(stamp: str | None, now: float) -> str:
    """How long ago; `<unknown>` when there is no stamp."""
    if not stamp:
        return UNKNOWN
    try:
        return human(now - seconds(stamp))
    except ValueError:
        return "<invalid>"


def dig(obj: Any, *path: str | int) -> Any:
    """What is at a path, None when anything on the way is missing."""
    for step in path:
        if isinstance(obj, list):
            obj = obj[step] if isinstance(step, int) and step < len(obj) else None
        else:
            obj = obj.get(step) if isinstance(obj, dict) else None
        if obj is None:
            return None
    return obj


def field(name: str, *path: str | int, type: str = "string", empty: Any = "", priority: int = 0) -> Column:
    """A column that shows one field, and `empty` when it is missing or empty."""

    def cell(obj: Object, now: float) -> Any:
        return dig(obj, *path) or empty

    return Column(name, cell, type, priority=priority)


def number(name: str, *path: str | int) -> Column:
    """A column that shows one number, 0 when it is missing."""
    return field(name, *path, type="integer", empty=0)


def flag(name: str, *path: str | int) -> Column:
    """A column that shows one boolean, false when it is missing."""
    return field(name, *path, type="boolean", empty=False)


def wide(name: str, cell: Cell) -> Column:
    """A column of text that only `-o wide` shows."""
    return Column(name, cell, priority=1)


def length(name: str, *path: str | int, type: str = "integer") -> Column:
    """A column that shows how many there are."""
    return Column(name, lambda obj, now: len(dig(obj, *path) or ()), type)


def _created(obj: Object, now: float) -> str:
    return obj["metadata"].get("creationTimestamp") or ""


def _age(obj: Object, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def _name(obj: Object, now: float) -> str:
    return obj["metadata"].get("name") or ""


NAME = Column("Name", _name, format="name", description="Unique among the objects of its kind and namespace.")
AGE = Column("Age", _age, description="Time since creation.")
CREATED = Column("Created At", _created, type="date", description="When the object was created.")
GENERIC = (NAME, CREATED)
"""The columns of a kind that has none of its own."""


def of_template(*path: str) -> tuple[Column, Column]:
    """Container names and images of the template at `path`, for `-o wide`."""

    def listed(key: str) -> Cell:
        def cell(obj: Object, now: float) -> str:
            found = dig(obj, *path, "spec", "containers") or ()
            return ",".join(container.get(key, "") for container in found)

        return cell

    return wide("Containers", listed("name")), wide("Images", listed("image"))


def label_text(found: Mapping[str, str] | None) -> str:
    """Labels in one line, `<none>` for none."""
    return ",".join(f"{key}={value}" for key, value in sorted((found or {}).items())) or NONE


def selector_text(found: Mapping[str, Any] | None) -> str:
    """A LabelSelector in one line, `<none>` for one that says nothing."""
    try:
        return str(labels.from_object(found)) or NONE
    except ValueError:
        return "<error>"


def joined(items: Sequence[str], most: int, separator: str = ",") -> str:
    """The first `most` items, and how many more there are."""
    text = separator.join(items[:most])
    return f"{text} + {len(items) - most} more..." if len(items) > most else text


def columns(kind: Kind, version: str) -> tuple[Column, ...]:
    """The columns of a kind in one version."""
    own = kind.columns_of(version)
    return GENERIC if own is None else own


def generic(kind: Kind, version: str) -> bool:
    """Whether a built-in kind has no columns of its own."""
    return not kind.custom and kind.columns_of(version) is None


_DONE = {
    "Succeeded": "The pod has completed successfully.",
    "Failed": "The pod failed.",
}


_ZERO: Mapping[str, Any] = {"integer": 0, "number": 0, "boolean": False}


def blank(shown: Sequence[Column]) -> tuple[Column, ...]:
    """The same columns for an object that has nothing but metadata, as a bookmark's: every cell is its type's zero."""

    def nothing(column: Column) -> Column:
        return replace(column, cell=lambda obj, now: _ZERO.get(column.type, ""))

    return tuple(nothing(column) for column in shown)


def row(shown: Sequence[Column], obj: Object, now: float, *, include: str = "Metadata", version: str = "v1") -> Object:
    """One row. `include` says what comes with it: `None`, `Metadata` or `Object`."""
    out: Object = {"cells": [column.cell(obj, now) for column in shown]}
    if obj.get("kind") == "Pod" and (phase := dig(obj, "status", "phase")) in _DONE:
        out["conditions"] = [{"type": "Completed", "status": "True", "reason": phase, "message": _DONE[phase]}]
    if include == "Object":
        out["object"] = obj
    elif include == "None":
        out["object"] = None
    else:
        out["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": f"meta.k8s.io/{version}",
            "metadata": obj["metadata"],
        }
    return out


def table(
    shown: Sequence[Column],
    objects: Iterable[Object],
    now: float,
    *,
    include: str = "Metadata",
    headers: bool = True,
    list_meta: Mapping[str, Any] | None = None,
    version: str = "v1",
    texts: Mapping[str, str] = MappingProxyType({}),
) -> Object:
    """A Table of objects. `list_meta` is the list's metadata, or has the object's resourceVersion for a single one.

    `texts`: words for columns that do not say themselves what they mean."""
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": dict(list_meta or {}),
        "columnDefinitions": [definition(column, texts) for column in shown] if headers else None,
        "rows": [row(shown, obj, now, include=include, version=version) for obj in objects],
    }


def definition(column: Column, texts: Mapping[str, str] = MappingProxyType({})) -> Object:
    """The column's head, as the Table carries it."""
    text = column.description if column.stated else texts.get(column.name) or column.description
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": text or ("" if column.stated else f"{column.name} of the object."),
        "priority": column.priority,
    }


def custom_columns(declared: Sequence[Mapping[str, Any]] | None) -> tuple[Column, ...]:
    """Name, and a CustomResourceDefinition's additionalPrinterColumns; Age when it declares none."""
    if not declared:
        return (NAME, replace(AGE, type="date"))
    return (NAME, *(_custom(column) for column in declared))


def _custom(declared: Mapping[str, Any]) -> Column:
    from steersman.api import jsonpath  # here: clusters without custom resources never need it

    kind, path = declared["type"], jsonpath.compile(declared["jsonPath"])

    def cell(obj: Object, now: float) -> Any:
        found = path(obj)
        if not found:
            return None
        if kind == "date":
            return since(found[0], now) if isinstance(found[0], str) else "<invalid>"
        if kind == "string":
            return " ".join(jsonpath.text(value) for value in found)
        return _typed(kind, found[0])

    return Column(
        declared["name"],
        cell,
        kind,
        declared.get("format", ""),
        declared.get("description")
        or f"Custom resource definition column (in JSONPath format): {declared['jsonPath']}",
        declared.get("priority", 0),
        stated=True,
    )


def _typed(kind: str, value: Any) -> Any:
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if kind == "integer" else value
