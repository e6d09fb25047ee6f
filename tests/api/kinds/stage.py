"""What the API server does with an object before it stores it, without the server; and one small valid object a kind.

`create` and `update` run defaults, preparation and rules in the server's order and give complaints as lines of text.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from steersman.api import changing, meta
from steersman.api.errors import FieldError
from steersman.api.kind import Kind
from steersman.api.registry import Registry
from steersman.api.resource import Object

UID = "0b5a8c3e-7f0e-4f39-9d3c-111111111111"
NOW = "2026-01-02T03:04:05Z"


@cache
def registry() -> Registry:
    """The built-in kinds."""
    return Registry()


@cache
def _examples() -> dict[str, Object]:
    text = (Path(__file__).parent / "examples.yaml").read_text()
    return {f"{obj['apiVersion']}/{obj['kind']}": obj for obj in yaml.safe_load_all(text)}


def example_names() -> list[str]:
    """`apiVersion/kind` of every example."""
    return list(_examples())


def example(name: str, **changes: Any) -> Object:
    """A fresh copy of the example whose kind is `name` (or apiVersion/kind); `changes` replace keys of its spec."""
    found = next(obj for key, obj in _examples().items() if name in (key, obj["kind"]))
    obj = copy.deepcopy(found)
    if changes:
        obj.setdefault("spec", {}).update(changes)
    return obj


def kind_of(obj: Object) -> Kind:
    """The kind of an object."""
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = registry().by_kind(group, version, obj["kind"])
    assert kind is not None
    return kind


def create(obj: Object) -> list[str]:
    """Prepare `obj` in place for its first write; the complaints."""
    kind = kind_of(obj)
    meta.fill(obj, uid=UID, now=NOW)
    kind.default(obj)
    kind.prepare_create(obj)
    return lines(
        meta.validate(obj, namespaced=kind.namespaced, rule=kind.name_rule, core=changing.core(kind))
        + kind.validate(obj)
    )


def stored(obj: Object) -> Object:
    """`obj` as it is in the store after a create that succeeded."""
    assert create(obj) == []
    obj["metadata"]["resourceVersion"] = "7"
    return obj


def update(obj: Object, old: Object, subresource: str = "") -> list[str]:
    """Prepare `obj` in place for replacing `old`; the complaints, each once."""
    return list(dict.fromkeys(repeated(obj, old, subresource)))


def repeated(obj: Object, old: Object, subresource: str = "") -> list[str]:
    """As `update`, with the complaints that are made more than once as often as the causes of an answer have them."""
    kind = kind_of(obj)
    meta.bare(obj["metadata"])
    meta.dedup_owners(obj)
    kind.default(obj)
    meta.carry_over(obj, old)
    changing.prepare(kind, obj, old, subresource)
    return lines(changing.complaints(kind, obj, old, subresource))


def lines(found: list[FieldError]) -> list[str]:
    """Each complaint as the Status message has it."""
    return [str(error) for error in found]


def put(obj: Object, path: str, value: Any) -> Object:
    """Set the value at a path such as `spec.containers.0.image` in place; None removes it. Gives `obj` back."""
    *parents, last = path.split("/") if "/" in path else path.split(".")
    at: Any = obj
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
    if isinstance(at, list):
        at[int(last) :] = [value, *at[int(last) + 1 :]]
    elif value is None:
        at.pop(last, None)
    else:
        at[last] = value
    return obj
