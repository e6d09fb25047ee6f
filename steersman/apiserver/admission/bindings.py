"""Admission policies and their bindings: which concern a request, in which version, with which parameters.

Owns what both kinds of policy share. Called by `validating_policy` and `mutating_policy`. Source: apiserver's
pkg/admission/plugin/policy/generic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from steersman.api import labels
from steersman.api.resource import Object
from steersman.apiserver.admission import matching
from steersman.apiserver.call import Call


class Misconfigured(Exception):
    """A binding that cannot be used as it is: its failure policy decides."""


@dataclass(frozen=True, slots=True)
class Bound:
    """One binding and its policy."""

    policy: Object
    binding: Object

    @property
    def names(self) -> tuple[str, str]:
        """The policy's and the binding's."""
        return self.policy["metadata"]["name"], self.binding["metadata"]["name"]

    @property
    def strict(self) -> bool:
        """Whether what cannot be evaluated refuses the request."""
        return (self.policy["spec"].get("failurePolicy") or "Fail") == "Fail"


def bound(call: Call, plural: str) -> Iterator[Bound]:
    """The bindings of a plural (`validatingadmissionpolicies`) whose policies are there, by the policies' names."""
    policies_kind = call.services.registry.find(matching.GROUP, plural)
    bindings_kind = call.services.registry.find(matching.GROUP, plural.removesuffix("ies") + "ybindings")
    if policies_kind is None or bindings_kind is None or call.kind.group == matching.GROUP:
        return
    found: list[Bound] = []
    for item in call.storage.objects(bindings_kind):
        binding = item.obj()
        policy = call.storage.find(policies_kind, "", (binding.get("spec") or {}).get("policyName") or "")
        if policy is not None:
            found.append(Bound(policy.obj(), binding))
    yield from sorted(found, key=lambda each: each.names)


def version_for(call: Call, found: Bound, obj: Object | None, old: Object | None) -> str:
    """The version in which the policy's constraints know the request, when the binding's resources take it in too."""
    version = _matched(call, found.policy["spec"].get("matchConstraints") or {}, obj, old)
    resources = found.binding["spec"].get("matchResources")
    return version if version and (resources is None or _matched(call, resources, obj, old)) else ""


def _matched(call: Call, wanted: Object, obj: Object | None, old: Object | None) -> str:
    policy, rules = wanted.get("matchPolicy") or "Exact", wanted.get("resourceRules")
    if matching.version_for(call, wanted.get("excludeResourceRules") or (), policy, obj):
        return ""
    version = matching.version_for(call, rules, policy, obj) if rules else call.version
    return version if version and matching.selected(call, wanted, obj, old) else ""


def params(call: Call, found: Bound) -> list[Object | None]:
    """The parameters that a binding runs with, each in turn. Raises Misconfigured."""
    wanted, ref = found.policy["spec"].get("paramKind"), found.binding["spec"].get("paramRef")
    if not wanted:
        return [None]
    group, _, version = wanted["apiVersion"].rpartition("/")
    kind = call.services.registry.by_kind(group, version, wanted["kind"])
    if kind is None:
        shown = f"{wanted['apiVersion']}, Kind={wanted['kind']}"
        raise Misconfigured(f"failed to find resource referenced by paramKind: '{shown}'")
    if not ref:
        return [None]
    if ref.get("namespace") and not kind.namespaced:
        raise Misconfigured("paramRef.namespace must not be provided for a cluster-scoped `paramKind`")
    namespace = (ref.get("namespace") or call.info.namespace) if kind.namespaced else ""
    if kind.namespaced and not namespace:
        raise Misconfigured("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources")
    if ref.get("name"):
        item = call.storage.find(kind, namespace, ref["name"])
        chosen = [item.obj()] if item is not None else []
    else:
        selector = labels.from_object(ref.get("selector") or {})
        items = [item.obj() for _, item in list(call.storage.cache(kind).items(call.storage.prefix(kind, namespace)))]
        chosen = [each for each in items if selector.matches((each.get("metadata") or {}).get("labels"))]
    if not chosen and (ref.get("parameterNotFoundAction") or "Deny") == "Deny":
        raise Misconfigured("no params found for policy binding with `Deny` parameterNotFoundAction")
    return list(chosen)
