"""The scheduler's and the controllers' ports: who may read what, asked of a real API server, over real TLS."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.api.resource import CLUSTERROLEBINDINGS, SERVICEACCOUNTS
from steersman.client.exposition import Exposition
from steersman.cluster import certs, ports
from steersman.cluster.profile import Profile
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.metrics import Registry
from tests.apiserver.guarded import Guarded


class Port:
    """The scheduler's port of a profile, and ways to ask it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.number = probe.getsockname()[1]
        self.profile = Profile("p", folder, extra_config=(f"scheduler.secure-port={self.number}",))
        self.guarded = Guarded(folder / "api")
        registry = Registry()
        registry.counter("made_total", "Made.").labels().inc()
        self.exposition = Exposition(registry, {"a.config": {"B": 1}})

    async def ask(self, path: str, token: str = "", identity: str = "") -> tuple[int, str]:
        pki = self.profile.pki
        certificate, key = (pki / f"{identity}.crt", pki / f"{identity}.key") if identity else (None, None)
        tls = client_tls(authority=pki / "ca.crt", certificate=certificate, key=key)
        client = HttpClient(Address("127.0.0.1", self.number, tls))
        headers = [("authorization", f"Bearer {token}")] if token else []
        response = await client.request("GET", path, headers)
        body = await response.read()
        await client.close()
        return response.status, body.decode()


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    (tmp_path / "api").mkdir()
    made = Port(tmp_path)
    made.profile.pki.mkdir(parents=True)
    certs.ensure(made.profile.pki, certs.identities([], ["127.0.0.1"], "cluster.local"), SystemClock().now())
    async with made.guarded:
        client, clock = made.guarded.client("admin"), made.guarded.clock
        async with ports.served(made.profile, "scheduler", made.exposition.handle, client, clock):
            yield made


async def test_health_is_everybodys_and_the_rest_is_not(port: Port) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        assert await port.ask(path) == (200, "ok")
    assert await port.ask("/healthz?verbose") == (200, "[+]ping ok\nhealthz check passed\n")
    for path in ("/metrics", "/configz", "/nothing", "/healthz/../metrics"):
        status, body = await port.ask(path)
        text = f'forbidden: User "system:anonymous" cannot get path "{path}"'
        assert (status, json.loads(body)["message"]) == (403, text)
    assert (await port.ask("/metrics", token="x.y.z"))[0] == 401
    assert (await port.ask("/healthz", token="wrong"))[0] == 401


async def test_certificates_and_tokens_are_believed_and_roles_decide(port: Port) -> None:
    assert "made_total 1" in (await port.ask("/metrics", identity="admin"))[1]
    assert await port.ask("/configz", identity="admin") == (200, '{"a.config":{"B":1}}')
    assert (await port.ask("/nothing", identity="admin"))[0] == 404
    assert (await port.ask("/metrics", identity="kube-proxy"))[0] == 403
    admin = port.guarded.client("admin")
    subject = {"kind": "ServiceAccount", "name": "prometheus", "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:monitoring"}
    await admin.create(CLUSTERROLEBINDINGS, {"metadata": {"name": "m"}, "subjects": [subject], "roleRef": role})
    tokens = []
    for name in ("prometheus", "other"):
        await admin.create(SERVICEACCOUNTS, {"metadata": {"name": name}}, "default")
        made = await admin.create(SERVICEACCOUNTS, {"spec": {}}, "default", name=name, subresource="token")
        tokens.append(made["status"]["token"])
    assert (await port.ask("/metrics", token=tokens[0]))[0] == 200
    assert (await port.ask("/metrics", token=tokens[1]))[0] == 403


async def test_a_port_that_another_cluster_has_is_left_to_it(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    client, clock = port.guarded.client("admin"), port.guarded.clock
    async with ports.served(port.profile, "scheduler", Exposition(Registry()).handle, client, clock):
        assert "made_total 1" in (await port.ask("/metrics", identity="admin"))[1]
    assert f"kube-scheduler has no port: cannot listen on 127.0.0.1:{port.number}" in caplog.text


async def test_no_port_where_none_is_wanted(tmp_path: Path) -> None:
    profile = Profile("p", tmp_path, extra_config=("scheduler.secure-port=0",))
    async with Guarded(tmp_path) as guarded:
        handle = Exposition(Registry()).handle
        async with ports.served(profile, "scheduler", handle, guarded.client("admin"), guarded.clock):
            assert not profile.pki.exists()  # nothing was read for it
