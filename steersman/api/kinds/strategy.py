"""Preparations that several kinds share: a first status, which subresource may change what.

Owns small functions that make `Prepare` and `PrepareUpdate` values. Called by kind files. Source: the strategies in
pkg/registry.
"""

from __future__ import annotations

import copy
from typing import Any

from steersman.api.kind import Prepare, PrepareUpdate
from steersman.api.resource import Object


def begin(status: Object | None, *, generations: bool = False) -> Prepare:
    """A new object starts with this status, and with generation 1 where the kind counts generations."""

    def prepare(obj: Object) -> None:
        if status is not None:
            obj["status"] = copy.deepcopy(status)
        if generations:
            obj["metadata"]["generation"] = 1
        else:
            obj["metadata"].pop("generation", None)

    return prepare


def keep(*fields: str) -> PrepareUpdate:
    """An update leaves these top-level fields, and the generation, as they are."""

    def prepare(new: Object, old: Object) -> None:
        for field in fields:
            copy_field(field, new, old)
        copy_field("generation", new["metadata"], old["metadata"])

    return prepare


def copy_field(field: str, new: Object, old: Object) -> None:
    """`new` gets what `old` has there, or nothing."""
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def count(new: Object, old: Object, *, changed: bool) -> None:
    """Set the generation: the old one, plus one when something changed."""
    generation = (old["metadata"].get("generation") or 0) + changed
    if generation:
        new["metadata"]["generation"] = generation


def differs(one: Any, other: Any) -> bool:
    """Semantic inequality, at every depth: absent and empty lists, maps and strings are the same."""
    return one != other and _bare(one) != _bare(other)


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if not _empty(item)}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _empty(value: Any) -> bool:
    return value is None or value == "" or value == []
