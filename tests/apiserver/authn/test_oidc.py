"""OpenID Connect against a real issuer over TLS: discovery, keys that change, claims, and tokens that lie."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from steersman.api.resource import Object
from steersman.cluster import issuers
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Request, Response
from tests.apiserver.authn.test_sources import review
from tests.apiserver.guarded import Guarded
from tests.apiserver.remote import Remote
from tests.apiserver.test_impersonate import whoami

_RSA = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
_EC = ec.generate_private_key(ec.SECP256R1())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8))


def rsa_jwk(at: int) -> Object:
    public = _RSA[at].public_key().public_numbers()
    return {"kty": "RSA", "use": "sig", "kid": f"r{at}", "n": number(public.n), "e": number(public.e)}


def ec_jwk() -> Object:
    public = _EC.public_key().public_numbers()
    x, y = (b64(each.to_bytes(32)) for each in (public.x, public.y))
    return {"kty": "EC", "crv": "P-256", "kid": "e0", "alg": "ES256", "x": x, "y": y}


class Provider:
    """An issuer: its documents, and tokens."""

    def __init__(self, folder: Path) -> None:
        self.keys = [rsa_jwk(0)]
        self.fetched = 0
        self.changes: Object = {}
        self.instead: Response | None = None
        self.remote = Remote(folder, self._answer)

    def _answer(self, request: Request) -> Any:
        if self.instead is not None:
            return self.instead
        if request.path == "/.well-known/openid-configuration":
            return {"issuer": self.remote.url, "jwks_uri": f"{self.remote.url}/keys", **self.changes}
        self.fetched += 1
        return {"keys": self.keys}

    def claims(self, **changes: Any) -> Object:
        now = SystemClock().now()
        return {"iss": self.remote.url, "aud": "steer", "sub": "jane", "exp": int(now) + 600} | changes

    def token(self, at: int = 0, alg: str = "RS256", head: Object | None = None, **claims: Any) -> str:
        header = {"alg": alg, "kid": f"r{at}"} | (head or {})
        text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(self.claims(**claims)).encode())}"
        return f"{text}.{b64(self._sign(text.encode(), at, alg))}"

    def _sign(self, data: bytes, at: int, alg: str) -> bytes:
        if alg == "ES256":
            r, s = utils.decode_dss_signature(_EC.sign(data, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32) + s.to_bytes(32)
        if alg == "PS256":
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
            return _RSA[at].sign(data, pss, hashes.SHA256())
        return _RSA[at].sign(data, padding.PKCS1v15(), hashes.SHA256())

    def flags(self, **more: str) -> dict[str, str]:
        own = {"issuer-url": self.remote.url, "client-id": "steer", "ca-file": str(self.remote.authority)}
        return {f"oidc-{key.replace('_', '-')}": value for key, value in (own | more).items()}


async def test_a_token_makes_a_user(tmp_path: Path) -> None:
    provider = Provider(tmp_path)
    async with provider.remote:
        flags = provider.flags(groups_claim="groups", groups_prefix="oidc:")
        async with Guarded(tmp_path / "pki", flags) as guarded:
            token = provider.token(groups=["dev"], jti="t-1")
            for _ in range(2):
                code, user = await whoami(guarded.client(token=token))
                assert (code, user["username"]) == (201, f"{provider.remote.url}#jane")
                assert user["groups"] == ["oidc:dev", "system:authenticated"]
                assert user["extra"] == {"authentication.kubernetes.io/credential-id": ["JTI=t-1"]}
            assert provider.fetched == 1
            assert (await whoami(guarded.client(token=provider.token(groups="one"))))[1]["groups"][0] == "oidc:one"


async def test_new_keys_are_found_and_old_ones_forgotten(tmp_path: Path) -> None:
    provider = Provider(tmp_path)
    async with provider.remote, Guarded(tmp_path / "pki", provider.flags()) as guarded:
        moved = _Moved(guarded)
        assert (await whoami(guarded.client(token=provider.token())))[0] == 201
        provider.keys = [rsa_jwk(1)]
        assert (await whoami(guarded.client(token=provider.token(1))))[0] == 401, "not twice in a second"
        moved.seconds += 2
        assert (await whoami(guarded.client(token=provider.token(1))))[0] == 201
        assert (await whoami(guarded.client(token=provider.token(0))))[0] == 401


class _Moved:
    """Lets a source's clock run ahead."""

    def __init__(self, guarded: Guarded) -> None:
        self.seconds = 0.0
        self._clock = guarded.clock
        source: Any = guarded.bearer.sources[2]
        source._issuers[0]._clock = self

    def now(self) -> float:
        return self._clock.now() + self.seconds

    def monotonic(self) -> float:
        return self._clock.monotonic() + self.seconds


