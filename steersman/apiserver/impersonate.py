"""Impersonation: somebody who may, acts as somebody else.

Owns the reading of the Impersonate headers, the ways in which one may be allowed to (KEP-5284: as the node that one
belongs to, any node, a service account, any other user; and the older way, one right for each header), and who one is
then. Called by `app.py` before a request is authorized. What was allowed is asked again each time, where the original
remembers it for ten seconds. Source: apiserver's pkg/endpoints/filters/impersonation.
"""

from __future__ import annotations

import contextlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import unquote

from steersman.api import errors, names, schema
from steersman.api.errors import ApiError
from steersman.apiserver import refusals
from steersman.apiserver.authz.opinions import told
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.lib.http.messages import Request
from steersman.lib.metrics import Distribution

_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"
_NODE = "system:node:"
_ANONYMOUS, _AUTHENTICATED, _UNAUTHENTICATED = (
    "system:anonymous",
    "system:authenticated",
    "system:unauthenticated",
)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_AUTHENTICATION = "authentication.k8s.io"
_NODE_NAME = "authentication.kubernetes.io/node-name"
_NODE_KEYS = "authentication.kubernetes.io/associated-node-keys"
_MANY = 4  # rights of one kind, from which on the right to all of them is asked for first
ATTEMPTS = tuple(0.001 * 2**step for step in range(15))
"""Bounds in seconds, for the metrics."""
_REMEMBERED = 10_000  # users, by which way each of them was last allowed

