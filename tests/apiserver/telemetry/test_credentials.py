"""Metrics of credentials, of watches' first words, and what stands in front of every help."""

from __future__ import annotations

from cryptography.x509.oid import NameOID

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, NAMESPACES, SERVICEACCOUNTS
from steersman.apiserver.authn.certificate import CertificateAuthenticator
from steersman.apiserver.authn.serviceaccount import Uses
from steersman.client.stability import mark
from steersman.lib.http.messages import Peer, Request
from tests.apiserver.authn.test_certificate import certificate
from tests.apiserver.telemetry.test_telemetry import Gated, samples, shown, text, watched

__all__ = ["watched"]


async def test_how_long_certificates_are_good_counts_each_request_once(watched: Gated) -> None:
    peer = Peer("127.0.0.1", certificate((NameOID.COMMON_NAME, "me")))
    found = next(each for each in watched.server.authenticators if isinstance(each, CertificateAuthenticator))
    for _ in range(3):
        assert found(Request("GET", "/", peer=peer)) is not None
    name = "apiserver_client_certificate_expiration_seconds_"
    assert f"{name}count 3" in await text(watched)
    assert f"{name}count 3" in await text(watched)
    assert f'{name}bucket{{le="0"}} 3' in await text(watched)


async def test_tokens_by_their_sort(watched: Gated) -> None:
    uses = Uses()
    uses.automatic, uses.manual, uses.stale = 2, 1, 4
    watched.bearer.uses = uses
    watched.server.services.extras["bearer"] = watched.bearer
    lines = (await text(watched)).splitlines()
    for name, number in (("legacy_tokens_total", 3), ("legacy_auto_token_uses_total", 2), ("stale_tokens_total", 4)):
        assert f"serviceaccount_{name} {number}" in lines


async def test_pods_tokens_that_are_used_in_time(watched: Gated) -> None:
    admin = watched.client("admin")
    await admin.create(NAMESPACES, {"metadata": {"name": "n"}})
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "a", "namespace": "n"}})
    assert watched.bearer.uses is not None
    asked = {"spec": {"expirationSeconds": 3607, "audiences": []}}
    path = SERVICEACCOUNTS.path("n", "a") + "/token"
    token = (await admin.call("POST", path, asked))["status"]["token"]
    await watched.client(token=token).raw("GET", "/livez")
    assert watched.bearer.uses.figures()["legacy_tokens_total"] == 0
    assert watched.bearer.uses.stale == 0


async def test_who_wanted_to_be_somebody_else(watched: Gated) -> None:
    for user, code in (("admin", 200), ("nobody", 403)):
        request = [("impersonate-user", "system:serviceaccount:n:a"), ("impersonate-group", "system:masters")]
        response, _ = await watched.client(user).raw("GET", "/livez/ping", b"", request)
        assert response.status == code
    found = await samples(watched, "apiserver_impersonation_attempts_total{")
    assert found == {shown(decision="allowed", mode="legacy"): 1, shown(decision="denied", mode=""): 1}


async def test_how_long_watches_took_to_tell_what_there_was(watched: Gated) -> None:
    query = "watch=1&timeoutSeconds=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    await watched.client("admin").raw("GET", f"{CONFIGMAPS.path('default')}?{query}")
    found = await samples(watched, "apiserver_watch_list_duration_seconds_count{")
    assert found == {shown(group="", resource="configmaps", scope="namespace", version="v1"): 1}


async def test_every_help_says_how_stable_a_metric_is(watched: Gated) -> None:
    lines = (await text(watched)).splitlines()
    helps = [line for line in lines if line.startswith("# HELP") and " process_" not in line]
    assert helps and all(line.split(" ", 3)[3].startswith(("[STABLE] ", "[BETA] ", "[ALPHA] ")) for line in helps)
    assert mark("apiserver_request_total") == "[STABLE] " and mark("workqueue_depth") == "[BETA] "
    numbers = await samples(watched, "registered_metrics_total{")
    assert numbers[shown(deprecated_version="", stability_level="STABLE")] >= 10


async def test_refused_certificates_are_not_counted(watched: Gated) -> None:
    found = next(each for each in watched.server.authenticators if isinstance(each, CertificateAuthenticator))
    try:
        found(Request("GET", "/", peer=Peer("127.0.0.1", b"x")))
    except ApiError as error:
        assert error.code == 401
    assert list(found.taken()) == []
