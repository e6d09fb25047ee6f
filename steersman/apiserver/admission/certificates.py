"""CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may have what signed.

Source: plugin/pkg/admission/certificates.
"""

from __future__ import annotations

import base64
import binascii

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.authz.rbac import SUPERUSERS, Rbac
from steersman.apiserver.call import Call
from steersman.apiserver.request import RequestInfo

GROUP = "certificates.k8s.io"
_CLIENT = "kubernetes.io/kube-apiserver-client"


def _is_request(call: Call, subresource: str) -> bool:
    return (call.kind.group, call.kind.plural, call.info.subresource) == (
        GROUP,
        "certificatesigningrequests",
        subresource,
    )


def approval(call: Call, obj: Object | None, old: Object | None) -> None:
    """Who approves must be allowed to for this signer. Raises ApiError."""
    if old is not None and _is_request(call, "approval"):
        _authorize(call, old, "approve")


def signing(call: Call, obj: Object | None, old: Object | None) -> None:
    """Who signs must be allowed to for this signer. Raises ApiError."""
    if obj is None or old is None or not _is_request(call, "status"):
        return
    before, after = old.get("status") or {}, obj.get("status") or {}
    if any((before.get(key) or None) != (after.get(key) or None) for key in ("certificate", "conditions")):
        _authorize(call, old, "sign")


def _authorize(call: Call, request: Object, verb: str) -> None:
    rbac = call.services.extras.get("rbac")
    if not isinstance(rbac, Rbac) or SUPERUSERS in call.user.groups:
        return
    signer = request["spec"].get("signerName", "")
    for name in (signer, f"{signer.partition('/')[0]}/*"):
        if rbac(call.user, RequestInfo("", verb, True, GROUP, "*", "signers", name=name)) is None:
            return
    text = f'user not permitted to {verb} requests with signerName "{signer}"'
    raise errors.forbidden(GROUP, call.kind.plural, request["metadata"]["name"], text)


def subject(call: Call, obj: Object | None, old: Object | None) -> None:
    """No client certificate is asked for in the name of system:masters. Raises ApiError."""
    if obj is None or call.operation != "CREATE" or not _is_request(call, ""):
        return
    spec = obj.get("spec") or {}
    if spec.get("signerName") != _CLIENT:
        return
    from cryptography import x509  # slow to import, and seldom asked for
    from cryptography.x509.oid import NameOID

    text = f"use of {_CLIENT} signer with system:masters group is not allowed"
    try:
        asked = x509.load_pem_x509_csr(base64.b64decode(spec.get("request") or "")).subject
    except (ValueError, binascii.Error) as error:
        text = f"failed to parse CSR: {error}"
    else:
        names = [attribute.value for attribute in asked.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
        if SUPERUSERS not in names:
            return
    raise errors.forbidden(GROUP, call.kind.plural, obj["metadata"].get("name", ""), text)
