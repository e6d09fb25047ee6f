"""Reading certificate requests: what is asked, and which of the known signers may be asked for it.

Pure. Source: kubernetes' pkg/apis/certificates/helpers.go and pkg/controller/certificates; texts are the original's.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

from steersman.api.resource import Object, Resource

REQUESTS = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
CLIENT = "kubernetes.io/kube-apiserver-client"
LEGACY = "kubernetes.io/legacy-unknown"
SIGNERS = (KUBELET_CLIENT, KUBELET_SERVING, CLIENT, LEGACY)


def condition(request: Object, kind: str) -> Object | None:
    """The true condition of that type."""
    for each in (request.get("status") or {}).get("conditions") or ():
        if each["type"] == kind and each.get("status", "True") == "True":
            found: Object = each
            return found
    return None


def parse(request: Object) -> x509.CertificateSigningRequest:
    """The PKCS#10 request. Raises ValueError when it is none or its signature is wrong."""
    pem = base64.b64decode(request["spec"]["request"], validate=True)
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        raise ValueError("PEM block type must be CERTIFICATE REQUEST")
    parsed = x509.load_pem_x509_csr(pem)
    if not parsed.is_signature_valid:
        raise ValueError("the request's signature is invalid")
    return parsed


def common_name(parsed: x509.CertificateSigningRequest) -> str:
    """The subject's CN; "" without one."""
    found = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def refusal(parsed: x509.CertificateSigningRequest, usages: Sequence[str], signer: str) -> str:
    """Why a signer may not sign this; "" when it may."""
    if signer == CLIENT:
        return _client(usages)
    if signer in (KUBELET_CLIENT, KUBELET_SERVING):
        return _kubelet(parsed, usages, serving=signer == KUBELET_SERVING)
    return ""


def _client(usages: Sequence[str]) -> str:
    for usage in usages:
        if usage not in ("digital signature", "key encipherment", "client auth"):
            return f"invalid usage for client certificate: {usage}"
    return "" if "client auth" in usages else "missing required usage for client certificate: client auth"


def _kubelet(parsed: x509.CertificateSigningRequest, usages: Sequence[str], *, serving: bool) -> str:
    organizations = [each.value for each in parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if organizations != ["system:nodes"]:
        return "subject organization is not system:nodes"
    names = alternatives(parsed)
    dns = names is not None and bool(names.get_values_for_type(x509.DNSName))
    ips = names is not None and bool(names.get_values_for_type(x509.IPAddress))
    if serving and not dns and not ips:
        return "DNS or IP subjectAltName is required"
    if not serving and dns:
        return "DNS subjectAltNames are not allowed"
    if names is not None and names.get_values_for_type(x509.RFC822Name):
        return "Email subjectAltNames are not allowed"
    if not serving and ips:
        return "IP subjectAltNames are not allowed"
    if names is not None and names.get_values_for_type(x509.UniformResourceIdentifier):
        return "URI subjectAltNames are not allowed"
    wanted = ["digital signature", "key encipherment", "server auth" if serving else "client auth"]
    if not common_name(parsed).startswith("system:node:"):
        wrong_name = "subject common name does not begin with system:node:"
    else:
        wrong_name = ""
    usages_fit = set(usages) in (set(wanted), {wanted[0], wanted[2]})
    if serving or not wrong_name:
        return wrong_name if usages_fit else f"usages did not match [{' '.join(sorted(wanted))}]"
    return wrong_name


def alternatives(parsed: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    """The other names asked for."""
    try:
        return parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
