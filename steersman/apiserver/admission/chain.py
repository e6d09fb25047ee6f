"""The admission chain: every plugin in order, first those that change, then those that refuse.

Owns the order, which is kube-apiserver's (pkg/kubeapiserver/options/plugins.go). Called by the write verbs through
`call.Admission`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api.resource import Object
from steersman.apiserver.admission import (
    anti_affinity,
    certificates,
    claim_resize,
    default_class,
    event_rate_limit,
    extended_resources,
    external_ips,
    image_policy,
    limit_ranger,
    mutating_policy,
    namespace_lifecycle,
    node_restriction,
    owner_references,
    pod_node_selector,
    pod_resize,
    pod_tolerations,
    pod_topology,
    priority,
    pull_images,
    resource_quota,
    runtime_class,
    service_account,
    storage_in_use,
    taint_nodes,
    tolerations,
    validating_policy,
    webhooks,
)
from steersman.apiserver.admission.podsecurity import plugin as pod_security
from steersman.apiserver.admission.rounds import Rounds
from steersman.apiserver.authz import escalation
from steersman.apiserver.authz.rbac import Rbac
from steersman.apiserver.authz.union import Union
from steersman.apiserver.call import Call
from steersman.apiserver.telemetry.plugins import METRICS, PluginMetrics

Step = Callable[[Call, Object | None, Object | None], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Plugin:
    """One rule. `mutate` may change the object, `validate` may refuse it (ApiError).

    Without both it is a name that flags know: what the original does by it is behind a feature gate that is off.
    """

    name: str
    mutate: Step | None = None
    validate: Step | None = None
    on: bool = True  # without --enable-admission-plugins


ALL: tuple[Plugin, ...] = (
    Plugin("NamespaceLifecycle", validate=namespace_lifecycle.validate),
    Plugin("LimitPodHardAntiAffinityTopology", validate=anti_affinity.validate, on=False),
    Plugin("LimitRanger", mutate=limit_ranger.mutate, validate=limit_ranger.validate),
    Plugin("ServiceAccount", mutate=service_account.mutate, validate=service_account.validate),
    Plugin("NodeRestriction", validate=node_restriction.validate),
    Plugin("TaintNodesByCondition", mutate=taint_nodes.mutate),
    Plugin("AlwaysPullImages", mutate=pull_images.mutate, on=False),
    Plugin("ImagePolicyWebhook", validate=image_policy.validate, on=False),
    Plugin("PodSecurity", validate=pod_security.validate),
    Plugin("PodNodeSelector", mutate=pod_node_selector.mutate, validate=pod_node_selector.validate, on=False),
    Plugin("Priority", mutate=priority.mutate, validate=priority.validate),
    Plugin("DefaultTolerationSeconds", mutate=tolerations.mutate),
    Plugin("PodTolerationRestriction", mutate=pod_tolerations.mutate, validate=pod_tolerations.validate, on=False),
    Plugin("EventRateLimit", validate=event_rate_limit.validate, on=False),
    Plugin("ExtendedResourceToleration", mutate=extended_resources.mutate, on=False),
    Plugin("DefaultStorageClass", mutate=default_class.claim),
    Plugin("StorageObjectInUseProtection", mutate=storage_in_use.mutate),
    Plugin("PodGroupProtection"),
    Plugin("OwnerReferencesPermissionEnforcement", validate=owner_references.validate, on=False),
    Plugin("PersistentVolumeClaimResize", validate=claim_resize.validate),
    Plugin("RuntimeClass", mutate=runtime_class.mutate, validate=runtime_class.validate),
    Plugin("CertificateApproval", validate=certificates.approval),
    Plugin("CertificateSigning", validate=certificates.signing),
    Plugin("CertificateSubjectRestriction", validate=certificates.subject),
    Plugin("DefaultIngressClass", mutate=default_class.ingress),
    Plugin("DenyServiceExternalIPs", validate=external_ips.validate, on=False),
    Plugin("PodTopologyLabels", mutate=pod_topology.mutate),
    Plugin("PodGroupWorkloadExists"),
    Plugin("NodeDeclaredFeatureValidator", validate=pod_resize.features),
    Plugin("JobValidation"),
    Plugin("PodResizeValidator", validate=pod_resize.capacity),
    Plugin("RBACEscalation", validate=escalation.validate),  # no plugin in the original: its storage does it
    Plugin("MutatingAdmissionPolicy", mutate=mutating_policy.mutate),
    Plugin("MutatingAdmissionWebhook", mutate=webhooks.mutate),
    Plugin("ValidatingAdmissionPolicy", validate=validating_policy.validate),
    Plugin("ValidatingAdmissionWebhook", validate=webhooks.validate),
    Plugin("ResourceQuota", validate=resource_quota.validate),
)

_APART = frozenset(
    [
        "NodeRestriction",
        "PodTopologyLabels",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionWebhook",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionWebhook",
    ]
)
"""Who is asked about subresources' own objects: the others know resources only."""

