"""What each controller asks for is allowed by the role that it is bound to where it has an identity of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest

from steersman.apiserver.authz import policy
from steersman.apiserver.authz.rbac import covers
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.controllers.run import chosen
from steersman.lib.http.messages import Request
from steersman.testing import cluster
from steersman.testing.simulation import Scenario, simulate

from .every import EVERY

_ACCOUNTS = "system:serviceaccount:kube-system:"
_SETTINGS = {"service-account-private-key": "-"}
Rules = dict[tuple[str, str], list[policy.Rule]]


def _granted() -> Rules:
    """The rules by who has them, and in which namespace; none: everywhere."""
    roles = {("", each["metadata"]["name"]): each.get("rules") or [] for each in policy.cluster_roles()}
    roles |= {
        (each["metadata"]["namespace"], each["metadata"]["name"]): each["rules"] for each in policy.namespace_roles()
    }
    found: Rules = defaultdict(list)
    for binding in (*policy.cluster_role_bindings(), *policy.role_bindings()):
        namespace, role = binding["metadata"].get("namespace", ""), binding["roleRef"]
        rules = roles["" if role["kind"] == "ClusterRole" else namespace, role["name"]]
        for subject in binding.get("subjects") or ():
            account = f"{_ACCOUNTS}{subject['name']}" if subject["kind"] == "ServiceAccount" else subject["name"]
            found[account, namespace] += rules
    return found


class Rights:
    """Who a request's user agent says he is, and whether he may."""

    def __init__(self, controllers: Sequence[str]) -> None:
        self._root = {each.agent for each in chosen(controllers, _SETTINGS) if each.root}
        self._granted = _granted()
        self.accounts = {who for who, _ in self._granted if who.startswith(_ACCOUNTS)}
        self.refused: set[tuple[str, str]] = set()
        self.asked: set[str] = set()

    def who(self, request: Request) -> User:
        agent = next((value for name, value in request.headers if name == "user-agent"), "")
        account = _ACCOUNTS + agent.rpartition("/")[2]
        if agent.startswith("copy-") and "/" in agent and agent.rpartition("/")[2] not in self._root:
            return User(account, ("system:serviceaccounts", "system:authenticated"))
        return cluster.ADMIN

    def may(self, user: User, info: RequestInfo) -> str | None:
        if not user.name.startswith(_ACCOUNTS):
            return None
        self.asked.add(user.name)
        names = (user.name, *user.groups)
        rules = [
            rule for name in names for where in {"", info.namespace} for rule in self._granted.get((name, where), ())
        ]
        if any(covers(rule, info) for rule in rules):
            return None
        what = "/".join(each for each in (info.resource, info.subresource) if each)
        self.refused.add((user.name.removeprefix(_ACCOUNTS), f"{info.verb} {what or info.path}"))
        return None


@pytest.mark.parametrize("scenario", EVERY, ids=lambda each: each.__name__)
def test_roles_suffice(scenario: type[Scenario], monkeypatch: pytest.MonkeyPatch) -> None:
    rights = Rights(scenario.controllers)
    monkeypatch.setattr(cluster, "everybody_is_admin", rights.who)
    monkeypatch.setattr(cluster, "allow_all", rights.may)
    simulate(1, scenario)
    assert rights.refused == set()
    assert rights.asked <= rights.accounts