@pytest.mark.parametrize(("alg", "head"), [("ES256", {"kid": "e0"}), ("PS256", {}), ("RS256", {"kid": ""})])
async def test_every_algorithm_that_is_allowed(tmp_path: Path, alg: str, head: Object) -> None:
    provider = Provider(tmp_path)
    provider.keys = [rsa_jwk(0), ec_jwk(), {"kty": "oct", "k": "AAAA"}, {"kty": "RSA", "n": 3}, {"kty": "EC"}]
    flags = provider.flags
    async with provider.remote, Guarded(tmp_path / "pki", flags(signing_algs="RS256,ES256,PS256")) as guarded:
        assert (await whoami(guarded.client(token=provider.token(0, alg, head))))[0] == 201
    async with Provider(tmp_path).remote, Guarded(tmp_path / "pki", {}) as guarded:
        assert (await whoami(guarded.client(token=provider.token(0, alg, head))))[0] == 401


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": 1}, "token is expired"),
        ({"exp": "soon"}, "cannot unmarshal string into Go struct field idToken.exp of type"),
        ({"exp": None}, "token is expired"),
        ({"nbf": 9e12}, "before the nbf"),
        ({"nbf": SystemClock().now() + 200}, "before the nbf (not before) time: "),  # a minute is forgiven
        ({"aud": "other"}, 'expected audience "steer" got ["other"]'),
        ({"aud": None}, 'expected audience "steer" got []'),
        ({"aud": [["steer"]]}, "cannot unmarshal array into Go struct field idToken.aud of type []string"),
        ({"hd": 5}, "parse claim hd: json: cannot unmarshal number into Go value of type string"),
        ({"_claim_names": {"x": "s"}, "_claim_sources": {}}, "oidc: source does not exist"),
        ({"_claim_names": 5}, "failed to unmarshal claims"),
        ({"sub": None}, "claim not present"),
        ({"groups": [1]}, "parse groups claim"),
        ({"groups": {"a": 1}}, "parse groups claim"),
        ({"hd": "evil"}, "required claim hd value does not match. Got = evil, want = acme"),
    ],
)
async def test_claims_that_are_no_good(tmp_path: Path, claims: Object, why: str) -> None:
    provider = Provider(tmp_path)
    async with provider.remote:
        flags = provider.flags(groups_claim="groups", required_claim="hd=acme")
        async with Guarded(tmp_path / "pki", flags) as guarded:
            assert (await whoami(guarded.client(token=provider.token(hd="acme"))))[0] == 201
            assert why in (await review(guarded, provider.token(**{"hd": "acme", **claims})))["error"]


async def test_an_unverified_mail_address_is_nobody(tmp_path: Path) -> None:
    provider = Provider(tmp_path)
    async with provider.remote, Guarded(tmp_path / "pki", provider.flags(username_claim="email")) as guarded:
        mail = {"email": "jane@example.com"}
        assert (await whoami(guarded.client(token=provider.token(**mail))))[1]["username"] == "jane@example.com"
        assert (await whoami(guarded.client(token=provider.token(**mail, email_verified=False))))[0] == 401


