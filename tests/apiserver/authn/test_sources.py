"""Token files, token webhooks, front proxies and anonymous requests, by kube-apiserver's flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from steersman.apiserver.authn import tokenfile
from steersman.apiserver.call import User
from steersman.cluster import certs
from steersman.cluster.identity import Identity
from steersman.cluster.process import StartFailure
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Peer, Request, Response
from tests.apiserver.guarded import ISSUER, Guarded
from tests.apiserver.remote import Remote
from tests.apiserver.test_impersonate import whoami

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


async def review(guarded: Guarded, token: str, *audiences: str) -> Any:
    import msgspec

    body = msgspec.json.encode({"spec": {"token": token, "audiences": list(audiences)}})
    headers = [("content-type", "application/json")]
    response = await guarded.client("admin").transport.request("POST", REVIEWS, headers, body)
    answer = msgspec.json.decode(await response.read())
    return answer["status"] if response.status == 201 else answer


async def test_a_token_file(tmp_path: Path) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text('t0,jane,u-1,"dev,ops"\nt1,joe,u-2\n\n,nobody,u-3\n')
    async with Guarded(tmp_path / "pki", {"token-auth-file": str(file)}) as guarded:
        code, user = await whoami(guarded.client(token="t0"))
        assert (code, user["username"], user["uid"]) == (201, "jane", "u-1")
        assert user["groups"] == ["dev", "ops", "system:authenticated"]
        assert (await whoami(guarded.client(token="t1")))[1]["groups"] == ["system:authenticated"]
        for bad in ("t2", "T0", "", "t0,jane"):
            assert (await whoami(guarded.client(token=bad)))[0] in (401, 403)
        assert (await review(guarded, "t0"))["audiences"] == [ISSUER]
        assert (await review(guarded, "t0", "elsewhere"))["error"] == "invalid bearer token"


@pytest.mark.parametrize(
    ("text", "why"), [("a,b\n", "at least 3 columns"), ('a,"b\n', "unexpected end"), ("a,,c", "no user")]
)
def test_token_files_that_cannot_be_read(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "tokens.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=why):
        tokenfile.read(file)


def _reviewed(**status: Any) -> Callable[[Request], Any]:
    return lambda request: {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}


async def test_a_token_webhook_says_who(tmp_path: Path) -> None:
    told = _reviewed(authenticated=True, user={"username": "jane", "groups": ["dev"], "extra": {"k": ["v"]}})
    async with Remote(tmp_path, told) as remote:
        flags = {
            "authentication-token-webhook-config-file": remote.kubeconfig("/review"),
            "authentication-token-webhook-version": "v1",
        }
        async with Guarded(tmp_path / "pki", flags) as guarded:
            for _ in range(2):
                code, user = await whoami(guarded.client(token="opaque"))
                assert (code, user["username"], user["extra"]) == (201, "jane", {"k": ["v"]})
            assert len(remote.asked) == 1, "a good answer is remembered"
            assert remote.asked[0]["spec"] == {"token": "opaque", "audiences": [ISSUER]}


@pytest.mark.parametrize(
    "answer",
    [
        _reviewed(authenticated=False, error="no such token"),
        _reviewed(authenticated="yes", user={"username": "root"}),
        _reviewed(authenticated=True, user="root"),
        _reviewed(authenticated=True, user={"username": "jane"}, audiences=["elsewhere"]),
        lambda request: Response(302, [("location", "https://127.0.0.1:1/")]),
        lambda request: Response(200, [], b"<html>"),
        lambda request: Response(200, [], b"[" * 100_000),
        lambda request: [],
    ],
)
async def test_token_webhooks_that_say_nothing_good(tmp_path: Path, answer: Callable[[Request], Any]) -> None:
    async with Remote(tmp_path, answer) as remote:
        flags = {"authentication-token-webhook-config-file": remote.kubeconfig()}
        async with Guarded(tmp_path / "pki", flags) as guarded:
            assert (await whoami(guarded.client(token="opaque")))[0] == 401


async def test_a_review_tells_audiences_and_problems(guarded: Guarded) -> None:
    account = {"metadata": {"namespace": "default", "name": "gone", "uid": "u"}}
    token = guarded.tokens.sign(account, ["vault"], 600, guarded.clock.now(), None)
    text = (await review(guarded, token))["error"]
    assert text == f'[invalid bearer token, token audiences ["vault"] is invalid for the target audiences ["{ISSUER}"]]'
    assert "has been invalidated" in (await review(guarded, token, "vault", "other"))["error"]
    assert (await review(guarded, ""))["message"] == "token is required for TokenReview in authentication"


def _der(path: Path) -> bytes:
    return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(Encoding.DER)


def test_a_front_proxy_is_believed_and_nobody_else(tmp_path: Path) -> None:
    for name in ("own", "proxy"):
        certs.ensure(tmp_path / name, certs.identities([], ["127.0.0.1"], "c"), SystemClock().now())
    own, proxy = _der(tmp_path / "own" / "admin.crt"), _der(tmp_path / "proxy" / "admin.crt")
    flags = {
        "requestheader-client-ca-file": str(tmp_path / "proxy" / "ca.crt"),
        "requestheader-allowed-names": "kubernetes-admin",
        "requestheader-uid-headers": "X-Remote-Uid",
    }
    headers = [
        ("x-remote-user", "jane"),
        ("x-remote-group", "dev"),
        ("x-remote-group", "ops"),
        ("x-remote-uid", "7"),
        ("x-remote-extra-acme.com%2Fp", "v"),
    ]

    def who(certificate: bytes | None, more: list[tuple[str, str]] = headers, **changed: str) -> User | None:
        identity = Identity({**flags, **changed}, SystemClock(), tmp_path / "own" / "ca.crt")
        request = Request("GET", "/", headers=more, peer=Peer(certificate=certificate))
        for authenticator in identity.by_connection():
            found = authenticator(request)
            if isinstance(found, User):
                return found
        return None

    jane = User("jane", ("dev", "ops", "system:authenticated"), "7", {"acme.com/p": ("v",)})
    assert who(proxy) == jane
    named = who(own)
    assert named is not None and named.name == "kubernetes-admin", "a client's headers mean nothing"
    assert who(None) is None
    assert who(proxy, []) is None, "a proxy without a user is nobody"
    assert who(proxy, **{"requestheader-allowed-names": "other"}) is None


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ({"anonymous-auth": "true"}, 403),
        ({"anonymous-auth": "false"}, 401),
        ({"anonymous-auth": "true", "authorization-mode": "RBAC,AlwaysAllow"}, 401),
    ],
)
async def test_requests_from_nobody(tmp_path: Path, flags: dict[str, str], code: int) -> None:
    async with Guarded(tmp_path, flags) as guarded:
        response, _ = await guarded.client(user="").raw("GET", "/api/v1/pods")
        assert response.status == code


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"anonymous-auth": "maybe"}, 'invalid argument "maybe" for "--anonymous-auth" flag'),
        ({"token-auth-file": "/none"}, "--token-auth-file: .*No such file"),
        ({"authentication-token-webhook-config-file": "/none"}, "--authentication-token-webhook-config-file: "),
        ({"requestheader-client-ca-file": "/none"}, "--requestheader-client-ca-file: "),
    ],
)
def test_flags_that_cannot_be_followed(tmp_path: Path, flags: dict[str, str], why: str) -> None:
    guarded: Any = None
    with pytest.raises(StartFailure, match=why):
        guarded = Guarded(tmp_path, flags)
        guarded.identity.by_token(guarded.tokens, guarded.server.storage, guarded.server.registry)
