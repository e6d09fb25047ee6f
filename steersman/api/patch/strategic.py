"""Strategic merge patch: lists merge by key, and directives say what plain JSON cannot.

Owns `apply`. Called by the API server's patch verb for built-in kinds. Works on the release's schemas: it reads
`x-kubernetes-patch-merge-key` and `x-kubernetes-patch-strategy`. Changes both of its arguments. Source: the document
strategic-merge-patch.md of the community repository and apimachinery's util/strategicpatch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from steersman.api import errors
from steersman.api.errors import ApiError

Node = Mapping[str, Any]

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_MERGE_KEY = "x-kubernetes-patch-merge-key"
_STRATEGY = "x-kubernetes-patch-strategy"


class Resolver(Protocol):
    """Follows `$ref`; `schema.Schemas` is one."""

    def resolve(self, node: Node) -> Node:
        """The node, or the definition that it refers to."""
        ...


def apply(document: dict[str, Any], patch: Any, schema: Node, schemas: Resolver) -> dict[str, Any]:
    """The document with the patch merged in; `schema` is the kind's definition. Raises ApiError 400, 422 and 500."""
    if not isinstance(patch, dict):
        raise errors.bad_request("invalid JSON document")
    return _Merger(schemas).merge(document, patch, schema)


def unfit(patch: Any, why: str) -> ApiError:
    """422 for a patched object that does not decode; `why` is the decoder's complaint. Source: FromUnstructured."""
    found = _UNFIT.search(why)
    if found is not None:
        got, wanted = found.groups()
        if wanted.startswith("[]"):
            why = f"cannot restore slice from {got}"
        elif wanted.startswith("map["):
            why = f"cannot restore map from {got}"
        elif "." in wanted:
            why = f"cannot restore struct from: {got}"
        elif (got, wanted) == ("number", "string"):
            why = "cannot convert int64 to string"
        else:
            why = f"unrecognized type: {wanted}"
    return errors.patched_wrong(_go(patch), why)


_UNFIT = re.compile(r"cannot unmarshal (\w+).* into Go .* of type (\S+)$")


def _go(value: Any) -> str:
    """A JSON value as Go prints it."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_go(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(_go, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "<nil>" if value is None else str(value)


class _Merger:
    def __init__(self, schemas: Resolver) -> None:
        self._schemas = schemas

    def _field(self, schema: Node, key: str) -> Node:
        schema = self._schemas.resolve(schema)
        field = (schema.get("properties") or {}).get(key)
        if field is None:
            extra = schema.get("additionalProperties")
            field = extra if isinstance(extra, Mapping) else {}
        return field

    def merge(self, target: dict[str, Any], patch: dict[str, Any], schema: Node) -> dict[str, Any]:
        """One map."""
        if _DIRECTIVE in patch:
            directive = patch.pop(_DIRECTIVE)
            if directive == "replace":
                return patch
            if directive == "delete":
                return {}
            if directive != "merge":
                raise _unknown(directive, patch)
        _retain_keys(target, patch)
        orders = {key.removeprefix(_ORDER): patch.pop(key) for key in list(patch) if key.startswith(_ORDER)}
        for key, value in patch.items():
            if key.startswith(_DELETE):
                _delete_items(target, key.removeprefix(_DELETE), value)
            else:
                self._merge_field(target, key, value, schema)
        for key, order in orders.items():
            self._reorder(target, key, order, schema)
        return target

    def _merge_field(self, target: dict[str, Any], key: str, value: Any, schema: Node) -> None:
        if value is None:
            target.pop(key, None)
            return
        current = target.get(key)
        field = self._field(schema, key)
        strategies = str(field.get(_STRATEGY, "")).split(",")
        if isinstance(value, dict) and isinstance(current, dict):
            if "replace" in strategies:
                target[key] = value
            else:
                target[key] = self.merge(current, value, field)
        elif isinstance(value, list) and isinstance(current, list) and "merge" in strategies:
            target[key] = self._merge_list(current, value, field)
        else:
            kept, there = _plain(value)
            if there:
                target[key] = kept
            else:
                target.pop(key, None)

    def _merge_list(self, current: list[Any], patch: list[Any], field: Node) -> list[Any]:
        if not any(isinstance(item, (dict, list)) for item in [*current, *patch]):
            return current + [item for i, item in enumerate(patch) if item not in current and item not in patch[:i]]
        if any(isinstance(item, list) for item in [*current, *patch]):
            raise ApiError(422, "Invalid", "the server rejected our request due to an error in our request")
        if not all(isinstance(item, dict) for item in [*current, *patch]):
            raise errors.bad_request("list element types are not identical")
        key = field.get(_MERGE_KEY)
        if not key:
            raise errors.internal("cannot merge lists without merge key")
        items = self._schemas.resolve(field).get("items") or {}
        before = [item.get(key) for item in current]
        plain: list[dict[str, Any]] = []
        for item in patch:
            directive = item.get(_DIRECTIVE)
            if directive is None or directive == "replace":
                plain += [item] if directive is None else []
                continue
            if directive == "merge":
                raise errors.internal("merging lists cannot yet be specified in the patch")
            if directive != "delete":
                raise _unknown(directive, item)
            current = [each for each in current if each.get(key) != _key_of(item, key)]
        if any(item.get(_DIRECTIVE) == "replace" for item in patch):
            return [_plain(item)[0] for item in plain]
        for item in plain:
            value = _key_of(item, key)
            for i, each in enumerate(current):
                if each.get(key) == value:
                    current[i] = self.merge(each, item, items)
                    break
            else:
                current.append(_plain(item)[0])
        return _ordered(current, [item[key] for item in plain], before, key)

    def _reorder(self, target: dict[str, Any], key: str, order: Any, schema: Node) -> None:
        """Put a list into the order that the patch's author wants; items he does not name keep their neighbours."""
        if not isinstance(order, list):
            raise errors.bad_request("invalid patch format of setElementOrder list")
        current = target.get(key)
        if not isinstance(current, list) or not current:
            return
        merge_key = self._field(schema, key).get(_MERGE_KEY)
        if merge_key and isinstance(current[0], dict):
            wanted = [item.get(merge_key) for item in order if isinstance(item, dict)]
            target[key] = _ordered(current, wanted, [item.get(merge_key) for item in current], merge_key)
        elif not isinstance(current[0], dict):
            target[key] = _ordered(current, order, list(current), "")


