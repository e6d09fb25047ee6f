"""Acting as somebody else: every header takes a right of its own."""

from __future__ import annotations

import msgspec
import pytest

from steersman.api.resource import Object
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
    text = 'cannot impersonate resource "serviceaccounts" in API group "" in the namespace "a"'
    assert (code, text in answer["message"]) == (403, True)


@pytest.mark.parametrize("header", [("impersonate-group", "g"), ("impersonate-uid", "1"), ("impersonate-extra-k", "v")])
async def test_headers_without_a_user_make_no_sense(guarded: Guarded, header: tuple[str, str]) -> None:
    code, answer = await whoami(guarded.client("admin"), header)
    assert (code, answer["message"].endswith("without impersonating a user name")) == (400, True)
