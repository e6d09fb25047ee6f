"""Acting as somebody else: every header takes a right of its own."""

from __future__ import annotations

import msgspec
import pytest

from steersman.api.resource import Object
from steersman.apiserver.call import User
from steersman.apiserver.impersonate import Impersonation
from steersman.apiserver.impersonate import constrained as is_constrained
from steersman.apiserver.request import RequestInfo
from steersman.client.client import Client
from tests.apiserver.authz.test_escalation import grant, rule
from tests.apiserver.guarded import Guarded

SELF = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def whoami(client: Client, *headers: tuple[str, str]) -> tuple[int, Object]:
    """The code, and the user or the Status."""
    response = await client.transport.request("POST", SELF, [*headers, ("content-type", "application/json")], b"{}")
    answer = msgspec.json.decode(await response.read())
    return response.status, answer.get("status", {}).get("userInfo", answer) if response.status == 201 else answer


async def test_a_superuser_may_be_anybody(guarded: Guarded) -> None:
    headers = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "dev"),
        ("impersonate-uid", "u-1"),
        ("impersonate-extra-acme.com%2fproject", "a"),
        ("impersonate-extra-acme.com%2fproject", "b"),
    ]
    code, user = await whoami(guarded.client("admin"), *headers)
    assert (code, user["username"], user["uid"]) == (201, "jane", "u-1")
    assert user["groups"] == ["dev", "system:authenticated"]
    assert user["extra"] == {"acme.com/project": ["a", "b"]}


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("system:serviceaccount:a:b", ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]),
        ("system:anonymous", ["system:unauthenticated"]),
        ("system:serviceaccount:a", ["system:authenticated"]),
    ],
)
async def test_groups_that_come_with_a_name(guarded: Guarded, name: str, groups: list[str]) -> None:
    await grant(guarded, rule("create", "authentication.k8s.io", "selfsubjectreviews"), user="system:anonymous")
    code, user = await whoami(guarded.client("admin"), ("impersonate-user", name))
    assert (code, user["groups"]) == (201, groups)


@pytest.mark.parametrize(
    ("header", "group", "resource", "shown"),
    [
        (("impersonate-group", "dev"), "", "groups", 'resource "groups" in API group ""'),
        (("impersonate-uid", "7"), "authentication.k8s.io", "uids", 'resource "uids" in API group "authentication'),
        (
            ("impersonate-extra-scope", "x"),
            "authentication.k8s.io",
            "userextras/scope",
            'resource "userextras/scope" in API group "authentication.k8s.io" at the cluster scope',
        ),
    ],
)
async def test_every_header_takes_its_right(
    guarded: Guarded, header: tuple[str, str], group: str, resource: str, shown: str
) -> None:
    await grant(guarded, rule("impersonate", "", "users", "jane"), user="boss")
    boss = guarded.client("boss")
    assert (await whoami(boss, ("impersonate-user", "jane")))[0] == 201
    code, answer = await whoami(boss, ("impersonate-user", "jane"), header)
    assert (code, f'User "boss" cannot impersonate {shown}' in answer["message"]) == (403, True)
    rights = rule("impersonate", "", "users", "jane"), rule("impersonate", group, resource, header[1])
    await grant(guarded, *rights, user="chief")
    assert (await whoami(guarded.client("chief"), ("impersonate-user", "jane"), header))[0] == 201


async def test_a_service_account_is_a_right_of_its_own(guarded: Guarded) -> None:
    await grant(guarded, rule("impersonate", "", "users"), user="boss")
    boss = guarded.client("boss")
    code, answer = await whoami(boss, ("impersonate-user", "system:serviceaccount:a:b"))
    text = (
        'cannot impersonate-on:serviceaccount:create resource "selfsubjectreviews" in API group "authentication.k8s.io"'
    )
    assert (code, text in answer["message"]) == (403, True)
    await whoami(boss, ("impersonate-user", "jane"))  # in the older way, which is what boss is asked about from now on
    code, answer = await whoami(boss, ("impersonate-user", "system:serviceaccount:a:b"))
    text = 'cannot impersonate resource "serviceaccounts" in API group "" in the namespace "a"'
    assert (code, text in answer["message"]) == (403, True)


@pytest.mark.parametrize("header", [("impersonate-group", "g"), ("impersonate-uid", "1"), ("impersonate-extra-k", "v")])
async def test_headers_without_a_user_make_no_sense(guarded: Guarded, header: tuple[str, str]) -> None:
    code, answer = await whoami(guarded.client("admin"), header)
    assert (code, answer["message"].endswith("without impersonating a user name")) == (400, True)


# Constrained impersonation (KEP-5284) -------------------------------------------------------------------------------

ON = rule("impersonate-on:user-info:create", "authentication.k8s.io", "selfsubjectreviews")
JANE = rule("impersonate:user-info", "authentication.k8s.io", "users", "jane")
DEV = rule("impersonate:user-info", "authentication.k8s.io", "groups", "dev")
BECOME_JANE = ("impersonate-user", "jane")


