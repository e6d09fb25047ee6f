"""Named places where a test can make the program fail; a no-op everywhere else.

Production code calls `failpoint("store.before_commit")`. Only `steersman.testing` and the environment variable
STEER_FAILPOINTS (`name=exit` or `name=error`, comma separated) ever arm one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

_armed: dict[str, Callable[[], None]] = {}


def failpoint(name: str) -> None:
    """Run what is armed under `name`; nothing by default."""
    if _armed and (action := _armed.get(name)) is not None:
        action()


def arm(name: str, action: Callable[[], None]) -> Callable[[], None]:
    """Run `action` whenever `name` is passed; returns the function that disarms it."""
    _armed[name] = action

    def disarm() -> None:
        _armed.pop(name, None)

    return disarm


def arm_from_environment(value: str) -> None:
    """Arm what STEER_FAILPOINTS names. Raises ValueError for an unknown action."""

    def error() -> None:
        raise OSError("failpoint")

    actions: dict[str, Callable[[], None]] = {"exit": lambda: os._exit(86), "error": error}
    for item in filter(None, value.split(",")):
        name, _, action = item.partition("=")
        if action not in actions:
            raise ValueError(f"cannot arm failpoint {name!r}: action must be one of {sorted(actions)}")
        arm(name, actions[action])
