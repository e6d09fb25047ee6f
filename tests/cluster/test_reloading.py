"""Files that are read anew while the API server runs, and those that cannot be used then."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from steersman.api.resource import Object
from steersman.cluster import certs
from steersman.cluster.reloading import Follower, Metrics
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient, client_tls
from steersman.lib.http.messages import Response
from steersman.lib.http.server import Server, server_tls
from steersman.lib.tasks import Tasks
from tests.apiserver.authn.test_oidc import Provider, whoami
from tests.apiserver.authz.test_modes import PODS, _told
from tests.apiserver.guarded import Guarded, status
from tests.apiserver.remote import Remote


async def test_a_change_is_acted_upon_and_told_of(tmp_path: Path) -> None:
    file, acted = tmp_path / "file", asyncio.Queue[str]()
    file.write_text("a")

    def act() -> None:
        acted.put_nowait(file.read_text())
        if file.read_text() == "bad":
            raise ValueError("bad")

    metrics = Metrics("authentication", file)
    async with Tasks() as tasks:
        Follower(SystemClock(), tasks).follow("a file", [file], act, metrics)
        for text in ("b", "bad"):
            new = tmp_path / "new"
            new.write_text(text)
            new.replace(file)
            assert await acted.get() == text
    shown = metrics.registry.text()
    for what in ("success", "failure"):
        end = f'status="{what}"}} 1'
        assert [each for each in shown.splitlines() if "automatic_reloads_total{" in each and each.endswith(end)]
    assert "apiserver_authentication_config_controller_last_config_info" in shown


def _issuers(provider: Provider, *names: str, **more: object) -> str:
    issuer = {"url": provider.remote.url, "certificateAuthority": provider.remote.authority.read_text()}
    jwt = [
        {"issuer": {**issuer, "audiences": ["steer"]}, "claimMappings": {"username": {"claim": "sub", "prefix": name}}}
        for name in names
    ]
    return _file("Authentication", jwt=jwt, **more)


def _file(kind: str, **more: object) -> str:
    return json.dumps({"apiVersion": "apiserver.config.k8s.io/v1", "kind": f"{kind}Configuration", **more})


async def test_issuers_come_and_go(tmp_path: Path) -> None:
    provider, file = Provider(tmp_path), tmp_path / "authentication"
    async with provider.remote:
        file.write_text(_issuers(provider, "a:"))
        async with Guarded(tmp_path / "pki", {"authentication-config": str(file)}) as guarded:
            client = guarded.client(token=provider.token())
            assert (await whoami(client))[1]["username"] == "a:jane"
            file.write_text(_issuers(provider, "b:"))
            await guarded.identity.reload_authentication()
            assert (await whoami(client))[1]["username"] == "b:jane"
            for text, why in (
                (_issuers(provider, anonymous={"enabled": False}), "anonymous: Forbidden: changed from initial"),
                (_issuers(provider, "a:", "b:"), "Duplicate value"),
                ("{", "while parsing"),
            ):
                file.write_text(text)
                with pytest.raises(ValueError, match=why):
                    await guarded.identity.reload_authentication()
                assert (await whoami(client))[1]["username"] == "b:jane"
            provider.instead = Response(503, [], b"")
            file.write_text(_issuers(provider, "c:"))
            with pytest.raises(ValueError, match="status 503"):
                await guarded.identity.reload_authentication(patience=0.0)
            assert (await whoami(client))[1]["username"] == "b:jane", "who cannot be asked is not believed yet"
            file.write_text(_issuers(provider))
            await guarded.identity.reload_authentication()
            assert (await whoami(client))[0] == 401


def _authorizers(*modes: Object) -> str:
    return _file("Authorization", authorizers=modes)


async def test_webhooks_of_authorization_come_and_go(tmp_path: Path) -> None:
    file = tmp_path / "authorization"
    modes = [{"type": each, "name": each.lower()} for each in ("Node", "RBAC")]
    async with Remote(tmp_path, _told(allowed=True)) as remote:
        webhook = {
            "timeout": "3s", "subjectAccessReviewVersion": "v1", "failurePolicy": "NoOpinion",
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": remote.kubeconfig()},
        }  # fmt: skip
        asked = {"type": "Webhook", "name": "hook", "webhook": webhook}
        file.write_text(_authorizers(*modes))
        async with Guarded(tmp_path / "pki", {"authorization-config": str(file)}) as guarded:
            jane, identity = guarded.client("jane"), guarded.identity
            assert (await status(jane, "GET", PODS))[0] == 403
            file.write_text(_authorizers(asked, *modes))
            await identity.reload_authorization()
            assert (await status(jane, "GET", PODS))[0] == 200
            for wrong in (_authorizers(asked), _authorizers({"type": "AlwaysAllow", "name": "a"}, *modes), "x"):
                file.write_text(wrong)
                with pytest.raises(ValueError):
                    await identity.reload_authorization()
                assert (await status(jane, "GET", PODS))[0] == 200
            file.write_text(_authorizers(*modes))
            await identity.reload_authorization()
            assert (await status(jane, "GET", PODS))[0] == 403


async def test_a_server_takes_a_new_certificate(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("old", "new")]
    for folder in folders:
        certs.ensure(folder, certs.identities([], ["127.0.0.1"], "cluster.local"), SystemClock().now())
    contexts = [server_tls(folder / "apiserver.crt", folder / "apiserver.key") for folder in folders]
    server = Server(lambda request: Response(200, [], b"ok"), SystemClock(), tls=contexts[0])
    port = await server.listen("127.0.0.1", 0)
    clients = [HttpClient(Address("127.0.0.1", port, client_tls(authority=each / "ca.crt"))) for each in folders]
    kept = clients[0]
    assert await (await kept.request("GET", "/")).read() == b"ok"
    await server.renew(contexts[1])
    assert await (await kept.request("GET", "/")).read() == b"ok", "what is connected stays"
    assert await (await clients[1].request("GET", "/")).read() == b"ok"
    await kept.close()
    with pytest.raises(ConnectionError):
        await kept.request("GET", "/")
    for client in clients:
        await client.close()
    await server.close()
