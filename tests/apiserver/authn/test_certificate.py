"""Users by certificate: what the subject says, and what is no user."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from steersman.api.errors import ApiError
from steersman.apiserver.authn.certificate import CREDENTIAL_ID, CertificateAuthenticator
from steersman.lib.http.messages import Peer, Request

UID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")


def certificate(*subject: tuple[x509.ObjectIdentifier, str]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


def test_a_subject_is_a_user_and_their_groups() -> None:
    der = certificate(
        (NameOID.ORGANIZATION_NAME, "b"), (NameOID.ORGANIZATION_NAME, "a"), (NameOID.COMMON_NAME, "jane"), (UID, "u-1")
    )
    peer = Peer(certificate=der)
    ask = CertificateAuthenticator()
    user = ask(Request("GET", "/", peer=peer))
    assert user is not None
    assert (user.name, user.groups, user.uid) == ("jane", ("b", "a", "system:authenticated"), "u-1")
    assert user.extra[CREDENTIAL_ID][0].startswith("X509SHA256=")
    assert ask(Request("GET", "/", peer=peer)) is user, "a connection pays once"
    assert ask(Request("GET", "/", peer=Peer(certificate=der))) is user


def test_without_a_common_name_nobody_is_there_however_often_one_asks() -> None:
    peer = Peer(certificate=certificate((NameOID.ORGANIZATION_NAME, "system:masters")))
    ask = CertificateAuthenticator()
    assert [ask(Request("GET", "/", peer=peer)) for _ in range(3)] == [None, None, None]
    assert ask(Request("GET", "/")) is None


@pytest.mark.parametrize("der", [b"", b"nonsense"])
def test_what_cannot_be_read_is_refused(der: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        CertificateAuthenticator()(Request("GET", "/", peer=Peer(certificate=der)))
    assert caught.value.code == 401


def test_two_uids_are_one_too_many() -> None:
    der = certificate((NameOID.COMMON_NAME, "jane"), (UID, "1"), (UID, "2"))
    with pytest.raises(ApiError) as caught:
        CertificateAuthenticator()(Request("GET", "/", peer=Peer(certificate=der)))
    assert caught.value.code == 401
