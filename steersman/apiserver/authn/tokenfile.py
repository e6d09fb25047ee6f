"""Static tokens: a CSV file of token, user, uid and, quoted, groups.

Owns the file's form. Read once at start, as in the original. Source: apiserver's pkg/authentication/token/tokenfile.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from steersman.apiserver.authn.bearer import Verified, agnostic
from steersman.apiserver.authn.certificate import AUTHENTICATED
from steersman.apiserver.call import User


class TokenFile:
    """A source of tokens. `audiences` are the API server's own."""

    def __init__(self, users: Mapping[str, User], audiences: Sequence[str]) -> None:
        self._users = users
        self._audiences = audiences

    def __call__(self, token: str, audiences: Sequence[str]) -> Verified | None:
        """The user of a token that is in the file."""
        return agnostic(self._users.get(token), audiences, self._audiences)


def read(path: Path) -> dict[str, User]:
    """Users by token. Raises OSError, and ValueError naming what is wrong; an empty token is passed over."""
    users: dict[str, User] = {}
    with path.open(newline="", encoding="utf-8") as lines:
        try:
            rows = [row for row in csv.reader(lines, strict=True) if row]
        except csv.Error as error:
            raise ValueError(f"{path}: {error}") from None
    for number, row in enumerate(rows, 1):
        if len(row) < 3:
            raise ValueError(
                f"token file '{path}' must have at least 3 columns (token, user name, user uid), found {len(row)}"
            )
        token, name, uid, *rest = row
        if not token:
            continue
        if not name:
            raise ValueError(f"token file '{path}': line {number} has no user name")
        groups = [group for group in rest[0].split(",") if group] if rest else []
        users[token] = User(name, tuple(dict.fromkeys([*groups, AUTHENTICATED])), uid)
    return users