async def test_tokens_that_lie(tmp_path: Path) -> None:
    provider = Provider(tmp_path)
    async with provider.remote, Guarded(tmp_path / "pki", provider.flags()) as guarded:
        good = provider.token()
        head, body, signature = good.split(".")
        other = b64(json.dumps(provider.claims(sub="root")).encode())
        none, listed, mapped = (b64(t) for t in (b'{"alg":"none"}', b'{"alg":["RS256"]}', b'{"alg":"RS256","kid":{}}'))
        pem = (
            _RSA[0]
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        confused = f"{b64(json.dumps({'alg': 'HS256', 'kid': 'r0'}).encode())}.{other}"
        confused += "." + b64(hmac.digest(pem, confused.encode(), hashlib.sha256))
        for token in (
            f"{head}.{other}.{signature}",
            f"{none}.{other}.",
            f"{none}.{other}.{signature}",
            f"{b64(b'{}')}.{other}.{signature}",
            f"{listed}.{other}.{signature}",
            f"{mapped}.{other}.{signature}",
            confused,
            f"{head}.{body}.",
            f"{head}.{body}.{signature}!",
            f"{head}.{body}.{signature}.{signature}",
            f"{head}.{b64(b'[' * 20_000)}.{signature}",
            f"{head}.{b64(bytes([255, 254]))}.{signature}",
            provider.token(1),
            good + "A" * 100_000,
        ):
            assert (await whoami(guarded.client(token=token)))[0] == 401
        assert (await whoami(guarded.client(token=good)))[0] == 201


@pytest.mark.parametrize(
    ("changes", "instead"),
    [
        ({"issuer": "https://other"}, None),
        ({"jwks_uri": "http://127.0.0.1/keys"}, None),
        ({"jwks_uri": "https://[::1/keys"}, None),
        ({"jwks_uri": 7}, None),
        ({}, Response(302, [("location", "https://127.0.0.1:1/")])),
        ({}, Response(200, [], b"<html>")),
        ({}, Response(200, [], b"[]")),
        ({}, Response(200, [], b" " * 2_000_000)),
        ({}, Response(500, [])),
    ],
)
async def test_issuers_that_misbehave(tmp_path: Path, changes: Object, instead: Response | None) -> None:
    provider = Provider(tmp_path)
    provider.changes, provider.instead = changes, instead
    async with provider.remote, Guarded(tmp_path / "pki", provider.flags()) as guarded:
        assert (await whoami(guarded.client(token=provider.token())))[0] == 401


async def test_an_issuer_with_another_authority(tmp_path: Path) -> None:
    provider = Provider(tmp_path)
    async with provider.remote, Guarded(tmp_path / "pki") as plain:
        flags = provider.flags(ca_file=str(tmp_path / "pki" / "ca.crt"))
        async with Guarded(tmp_path / "pki", flags) as guarded:
            assert (await whoami(guarded.client(token=provider.token())))[0] == 401
        assert (await whoami(plain.client(token=provider.token())))[0] == 401


def structured(url: str, authority: str, **more: Any) -> Object:
    mappings = {
        "username": {"claim": "sub", "prefix": "o:"},
        "groups": {"claim": "roles", "prefix": ""},
        "uid": {"claim": "uid"},
    }
    entry = {
        "issuer": {"url": url, "certificateAuthority": authority, "audiences": ["steer", "b"],
                   "audienceMatchPolicy": "MatchAny"},
        "claimValidationRules": [{"claim": "hd", "requiredValue": "acme"}],
        "claimMappings": mappings,
    }  # fmt: skip
    kind = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration"}
    return {**kind, "jwt": [entry], **more}


async def test_a_configuration_file(tmp_path: Path) -> None:
    provider, file = Provider(tmp_path), tmp_path / "authentication.yaml"
    async with provider.remote:
        anonymous = {"enabled": True, "conditions": [{"path": "/livez"}]}
        authority = provider.remote.authority.read_text()
        file.write_text(json.dumps(structured(provider.remote.url, authority, anonymous=anonymous)))
        async with Guarded(tmp_path / "pki", {"authentication-config": str(file)}) as guarded:
            code, user = await whoami(guarded.client(token=provider.token(hd="acme", roles=["dev"], uid="7", aud="b")))
            assert (code, user["username"], user["uid"]) == (201, "o:jane", "7")
            assert user["groups"] == ["dev", "system:authenticated"]
            assert (await whoami(guarded.client(token=provider.token())))[0] == 401
            nobody = guarded.client()
            assert (await nobody.raw("GET", "/livez"))[0].status == 404, "let in, and nothing is there"
            assert (await nobody.raw("GET", "/readyz"))[0].status == 401


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "Pod"}, 'no kind "Pod" is registered for version "apiserver.config.k8s.io/v1'),
        ({"apiVersion": "v1"}, 'no kind "AuthenticationConfiguration" is registered for version "v1" in scheme'),
        ({"extra": 1}, 'unknown field "extra"'),
        ({"jwt": [7]}, r"jwt\[0\]: not an object"),
        ({"jwt": {}}, ""),
        ({"jwt": [{"issuer": {"url": "http://x", "audiences": ["a"]}}]}, "URL scheme must be https"),
        ({"jwt": [{"issuer": {"url": "https://x"}}]}, "audiences: Required value"),
        ({"jwt": [{"issuer": {"url": "https://x", "audiences": ["a", "b"]}}]}, "must be MatchAny"),
        ({"jwt": [{"issuer": {"url": "https://x", "audiences": [""]}}]}, r"audiences\[0\]: Required value"),
        ({"jwt": [{"issuer": {"url": "https://x", "audiences": ["a", "a"]}}]}, r"audiences\[1\]: Duplicate value"),
        ({"jwt": [{"issuer": {"url": "https://x", "audiences": ["a"], "audienceMatchPolicy": "No"}}]},
         "must be empty or MatchAny for single audience"),
        ({"jwt": [{"issuer": {"url": "https://x", "discoveryURL": "https://x/", "audiences": ["a"]}}]},
         "discoveryURL must be different from URL"),
        ({"jwt": [{"issuer": {"url": "https://x", "audiences": ["a"]}}]}, "username: Required value"),
        ({"anonymous": {"conditions": [{"path": "/"}]}}, "enabled should be set to true"),
    ],
)  # fmt: skip
def test_configuration_files_that_cannot_be_followed(tmp_path: Path, change: Object, why: str) -> None:
    file = tmp_path / "authentication.yaml"
    file.write_text(json.dumps(structured("https://x", "") | change))
    if not why:
        assert issuers.of_file(file) == ([], None)
        return
    with pytest.raises(ValueError, match=why):
        issuers.of_file(file)


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"oidc-issuer-url": "https://x"}, "must be specified together"),
        ({"oidc-issuer-url": "http://x", "oidc-client-id": "c"}, "URL scheme must be https"),
        ({"oidc-issuer-url": "https://", "oidc-client-id": "c"}, "URL must have a host"),
        ({"oidc-issuer-url": "https://x?y=1", "oidc-client-id": "c"}, "must not contain a query"),
        ({"oidc-issuer-url": "https://x", "oidc-client-id": "c", "oidc-signing-algs": "none"}, "unsupported signing"),
        ({"oidc-issuer-url": "https://x", "oidc-client-id": "c", "oidc-required-claim": "a"}, "key=value"),
    ],
)
def test_flags_that_cannot_be_followed(flags: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        issuers.of_flags(flags)


async def test_names_may_be_empty_and_groups_come_twice_as_the_issuer_says(tmp_path: Path) -> None:
    provider = Provider(tmp_path)
    async with provider.remote, Guarded(tmp_path / "pki", provider.flags(groups_claim="groups")) as guarded:
        code, user = await whoami(guarded.client(token=provider.token(sub="", groups=["a", "a"])))
        assert (code, user["username"]) == (201, f"{provider.remote.url}#")
        assert user["groups"] == ["a", "a", "system:authenticated"]


def _elsewhere(provider: Provider, path: str, **more: Any) -> dict[str, Any]:
    """Claims that say to ask for the groups."""
    source = {"endpoint": f"{provider.remote.url}{path}", "access_token": "open"} | more
    return {"_claim_names": {"groups": "s"}, "_claim_sources": {"s": source}}


@pytest.mark.parametrize(
    ("path", "claims", "why"),
    [
        ("/claims", {"groups": ["far"]}, ""),
        ("/moved", {"groups": ["far"]}, ""),
        ("/claims", {}, "did not contain claim: groups"),
        (
            "/claims",
            {"groups": ["far"], "aud": "other"},
            "verify distributed claim token: oidc: verify token: oidc: expected",
        ),
        ("/claims", {"groups": ["far"], "exp": 1}, "token is expired"),
        ("/none", {}, 'while getting distributed claim "groups": '),
        ("/round", {}, "stopped after 10 redirects"),
        ("/garbage", {}, "could not expand distributed claims"),
    ],
)
async def test_groups_that_somebody_else_tells(tmp_path: Path, path: str, claims: Object, why: str) -> None:
    provider, asked = Provider(tmp_path), list[str | None]()
    usual = provider._answer

    def answer(request: Request) -> Any:
        match request.path:
            case "/claims":
                asked.append(request.header("authorization"))
                return Response(200, [], provider.token(**claims).encode())
            case "/moved" | "/round" as here:
                return Response(302, [("location", "/claims" if here == "/moved" else here)], b"")
            case "/none":
                return Response(404, [], b"")
            case "/garbage":
                return Response(200, [], b"\xff.x.y")
        return usual(request)

    provider.remote._answer = answer
    async with provider.remote, Guarded(tmp_path / "pki", provider.flags(groups_claim="groups")) as guarded:
        token = provider.token(**_elsewhere(provider, path))
        if why:
            assert why in (await review(guarded, token))["error"]
            return
        for _ in range(2):
            assert (await whoami(guarded.client(token=token)))[1]["groups"] == ["far", "system:authenticated"]
        assert asked == ["Bearer open"] * 2
        own = provider.token(groups=["near"], **_elsewhere(provider, path))
        assert (await whoami(guarded.client(token=own)))[1]["groups"] == ["near", "system:authenticated"]
