"""CertificateSigningRequest and ClusterTrustBundle.

The API server fills in who asks (spec.username and its neighbours) before `validate`. Source:
pkg/apis/certificates/validation, pkg/registry/certificates, printCertificateSigningRequest.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.fields import text_at
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, dig, field, human
from steersman.api.validation import duplicate, forbidden, invalid, not_supported, quote, required, too_long

Complaints = list[FieldError]

GROUP = "certificates.k8s.io"
_LONGEST_DOMAIN = 253
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
_FINAL = (*_DECIDED, "Failed")  # these are true or not there
_LEGACY = "kubernetes.io/legacy-unknown"
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)-----[\r\n]+(.*?)-----END \1-----", re.DOTALL)
_MIN_SECONDS = 600


def prepare_create(request: Object) -> None:
    """Undecided."""
    request["status"] = {}
    request["metadata"].pop("generation", None)


def _keep_decisions(new: Object, old: Object) -> None:
    """Approval and denial are not the signer's business: they stay as they were, unless their number changes."""
    strategy.keep("spec")(new, old)
    conditions = new.setdefault("status", {}).get("conditions") or []
    for kind in _DECIDED:
        before, places = _of(old, kind), [at for at, each in enumerate(conditions) if each.get("type") == kind]
        if len(before) == len(places):
            for at, kept in zip(places, before, strict=True):
                conditions[at] = kept


def _only_conditions(new: Object, old: Object) -> None:
    conditions = dig(new, "status", "conditions")
    strategy.keep("spec")(new, old)
    new["status"] = {key: value for key, value in (old.get("status") or {}).items() if key != "conditions"}
    if conditions:
        new["status"]["conditions"] = conditions


def _of(request: Object, kind: str) -> list[Object]:
    return [each for each in dig(request, "status", "conditions") or () if each.get("type") == kind]


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
    if signer == _LEGACY:
        out.append(invalid("spec.signerName", signer, "the legacy signerName is not allowed via this API version"))
    else:
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
    out = [too_long(path, _LONGEST_DOMAIN)] if len(parts[0].encode()) > _LONGEST_DOMAIN else []
    out += _labels(path, parts[0], names.dns_label)
    if "." not in parts[0]:
        out.append(invalid(path, parts[0], "should be a domain with at least two segments separated by dots"))
    return out + _labels(path, parts[1], names.dns_subdomain)


def _labels(path: str, text: str, rule: Callable[[str], list[str]]) -> Complaints:
    """What is wrong with the first part between dots that is wrong."""
    for part in text.split("."):
        if found := rule(part):
            return [invalid(path, text, f"validating label {quote(part)}: {each}") for each in found]
    return []


def validate_approval(new: Object, old: Object) -> Complaints:
    """A decision is final."""
    return _conditions(new, old) + _removed(new, old)


def validate_status(new: Object, old: Object) -> Complaints:
    """A signer decides nothing, and signs once."""
    certificate, before = dig(new, "status", "certificate") or "", dig(old, "status", "certificate") or ""
    out = _conditions(new, old)
    if certificate != before and (why := _no_certificate(certificate)) and not _no_certificate(before):
        out.append(invalid("status.certificate", "<certificate data>", why))
    out += _removed(new, old)
    for kind in _DECIDED:
        if len(_of(new, kind)) > len(_of(old, kind)):
            out.append(forbidden("status.conditions", f'updates may not add a condition of type "{kind}"'))
    if before and certificate != before:
        out.append(forbidden("status.certificate", "updates may not modify existing certificate content"))
    return out


def _conditions(new: Object, old: Object) -> Complaints:
    """What is wrong with the conditions, unless it was wrong before."""
    path, out = "status.conditions", Complaints()
    before = [each.get("type") or "" for each in dig(old, "status", "conditions") or ()]
    seen: list[str] = []
    for i, each in enumerate(dig(new, "status", "conditions") or ()):
        kind, status = each.get("type") or "", each.get("status") or ""
        if not kind and "" not in before:
            out.append(required(f"{path}[{i}].type"))
        allowed = ["True"] if kind in _FINAL else ["False", "True", "Unknown"]
        if not status:
            out.append(required(f"{path}[{i}].status"))
        elif status not in allowed:
            out.append(not_supported(f"{path}[{i}].status", status, allowed))
        other = {"Approved": "Denied", "Denied": "Approved"}.get(kind)
        if other in seen and not set(_DECIDED) <= set(before):
            out.append(invalid(path, kind, "Approved and Denied conditions are mutually exclusive"))
        if kind in seen and len(set(before)) == len(before):
            out.append(duplicate(f"{path}[{i}].type", kind))
        seen.append(kind)
    return out


def _removed(new: Object, old: Object) -> Complaints:
    text = "updates may not remove a condition of type "
    lost = [kind for kind in _FINAL if len(_of(new, kind)) < len(_of(old, kind))]
    return [forbidden("status.conditions", f'{text}"{kind}"') for kind in lost]


def _no_certificate(encoded: str) -> str:
    """Why a signer's answer is no chain of certificates; nothing where there is none."""
    if not encoded:
        return ""
    from cryptography import x509  # slow to import, and signers answer rarely

    try:
        blocks = _BLOCK.findall(base64.b64decode(encoded, validate=True))
    except ValueError:
        blocks = []
    for kind, content in blocks:
        if kind != b"CERTIFICATE":
            return f"only CERTIFICATE PEM blocks are allowed, found {quote(kind.decode())}"
        if b":" in content:
            return "no PEM block headers are permitted"
        try:
            x509.load_der_x509_certificate(base64.b64decode(content))
        except ValueError:
            return "x509: malformed certificate"
    return "" if blocks else "must contain at least one CERTIFICATE PEM block"


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
    order="nvum",
    validate=validate,
    prepare_create=prepare_create,
    prepare_update=strategy.keep("spec", "status"),
    updates={
        "status": Update(_keep_decisions, validate_status),
        "approval": Update(_only_conditions, validate_approval),
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
