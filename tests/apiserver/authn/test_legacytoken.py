"""Tokens kept in Secrets: their use is noted by the day, and a mark on the Secret ends them."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest_asyncio

from steersman.api.resource import CONFIGMAPS, SECRETS
from steersman.apiserver.authn.bearer import Bearer, own_sources
from steersman.apiserver.authn.legacytoken import INVALID_SINCE, LAST_USED, TRACKING, LegacyTokens
from steersman.lib.clock import rfc3339
from steersman.lib.tasks import Tasks, turn
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
