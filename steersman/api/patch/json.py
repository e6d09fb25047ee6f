"""JSON Patch (RFC 6902), as kube-apiserver applies it.

Owns `apply`. Called by the API server's patch verb. Changes the document it is given; a caller that still needs the old
one copies it first. Errors are ApiErrors with the original's codes and texts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from steersman.api import errors

MAX_OPERATIONS = 10_000
REJECTED = "the server rejected our request due to an error in our request"

_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")


class Refused(Exception):
    """An operation does not fit the document; the text is what the original's library says of the common cases."""


class TestFailed(Refused):
    """A test operation found something else."""


def apply(document: Any, operations: Any) -> Any:
    """The document after all operations. Raises ApiError 400 (not a patch), 413 (too long), 422 (does not apply)."""
    if operations is None:
        return document
    wrong = "error decoding patch: json: cannot unmarshal"
    if not isinstance(operations, list):
        raise errors.bad_request(f"{wrong} {shape(operations)} into Go value of type []handlers.jsonPatchOp")
    if len(operations) > MAX_OPERATIONS:
        raise errors.too_large(
            "Request entity too large: The allowed maximum operations in a JSON patch is "
            f"{MAX_OPERATIONS}, got {len(operations)}"
        )
    for operation in operations:
        if operation is None:
            raise errors.generic(422, "Invalid", REJECTED)
        if not isinstance(operation, dict):
            raise errors.bad_request(f"{wrong} {shape(operation)} into Go value of type handlers.jsonPatchOp")
    try:
        return perform(document, operations)
    except Refused:
        raise errors.generic(422, "Invalid", REJECTED) from None


def shape(document: object) -> str:
    """What Go calls the type of a JSON value."""
    if isinstance(document, bool):
        return "bool"
    named: dict[type, str] = {dict: "object", list: "array", str: "string"}
    return named.get(document.__class__, "number")


def perform(document: Any, operations: Sequence[Mapping[str, Any]]) -> Any:
    """The document after all operations. Raises Refused, and TestFailed when it is a test that fails."""
    for operation in operations:
        document = _perform(document, operation)
    return document


def _perform(document: Any, operation: Mapping[str, Any]) -> Any:
    kind, path = operation.get("op"), operation.get("path")
    if kind not in _OPERATIONS or not isinstance(path, str):
        _refuse()
    if kind in ("add", "replace", "test") and "value" not in operation:
        _refuse()
    if kind in ("move", "copy"):
        source = operation.get("from")
        if not isinstance(source, str):
            _refuse()
        value = copy.deepcopy(_find(document, source) if kind == "move" else _source(document, source))
        if kind == "move":
            if path.startswith(f"{source}/"):
                _refuse()
            document = _remove(document, source)
        return _add(document, path, value)
    if kind == "remove":
        return _remove(document, path)
    value = operation["value"]
    if kind == "test":
        try:
            same = _equal(_find(document, path), value)
        except Refused:
            same = value is None
        if not same:
            raise TestFailed(f"testing value {path} failed: test failed")
        return document
    return _add(document, path, value) if kind == "add" else _replace(document, path, value)


def _refuse(why: str = "invalid state detected") -> NoReturn:
    raise Refused(why)


def _parent(document: Any, tokens: list[str], shown: str) -> Any:
    """What holds the last token of a path; `shown` is the complaint's beginning when there is nothing."""
    try:
        return _walk(document, tokens[:-1])
    except Refused:
        _refuse(f"{shown}: missing value")


def _tokens(path: str) -> list[str]:
    if not path:
        return []
    if not path.startswith("/"):
        _refuse()
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _walk(document: Any, tokens: list[str]) -> Any:
    for token in tokens:
        if isinstance(document, dict) and token in document:
            document = document[token]
        elif isinstance(document, list):
            document = document[_index(token, len(document) - 1)]
        else:
            _refuse()
    return document


def _index(token: str, last: int) -> int:
    """A list index up to `last`; negative ones count from the end, as the original still allows."""
    digits = token.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
        _refuse()
    index = int(token)
    index = index + last + 1 if index < 0 else index
    if not 0 <= index <= last:
        _refuse(f"Unable to access invalid index: {token}: invalid index referenced")
    return index


def _find(document: Any, path: str) -> Any:
    return _walk(document, _tokens(path))


def _source(document: Any, path: str) -> Any:
    """What is copied: of an object that has no such member, null."""
    tokens = _tokens(path)
    parent = _walk(document, tokens[:-1])
    return parent.get(tokens[-1]) if tokens and isinstance(parent, dict) else _find(document, path)


def _add(document: Any, path: str, value: Any) -> Any:
    tokens = _tokens(path)
    if not tokens:
        return value
    parent = _parent(document, tokens, f'add operation does not apply: doc is missing path: "{path}"')
    last = tokens[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent)), value)
    else:
        _refuse()
    return document


def _replace(document: Any, path: str, value: Any) -> Any:
    tokens = _tokens(path)
    if not tokens:
        return value if isinstance(value, (dict, list)) else _refuse()
    parent = _parent(document, tokens, f"replace operation does not apply: doc is missing path: {path}")
    last = tokens[-1]
    if isinstance(parent, dict):
        parent[last] = value  # also where there is none: the original's library finds null there
    elif isinstance(parent, list):
        parent[_index(last, len(parent) - 1)] = value
    else:
        _refuse(f"replace operation does not apply: doc is missing key: {path}: missing value")
    return document


def _remove(document: Any, path: str) -> Any:
    tokens = _tokens(path)
    if not tokens:
        _refuse()
    parent = _parent(document, tokens, f'remove operation does not apply: doc is missing path: "{path}"')
    last = tokens[-1]
    if isinstance(parent, dict) and last in parent:
        del parent[last]
    elif isinstance(parent, list):
        del parent[_index(last, len(parent) - 1)]
    else:
        _refuse(f"error in remove for path: '{path}': Unable to remove nonexistent key: {last}: missing value")
    return document


def _equal(one: Any, other: Any) -> bool:
    """JSON equality: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
