"""Keys and certificates of one cluster: made once, kept in the profile's `pki` directory.

Owns which identities exist: the CA, the API server, the kubelets, the components' clients, the administrator, the front
proxy with a CA of its own, and the key that signs service-account tokens. P-256, of which handshakes cost a third of
RSA's, but for the administrator where `steer up` makes him: not every client library reads elliptic-curve keys.
Called at the first start.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_YEARS = timedelta(days=3653)


@dataclass(frozen=True)
class Identity:
    """One leaf certificate: its file name, subject, and what it may be used for."""

    file: str
    common_name: str
    organizations: Sequence[str] = ()
    server: bool = False
    client: bool = True
    names: Sequence[str] = ()
    addresses: Sequence[str] = ()
    authority: str = "ca"  # whose file's name it is signed with
    rsa: bool = False  # takes a tenth of a second to make


_AUTHORITIES = {"ca": "kubernetes", "front-proxy-ca": "front-proxy-ca"}  # file name: common name


ADMINISTRATOR = Identity("admin", "kubernetes-admin", ["system:masters"])


def identities(nodes: Sequence[tuple[str, str]], api_addresses: Sequence[str], domain: str) -> list[Identity]:
    """Everybody in the cluster. `nodes` are (name, address)."""
    kubernetes = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{domain}"]
    api = Identity(
        "apiserver",
        "kube-apiserver",
        server=True,
        client=False,
        names=[*kubernetes, "localhost"],
        addresses=[*dict.fromkeys(api_addresses)],
    )
    people = [
        ADMINISTRATOR,
        Identity("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"]),
        Identity(
            "controller-manager",
            "system:kube-controller-manager",
            server=True,
            names=["localhost"],
            addresses=["127.0.0.1"],
        ),
        Identity("scheduler", "system:kube-scheduler", server=True, names=["localhost"], addresses=["127.0.0.1"]),
        Identity("kube-proxy", "system:kube-proxy"),
        Identity("front-proxy-client", "front-proxy-client", authority="front-proxy-ca"),
        Identity("dns", "system:serviceaccount:kube-system:kube-dns", ["system:serviceaccounts"]),
    ]
    kubelets = [
        Identity(
            f"kubelet-{name}", f"system:node:{name}", ["system:nodes"], server=True, names=[name], addresses=[address]
        )
        for name, address in nodes
    ]
    return [api, *people, *kubelets]


def _write(path: Path, data: bytes, *, secret: bool) -> None:
    descriptor = os.open(path.with_suffix(".tmp"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    path.with_suffix(".tmp").replace(path)


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write(path, pem, secret=True)
    return key


def _new_rsa_key(path: Path) -> rsa.RSAPrivateKey:
    """In the older form, which is kubeadm's too and which everybody reads."""
    key = rsa.generate_private_key(65537, 2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    _write(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()), secret=True)
    return key


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} is not an elliptic-curve key")
    return key


def _authority(folder: Path, file: str, now: datetime) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate, key = folder / f"{file}.crt", folder / f"{file}.key"
    if certificate.exists():
        return x509.load_pem_x509_certificate(certificate.read_bytes()), _load_key(key)
    private = _new_key(key)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _AUTHORITIES[file])])
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, key_encipherment=False, content_commitment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .sign(private, hashes.SHA256())
    )
    _write(certificate, made.public_bytes(serialization.Encoding.PEM), secret=False)
    return made, private


def _alternatives(identity: Identity) -> x509.SubjectAlternativeName:
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in identity.addresses]
    return x509.SubjectAlternativeName([*(x509.DNSName(name) for name in identity.names), *addresses])


def _issue(
    folder: Path, identity: Identity, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, now: datetime
) -> None:
    key = (_new_rsa_key if identity.rsa else _new_key)(folder / f"{identity.file}.key")
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in identity.organizations]
    subject.append(x509.NameAttribute(NameOID.COMMON_NAME, identity.common_name))
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH] * identity.server + [ExtendedKeyUsageOID.CLIENT_AUTH] * identity.client
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(subject))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _YEARS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
    )
    if identity.names or identity.addresses:
        builder = builder.add_extension(_alternatives(identity), critical=False)
    made = builder.sign(ca_key, hashes.SHA256())
    _write(folder / f"{identity.file}.crt", made.public_bytes(serialization.Encoding.PEM), secret=False)


def _covers(path: Path, identity: Identity) -> bool:
    """Whether the certificate at `path` is there and names everything it has to."""
    if not path.exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    if not (identity.names or identity.addresses):
        return True
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return set(_alternatives(identity)) <= set(found)


def ensure(folder: Path, everybody: Sequence[Identity], now: float) -> None:
    """Make what is missing in `folder`. Raises OSError or ValueError when what is there cannot be used."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    at = datetime.fromtimestamp(now, UTC)
    authorities = {file: _authority(folder, file, at) for file in _AUTHORITIES}
    for identity in everybody:
        if not _covers(folder / f"{identity.file}.crt", identity):
            _issue(folder, identity, *authorities[identity.authority], at)
    if not (folder / "sa.key").exists():
        _new_key(folder / "sa.key")
