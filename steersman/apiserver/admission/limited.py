"""What may be used only where a quota covers it: ResourceQuota's limitedResources.

Owns the settings' form and the complaints. Called by `resource_quota.py`. Source: apiserver's
pkg/admission/plugin/resourcequota (CheckRequest).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api import errors, validation
from steersman.api.errors import ApiError
from steersman.api.resource import Object, Resource
from steersman.client import quota

NAME = "ResourceQuota"


@dataclass(frozen=True)
class Limited:
    """One rule: names of amounts of one resource, and scopes, that need a quota."""

    group: str
    plural: str
    contains: Sequence[str]
    scopes: Sequence[Object]


def configuration(given: Any) -> Sequence[Limited]:
    """Read a ResourceQuotaConfiguration. Raises ValueError."""
    if given is None:
        return ()
    if given.get("kind") not in ("ResourceQuotaConfiguration", "Configuration"):
        raise ValueError("not a ResourceQuotaConfiguration")
    stated = given.get("limitedResources") or []
    for at, each in enumerate(stated):
        if not each.get("resource"):
            raise ValueError(str(validation.required(f"limitedResources[{at}].resource")))
    return [
        Limited(each.get("apiGroup") or "", each["resource"], each.get("matchContains") or (),
                each.get("matchScopes") or ())
        for each in stated
    ]  # fmt: skip


def check(
    rules: Sequence[Limited], quotas: Iterable[Object], resource: Resource, obj: Object, used: Iterable[str]
) -> None:
    """Refuse what no quota covers; `used` are the names of the amounts of `obj`. Raises ApiError."""
    mine = [part for rule in rules if (rule.group, rule.plural) == (resource.group, resource.plural)
            for part in rule.contains]  # fmt: skip
    needed = {name for name in used if any(part in name for part in mine)}
    scopes = [term for rule in rules for term in rule.scopes if quota.in_scope(term, resource, obj)]
    if not needed and not scopes:
        return
    covered: set[str] = set()
    known: set[str] = set()
    for each in quotas:
        known |= {term["scopeName"] for term in quota.terms(each) if quota.in_scope(term, resource, obj)}
        if quota.concerns(each, resource, obj):
            covered |= set((each.get("status") or {}).get("hard") or each["spec"].get("hard") or {})
    if missing := sorted(needed - covered):
        why = f"insufficient quota to consume: {','.join(missing)}"
        raise errors.forbidden(resource.group, resource.plural, obj["metadata"].get("name", ""), why)
    if open_ := [_shown(term) for term in scopes if term["scopeName"] not in known]:
        raise ApiError(500, "", f"insufficient quota to match these scopes: [{' '.join(open_)}]")


def _shown(term: Object) -> str:
    return f"{{{term.get('scopeName', '')} {term.get('operator', '')} [{' '.join(term.get('values') or ())}]}}"
