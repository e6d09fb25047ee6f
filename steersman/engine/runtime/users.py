"""Who a container's first process is: uid, gid and groups from numbers, names and the image's own files.

Pure: the text of /etc/passwd and /etc/group comes in. Malformed lines are skipped, as by the C library.
Source: CRI's LinuxContainerSecurityContext and SupplementalGroupsPolicy (KEP-3619).
"""

from __future__ import annotations

from dataclasses import dataclass

from steersman.engine.interface import Security

_MAX_ID = 2**32 - 2


@dataclass(frozen=True, slots=True)
class User:
    """The first process's identity; `groups` begins with `gid`."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str = "/"


def resolve(security: Security, image_user: str, passwd: str, group: str) -> User:
    """Decide the identity. Raises ValueError when a name is not in the image or a number is out of range."""
    user, _, group_text = (security.username or image_user).partition(":")
    if security.username:
        group_text = ""
    if security.run_as_user is not None:
        # a number replaces the image's user and with it the image's group
        user, group_text = str(security.run_as_user), ""
    accounts = _records(passwd, 6)
    name, uid, gid, home = _account(user or "0", accounts)
    groups = _records(group, 3)
    if group_text:
        gid = _group(group_text, groups)
    if security.run_as_group is not None:
        gid = _number(str(security.run_as_group))
    ids = [gid]
    if security.supplemental_groups_policy != "Strict" and name:
        ids += [int(fields[2]) for fields in groups if name in (fields[3].split(",") if len(fields) > 3 else ())]
    ids += [_number(str(number)) for number in security.supplemental_groups]
    return User(uid, gid, tuple(dict.fromkeys(ids)), home)


def _account(user: str, accounts: list[list[str]]) -> tuple[str, int, int, str]:
    for fields in accounts:
        if fields[0] == user or (user.isdigit() and fields[2] == user):
            return fields[0], _number(fields[2]), _number(fields[3]), fields[5] or "/"
    if not user.isdigit():
        raise ValueError(f"unable to find user {user}: no matching entries in passwd file")
    return "", _number(user), 0, "/"


def _group(text: str, groups: list[list[str]]) -> int:
    for fields in groups:
        if fields[0] == text:
            return _number(fields[2])
    if not text.isdigit():
        raise ValueError(f"unable to find group {text}: no matching entries in group file")
    return _number(text)


def _records(text: str, least: int) -> list[list[str]]:
    rows = (line.split(":") for line in text.splitlines() if line and not line.startswith("#"))
    return [row for row in rows if len(row) >= least and row[2].isdigit() and (least < 6 or row[3].isdigit())]


def _number(text: str) -> int:
    number = int(text)
    if not 0 <= number <= _MAX_ID:
        raise ValueError(f"id {number} is out of range")
    return number
