"""Rules of file paths in a pod spec.

Owns three functions. Called for volumes and mounts. Source: validateLocalDescendingPath and its neighbours.
"""

from __future__ import annotations

from steersman.api.errors import FieldError
from steersman.api.validation import invalid


def no_backsteps(path: str, value: str) -> list[FieldError]:
    """No `..` on the way."""
    return [invalid(path, value, "must not contain '..'")] if ".." in value.split("/") else []


def descending(path: str, value: str) -> list[FieldError]:
    """Relative, and never upwards."""
    found = [invalid(path, value, "must be a relative path")] if value.startswith("/") else []
    return found + no_backsteps(path, value)


def not_reserved(path: str, value: str) -> list[FieldError]:
    """Descending, and not one of the names beginning with `..` that atomic writes use."""
    found = descending(path, value)
    if value.startswith("..") and not value.startswith("../"):
        found.append(invalid(path, value, "must not start with '..'"))
    return found
