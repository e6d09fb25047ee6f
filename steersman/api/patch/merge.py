"""JSON Merge Patch (RFC 7386).

Owns `apply`. Called by the API server's patch verb. Changes the document it is given.
"""

from __future__ import annotations

from typing import Any

from steersman.api import errors


def apply(document: dict[str, Any], patch: Any) -> dict[str, Any]:
    """The document with the patch merged in. Raises ApiError 400 when the patch is not an object."""
    if not isinstance(patch, dict):
        raise errors.bad_request("Invalid JSON Patch")
    return _merge(document, patch)


def _merge(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            inner = target.get(key)
            target[key] = _merge(inner if isinstance(inner, dict) else {}, value)
        else:
            target[key] = value
    return target