DEFAULT = tuple(plugin for plugin in ALL if plugin.on)


def chosen(enabled: Collection[str], disabled: Collection[str]) -> list[Plugin]:
    """The plugins that run, in order. Raises ValueError for a name that is not known, or in both."""
    known = {plugin.name for plugin in ALL}
    for flag, names in (("enable-admission-plugins", enabled), ("disable-admission-plugins", disabled)):
        if unknown := sorted(set(names) - known):
            raise ValueError(f'{flag} plugin "{unknown[0]}" is unknown')
    if both := sorted(set(enabled) & set(disabled)):
        raise ValueError(f"[{' '.join(both)}] in enable-admission-plugins and disable-admission-plugins overlapped")
    return [plugin for plugin in ALL if plugin.name not in disabled and (plugin.on or plugin.name in enabled)]


class Chain:
    """Implements `call.Admission`."""

    def __init__(self, plugins: Sequence[Plugin] = DEFAULT) -> None:
        self.names = [plugin.name for plugin in plugins]
        apart = [plugin for plugin in plugins if plugin.name in _APART]
        self._mutating_apart = _Steps("admit", apart, [plugin.mutate for plugin in apart])
        self._validating_apart = _Steps("validate", apart, [plugin.validate for plugin in apart])
        self._mutating = _Steps("admit", plugins, [plugin.mutate for plugin in plugins])
        self._validating = _Steps("validate", plugins, [plugin.validate for plugin in plugins])
        self.metrics: PluginMetrics | None = None

    def attach(self, server: Any) -> None:
        """Plugins find what they need in the call; those that judge rights, the authorizer among the extras."""
        self.metrics = server.services.extras.get(METRICS)
        authorizer = server.authorizer
        server.services.extras["authorize"] = server.authorize
        server.services.extras["decide"] = authorizer
        rbac = authorizer.rbac if isinstance(authorizer, Union) else authorizer
        if isinstance(rbac, Rbac):
            server.services.extras["rbac"] = rbac

    async def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """Change the object in place; once more when somebody from outside changed it, as it may need more now."""
        if call.settled:
            return
        call.rounds = Rounds()
        steps = self._mutating_apart if call.apart else self._mutating
        await self._run(steps, call, obj, old)
        if call.rounds.wanted:
            call.rounds.second = True
            await self._run(steps, call, obj, old)

    async def validate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """Refuse what must not be."""
        if not call.settled:
            await self._run(self._validating_apart if call.apart else self._validating, call, obj, old)

    async def _run(self, steps: _Steps, call: Call, obj: Object | None, old: Object | None) -> None:
        metrics, began, at = self.metrics, 0.0, 0
        try:
            for at, step in enumerate(steps.run):
                waiting = step(call, obj, old)
                if waiting is None:
                    continue
                if metrics is None:
                    await waiting
                    continue
                began = metrics.now()
                await waiting
                metrics.took(steps.names[at], steps.type, call.operation, began)
                began = 0.0
        except Exception:
            if metrics is not None:
                metrics.refused(steps.names, at, steps.type, call.operation, began)
            raise
        if metrics is not None:
            metrics.passed(steps.names, steps.type, call.operation)


class _Steps:
    """What plugins do of one type, in order, and their names."""

    def __init__(self, type: str, plugins: Sequence[Plugin], steps: Sequence[Step | None]) -> None:
        self.type = type
        self.run = [step for step in steps if step is not None]
        self.names = [plugin.name for plugin, step in zip(plugins, steps, strict=True) if step is not None]
