"""Controllers that are service accounts: `use-service-account-credentials`."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import (
    CLUSTERROLEBINDINGS,
    DEPLOYMENTS,
    PODS,
    REPLICASETS,
    SERVICEACCOUNTS,
    Object,
)
from steersman.client.accounts import SETTING, Accounts
from steersman.client.client import Client
from steersman.client.transport import InProcess
from steersman.cluster.plane import ControlPlane
from steersman.lib.clock import LoopClock
from steersman.lib.http.messages import Request, Response
from steersman.lib.virtualtime import VirtualLoop

CONTROLLERS = ("deployment-controller", "replicaset-controller", "serviceaccount-controller")


def virtually(work: Coroutine[None, None, None]) -> None:
    """Run something whose waiting takes no time."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


def deployment(name: str) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}}, "template": template}}


def test_each_controller_is_bound_by_its_own_role(tmp_path: Path) -> None:
    virtually(_bound(tmp_path))


async def _bound(tmp_path: Path) -> None:
    clock = LoopClock()
    settings = {SETTING: "true"}
    async with ControlPlane(tmp_path, clock=clock, listen=None, controllers=CONTROLLERS, settings=settings) as plane:
        await clock.sleep(5)
        await plane.client.create(DEPLOYMENTS, deployment("one"), "default")
        await clock.sleep(10)
        assert len((await plane.client.list(PODS, "default")).items) == 1
        accounts = (await plane.client.list(SERVICEACCOUNTS, "kube-system")).items
        assert {"deployment-controller", "replicaset-controller"} <= {each["metadata"]["name"] for each in accounts}
        await clock.sleep(3 * 3600)
        await plane.client.create(DEPLOYMENTS, deployment("two"), "default")
        await clock.sleep(10)
        assert len((await plane.client.list(PODS, "default")).items) == 2, "tokens are renewed"
        await plane.client.delete(CLUSTERROLEBINDINGS, "system:controller:replicaset-controller")
        await plane.client.create(DEPLOYMENTS, deployment("three"), "default")
        await clock.sleep(10)
        assert len((await plane.client.list(REPLICASETS, "default")).items) == 3
        assert len((await plane.client.list(PODS, "default")).items) == 2


class Refusing:
    """An API server that gives tokens, refuses those of its choice, and notes what came with which."""

    def __init__(self, *refused: str, fails: int = 0) -> None:
        self.refused = {f"Bearer {each}" for each in refused}
        self.fails = fails
        self.made = 0
        self.seen: list[tuple[str, str]] = []

    def handle(self, request: Request) -> Response:
        bearer = next((value for name, value in request.headers if name == "authorization"), "")
        self.seen.append((request.path, bearer))
        if bearer in self.refused:
            return Response(401, [], b'{"kind":"Status","code":401,"message":"Unauthorized"}')
        if request.path.endswith("/token"):
            if self.fails:
                self.fails -= 1
                return Response(500, [], b"{}")
            self.made += 1
            status = b'{"token": "t%d", "expirationTimestamp": "1970-01-01T01:00:00Z"}' % self.made
            return Response(201, [], b'{"status": %s}' % status)
        return Response(200, [], b"{}")


def _client(server: Refusing) -> Client:
    transport, clock = InProcess(server.handle), LoopClock()
    root = Client(transport, clock=clock, user_agent="root")
    return Accounts(root, transport, clock).client(root, "job-controller")


def test_a_token_that_is_refused_is_replaced() -> None:
    virtually(_refused())


async def _refused() -> None:
    server = Refusing("t1")
    client = _client(server)
    with pytest.raises(ApiError, match="Unauthorized"):
        await client.get(PODS, "a", "default")
    await client.get(PODS, "a", "default")
    await client.get(PODS, "a", "default")
    assert server.seen[-1] == ("/api/v1/namespaces/default/pods/a", "Bearer t2")
    assert server.made == 2


def test_who_gets_no_token_tries_again_but_not_for_ever() -> None:
    virtually(_without_tokens())


async def _without_tokens() -> None:
    server = Refusing(fails=3)
    await _client(server).get(PODS, "a", "default")
    assert server.made == 1
    with pytest.raises(ApiError):
        await _client(Refusing(fails=4)).get(PODS, "a", "default")
