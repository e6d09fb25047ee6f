"""The admission chain: every plugin in order, first those that change, then those that refuse.

Owns the order, which is kube-apiserver's (pkg/kubeapiserver/options/plugins.go). Called by the write verbs through
`call.Admission`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api.resource import Object
from steersman.apiserver.admission import (
    certificates,
    claim_resize,
    default_class,
    limit_ranger,
    namespace_lifecycle,
    node_restriction,
    priority,
    resource_quota,
    runtime_class,
    service_account,
    storage_in_use,
    taint_nodes,
    tolerations,
    webhooks,
)
from steersman.apiserver.authz import escalation
from steersman.apiserver.authz.rbac import Rbac
from steersman.apiserver.call import Call

Step = Callable[[Call, Object | None, Object | None], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Plugin:
    """One rule. `mutate` may change the object, `validate` may refuse it (ApiError)."""

    name: str
    mutate: Step | None = None
    validate: Step | None = None


DEFAULT: tuple[Plugin, ...] = (
    Plugin("NamespaceLifecycle", validate=namespace_lifecycle.validate),
    Plugin("LimitRanger", mutate=limit_ranger.mutate, validate=limit_ranger.validate),
    Plugin("ServiceAccount", mutate=service_account.mutate, validate=service_account.validate),
    Plugin("NodeRestriction", validate=node_restriction.validate),
    Plugin("TaintNodesByCondition", mutate=taint_nodes.mutate),
    Plugin("Priority", mutate=priority.mutate, validate=priority.validate),
    Plugin("DefaultTolerationSeconds", mutate=tolerations.mutate),
    Plugin("DefaultStorageClass", mutate=default_class.claim),
    Plugin("StorageObjectInUseProtection", mutate=storage_in_use.mutate),
    Plugin("PersistentVolumeClaimResize", validate=claim_resize.validate),
    Plugin("RuntimeClass", mutate=runtime_class.mutate, validate=runtime_class.validate),
    Plugin("CertificateApproval", validate=certificates.approval),
    Plugin("CertificateSigning", validate=certificates.signing),
    Plugin("CertificateSubjectRestriction", validate=certificates.subject),
    Plugin("DefaultIngressClass", mutate=default_class.ingress),
    Plugin("RBACEscalation", validate=escalation.validate),  # no plugin in the original: its storage does it
    Plugin("MutatingAdmissionWebhook", mutate=webhooks.mutate),
    Plugin("ValidatingAdmissionWebhook", validate=webhooks.validate),
    Plugin("ResourceQuota", validate=resource_quota.validate),
)


class Chain:
    """Implements `call.Admission`."""

    def __init__(self, plugins: Sequence[Plugin] = DEFAULT) -> None:
        self._mutating = [plugin.mutate for plugin in plugins if plugin.mutate is not None]
        self._validating = [plugin.validate for plugin in plugins if plugin.validate is not None]

    def attach(self, server: Any) -> None:
        """Plugins find what they need in the call; those that judge rights, the authorizer among the extras."""
        if isinstance(server.authorizer, Rbac):
            server.services.extras["rbac"] = server.authorizer

    async def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """Change the object in place."""
        for step in self._mutating:
            waiting = step(call, obj, old)
            if waiting is not None:
                await waiting

    async def validate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """Refuse what must not be."""
        for step in self._validating:
            waiting = step(call, obj, old)
            if waiting is not None:
                await waiting
