"""CertificateSigningRequest and ClusterTrustBundle.

The API server fills in who asks (spec.username and its neighbours) before `validate`. Source:
pkg/apis/certificates/validation, pkg/registry/certificates, printCertificateSigningRequest.
"""

from __future__ import annotations

import base64

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.fields import text_at
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, dig, field, human
from steersman.api.validation import duplicate, forbidden, invalid, not_supported, required

Complaints = list[FieldError]

GROUP = "certificates.k8s.io"
USAGES = frozenset(
    (
        "signing",
        "digital signature",
        "content commitment",
        "key encipherment",
        "key agreement",
        "data encipherment",
        "cert sign",
        "crl sign",
        "encipher only",
        "decipher only",
        "any",
        "server auth",
        "client auth",
        "code signing",
        "email protection",
        "s/mime",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "timestamping",
        "ocsp signing",
        "microsoft sgc",
        "netscape sgc",
    )
)
_DECIDED = ("Approved", "Denied")
_MIN_SECONDS = 600


def prepare_create(request: Object) -> None:
    """Undecided."""
    request["status"] = {}
    request["metadata"].pop("generation", None)


def _keep_conditions(new: Object, old: Object) -> None:
    """Approval and denial are not the signer's business."""
    strategy.keep("spec")(new, old)
    status, before = new.setdefault("status", {}), (old.get("status") or {}).get("conditions") or []
    mine = [each for each in status.get("conditions") or () if each.get("type") not in _DECIDED]
    decided = [each for each in before if each.get("type") in _DECIDED]
    if decided or mine:
        status["conditions"] = decided + mine


def _only_conditions(new: Object, old: Object) -> None:
    conditions = dig(new, "status", "conditions")
    strategy.keep("spec")(new, old)
    new["status"] = {**(old.get("status") or {})}
    if conditions is not None:
        new["status"]["conditions"] = conditions


def validate(request: Object) -> Complaints:
    """The request is one, for a signer, with usages that exist."""
    spec = request.get("spec") or {}
    usages, signer = spec.get("usages") or (), spec.get("signerName") or ""
    out: Complaints = []
    if not _is_request(spec.get("request") or ""):
        text = "PEM block type must be CERTIFICATE REQUEST"
        out.append(invalid("spec.request", spec.get("request"), text))
    if not usages:
        out.append(required("spec.usages"))
    for i, usage in enumerate(usages):
        if usage not in USAGES:
            out.append(not_supported(f"spec.usages[{i}]", usage, sorted(USAGES)))
        if usage in usages[:i]:
            out.append(duplicate(f"spec.usages[{i}]", usage))
    out += signer_name("spec.signerName", signer)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _MIN_SECONDS:
        text = "may not specify a duration less than 600 seconds (10 minutes)"
        out.append(invalid("spec.expirationSeconds", seconds, text))
    return out


def _is_request(text: str) -> bool:
    try:
        return b"-----BEGIN CERTIFICATE REQUEST-----" in base64.b64decode(text, validate=True)
    except ValueError:
        return False


def signer_name(path: str, name: str) -> Complaints:
    """`domain/path`, of which the path is DNS subdomains."""
    if not name:
        return [required(path)]
    parts = name.split("/")
    if len(parts) != 2:
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [invalid(path, name, text)]
    out = [invalid(path, parts[0], text) for text in names.dns_subdomain(parts[0])]
    if parts[0] and parts[0].count(".") < 1:
        out.append(invalid(path, parts[0], "should be a domain with at least two segments separated by dots"))
    return out + [invalid(path, parts[1], text) for text in names.dns_subdomain(parts[1])]


def validate_status(new: Object, old: Object) -> Complaints:
    """A decision is final, a certificate does not change."""
    status, before = new.get("status") or {}, old.get("status") or {}
    out = _conditions(status.get("conditions") or ())
    if before.get("certificate") and status.get("certificate") != before["certificate"]:
        out.append(forbidden("status.certificate", "updates may not modify or remove the certificate"))
    return out + _kept(status, before)


def _conditions(found: object) -> Complaints:
    out: Complaints = []
    kinds = [each.get("type") or "" for each in found] if isinstance(found, (list, tuple)) else []
    if "Approved" in kinds and "Denied" in kinds:
        i = max(kinds.index(kind) for kind in _DECIDED)
        text = "Approved and Denied conditions are mutually exclusive"
        out.append(invalid(f"status.conditions[{i}].type", kinds[i], text))
    for i, kind in enumerate(kinds):
        if not kind:
            out.append(required(f"status.conditions[{i}].type"))
        elif kind in kinds[:i]:
            out.append(duplicate(f"status.conditions[{i}].type", kind))
    return out


def _kept(status: Object, before: Object) -> Complaints:
    now = {each.get("type") for each in status.get("conditions") or ()}
    lost = [each.get("type") for each in before.get("conditions") or () if each.get("type") in (*_DECIDED, "Failed")]
    text = "updates may not remove a condition of type "
    return [forbidden("status.conditions", f'{text}"{kind}"') for kind in lost if kind not in now]


def _state(request: Object, now: float) -> str:
    kinds = {each.get("type") for each in dig(request, "status", "conditions") or ()}
    shown = "Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"
    if "Failed" in kinds:
        shown += ",Failed"
    return f"{shown},Issued" if dig(request, "status", "certificate") else shown


def _lifetime(request: Object, now: float) -> str:
    seconds = dig(request, "spec", "expirationSeconds")
    return NONE if seconds is None else human(seconds)


CERTIFICATESIGNINGREQUEST = Behavior(
    GROUP,
    "CertificateSigningRequest",
    validate=validate,
    prepare_create=prepare_create,
    prepare_update=strategy.keep("spec", "status"),
    updates={
        "status": Update(_keep_conditions, validate_status),
        "approval": Update(_only_conditions, validate_status),
    },
    columns=(
        NAME,
        AGE,
        field("SignerName", "spec", "signerName", empty=NONE),
        field("Requestor", "spec", "username"),
        Column("RequestedDuration", _lifetime),
        Column("Condition", _state),
    ),
    fields={"spec.signerName": text_at("spec", "signerName")},
    name_rule=names.path_segment,
)
CLUSTERTRUSTBUNDLE = Behavior(
    GROUP,
    "ClusterTrustBundle",
    columns=(NAME, field("SignerName", "spec", "signerName")),
    fields={"spec.signerName": text_at("spec", "signerName")},
)
