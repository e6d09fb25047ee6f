"""How commands speak: failures, progress and tables; plain when not a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from steersman.cluster.profile import Profile, ProfileError, load


class Failure(Exception):
    """A command failed; the text is for the user. `code` is the exit code."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


def step(text: str) -> None:
    """One line of progress, on standard error."""
    mark = "\033[32m✓\033[0m " if sys.stderr.isatty() else ""
    print(f"{mark}{text}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """`-o json`."""
    print(json.dumps(value, indent=2))


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print columns. The first row is the head."""
    for line in table_lines(rows):
        print(line)


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as kubectl aligns them: three spaces apart, no trailing blanks."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def profile_of(name: str) -> Profile:
    """The profile, which must exist. Raises Failure in minikube's words otherwise (its exit code is 85)."""
    try:
        profile = load(name)
    except ProfileError as error:
        raise Failure(str(error)) from error
    if profile is None:
        raise Failure(f'Profile "{name}" not found. Run "steer profile list" to view all profiles.', 85)
    return profile
