"""Who may use the kubelet's server, asked of a real API server with RBAC and tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.api.resource import CLUSTERROLEBINDINGS, CLUSTERROLES, SERVICEACCOUNTS
from steersman.kubelet.authorize import Attributes, Caller
from steersman.kubelet.reviews import Reviews
from tests.apiserver.guarded import Guarded

WHO = "system:serviceaccount:default:prometheus"


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    made = Guarded(tmp_path)
    await made.start()
    yield made
    await made.server.close()


async def grant(guarded: Guarded, *resources: str) -> None:
    admin = guarded.client("admin")
    rules = [{"apiGroups": [""], "resources": list(resources), "verbs": ["get"]}]
    await admin.create(CLUSTERROLES, {"metadata": {"name": "scrape"}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": "prometheus", "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "scrape"}
    await admin.create(CLUSTERROLEBINDINGS, {"metadata": {"name": "scrape"}, "subjects": [subject], "roleRef": role})


def reviews(guarded: Guarded) -> Reviews:
    return Reviews(guarded.client("admin"), guarded.clock, "n1")


async def test_rbac_decides_by_subresource(guarded: Guarded) -> None:
    await grant(guarded, "nodes/metrics", "nodes/proxy")
    asked = reviews(guarded)
    caller = Caller(WHO, ["system:serviceaccounts"])
    assert await asked.allow(Attributes(caller, "get", ["metrics"]))
    assert await asked.allow(Attributes(caller, "get", ["pods", "proxy"]))
    assert not await asked.allow(Attributes(caller, "create", ["proxy"]))
    assert not await asked.allow(Attributes(caller, "get", ["stats"]))
    assert not await asked.allow(Attributes(Caller("nobody", []), "get", ["metrics"]))


async def test_the_api_server_is_not_asked_about(guarded: Guarded) -> None:
    asked = reviews(guarded)
    await guarded.server.close()
    assert await asked.allow(Attributes(Caller("kube-apiserver-kubelet-client", []), "create", ["proxy"]))


async def test_a_token_is_somebodys_or_nobodys(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "prometheus"}}, "default")
    made = await admin.create(SERVICEACCOUNTS, {"spec": {}}, "default", name="prometheus", subresource="token")
    asked = reviews(guarded)
    found = await asked.identify(made["status"]["token"])
    assert found is not None
    assert found.name == WHO
    assert "system:serviceaccounts:default" in found.groups
    assert await asked.identify(made["status"]["token"]) is found
    for wrong in ("", "x", made["status"]["token"] + "x"):
        assert await asked.identify(wrong) is None
