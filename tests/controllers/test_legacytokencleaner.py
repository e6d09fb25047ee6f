"""Tokens that accounts were given once: unused for a year they become invalid, and a year later they go."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import CONFIGMAPS, PODS, SECRETS, SERVICEACCOUNTS, Object
from steersman.controllers.legacytokencleaner import day_of, due, idle, listed, mounts
from steersman.lib.clock import rfc3339

from .conftest import World
from .objects import pod

DAY = 86_400.0
TRACKING = "kube-apiserver-legacy-service-account-token-tracking"
USED, INVALID = "kubernetes.io/legacy-token-last-used", "kubernetes.io/legacy-token-invalid-since"
SINCE = 1_800_000_000.0  # 2027-01-15


def a_secret(name: str = "t", labels: dict[str, str] | None = None, made: float = 0.0, **meta: Any) -> Object:
    annotations = {"kubernetes.io/service-account.name": "robot"}
    about = {"name": name, "namespace": "default", "labels": labels or {}, "annotations": annotations, **meta}
    if made:
        about["creationTimestamp"] = rfc3339(made)
    return {"metadata": about, "type": "kubernetes.io/service-account-token", "data": {"token": "eA=="}}


@pytest.mark.parametrize(
    ("secret", "expected"),
    [
        (a_secret(made=SINCE - 1), True),
        (a_secret(made=SINCE), False),
        (a_secret(made=1, labels={USED: "2027-01-14"}), True),
        (a_secret(made=1, labels={USED: "2027-01-15"}), False),
        (a_secret(made=1, labels={USED: "yesterday"}), False),
        (a_secret(made=1, deletionTimestamp=rfc3339(5)), False),
    ],
)
def test_who_is_idle(secret: Object, expected: bool) -> None:
    assert idle(secret, SINCE) is expected


@pytest.mark.parametrize(
    ("marked", "expected"),
    [("", "invalidate"), ("soon", "invalidate"), ("2027-01-14", "delete"), ("2027-01-15", ""), ("2028-01-01", "")],
)
def test_first_invalid_then_gone(marked: str, expected: str) -> None:
    assert due(a_secret(labels={INVALID: marked}), SINCE) == expected


def test_only_what_the_account_lists() -> None:
    account = {"metadata": {"name": "robot", "uid": "1"}, "secrets": [{"name": "t"}]}
    assert listed(a_secret(), account) and not listed(a_secret("mine"), account) and not listed(a_secret(), None)
    other = a_secret()
    other["metadata"]["annotations"]["kubernetes.io/service-account.uid"] = "2"
    assert not listed(other, account)


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "v", "secret": {"secretName": "t"}}]},
        {"volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "t"}}]}}]},
        {"imagePullSecrets": [{"name": "t"}]},
        {"volumes": [{"name": "v", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "t"}}}]},
        {"volumes": [{"name": "v", "cephfs": {"monitors": ["m"], "secretRef": {"name": "t"}}}]},
        {"volumes": [{"name": "v", "azureFile": {"shareName": "s", "secretName": "t"}}]},
        {"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "t"}}]}]},
    ],
)
def test_what_a_pod_uses(spec: Object) -> None:
    assert mounts({"spec": {"containers": [], **spec}}, "t") and not mounts({"spec": {"containers": []}}, "t")


@pytest.mark.parametrize("text", ["", None, "2027-13-01", "27-01-01", "2027-01-01T00:00:00Z", "x" * 1000])
def test_what_is_no_date(text: object) -> None:
    assert day_of(text) is None


async def _prepared(world: World, **account: Any) -> None:
    since = {"since": rfc3339(world.clock.now())[:10]}
    await world.client.create(CONFIGMAPS, {"metadata": {"name": TRACKING}, "data": since}, "kube-system")
    await world.client.create(SERVICEACCOUNTS, {"metadata": {"name": "robot"}, **account}, "default")
    world.start(
        "legacy-serviceaccount-token-cleaner-controller",
        **{"legacy-service-account-token-clean-up-period": str(10 * DAY)},
    )


async def _labels(world: World, name: str) -> dict[str, str]:
    return dict((await world.get(SECRETS, name))["metadata"].get("labels") or {})


async def test_an_unused_token_ends_in_two_steps(world: World) -> None:
    await _prepared(world, secrets=[{"name": name} for name in ("idle", "mounted", "used")])
    for name in ("idle", "mounted", "used", "by-hand"):
        await world.client.create(SECRETS, a_secret(name), "default")
    volumes = [{"name": "v", "secret": {"secretName": "mounted"}}]
    await world.client.create(PODS, pod("p", volumes=volumes), "default")
    await world.settle(10 * DAY)
    assert INVALID not in await _labels(world, "idle")
    today = rfc3339(world.clock.now())[:10]
    await world.client.patch(SECRETS, "used", "default", {"metadata": {"labels": {USED: today}}})
    await world.settle(2 * DAY)
    marked = (await _labels(world, "idle"))[INVALID]
    assert marked in (rfc3339(world.clock.now())[:10], rfc3339(world.clock.now() - DAY)[:10])
    for name in ("mounted", "used", "by-hand"):
        assert INVALID not in await _labels(world, name)
    await world.settle(12 * DAY)
    assert "idle" not in await world.names(SECRETS)
    assert INVALID in await _labels(world, "used"), "its use was long ago by now"
    assert {"mounted", "by-hand"} <= set(await world.names(SECRETS))


async def test_a_token_that_is_used_again_stays(world: World) -> None:
    await _prepared(world, secrets=[{"name": "t"}])
    await world.client.create(SECRETS, a_secret(), "default")
    await world.settle(12 * DAY)
    assert INVALID in await _labels(world, "t")
    for _ in range(20):
        today = rfc3339(world.clock.now())[:10]
        await world.client.patch(SECRETS, "t", "default", {"metadata": {"labels": {USED: today}}})
        await world.settle(DAY)
    assert "t" in await world.names(SECRETS)


async def test_nothing_goes_while_use_is_not_followed(world: World) -> None:
    await _prepared(world, secrets=[{"name": "t"}])
    await world.client.create(SECRETS, a_secret(), "default")
    await world.client.patch(CONFIGMAPS, TRACKING, "kube-system", {"data": {"since": "long ago"}})
    await world.settle(40 * DAY)
    assert INVALID not in await _labels(world, "t")
