"""AuthenticationConfiguration's expressions: users made of claims, rules about claims and users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steersman.api.resource import Object
from steersman.apiserver.authn import claims
from steersman.apiserver.authn.serviceaccount import BadToken
from steersman.apiserver.call import User
from steersman.cluster import issuers
from tests.apiserver.authn.test_oidc import Provider, structured
from tests.apiserver.guarded import Guarded
from tests.apiserver.test_impersonate import whoami

MAPPINGS = {
    "username": {"expression": "'x:' + claims.sub"},
    "groups": {"expression": "claims.roles.split(',') + ['all']"},
    "uid": {"expression": "claims.ids.uid"},
    "extra": [
        {"key": "example.com/tenant", "valueExpression": "claims.tenant"},
        {"key": "example.com/none", "valueExpression": "claims.?absent.orValue('')"},
    ],
}


def configured(url: str, authority: str, **more: Any) -> Object:
    config = structured(url, authority)
    del config["jwt"][0]["claimValidationRules"]
    config["jwt"][0] |= {"claimMappings": MAPPINGS, **more}
    return config


async def test_claims_make_a_user(tmp_path: Path) -> None:
    provider, file = Provider(tmp_path), tmp_path / "authentication.yaml"
    rules = [
        {"expression": "claims.exp - claims.iat <= 86400.0", "message": "too long"},
        {"claim": "hd", "requiredValue": "a"},
    ]
    users = [{"expression": "!user.username.startsWith('x:system:')", "message": "reserved"},
             {"expression": "user.groups.all(g, !g.startsWith('system:'))"}]  # fmt: skip
    async with provider.remote:
        authority = provider.remote.authority.read_text()
        config = configured(provider.remote.url, authority, claimValidationRules=rules, userValidationRules=users)
        file.write_text(json.dumps(config))
        async with Guarded(tmp_path / "pki", {"authentication-config": str(file)}) as guarded:

            async def asked(**changes: Any) -> tuple[int, Object]:
                given = {"roles": "dev,ops", "ids": {"uid": "7"}, "tenant": ["t1", ""], "hd": "a"}
                issued = provider.claims()["exp"] - 600
                token = provider.token(**({"iat": issued} | given | changes))
                code, user = await whoami(guarded.client(token=token))
                return code, user

            code, user = await asked()
            assert (code, user["username"], user["uid"]) == (201, "x:jane", "7")
            assert user["groups"] == ["dev", "ops", "all", "system:authenticated"]
            assert user["extra"] == {"example.com/tenant": ["t1"]}
            for wrong in ({"iat": 5}, {"hd": "b"}, {"sub": "system:x"}, {"roles": "system:masters"}, {"ids": 7}):
                assert (await asked(**wrong))[0] == 401


@pytest.mark.parametrize(
    ("source", "given", "said"),
    [
        ("claims.n", {"n": 1}, "username claim expression must return a string"),
        ("claims.n", {"n": ""}, "oidc: empty username via CEL expression is not allowed"),
        ("claims.n", {}, "expression 'claims.n' resulted in error: no such key: n"),
    ],
)
def test_names_that_claims_do_not_make(source: str, given: Object, said: str) -> None:
    with pytest.raises(BadToken, match=said):
        claims.text(claims.of_claims(source), claims.shown(given), "username")


@pytest.mark.parametrize(
    ("value", "found"),
    [("a", ["a"]), ("", []), (None, []), ([], []), (["a", "", "b"], ["a", "b"]), (1, None), ([1], None), ({}, None)],
)
def test_lists_that_claims_make(value: Any, found: list[str] | None) -> None:
    program, given = claims.of_claims("claims.v"), claims.shown({"v": value})
    if found is not None:
        assert claims.texts(program, given, "w") == found
        return
    with pytest.raises(BadToken, match="oidc: w: expression must return a string or a list of strings"):
        claims.texts(program, given, "w")


def test_rules_that_are_not_met() -> None:
    rule = claims.Rule(claims.of_claims("claims.n == 2.0", rule=True), "two, please")
    claims.check_claims([rule], claims.shown({"n": 2}))
    with pytest.raises(BadToken, match=r"validation expression 'claims.n == 2.0' failed: two, please"):
        claims.check_claims([rule], claims.shown({"n": 3}))
    with pytest.raises(BadToken, match="error evaluating user info validation rule: validation expression"):
        claims.check_user([claims.Rule(claims.of_user("user.extra['a'] == ['b']"))], User("u", extra={"a": ("c",)}))


MAIL = "claims.email_verified must be used in claimMappings.username.expression or"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            {"claimMappings": {"username": {"expression": "claims."}}},
            r'jwt\[0\].claimMappings.username.expression: Invalid value: "claims.": compilation failed: ERROR: <inp',
        ),
        ({"claimMappings": {"username": {"expression": "user.name"}}}, "undeclared reference to 'user'"),
        ({"claimMappings": {"username": {"expression": "claims.email"}}}, MAIL),
        ({"claimMappings": {"username": {"expression": "claims.?email.orValue('')"}}}, MAIL),
        (
            {"claimMappings": {"username": {"claim": "sub", "expression": "claims.sub"}}},
            "claim and expression can't both",
        ),
        (
            {"claimMappings": {"username": {"prefix": "a", "expression": "claims.sub"}}},
            'username.prefix: Invalid value: "a": may not be specified when expression is set',
        ),
        (
            {"claimMappings": {**MAPPINGS, "extra": [{"key": "a", "valueExpression": "''"}]}},
            "must be a domain-prefixed",
        ),
        (
            {"claimMappings": {**MAPPINGS, "extra": [{"key": "a.k8s.io/b", "valueExpression": "''"}]}},
            "are reserved for",
        ),
        ({"claimMappings": {**MAPPINGS, "extra": [{"key": "a.b/C", "valueExpression": "''"}]}}, "must be lowercase"),
        ({"claimMappings": {**MAPPINGS, "extra": [{"key": "a.b/c"}]}}, r"extra\[0\].valueExpression: Required value"),
        ({"claimMappings": {**MAPPINGS, "extra": [{"key": "a.b/c", "valueExpression": "''"}] * 2}}, "Duplicate value"),
        ({"claimValidationRules": [{}]}, r"claimValidationRules\[0\]: Required value: claim or expression is required"),
        (
            {"claimValidationRules": [{"expression": "claims.a"}]},
            'expression: Invalid value: "claims.a": must evaluate to b',
        ),
        (
            {"claimValidationRules": [{"expression": "true", "requiredValue": "a"}]},
            "may not be specified when expression",
        ),
        ({"claimValidationRules": [{"claim": "a", "message": "b"}]}, "may not be specified when claim is set"),
        ({"claimValidationRules": [{"expression": "true"}] * 2}, r'\[1\].expression: Duplicate value: "true"'),
        ({"userValidationRules": [{}]}, r"userValidationRules\[0\].expression: Required value"),
        ({"userValidationRules": [{"expression": "user.name == ''"}]}, "undefined field 'name'"),
        ({"userValidationRules": [{"expression": "true"}] * 2}, "Duplicate value"),
    ],
)
def test_expressions_that_are_refused(tmp_path: Path, change: Object, why: str) -> None:
    file = tmp_path / "authentication.yaml"
    file.write_text(json.dumps(configured("https://x", "", **change)))
    with pytest.raises(ValueError, match=why):
        issuers.of_file(file)


def test_a_mail_address_that_is_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "authentication.yaml"
    mapping = {"claimMappings": {"username": {"expression": "claims.email"}}}
    rule = {"claimValidationRules": [{"expression": "claims.?email_verified.orValue(true) == true"}]}
    file.write_text(json.dumps(configured("https://x", "", **mapping, **rule)))
    (issuer,), _ = issuers.of_file(file)
    assert issuer.expressions.username is not None