def _ordered(items: list[Any], wanted: list[Any], server: list[Any], merge_key: str) -> list[Any]:
    """Items named in `wanted` in that order; the others between them where the server had them.

    `wanted` and `server` hold keys; without a merge key an item is its own.
    """

    def key(item: Any) -> Any:
        return item.get(merge_key) if merge_key else item

    named = sorted((item for item in items if key(item) in wanted), key=lambda item: wanted.index(key(item)))
    others = [item for item in items if key(item) not in wanted]
    out: list[Any] = []
    while named and others:
        mine, theirs = key(named[0]), key(others[0])
        server_first = mine in server and theirs in server and server.index(theirs) < server.index(mine)
        out.append(others.pop(0) if server_first else named.pop(0))
    return out + named + others


def _retain_keys(target: dict[str, Any], patch: dict[str, Any]) -> None:
    if _RETAIN not in patch:
        return
    keys = patch.pop(_RETAIN)
    if not isinstance(keys, list):
        raise errors.bad_request("invalid patch format of retainKeys")
    for key, value in patch.items():
        if value is not None and key not in keys and not key.startswith((_ORDER, _DELETE)):
            raise errors.bad_request("invalid patch format of retainKeys")
    for key in target.keys() - set(keys):
        del target[key]


def _delete_items(target: dict[str, Any], key: str, items: Any) -> None:
    current = target.get(key)
    if isinstance(current, list) and isinstance(items, list):
        target[key] = [item for item in current if item not in items]


def _plain(value: Any) -> tuple[Any, bool]:
    """`value` without nulls and directives, and whether there is anything left to keep."""
    if isinstance(value, dict):
        if value.get(_DIRECTIVE) == "delete":
            return None, False
        out: dict[str, Any] = {}
        for key, item in value.items():
            if key in (_DIRECTIVE, _RETAIN) or key.startswith((_ORDER, _DELETE)) or item is None:
                continue
            kept, there = _plain(item)
            if there:
                out[key] = kept
        return out, True
    if isinstance(value, list):
        items = [_plain(item) for item in value if not _is_directive(item)]
        return [item for item, there in items if there], True
    return value, True


def _is_directive(item: Any) -> bool:
    """Whether a list's item says what to do with the list, and nothing else."""
    return isinstance(item, dict) and len(item) == 1 and _DIRECTIVE in item


def _key_of(item: dict[str, Any], key: str) -> Any:
    if key not in item:
        shown = " ".join(f"{name}:{value}" for name, value in item.items())
        raise ApiError(500, "", f"map: map[{shown}] does not contain declared merge key: {key}")
    return item[key]


def _unknown(directive: Any, patch: Mapping[str, Any]) -> ApiError:
    shown = " ".join(f"{name}:{value}" for name, value in patch.items())
    return ApiError(500, "", f"unknown patch type: {directive} in map: map[{shown}]")
