"""The IP family fields of a Service: inferred, completed, checked against what the cluster has.

Pure. Called by `ipalloc` before it gives addresses. Source: initIPFamilyFields in
pkg/registry/core/service/storage/alloc.go; KEP-563 (dual-stack).
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.api.errors import FieldError
from steersman.api.kinds.core import service
from steersman.api.names import parse_ip
from steersman.api.resource import Object

HEADLESS = "None"
_SINGLE, _PREFER, _REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
_OTHER = {"IPv4": "IPv6", "IPv6": "IPv4"}


def family_of(address: str) -> str:
    """IPv4 or IPv6; empty for what is no address."""
    parsed = parse_ip(address)
    return f"IPv{parsed.version}" if parsed is not None else ""


def settle(spec: Object, before: Object, configured: Sequence[str]) -> list[FieldError]:
    """Complete ipFamilyPolicy and ipFamilies in place; complaints when they cannot be. `before` is empty on create.

    `configured`: the cluster's families, the default one first.
    """
    if spec.get("type") == "ExternalName" or _unchanged_preference(spec, before):
        return []
    bare = spec.get("clusterIP") == HEADLESS and not spec.get("selector")
    if found := service.cluster_ips(spec):
        return found
    if spec.get("ipFamilyPolicy") is None:
        spec["ipFamilyPolicy"] = before.get("ipFamilyPolicy") or (_REQUIRE if bare else _SINGLE)
    found = _check_change(spec, before) + _check_counts(spec) + _infer(spec, configured)
    if found:
        return found
    if bare:
        families = spec.get("ipFamilies") or [configured[0]]
        if len(families) == 1 and spec["ipFamilyPolicy"] != _SINGLE:
            families = [*families, _OTHER.get(families[0], families[0])]
        spec["ipFamilies"] = families
        return []
    return _complete(spec, configured)


def _unchanged_preference(spec: Object, before: Object) -> bool:
    """PreferDualStack follows no change of the cluster by itself."""
    same = all(spec.get(key) == before.get(key) for key in ("type", "clusterIPs", "ipFamilies"))
    return same and spec.get("ipFamilyPolicy") == before.get("ipFamilyPolicy") == _PREFER


def _check_change(spec: Object, before: Object) -> list[FieldError]:
    """A policy of one family releases the second; without such a policy it must not go."""
    found = []
    texts = {
        "clusterIPs": "must be 'SingleStack' to release the secondary cluster IP",
        "ipFamilies": "must be 'SingleStack' to release the secondary IP family",
    }
    for field, text in texts.items():
        old, new = before.get(field) or [], spec.get(field) or []
        if spec["ipFamilyPolicy"] == _SINGLE:
            if old == new and len(new) > 1:
                spec[field] = new[:1]
        elif new and len(new) == 1 < len(old) and new[0] == old[0]:
            found.append(_policy(spec, text))
    return found


def _check_counts(spec: Object) -> list[FieldError]:
    if spec["ipFamilyPolicy"] != _SINGLE:
        return []
    texts = {
        "clusterIPs": "must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified",
        "ipFamilies": "must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified",
    }
    return [_policy(spec, text) for field, text in texts.items() if len(spec.get(field) or []) == 2]


def _infer(spec: Object, configured: Sequence[str]) -> list[FieldError]:
    """Families that the addresses tell."""
    found = []
    families = list(spec.get("ipFamilies") or [])
    for at, address in enumerate(spec.get("clusterIPs") or []):
        family = family_of(address)
        if address == HEADLESS or not family:
            break
        if at < len(families):
            continue
        if family in configured:
            families.append(family)
        else:
            shown = "[" + ",".join(f'"{each}"' for each in spec["clusterIPs"]) + "]"
            text = f"Invalid value: {shown}: {family} is not configured on this cluster"
            found.append(FieldError("FieldValueInvalid", f"spec.clusterIPs[{at}]", text, spec["clusterIPs"]))
    if families:
        spec["ipFamilies"] = families
    return found


def _complete(spec: Object, configured: Sequence[str]) -> list[FieldError]:
    found = []
    if spec["ipFamilyPolicy"] == _REQUIRE and len(configured) < 2:
        found.append(_policy(spec, "this cluster is not configured for dual-stack services"))
    for at, family in enumerate(spec.get("ipFamilies") or []):
        if family not in configured:
            text = f'Invalid value: "{family}": not configured on this cluster'
            found.append(FieldError("FieldValueInvalid", f"spec.ipFamilies[{at}]", text, family))
    if found:
        return found
    families = spec.get("ipFamilies") or [configured[0]]
    if spec["ipFamilyPolicy"] != _SINGLE and len(families) == 1 and len(configured) == 2:
        families = [*families, _OTHER[families[0]]]
    spec["ipFamilies"] = families
    return []


def _policy(spec: Object, text: str) -> FieldError:
    value = spec["ipFamilyPolicy"]
    return FieldError("FieldValueInvalid", "spec.ipFamilyPolicy", f'Invalid value: "{value}": {text}', value)
