"""Impersonation: somebody who may, acts as somebody else.

Owns the reading of the Impersonate headers and the rights that each of them takes. Called by `app.py` before a request
is authorized. Source: apiserver's pkg/endpoints/filters/impersonation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote

from steersman.api import errors
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.lib.http.messages import Request

_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"
_ANONYMOUS, _AUTHENTICATED, _UNAUTHENTICATED = (
    "system:anonymous",
    "system:authenticated",
    "system:unauthenticated",
)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_AUTHENTICATION = "authentication.k8s.io"


def wanted(request: Request) -> User | None:
    """Whom the request wants to be; None when it stays itself. Raises ApiError for headers without a user."""
    asked = [(key, value) for key, value in request.headers if key.startswith("impersonate-")]
    if not asked:
        return None
    name = request.header("impersonate-user") or ""
    uid = request.header("impersonate-uid") or ""
    groups = request.header_all("impersonate-group")
    extra: dict[str, tuple[str, ...]] = {}
    for key, value in asked:
        if key.startswith(_EXTRA):
            plain = unquote(key.removeprefix(_EXTRA), errors="replace")
            extra[plain] = (*extra.get(plain, ()), value)
    if not name:
        if groups or extra or uid:
            raise errors.bad_request(f"requested {_shown(uid, groups, extra)} without impersonating a user name")
        return None
    if not groups and (account := _account(name)) is not None:
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
    return User(name, tuple(_completed(name, groups)), uid, extra)


def rights(request: Request, target: User) -> Iterator[RequestInfo]:
    """What the caller must be allowed, one right for each header."""
    account = _account(target.name)
    if account is not None:
        yield RequestInfo("", "impersonate", True, "", "v1", "serviceaccounts", "", account[0], account[1])
    else:
        yield RequestInfo("", "impersonate", True, "", "", "users", name=target.name)
    for group in request.header_all("impersonate-group"):
        yield RequestInfo("", "impersonate", True, "", "", "groups", name=group)
    for key, values in target.extra.items():
        for value in values:
            yield RequestInfo("", "impersonate", True, _AUTHENTICATION, "v1", "userextras", key, name=value)
    if target.uid:
        yield RequestInfo("", "impersonate", True, _AUTHENTICATION, "v1", "uids", name=target.uid)


def _completed(name: str, groups: list[str]) -> list[str]:
    if name == _ANONYMOUS:
        return groups if _UNAUTHENTICATED in groups else [*groups, _UNAUTHENTICATED]
    return groups if {_AUTHENTICATED, _UNAUTHENTICATED} & set(groups) else [*groups, _AUTHENTICATED]


def _account(name: str) -> tuple[str, str] | None:
    """Namespace and name of a service account's user name."""
    parts = name.removeprefix(_ACCOUNT).split(":")
    if not name.startswith(_ACCOUNT) or len(parts) != 2:
        return None
    return (parts[0], parts[1]) if all(_LABEL.fullmatch(part) for part in [*parts[1].split("."), parts[0]]) else None


def _shown(uid: str, groups: Sequence[str], extra: Mapping[str, Sequence[str]]) -> str:
    """The headers as the original prints them: a Go value."""
    listed = _list(groups) if groups else "[]string(nil)"
    more = ", ".join(f'"{key}":{_list(values)}' for key, values in sorted(extra.items()))
    mapped = f"map[string][]string{{{more}}}" if extra else "map[string][]string(nil)"
    return f'&user.DefaultInfo{{Name:"", UID:"{uid}", Groups:{listed}, Extra:{mapped}}}'


def _list(values: Sequence[str]) -> str:
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"