Authorize = Callable[[User, RequestInfo], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class Way:
    """One way of being allowed. `applies` says for which (wanted, asking) users; the older way has no name."""

    name: str
    applies: Callable[[User, User], bool]

    @property
    def verb(self) -> str:
        """The verb that allows somebody to be somebody."""
        return f"impersonate:{self.name}" if self.name else "impersonate"


def constrained(release: str) -> bool:
    """Whether a release knows more than the older way: it is on since 1.36."""
    return schema.number(release) >= (1, 36)


def wanted(request: Request) -> User | None:
    """Whom the request wants to be, as its headers say; None when it stays itself. Raises ApiError for headers without
    a user."""
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
            error = errors.bad_request(f"requested {_shown(uid, groups, extra)} without impersonating a user name")
            error.headers = [refusals.NOSNIFF]
            raise error
        return None
    return User(name, tuple(groups), uid, extra)


class Impersonation:
    """Decides whether somebody may be somebody else. `constrained` says whether more than the older way is known."""

    def __init__(self, *, constrained: bool) -> None:
        self._ways = (*_CONSTRAINED, _OLDER) if constrained else (_OLDER,)
        self._last: OrderedDict[str, Way] = OrderedDict()
        self.attempts: dict[tuple[str, str], Distribution] = {}  # seconds, by the way (none when denied) and decision

    def tried(self, verb: str | None, seconds: float) -> None:
        """Count an attempt: `verb` is what `become` returned, None where it was denied."""
        mode = "" if verb is None else verb.removeprefix("impersonate:") or "legacy"
        key = mode, "denied" if verb is None else "allowed"
        self.attempts.setdefault(key, Distribution(ATTEMPTS)).observe(seconds)

    async def become(self, authorize: Authorize, user: User, info: RequestInfo, target: User) -> tuple[User, str]:
        """Who `user` acts as for the request `info`, and the verb that allowed it (empty: the older way).

        The way that served a user last is tried first. Raises ApiError 403: what the first way lacked.
        """
        last = self._last.get(user.name)
        problem: ApiError | None = None
        for way in self._ways if last is None else (last, *(each for each in self._ways if each is not last)):
            if not way.applies(target, user):
                continue
            try:
                await _check(authorize, way, user, info, target)
            except ApiError as error:
                problem = problem or error
                continue
            self._last[user.name] = way
            self._last.move_to_end(user.name)
            if len(self._last) > _REMEMBERED:
                self._last.popitem(last=False)
            return _completed(target, nodes=bool(way.name)), way.verb if way.name else ""
        assert problem is not None  # the older way always applies
        raise problem


async def _check(authorize: Authorize, way: Way, user: User, info: RequestInfo, target: User) -> None:
    """Raises ApiError 403."""
    if way is _OWN_NODE:  # all that counts of it has been looked at: the same for every node
        user = replace(user, extra={_NODE_KEYS: tuple(sorted(user.extra))})

    async def may(right: RequestInfo) -> None:
        if (why := await authorize(user, right)) is not None:
            raise refusals.forbidden(user, right, told(why))

    if way.name:
        await may(replace(info, verb=f"impersonate-on:{way.name}:{info.verb}"))
    await may(_who(way, target))
    if target.uid:
        await may(_right(way, "uids", target.uid, _AUTHENTICATION))
    for rights in _groups(way, user, target), _extra(way, user, target):
        await _all(may, way, list(rights))


async def _all(may: Callable[[RequestInfo], Awaitable[None]], way: Way, rights: Sequence[RequestInfo]) -> None:
    """Whether every right is there; of many, the right to all at once will do."""
    if way.name and len(rights) >= _MANY:
        first = rights[0]
        with contextlib.suppress(ApiError):
            await may(replace(first, name="*", subresource="*" if first.subresource else ""))
            return
    for right in rights:
        await may(right)


def _right(way: Way, resource: str, name: str, group: str = "") -> RequestInfo:
    group = group or (_AUTHENTICATION if way.name else "")
    return RequestInfo("", way.verb, True, group, "v1", resource, name=name)


def _who(way: Way, target: User) -> RequestInfo:
    if way.name and (node := _node(target.name)):
        return _right(way, "nodes", "*" if way is _OWN_NODE else node)
    if (account := _account(target.name)) is not None:
        return replace(_right(way, "serviceaccounts", account[1]), namespace=account[0])
    return _right(way, "users", target.name)


def _groups(way: Way, user: User, target: User) -> Iterator[RequestInfo]:
    if way.name and "" in target.groups:
        text = "impersonating the empty string group is not allowed"
        raise refusals.forbidden(user, _right(way, "groups", ""), text)
    if way.name and "system:masters" in target.groups:
        text = "impersonating the system:masters group is not allowed"
        raise refusals.forbidden(user, _right(way, "groups", "system:masters"), text)
    for group in target.groups:
        yield _right(way, "groups", group)


def _extra(way: Way, user: User, target: User) -> Iterator[RequestInfo]:
    for key, values in target.extra.items() if way.name else ():
        if why := _wrong(key, values):
            raise refusals.forbidden(user, _right(way, "userextras", "", _AUTHENTICATION), why)
    for key, values in target.extra.items():
        for value in values:
            yield replace(_right(way, "userextras", value, _AUTHENTICATION), subresource=key)


def _wrong(key: str, values: Sequence[str]) -> str:
    """What may be impersonated in the older way only."""
    if not key:
        return "impersonating the empty string key in extra is not allowed"
    if found := names.domain_path("extra.key", key):
        texts = [str(each) for each in found]
        shown = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
        return f"impersonating an invalid key in extra is not allowed: {shown}"
    if key != key.lower():
        return f"impersonating a non-lowercase key in extra is not allowed: {errors.quoted(key)}"
    return "impersonating the empty string value in extra is not allowed" if "" in values else ""


def _completed(target: User, *, nodes: bool) -> User:
    """With the groups that come with a name."""
    groups = list(target.groups)
    if not groups and (account := _account(target.name)) is not None:
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
    if nodes and _node(target.name):
        groups = ["system:nodes"]
    more = _UNAUTHENTICATED if target.name == _ANONYMOUS else _AUTHENTICATED
    if more not in groups and _UNAUTHENTICATED not in groups:
        groups.append(more)
    return replace(target, groups=tuple(groups))


def _account(name: str) -> tuple[str, str] | None:
    """Namespace and name of a service account's user name."""
    parts = name.removeprefix(_ACCOUNT).split(":")
    if not name.startswith(_ACCOUNT) or len(parts) != 2:
        return None
    return (parts[0], parts[1]) if all(_LABEL.fullmatch(part) for part in [*parts[1].split("."), parts[0]]) else None


def _node(name: str) -> str:
    """The node of a node's user name."""
    node = name.removeprefix(_NODE)
    return node if name.startswith(_NODE) and not names.dns_subdomain(node) else ""


def _only_named(target: User) -> bool:
    return not (target.uid or target.groups or target.extra)


def _belongs(target: User, user: User) -> bool:
    """Whether somebody is a service account whose token is bound to the very node."""
    node = _node(target.name)
    return bool(node) and _account(user.name) is not None and tuple(user.extra.get(_NODE_NAME, ())) == (node,)


def _other(target: User, user: User) -> bool:
    return not _node(target.name) and _account(target.name) is None


def _shown(uid: str, groups: Sequence[str], extra: Mapping[str, Sequence[str]]) -> str:
    """The headers as the original prints them: a Go value."""
    listed = _list(groups) if groups else "[]string(nil)"
    more = ", ".join(f'"{key}":{_list(values)}' for key, values in sorted(extra.items()))
    mapped = f"map[string][]string{{{more}}}" if extra else "map[string][]string(nil)"
    return f'&user.DefaultInfo{{Name:"", UID:"{uid}", Groups:{listed}, Extra:{mapped}}}'


def _list(values: Sequence[str]) -> str:
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"


_OWN_NODE = Way("associated-node", lambda target, user: _only_named(target) and _belongs(target, user))
_CONSTRAINED = (
    _OWN_NODE,
    Way("arbitrary-node", lambda target, user: _only_named(target) and bool(_node(target.name))),
    Way("serviceaccount", lambda target, user: _only_named(target) and _account(target.name) is not None),
    Way("user-info", _other),
)
_OLDER = Way("", lambda target, user: True)