def constrained(headers: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(value for name, value in headers if name == "impersonate-group")


@pytest.mark.parametrize(
    ("rights", "headers", "lacks"),
    [
        ([ON, JANE], [BECOME_JANE], ""),
        ([JANE], [BECOME_JANE], "impersonate-on:user-info:create"),
        ([ON], [BECOME_JANE], 'impersonate:user-info resource "users" in API group "authentication.k8s.io" at'),
        ([ON, JANE], [BECOME_JANE, ("impersonate-group", "dev")], 'impersonate:user-info resource "groups"'),
        ([ON, JANE, DEV], [BECOME_JANE, ("impersonate-group", "dev")], ""),
        ([ON, JANE], [BECOME_JANE, ("impersonate-uid", "7")], 'impersonate:user-info resource "uids"'),
        (
            [ON, JANE, rule("impersonate:user-info", "authentication.k8s.io", "groups")],
            [BECOME_JANE, ("impersonate-group", "system:masters")],
            "impersonating the system:masters group is not allowed",
        ),
        ([ON, JANE], [BECOME_JANE, ("impersonate-group", "")], "impersonating the empty string group is not allowed"),
        (
            [ON, JANE],
            [BECOME_JANE, ("impersonate-extra-a", "b")],
            'extra.key: Invalid value: "a": must be a domain-pre',
        ),
        ([ON, JANE], [BECOME_JANE, ("impersonate-extra-a.b%2fc", "")], "the empty string value in extra"),
    ],
)
async def test_another_user_by_constrained_rights(
    guarded: Guarded, rights: list[Object], headers: list[tuple[str, str]], lacks: str
) -> None:
    await grant(guarded, *rights, user="boss")
    code, answer = await whoami(guarded.client("boss"), *headers)
    if lacks:
        assert (code, lacks in answer["message"]) == (403, True), answer
    else:
        assert (code, answer["groups"]) == (201, [*constrained(headers), "system:authenticated"])


async def test_the_right_to_all_groups_stands_for_many(guarded: Guarded) -> None:
    await grant(guarded, ON, JANE, rule("impersonate:user-info", "authentication.k8s.io", "groups", "*"), user="boss")
    boss = guarded.client("boss")
    groups = [("impersonate-group", f"g{number}") for number in range(4)]
    assert (await whoami(boss, BECOME_JANE, *groups))[0] == 201
    assert (await whoami(boss, BECOME_JANE, *groups[:3]))[0] == 403  # few are asked for one by one


@pytest.mark.parametrize(
    ("way", "resource", "name", "become", "groups"),
    [
        ("arbitrary-node", "nodes", "n1", "system:node:n1", ["system:nodes"]),
        (
            "serviceaccount", "serviceaccounts", "b", "system:serviceaccount:a:b",
            ["system:serviceaccounts", "system:serviceaccounts:a"],
        ),
    ],
)  # fmt: skip
async def test_nodes_and_accounts_are_rights_of_their_own(
    guarded: Guarded, way: str, resource: str, name: str, become: str, groups: list[str]
) -> None:
    on = rule(f"impersonate-on:{way}:create", "authentication.k8s.io", "selfsubjectreviews")
    await grant(guarded, on, rule(f"impersonate:{way}", "authentication.k8s.io", resource, name), user="boss")
    boss = guarded.client("boss")
    code, user = await whoami(boss, ("impersonate-user", become))
    assert (code, user["username"], user["groups"]) == (201, become, [*groups, "system:authenticated"])
    assert (await whoami(boss, ("impersonate-user", f"{become}x")))[0] == 403
    assert (await whoami(boss, ("impersonate-user", become), ("impersonate-uid", "1")))[0] == 403  # of no such way


async def test_the_node_that_an_account_runs_on() -> None:
    asked: list[tuple[str, str, str, object]] = []

    async def authorize(user: User, info: RequestInfo) -> str | None:
        asked.append((info.verb, info.resource, info.name, dict(user.extra)))
        return None

    account = User("system:serviceaccount:a:b", (), "", {"authentication.kubernetes.io/node-name": ("n1",)})
    get = RequestInfo("", "get", True, "", "v1", "pods", name="p")
    ways = Impersonation(constrained=True)
    found, constraint = await ways.become(authorize, account, get, User("system:node:n1"))
    keys = {"authentication.kubernetes.io/associated-node-keys": ("authentication.kubernetes.io/node-name",)}
    assert asked == [
        ("impersonate-on:associated-node:get", "pods", "p", keys),
        ("impersonate:associated-node", "nodes", "*", keys),
    ]
    assert (found.groups, constraint) == (("system:nodes", "system:authenticated"), "impersonate:associated-node")
    _, constraint = await ways.become(authorize, account, get, User("system:node:n2"))
    assert constraint == "impersonate:arbitrary-node"


async def test_older_releases_know_the_older_way_only() -> None:
    verbs: list[str] = []

    async def authorize(user: User, info: RequestInfo) -> str | None:
        verbs.append(info.verb)
        return None

    ways = Impersonation(constrained=is_constrained("1.35"))
    found, constraint = await ways.become(authorize, User("boss"), RequestInfo("/x", "get"), User("system:node:n1"))
    assert (verbs, constraint, found.groups) == (["impersonate"], "", ("system:authenticated",))
    assert is_constrained("1.36")
