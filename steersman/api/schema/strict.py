"""Which fields of a body are unknown, and which are there twice.

Owns `problems`: the slow walk that names them all, and `clean`: the fast test that there are none. Called for
fieldValidation=Strict and Warn. Source: sigs.k8s.io/json's strict errors (wording, paths, at most 100, no repeats).
"""

from __future__ import annotations

import json
from typing import Any

from steersman.api.schema import Schema, Schemas

_SPACE = b" \t\r\n"
_MOST = 100


def clean(body: bytes, encoded: bytes) -> bool:
    """True when nothing was lost on the way from `body` to a freshly decoded object, of which `encoded` is made.

    What is dropped makes the text shorter, and so does white space, so equal lengths mean that nothing was, as do equal
    lengths without it. False only means that a closer look is needed.
    """
    return len(body) == len(encoded) or len(body.translate(None, _SPACE)) == len(encoded.translate(None, _SPACE))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its members, repeated ones too."""


def _members(body: bytes) -> Any:
    """The document. What msgspec skips it does not look into: bytes that are no text are replaced, as Go does."""
    return json.loads(body.decode("utf-8", "replace"), object_pairs_hook=_Pairs)


def problems(schemas: Schemas, name: str, body: bytes) -> list[str]:
    """Texts such as `unknown field "spec.foo"`, in the order of the document; `body` has been decoded already."""
    found: dict[str, None] = {}
    _walk(schemas, _members(body), {"$ref": name}, "", found)
    return list(found)[:_MOST]


def repeated(body: bytes) -> list[str]:
    """Texts such as `duplicate field "spec.replicas"` for a body that has no schema, such as a patch."""
    found: dict[str, None] = {}

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for key, item in value:
                where = f"{path}.{key}" if path else key
                if key in seen:
                    found[f"duplicate field {_quote(where)}"] = None
                seen.add(key)
                walk(item, where)
        elif isinstance(value, list):
            for i, item in enumerate(value):
                walk(item, f"{path}[{i}]")

    walk(_members(body), "")
    return list(found)[:_MOST]


def _walk(schemas: Schemas, value: Any, node: Schema, path: str, found: dict[str, None]) -> None:
    node = schemas.resolve(node)
    if isinstance(value, _Pairs):
        properties, extra = node.get("properties"), node.get("additionalProperties")
        if properties is None and not isinstance(extra, dict):
            return  # RawExtension and the like decode themselves, without strictness
        seen: set[str] = set()
        for key, item in value:
            where = f"{path}.{key}" if path else key
            inner = extra if properties is None else properties.get(key)
            if inner is None:
                found[f"unknown field {_quote(where)}"] = None
                continue
            if key in seen:
                found[f"duplicate field {_quote(where)}"] = None
            seen.add(key)
            _walk(schemas, item, inner, where, found)
    elif isinstance(value, list):
        inner = node.get("items")
        if isinstance(inner, dict):
            for i, item in enumerate(value):
                _walk(schemas, item, inner, f"{path}[{i}]", found)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
