"""What of a Service may change, and what a change of type releases.

Owns `keep_allocated`, `drop_unneeded`, `validate_update`, `validate_status`, and the questions about a spec that they
share with `service.py`. Source: patchAllocatedValues, normalizeClusterIPs, dropTypeDependentFields,
ValidateServiceUpdate, ValidateLoadBalancerStatus.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.resource import Object
from steersman.api.table import dig
from steersman.api.validation import forbidden, invalid, not_supported, required

Complaints = list[FieldError]
Spec = Mapping[str, Any]

_ONCE = "may not change once set"


def is_headless(spec: Spec) -> bool:
    """Without a virtual address."""
    return spec.get("clusterIPs") == ["None"]


def externally_accessible(spec: Spec) -> bool:
    """Reached from outside the cluster."""
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def needs_health_check(spec: Spec) -> bool:
    """Whether a load balancer asks each node if it has an endpoint."""
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def needs_node_port(spec: Spec) -> bool:
    """Whether its ports have a port on every node."""
    return spec.get("type") in ("NodePort", "LoadBalancer")


def keep_allocated(new: Object, old: Object) -> None:
    """What was allocated for the author and the author leaves out: addresses, families, node ports."""
    fresh, before = new["spec"], old["spec"]
    if "ExternalName" not in (fresh.get("type"), before.get("type")):
        _keep_addresses(fresh, before)
    if needs_node_port(before) and needs_node_port(fresh):
        _keep_node_ports(fresh.get("ports") or (), before.get("ports") or ())
    if needs_health_check(before) and needs_health_check(fresh) and before.get("healthCheckNodePort"):
        fresh["healthCheckNodePort"] = fresh.get("healthCheckNodePort") or before["healthCheckNodePort"]


def _keep_addresses(fresh: Object, before: Object) -> None:
    kept, listed = before.get("clusterIP"), before.get("clusterIPs")
    if kept:
        fresh["clusterIP"] = fresh.get("clusterIP") or kept
    if listed and not fresh.get("clusterIPs"):
        fresh["clusterIPs"] = list(listed)
    if fresh.get("clusterIP") != kept and fresh.get("clusterIPs") == listed:
        fresh["clusterIPs"] = [fresh["clusterIP"]]
    for field in ("ipFamilyPolicy", "ipFamilies"):
        if not fresh.get(field) and before.get(field):
            fresh[field] = before[field]


def _keep_node_ports(fresh: Sequence[Object], before: Sequence[Object]) -> None:
    """By the name of the port, unless the number is another port's by now."""
    known = {port.get("name") or "": port["nodePort"] for port in before if port.get("nodePort")}
    taken = {port["nodePort"] for port in fresh if port.get("nodePort")}
    for port in fresh:
        number = known.get(port.get("name") or "")
        if not port.get("nodePort") and number and number not in taken:
            port["nodePort"] = number


def drop_unneeded(new: Object, old: Object) -> None:
    """Fields that the old type needed, the new one does not, and the author left as they were."""
    fresh, before = new["spec"], old["spec"]

    def drop(*fields: str) -> None:
        if all(fresh.get(key) == before.get(key) for key in fields):
            for key in fields:
                fresh.pop(key, None)

    if before.get("type") != "ExternalName" and fresh.get("type") == "ExternalName":
        drop("clusterIP", "clusterIPs")
        drop("ipFamilies")
        drop("ipFamilyPolicy")
    if needs_node_port(before) and not needs_node_port(fresh):
        _drop_node_ports(fresh, before)
    if needs_health_check(before) and not needs_health_check(fresh):
        drop("healthCheckNodePort")
    if before.get("type") == "LoadBalancer" and fresh.get("type") != "LoadBalancer":
        drop("allocateLoadBalancerNodePorts")
        drop("loadBalancerClass")
    if externally_accessible(before) and not externally_accessible(fresh):
        drop("externalTrafficPolicy")
    if fresh.get("type") != "LoadBalancer":
        new["status"] = {**(new.get("status") or {}), "loadBalancer": {}}


def _drop_node_ports(fresh: Object, before: Object) -> None:
    known = {port.get("nodePort") for port in before.get("ports") or ()}
    if all(port.get("nodePort") in known for port in fresh.get("ports") or () if port.get("nodePort")):
        for port in fresh.get("ports") or ():
            port.pop("nodePort", None)


