"""Certificate requests: approved for nodes that may ask, signed by the CA, taken away in time."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from steersman.api.resource import Object
from steersman.controllers.certificates import signing
from steersman.controllers.certificates.cleaning import expires
from steersman.controllers.certificates.issue import lifetime
from steersman.controllers.certificates.requests import CLIENT, KUBELET_CLIENT, REQUESTS, parse, refusal
from steersman.lib.clock import parse_rfc3339
from steersman.testing.cluster import ADMIN

from .conftest import World

NODE_USAGES = ["digital signature", "client auth"]


def authority() -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2090, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return made.public_bytes(serialization.Encoding.PEM).decode(), pem.decode()


def request(
    name: str = "system:node:n1", organization: str = "system:nodes", *, dns: str = "", signer: str = KUBELET_CLIENT
) -> Object:
    subject = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        x509.NameAttribute(NameOID.COMMON_NAME, name),
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
    pem = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(
        serialization.Encoding.PEM
    )
    spec = {"request": base64.b64encode(pem).decode(), "signerName": signer, "usages": NODE_USAGES}
    return {"metadata": {"name": "csr"}, "spec": spec}


@pytest.mark.parametrize(
    ("asked", "usages", "answer"),
    [
        (request(), NODE_USAGES, ""),
        (request(), [*NODE_USAGES, "key encipherment"], ""),
        (request(), ["client auth"], "usages did not match [client auth digital signature key encipherment]"),
        (request("alice"), NODE_USAGES, "subject common name does not begin with system:node:"),
        (request(organization="system:masters"), NODE_USAGES, "subject organization is not system:nodes"),
        (request(dns="evil.example"), NODE_USAGES, "DNS subjectAltNames are not allowed"),
        (request(signer=CLIENT), ["server auth"], "invalid usage for client certificate: server auth"),
        (request(signer=CLIENT), [], "missing required usage for client certificate: client auth"),
    ],
)
def test_signers_refuse_what_is_not_theirs(asked: Object, usages: list[str], answer: str) -> None:
    assert refusal(parse(asked), usages, asked["spec"]["signerName"]) == answer


@pytest.mark.parametrize("bad", ["", "bm90IGEgcmVxdWVzdA==", "%%%"])
def test_what_is_no_request_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        parse({"spec": {"request": bad}})


def test_a_certificate_outlives_neither_its_wish_nor_its_ca() -> None:
    now, end = datetime(2030, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
    minutes = timedelta(minutes=1)
    assert lifetime(now, 60, end) == (now - 5 * minutes, now + 10 * minutes)
    assert lifetime(now, None, end) == (now - 5 * minutes, now - 5 * minutes + timedelta(days=365))
    assert lifetime(now, None, now + minutes)[1] == now + minutes


async def test_nobody_asks_in_somebody_elses_name(world: World) -> None:
    forged = request()
    forged["spec"] |= {"username": "system:node:n1", "groups": ["system:nodes"], "uid": "1"}
    await world.client.create(REQUESTS, forged)
    spec = (await world.get(REQUESTS, "csr"))["spec"]
    assert (spec["username"], spec["groups"], spec.get("uid", "")) == (ADMIN.name, list(ADMIN.groups), "")


async def test_a_node_is_approved_and_signed(world: World) -> None:
    certificate, key = authority()
    names = ("certificatesigningrequest-approving-controller", "certificatesigningrequest-signing-controller")
    world.start(*names, **{"root-ca": certificate, "root-ca-key": key})
    await world.client.create(REQUESTS, request())
    await world.settle()
    status = (await world.get(REQUESTS, "csr"))["status"]
    (approved,) = status["conditions"]
    assert approved["reason"] == "AutoApproved"
    assert approved["message"] == "Auto approving kubelet client certificate after SubjectAccessReview."
    signed = x509.load_pem_x509_certificate(base64.b64decode(status["certificate"]))
    signed.verify_directly_issued_by(x509.load_pem_x509_certificate(certificate.encode()))
    assert signed.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"


def test_signers_may_have_authorities_of_their_own() -> None:
    certificate, key = authority()
    own = {"root-ca": "x", "root-ca-key": "y", "cluster-signing-duration": "3600.0"}
    own |= {"signing-cert kubelet-serving": certificate, "signing-key kubelet-serving": key}
    assert signing._authority(own, "kubernetes.io/kubelet-serving") == (certificate, key)
    assert signing._authority(own, "kubernetes.io/kube-apiserver-client") == ("", ""), "it has none, and borrows none"
    assert signing._authority({"root-ca": "x", "root-ca-key": "y"}, "kubernetes.io/legacy-unknown") == ("x", "y")
    assert signing._longest(own) == timedelta(hours=1)


async def test_what_a_signer_may_not_sign_fails_once(world: World) -> None:
    certificate, key = authority()
    world.start("certificatesigningrequest-signing-controller", **{"root-ca": certificate, "root-ca-key": key})
    made = await world.client.create(REQUESTS, request("alice"))
    made["status"] = {"conditions": [{"type": "Approved", "status": "True", "reason": "Test", "message": ""}]}
    await world.client.update(REQUESTS, made, subresource="approval")
    await world.settle(60)
    status = (await world.get(REQUESTS, "csr"))["status"]
    failed = [each for each in status["conditions"] if each["type"] == "Failed"]
    assert [(each["reason"], each["message"]) for each in failed] == [
        ("SignerValidationFailure", "subject common name does not begin with system:node:")
    ]
    assert "certificate" not in status


async def test_an_unanswered_request_goes_after_a_day(world: World) -> None:
    world.start("certificatesigningrequest-cleaner-controller")
    await world.client.create(REQUESTS, request(signer="example.com/other"))
    await world.settle(23 * 3600)
    assert await world.names(REQUESTS) == ["csr"]
    await world.settle(2 * 3600)
    assert await world.names(REQUESTS) == []


def test_an_answer_is_kept_for_an_hour() -> None:
    stamp = "2026-01-01T00:00:00Z"
    body = {"metadata": {"creationTimestamp": stamp}}
    denied = {"conditions": [{"type": "Denied", "status": "True", "lastUpdateTime": stamp}]}
    assert expires({**body, "status": denied}) == parse_rfc3339("2026-01-01T01:00:00Z")
    waiting = {"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": stamp}]}
    assert expires({**body, "status": waiting}) == parse_rfc3339("2026-01-02T00:00:00Z")
