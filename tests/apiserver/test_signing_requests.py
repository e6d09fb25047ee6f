"""Requests for certificates: what may be asked, decided and signed, through the whole server."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from steersman.api.resource import Object
from steersman.cluster import certs
from steersman.lib.clock import SystemClock
from tests.apiserver.guarded import Guarded, status

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
KEY = ec.generate_private_key(ec.SECP256R1())
APPROVED = {"type": "Approved", "status": "True", "reason": "r"}


def _request() -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "jane")])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(KEY, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


REQUEST = _request()


def asking(signer: str = "kubernetes.io/kube-apiserver-client", **more: Any) -> Object:
    spec = {"request": REQUEST, "signerName": signer, "usages": ["client auth"]}
    return {"metadata": {"name": "a"}, "spec": spec, **more}


async def put(guarded: Guarded, what: str, **told: Any) -> tuple[int, str]:
    return await status(guarded.client("admin"), "PUT", f"{PATH}/a/{what}", asking(status=told))


async def current(guarded: Guarded) -> Object:
    response, body = await guarded.client("admin").raw("GET", f"{PATH}/a")
    assert response.status == 200
    found: Object = msgspec.json.decode(body)
    return found


async def test_the_signer_of_old_has_no_requests_any_more(guarded: Guarded) -> None:
    code, said = await status(guarded.client("admin"), "POST", PATH, asking("kubernetes.io/legacy-unknown"))
    assert (code, said.endswith("the legacy signerName is not allowed via this API version")) == (422, True)


async def test_decisions_are_dated_and_final(guarded: Guarded) -> None:
    assert (await status(guarded.client("admin"), "POST", PATH, asking()))[0] == 201
    for wrong, why in (
        (
            [{**APPROVED, "status": "False"}],
            'conditions[0].status: Unsupported value: "False": supported values: "True"',
        ),
        ([{"type": "Approved"}], "status.conditions[0].status: Required value"),
        ([{"status": "True"}], "status.conditions[0].type: Required value"),
        ([APPROVED, {**APPROVED, "type": "Denied"}], "Approved and Denied conditions are mutually exclusive"),
        ([APPROVED, APPROVED], 'status.conditions[1].type: Duplicate value: "Approved"'),
    ):
        code, said = await put(guarded, "approval", conditions=wrong)
        assert (code, why in said) == (422, True), said
    assert (await put(guarded, "approval", conditions=[APPROVED]))[0] == 200
    (condition,) = (await current(guarded))["status"]["conditions"]
    assert condition["lastUpdateTime"] == condition["lastTransitionTime"] != ""
    for gone in ([], [{**APPROVED, "type": "Denied"}]):
        code, said = await put(guarded, "approval", conditions=gone)
        assert (code, 'updates may not remove a condition of type "Approved"' in said) == (422, True)


async def test_a_signer_decides_nothing_and_signs_once(guarded: Guarded, tmp_path: Path) -> None:
    certs.ensure(tmp_path / "pki", [], SystemClock().now())
    pems = [(tmp_path / "pki" / f"{name}.crt").read_bytes() for name in ("ca", "front-proxy-ca")]
    first, second = (base64.b64encode(pem).decode() for pem in pems)
    key = base64.b64encode((tmp_path / "pki" / "ca.key").read_bytes()).decode()
    assert (await status(guarded.client("admin"), "POST", PATH, asking()))[0] == 201
    code, said = await put(guarded, "status", conditions=[APPROVED])
    assert (code, 'updates may not add a condition of type "Approved"' in said) == (422, True)
    assert (await put(guarded, "approval", conditions=[APPROVED]))[0] == 200
    for wrong, why in (
        (base64.b64encode(b"nonsense").decode(), "must contain at least one CERTIFICATE PEM block"),
        (key, "only CERTIFICATE PEM blocks are allowed, found "),
    ):
        code, said = await put(guarded, "status", conditions=[APPROVED], certificate=wrong)
        assert (code, f'status.certificate: Invalid value: "<certificate data>": {why}' in said) == (422, True), said
    assert (await put(guarded, "status", conditions=[{**APPROVED, "reason": "x"}], certificate=first))[0] == 200
    found = (await current(guarded))["status"]
    assert (found["certificate"], found["conditions"][0]["reason"]) == (first, "r")
    code, said = await put(guarded, "status", conditions=[APPROVED], certificate=second)
    assert (code, "updates may not modify existing certificate content" in said) == (422, True)


@pytest.mark.parametrize("body", [{"conditions": "x"}, {"conditions": [5]}, {"certificate": 5}])
async def test_odd_statuses_are_refused(guarded: Guarded, body: Object) -> None:
    assert (await status(guarded.client("admin"), "POST", PATH, asking()))[0] == 201
    for what in ("approval", "status"):
        assert (await put(guarded, what, **body))[0] == 400
