"""Tokens kept in Secrets: their use is noted by the day, and a mark on the Secret ends them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
import pytest_asyncio

from steersman.api.resource import CONFIGMAPS, SECRETS, SERVICEACCOUNTS, Object
from steersman.apiserver.audit.policy import Policy
from steersman.apiserver.audit.trail import Auditor
from steersman.apiserver.authn.bearer import Bearer, own_sources
from steersman.apiserver.authn.legacytoken import INVALID_SINCE, LAST_USED, TRACKING, LegacyTokens
from steersman.apiserver.authn.serviceaccount import NO_REMARKS, _remarks
from steersman.lib.clock import rfc3339
from steersman.lib.jwt import SigningKey, issuer_of
from steersman.lib.tasks import Tasks, turn
from tests.apiserver.authz.test_escalation import grant, rule
from tests.apiserver.guarded import ISSUER, Guarded

from .test_tokens import token_of, with_robot


@pytest_asyncio.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks() as made:
        yield made


async def _kept(guarded: Guarded) -> str:
    """A Secret as the controllers fill it; its token."""
    await with_robot(guarded)
    annotations = {"kubernetes.io/service-account.name": "robot"}
    body = {"metadata": {"name": "kept", "annotations": annotations}, "type": "kubernetes.io/service-account-token"}
    admin = guarded.client("admin")
    await admin.create(SECRETS, body, "default")
    token = await token_of(guarded, {"kind": "Secret", "apiVersion": "v1", "name": "kept"}, 1 << 32)
    data = {"token": base64.b64encode(token.encode()).decode()}
    await admin.patch(SECRETS, "kept", "default", {"data": data})
    return token


def _bearer(guarded: Guarded, tasks: Tasks) -> Bearer:
    server = guarded.server
    legacy = LegacyTokens(server, guarded.clock, tasks)
    return Bearer(own_sources(guarded.tokens, server.storage, server.registry, guarded.clock, legacy.used), [ISSUER])


async def _label(guarded: Guarded, key: str) -> str:
    secret = await guarded.client("admin").get(SECRETS, "kept", "default")
    return str((secret["metadata"].get("labels") or {}).get(key, ""))


async def test_the_day_of_use_is_noted_once(guarded: Guarded, tasks: Tasks) -> None:
    token, ask = await _kept(guarded), _bearer(guarded, tasks)
    for _ in range(3):
        assert not isinstance(await ask.review(token, []), str)
    for _ in range(20):
        await turn()
    assert await _label(guarded, LAST_USED) == rfc3339(guarded.clock.now())[:10]
    before = (await guarded.client("admin").get(SECRETS, "kept", "default"))["metadata"]["resourceVersion"]
    assert not isinstance(await ask.review(token, []), str)
    for _ in range(20):
        await turn()
    after = (await guarded.client("admin").get(SECRETS, "kept", "default"))["metadata"]["resourceVersion"]
    assert before == after


async def test_a_marked_token_is_refused_until_the_mark_goes(guarded: Guarded, tasks: Tasks) -> None:
    token, ask = await _kept(guarded), _bearer(guarded, tasks)
    admin = guarded.client("admin")
    assert not isinstance(await ask.review(token, []), str)
    await admin.patch(SECRETS, "kept", "default", {"metadata": {"labels": {INVALID_SINCE: "2026-01-01"}}})
    for _ in range(2):
        found = await ask.review(token, [])
        assert isinstance(found, str)
        assert "the token in secret default/kept for service account default/robot has been marked invalid." in found
    other = await token_of(guarded, {"kind": "Secret", "apiVersion": "v1", "name": "kept"})
    assert not isinstance(await ask.review(other, []), str), (
        "a token that is only bound to the Secret is not kept in it"
    )
    await admin.patch(SECRETS, "kept", "default", {"metadata": {"labels": {INVALID_SINCE: None}}})
    assert not isinstance(await ask.review(token, []), str)


async def _older(guarded: Guarded, folder: Path, **changed: str) -> str:
    """A Secret with a token of the older form, as kube-controller-manager signs it; its token."""
    admin = guarded.client("admin")
    if not any(each["metadata"]["name"] == "robot" for each in (await admin.list(SERVICEACCOUNTS, "default")).items):
        await with_robot(guarded)
    account = await admin.get(SERVICEACCOUNTS, "robot", "default")
    said = {
        "namespace": "default",
        "secret.name": "kept",
        "service-account.name": "robot",
        "service-account.uid": account["metadata"]["uid"],
    }
    claims = {f"kubernetes.io/serviceaccount/{name}": value for name, value in said.items()}
    claims |= {"iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:default:robot", **changed}
    token = SigningKey((folder / "sa.key").read_bytes()).sign({name: each for name, each in claims.items() if each})
    data = {"token": base64.b64encode(token.encode()).decode()}
    meta = {"name": "kept", "annotations": {"kubernetes.io/service-account.name": "robot"}}
    await admin.create(
        SECRETS, {"metadata": meta, "type": "kubernetes.io/service-account-token", "data": data}, "default"
    )
    return token


async def test_a_token_of_the_older_form_is_good_while_its_secret_keeps_it(
    guarded: Guarded, tasks: Tasks, tmp_path: Path
) -> None:
    token, ask = await _older(guarded, tmp_path), _bearer(guarded, tasks)
    admin = guarded.client("admin")
    found = await ask.review(token, [])
    assert not isinstance(found, str)
    assert (found.user.name, found.user.extra) == ("system:serviceaccount:default:robot", {})
    assert found.audiences == [ISSUER] and isinstance(await ask.review(token, ["elsewhere"]), str)
    await admin.patch(SECRETS, "kept", "default", {"data": {"token": "b3RoZXI="}})
    assert await ask.review(token, []) == "[invalid bearer token, Token does not match server's copy]"
    await admin.delete(SECRETS, "kept", "default")
    assert "has been invalidated" in str(await ask.review(token, []))


async def test_a_token_of_the_older_form_dies_with_its_account(guarded: Guarded, tasks: Tasks, tmp_path: Path) -> None:
    token, ask = await _older(guarded, tmp_path), _bearer(guarded, tasks)
    admin = guarded.client("admin")
    await admin.delete(SERVICEACCOUNTS, "robot", "default")
    assert isinstance(await ask.review(token, []), str)
    await with_robot(guarded)
    assert "does not match claim" in str(await ask.review(token, []))


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"sub": "system:serviceaccount:default:other"}, "sub claim is invalid"),
        ({"sub": ""}, "sub claim is missing"),
        ({"kubernetes.io/serviceaccount/secret.name": ""}, "secretName claim is missing"),
        ({"kubernetes.io/serviceaccount/service-account.uid": ""}, "serviceAccountUID claim is missing"),
    ],
)
async def test_odd_tokens_of_the_older_form(
    guarded: Guarded, tasks: Tasks, tmp_path: Path, changed: dict[str, str], text: str
) -> None:
    token, ask = await _older(guarded, tmp_path, **changed), _bearer(guarded, tasks)
    assert await ask.review(token, []) == f"[invalid bearer token, {text}]"


@pytest.mark.parametrize("token", ["abc", "a.b.c", "", ".e30.", ".W10.", "." + "W" * 9_999 + "."])
async def test_what_names_no_issuer_of_ours_is_nobodys_business(guarded: Guarded, tasks: Tasks, token: str) -> None:
    assert await _bearer(guarded, tasks).review(token, []) == "invalid bearer token"
    assert issuer_of(token) == ""


async def test_a_token_of_another_issuer(guarded: Guarded, tasks: Tasks, tmp_path: Path) -> None:
    token = await _older(guarded, tmp_path, iss="kubernetes/other")
    assert await _bearer(guarded, tasks).review(token, []) == "invalid bearer token"


async def test_the_tracking_is_announced_and_mended(guarded: Guarded, tasks: Tasks) -> None:
    tasks.spawn(LegacyTokens(guarded.server, guarded.clock, tasks).keep_since(), "tracking")
    admin, today = guarded.client("admin"), rfc3339(guarded.clock.now())[:10]

    async def since() -> str:
        for _ in range(20):
            await turn()
        return str((await admin.get(CONFIGMAPS, TRACKING, "kube-system"))["data"]["since"])

    assert await since() == today
    for wrong in ("", "yesterday", "2026-1-1"):
        await admin.patch(CONFIGMAPS, TRACKING, "kube-system", {"data": {"since": wrong, "other": "x"}})
        assert await since() == today
    await admin.patch(CONFIGMAPS, TRACKING, "kube-system", {"data": {"since": "2026-01-02"}})
    assert await since() == "2026-01-02"


async def _used_by(guarded: Guarded, bearer: Bearer, token: str) -> tuple[int, str, Object]:
    """The code, the warning and the audit annotations of a request with this token."""
    events: list[Object] = []
    guarded.server.audit = Auditor(Policy([{"level": "Metadata"}]), [events.append], guarded.clock, Random(1))
    guarded.server.authenticators[-1] = bearer
    response, _ = await guarded.client(token=token).raw("GET", "/api/v1/namespaces/default/pods")
    return response.status, response.header("warning") or "", events[-1].get("annotations") or {}


async def test_use_is_told_to_auditors_and_a_made_up_secrets_to_its_user(guarded: Guarded, tasks: Tasks) -> None:
    token, bearer, admin = await _kept(guarded), _bearer(guarded, tasks), guarded.client("admin")
    _, warning, told = await _used_by(guarded, bearer, token)
    assert (warning, told["authentication.k8s.io/legacy-token-manual-secret"]) == ("", "kept")
    await admin.patch(SERVICEACCOUNTS, "robot", "default", {"secrets": [{"name": "kept"}]})
    await grant(guarded, rule("list"), user="system:serviceaccount:default:robot")
    code, warning, told = await _used_by(guarded, bearer, token)
    assert code == 200 and warning.startswith('299 - "Use tokens from the TokenRequest API or manually created')
    assert told["authentication.k8s.io/legacy-token-autogenerated-secret"] == "kept"
    await admin.patch(SECRETS, "kept", "default", {"metadata": {"labels": {INVALID_SINCE: "2026-01-01"}}})
    code, _, told = await _used_by(guarded, bearer, token)
    assert (code, told["authentication.k8s.io/legacy-token-invalidated"]) == (401, "kept/default")


def test_a_token_that_outlives_what_was_asked_for_is_told_of() -> None:
    claims = {"sub": "s", "kubernetes.io": {"warnafter": 100}}
    assert _remarks(claims, 100.0, None, {}) is NO_REMARKS
    late = "subject: s, seconds after warning threshold: 7"
    assert _remarks(claims, 107.9, None, {}).annotations == {"authentication.k8s.io/stale-token": late}