def validate_update(new: Object, old: Object) -> Complaints:
    """Addresses, families and class are set once."""
    fresh, before = new["spec"], old["spec"]
    out: Complaints = []
    if "ExternalName" not in (fresh.get("type"), before.get("type")):
        if not (is_headless(fresh) and is_headless(before)):
            out += _addresses(fresh, before)
        if not is_headless(fresh) and not is_headless(before):
            out += _families(fresh, before)
    if fresh.get("type") == before.get("type") == "LoadBalancer":
        chosen = fresh.get("loadBalancerClass")
        if chosen != before.get("loadBalancerClass"):
            out.append(invalid("spec.loadBalancerClass", chosen, _ONCE))
    out += balancer_class(fresh)
    changed = fresh.get("healthCheckNodePort") != before.get("healthCheckNodePort")
    if changed and needs_health_check(fresh) and needs_health_check(before):
        out.append(forbidden("spec.healthCheckNodePort", "field is immutable"))
    return out


def balancer_class(spec: Spec) -> Complaints:
    """spec.loadBalancerClass, which updates are told of twice."""
    chosen = spec.get("loadBalancerClass")
    if chosen is None:
        return []
    if spec.get("type") != "LoadBalancer":
        return [forbidden("spec.loadBalancerClass", "may only be used when `type` is 'LoadBalancer'")]
    return [invalid("spec.loadBalancerClass", chosen, text) for text in names.qualified(chosen)]


def _addresses(fresh: Spec, before: Spec) -> Complaints:
    now, former = fresh.get("clusterIPs") or [], before.get("clusterIPs") or []
    if len(now) == len(former):
        pairs = enumerate(zip(now, former, strict=True))
        return [invalid(f"spec.clusterIPs[{i}]", now, _ONCE) for i, (new, old) in pairs if new != old]
    out: Complaints = []
    if not now:
        out.append(invalid("spec.clusterIPs[0]", now, "primary clusterIP can not be unset"))
    elif former and now[0] != former[0]:
        out.append(invalid("spec.clusterIPs[0]", now, _ONCE))
    if len(now) == 1 and len(former) > 1 and fresh.get("ipFamilyPolicy") != "SingleStack":
        text = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        out.append(invalid("spec.ipFamilyPolicy", fresh.get("ipFamilyPolicy"), text))
    return out


def _families(fresh: Spec, before: Spec) -> Complaints:
    now, former = fresh.get("ipFamilies") or [], before.get("ipFamilies") or []
    if len(now) == len(former):
        pairs = zip(now, former, strict=True)
        return [invalid("spec.ipFamilies[0]", now, _ONCE) for new, old in pairs if new != old]
    out: Complaints = []
    if len(former) > len(now) and not fresh.get("clusterIPs"):
        out.append(invalid("spec.ipFamilies[0]", now, "primary ipFamily can not be unset"))
    if now and former and now[0] != former[0]:
        out.append(invalid("spec.ipFamilies[0]", fresh.get("clusterIPs"), _ONCE))
    if len(now) == 1 and len(former) > 1 and fresh.get("ipFamilyPolicy") != "SingleStack":
        text = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        out.append(invalid("spec.ipFamilyPolicy", fresh.get("ipFamilyPolicy"), text))
    return out


def validate_status(new: Object, old: Object) -> Complaints:
    """The load balancer's addresses."""
    found = dig(new, "status", "loadBalancer", "ingress") or []
    here = "status.loadBalancer.ingress"
    if found and new["spec"].get("type") != "LoadBalancer":
        return [forbidden(here, "may only be used when `spec.type` is 'LoadBalancer'")]
    return [error for i, ingress in enumerate(found) for error in _ingress(f"{here}[{i}]", ingress)]


def _ingress(path: str, ingress: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    address, mode, host = ingress.get("ip"), ingress.get("ipMode"), ingress.get("hostname")
    if address:
        out += names.legacy_ip(f"{path}.ip", address)
        if mode is None:
            out.append(required(f"{path}.ipMode", "must be specified when `ip` is set"))
        elif mode not in ("Proxy", "VIP"):
            out.append(not_supported(f"{path}.ipMode", mode, ("Proxy", "VIP")))
    elif mode is not None:
        out.append(forbidden(f"{path}.ipMode", "may not be specified when `ip` is not set"))
    if host:
        out += [invalid(f"{path}.hostname", host, text) for text in names.dns_subdomain(host)]
        if names.parse_ip(host) is not None:
            out.append(invalid(f"{path}.hostname", host, "must be a DNS name, not an IP address"))
    return out
