"""The cluster's certificates, checked by OpenSSL through Python's ssl."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from steersman.cluster import certs

NOW = 1_800_000_000.0


def _handshake(pki: Path, server: str, client: str, name: str) -> dict[str, object]:
    """Both sides of one mutual TLS handshake; returns the client's subject as the server sees it."""
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pki / f"{server}.crt", pki / f"{server}.key")
    serving.load_verify_locations(pki / "ca.crt")
    serving.verify_mode = ssl.CERT_REQUIRED
    asking = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    asking.load_cert_chain(pki / f"{client}.crt", pki / f"{client}.key")
    left, right = socket.socketpair()
    seen: dict[str, object] = {}

    def serve() -> None:
        with serving.wrap_socket(left, server_side=True) as connection:
            seen.update({k: v for pair in (connection.getpeercert() or {})["subject"] for k, v in pair})  # type: ignore[union-attr]

    thread = threading.Thread(target=serve)
    thread.start()
    with asking.wrap_socket(right, server_hostname=name) as connection:
        connection.recv(1)
    thread.join()
    return seen


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    import time

    everybody = certs.identities([("steer", "10.244.0.1")], ["127.0.0.1", "10.96.0.1"], "cluster.local")
    certs.ensure(tmp_path, everybody, time.time())  # noqa: TID251
    return tmp_path


@pytest.mark.parametrize("name", ["127.0.0.1", "10.96.0.1", "kubernetes.default.svc.cluster.local", "localhost"])
def test_everybody_trusts_the_api_server(pki: Path, name: str) -> None:
    assert _handshake(pki, "apiserver", "admin", name) == {
        "organizationName": "system:masters",
        "commonName": "kubernetes-admin",
    }


def test_a_kubelet_serves_and_calls_as_its_node(pki: Path) -> None:
    assert _handshake(pki, "kubelet-steer", "apiserver-kubelet-client", "10.244.0.1")["organizationName"]
    assert _handshake(pki, "apiserver", "kubelet-steer", "127.0.0.1")["commonName"] == "system:node:steer"


def test_keys_are_for_their_owner_only_and_made_once(pki: Path) -> None:
    assert all(path.stat().st_mode & 0o077 == 0 for path in pki.glob("*.key"))
    before = {path.name: path.read_bytes() for path in pki.iterdir()}
    everybody = certs.identities([("steer", "10.244.0.1")], ["127.0.0.1", "10.96.0.1"], "cluster.local")
    certs.ensure(pki, everybody, NOW)
    assert {path.name: path.read_bytes() for path in pki.iterdir()} == before


def test_a_new_address_gets_a_new_certificate(pki: Path) -> None:
    before = (pki / "apiserver.crt").read_bytes()
    everybody = certs.identities([("steer", "10.244.0.1")], ["127.0.0.1", "10.9.9.9"], "cluster.local")
    import time

    certs.ensure(pki, everybody, time.time())  # noqa: TID251
    assert (pki / "apiserver.crt").read_bytes() != before
    assert _handshake(pki, "apiserver", "admin", "10.9.9.9")


def test_a_key_of_another_kind_is_refused(pki: Path) -> None:
    (pki / "ca.key").write_text("not a key")
    (pki / "admin.crt").unlink()
    with pytest.raises(ValueError, match=r"(?i)pem|deserialize"):
        certs.ensure(pki, [certs.Identity("admin", "a")], NOW)


def test_an_rsa_key_is_in_the_form_that_everybody_reads(pki: Path) -> None:
    made = replace(certs.ADMINISTRATOR, file="other", rsa=True)
    certs.ensure(pki, [made], (pki / "admin.crt").stat().st_mtime)
    assert (pki / "other.key").read_text().startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert _handshake(pki, "apiserver", "other", "127.0.0.1")["commonName"] == "kubernetes-admin"
