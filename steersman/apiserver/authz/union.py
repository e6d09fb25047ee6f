"""Several authorizers, asked in the order of --authorization-mode: the first that has an opinion decides.

Owns the order and the modes AlwaysAllow and AlwaysDeny. Source: apiserver's pkg/authorization/union and
authorizerfactory.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from steersman.api.resource import Object
from steersman.apiserver.authz.opinions import Deny, together
from steersman.apiserver.authz.rbac import SUPERUSERS, Rbac
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo

Decide = Callable[[User, RequestInfo], "str | Awaitable[str | None] | None"]


def always_allow(user: User, info: RequestInfo) -> str | None:
    """Everybody may do everything."""
    return None


def always_deny(user: User, info: RequestInfo) -> str | None:
    """Nobody but superusers may do anything."""
    return "Everything is forbidden."


class Union:
    """Implements `app.Authorizer`. Superusers are never asked about, as in the original."""

    def __init__(self, members: Sequence[Decide]) -> None:
        self.members = list(members)

    def __call__(self, user: User, info: RequestInfo) -> str | Awaitable[str | None] | None:
        """None when allowed, else every reason."""
        if SUPERUSERS in user.groups:
            return None
        reasons: list[str] = []
        for at, member in enumerate(self.members):
            why = member(user, info)
            if not (why is None or isinstance(why, str)):
                return self._later(why, at + 1, reasons, user, info)
            if why is None or isinstance(why, Deny):
                return why
            reasons.append(why)
        return together(reasons)

    async def _later(
        self, first: Awaitable[str | None], at: int, reasons: list[str], user: User, info: RequestInfo
    ) -> str | None:
        why = await first
        for member in [*self.members[at:], None]:
            if why is None or isinstance(why, Deny):
                return why
            reasons.append(why)
            if member is not None:
                found = member(user, info)
                why = found if found is None or isinstance(found, str) else await found
        return together(reasons)

    @property
    def rbac(self) -> Rbac | None:
        """The member that knows roles."""
        return next((member for member in self.members if isinstance(member, Rbac)), None)

    @property
    def incomplete(self) -> str:
        """Why `rules` is not everything; empty when it is."""
        silent = [member for member in self.members if not hasattr(member, "rules") and member is not always_deny]
        return "webhook authorizer does not support user rule resolution" if silent else ""

    def reason(self, user: User, info: RequestInfo) -> str:
        """Why it is allowed: a webhook's words, or which role does."""
        tellers: list[Any] = [member for member in self.members if hasattr(member, "reason")]
        return next(filter(None, (each.reason(user, info) for each in tellers)), "")

    def rules(self, user: User, namespace: str) -> tuple[list[Object], list[Object]]:
        """Everything that the members say a user may do."""
        resources: list[Object] = []
        paths: list[Object] = []
        for member in self.members:
            tell: Any = getattr(member, "rules", None)
            if tell is not None:
                more, others = tell(user, namespace)
                resources += more
                paths += others
        return resources, paths
