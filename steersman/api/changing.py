"""What is said of a change to an object: which rules are asked, and in which order.

Owns the order in which complaints stand, and how often: the original looks at metadata once for all kinds, and again
for most. Called by the API server's updates and patches, and by tests. Pure. Source: apiserver's rest.BeforeUpdate, and
ValidateUpdate of the strategies in pkg/registry, which `order` of kinds and of their `updates` follows.
"""

from __future__ import annotations

from steersman.api import meta
from steersman.api.errors import FieldError
from steersman.api.kind import Kind, Update, accept_update
from steersman.api.resource import Object
from steersman.api.schema import written

_LENIENT = ("apiextensions.k8s.io", "apiregistration.k8s.io", "coordination.k8s.io", "node.k8s.io", "policy")


def core(kind: Kind) -> bool:
    """Whether a kind's finalizers without a domain must be known ones: not those of all groups."""
    return not kind.custom and kind.group not in _LENIENT


def rule_of(kind: Kind, subresource: str) -> Update:
    """What an update through `subresource` may change, and how it is checked."""
    found = kind.updates.get(subresource) or Update(kind.prepare_update)
    if found.validate is None and not subresource:
        return Update(found.prepare, kind.validate_update, kind.order)
    return found


def prepare(kind: Kind, new: Object, old: Object, subresource: str = "") -> None:
    """Put back what an update through `subresource` may not change; a status is written out as Go does."""
    rule_of(kind, subresource).prepare(new, old)
    if subresource == "status" and new.get("status") and not kind.custom:
        written.fill(new["status"], new["apiVersion"], kind.kind)


def complaints(kind: Kind, new: Object, old: Object, subresource: str = "") -> list[FieldError]:
    """All that is wrong with `new` in place of `old`, both prepared and of the version that is stored."""
    rule = rule_of(kind, subresource)
    wrong = meta.validate_common(new, old, namespaced=kind.namespaced)
    found = list(wrong)
    for step in rule.order:
        if step == "m":
            found += _again(kind, new, old, said=bool(wrong))
        elif step == "n":
            found += meta.validate(new, namespaced=kind.namespaced, rule=kind.name_rule, core=core(kind))
        elif step == "v":
            found += kind.validate(new)
        else:
            found += (rule.validate or accept_update)(new, old)
    return found


def _again(kind: Kind, new: Object, old: Object, *, said: bool) -> list[FieldError]:
    """Where nothing was said of the metadata, only what is asked of Kubernetes' own kinds is left to ask."""
    if said:
        return meta.validate_update(new, old, core=core(kind))
    return meta.core_finalizers(new["metadata"]) if core(kind) else []
