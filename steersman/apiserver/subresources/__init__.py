"""Subresources and virtual resources that are not simply the object itself: one file each, listed here.

A subresource that is not listed (status, finalize, approval, ephemeralcontainers, resize) is the object itself, read
and written under the rules of `Kind.updates`.
"""

from __future__ import annotations

from typing import Any

from steersman.apiserver.subresources import (
    access,
    binding,
    components,
    eviction,
    proxy,
    reviews,
    scale,
    streams,
    token,
)

SUBRESOURCES: dict[tuple[str, str, str], Any] = {
    ("", "pods", "binding"): binding.binding,
    ("", "pods", "eviction"): eviction.eviction,
    ("", "pods", "log"): streams.log,
    ("", "pods", "exec"): streams.exec_,
    ("", "pods", "attach"): streams.attach,
    ("", "pods", "portforward"): streams.port_forward,
    ("", "pods", "proxy"): proxy.pod_proxy,
    ("", "services", "proxy"): proxy.service_proxy,
    ("", "nodes", "proxy"): proxy.node_proxy,
    ("", "serviceaccounts", "token"): token.token,
    ("*", "*", "scale"): scale.scale,
}

VIRTUAL: dict[tuple[str, str], Any] = {
    ("", "bindings"): binding.binding_in_body,
    ("", "componentstatuses"): components.component_statuses,
    ("authentication.k8s.io", "tokenreviews"): reviews.token_review,
    ("authentication.k8s.io", "selfsubjectreviews"): reviews.self_subject_review,
    ("authorization.k8s.io", "subjectaccessreviews"): access.subject_access_review,
    ("authorization.k8s.io", "selfsubjectaccessreviews"): access.self_subject_access_review,
    ("authorization.k8s.io", "localsubjectaccessreviews"): access.local_subject_access_review,
    ("authorization.k8s.io", "selfsubjectrulesreviews"): access.self_subject_rules_review,
}
