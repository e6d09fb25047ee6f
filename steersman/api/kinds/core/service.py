"""Service: defaults, rules, and what an update of its type releases.

Cluster addresses and node ports are allocated by the API server after these defaults and before `validate`. Source:
validateService and its neighbours, pkg/registry/core/service/strategy.go, printService.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.fields import text_at
from steersman.api.kind import Behavior, Column, Update, only_status
from steersman.api.kinds.core import serviceupdate
from steersman.api.kinds.core.serviceupdate import (
    externally_accessible,
    is_headless,
    needs_health_check,
)
from steersman.api.kinds.podspec.probes import port as port_or_name
from steersman.api.labels import validate_labels
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, UNKNOWN, dig, field, label_text, wide
from steersman.api.validation import duplicate, forbidden, invalid, not_supported, required

Complaints = list[FieldError]

_CLUSTERED = ("ClusterIP", "NodePort", "LoadBalancer")
_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_POLICIES = ("Cluster", "Local")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
_ONLY_BALANCER = "may only be used when `type` is 'LoadBalancer'"
_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_DAY = 86_400
_AFFINITY_SECONDS = 10_800


def default(service: Object) -> None:
    """ClusterIP, no affinity, TCP, targetPort = port, traffic to the whole cluster."""
    spec = service.setdefault("spec", {})
    spec["sessionAffinity"] = spec.get("sessionAffinity") or "None"
    sticky = spec["sessionAffinity"] == "ClientIP"
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif sticky and dig(spec, "sessionAffinityConfig", "clientIP", "timeoutSeconds") is None:
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": _AFFINITY_SECONDS}}
    kind = spec["type"] = spec.get("type") or "ClusterIP"
    for port in spec.get("ports") or ():
        port["protocol"] = port.get("protocol") or "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    if externally_accessible(spec) and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if kind in _CLUSTERED:
        spec.setdefault("internalTrafficPolicy", "Cluster")
    status = service.setdefault("status", {})
    balancer = status.setdefault("loadBalancer", {})
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for ingress in balancer.get("ingress") or ():
            if ingress.get("ip"):
                ingress.setdefault("ipMode", "VIP")


def prepare_create(service: Object) -> None:
    """No status yet; the one address that was asked for is the list of them."""
    spec = service["spec"]
    if spec.get("clusterIP") and not spec.get("clusterIPs"):
        spec["clusterIPs"] = [spec["clusterIP"]]
    service["status"] = {"loadBalancer": {}}
    service["metadata"].pop("generation", None)


def prepare_update(new: Object, old: Object) -> None:
    """Status and what was allocated stay; what the old type needed and the new does not is released."""
    new["status"] = old.get("status") or {"loadBalancer": {}}
    serviceupdate.keep_allocated(new, old)
    serviceupdate.drop_unneeded(new, old)


def validate(service: Object) -> Complaints:
    """The rules of a Service whose addresses and ports are allocated."""
    spec = service["spec"]
    kind, headless = spec.get("type") or "", is_headless(spec)
    out: Complaints = []
    if not spec.get("ports") and not headless and kind != "ExternalName":
        out.append(required("spec.ports"))
    if kind in ("LoadBalancer", "NodePort") and headless:
        out.append(invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    if kind == "ExternalName":
        out += _external_name(spec)
    out += _ports(spec, headless)
    if "selector" in spec:
        out += validate_labels(spec["selector"], "spec.selector")
    out += _affinity(spec)
    if kind != "ExternalName":
        out += cluster_ips(spec)
    for i, address in enumerate(spec.get("externalIPs") or ()):
        here = f"spec.externalIPs[{i}]"
        out += names.legacy_ip(here, address) or endpoint_ip(here, address)
    if not kind:
        out.append(required("spec.type"))
    elif kind not in _TYPES:
        out.append(not_supported("spec.type", kind, _TYPES))
    out += _port_numbers(spec, kind)
    out += _balancer(service, spec, kind)
    return out + _traffic(spec, kind)


def _external_name(spec: Mapping[str, Any]) -> Complaints:
    fields = [key for key in ("clusterIPs", "ipFamilies") if spec.get(key)]
    fields += ["ipFamilyPolicy"] if spec.get("ipFamilyPolicy") is not None else []
    out = [forbidden(f"spec.{key}", "may not be set for ExternalName services") for key in fields]
    name = (spec.get("externalName") or "").removesuffix(".")
    if not name:
        return [*out, required("spec.externalName")]
    return out + [invalid("spec.externalName", name, text) for text in names.dns_subdomain(name)]


def _ports(spec: Mapping[str, Any], headless: bool) -> Complaints:
    out: Complaints = []
    ports, seen = spec.get("ports") or (), set[str]()
    for i, port in enumerate(ports):
        here, name = f"spec.ports[{i}]", port.get("name") or ""
        if name:
            out += [invalid(f"{here}.name", name, text) for text in names.dns_label(name)]
            if name in seen:
                out.append(duplicate(f"{here}.name", name))
            seen.add(name)
        elif len(ports) > 1:
            out.append(required(f"{here}.name"))
        number = port.get("port") or 0
        out += [invalid(f"{here}.port", number, text) for text in names.port(number)]
        protocol = port.get("protocol") or ""
        if not protocol:
            out.append(required(f"{here}.protocol"))
        elif protocol not in ("SCTP", "TCP", "UDP"):
            out.append(not_supported(f"{here}.protocol", protocol, ("SCTP", "TCP", "UDP")))
        out += port_or_name(f"{here}.targetPort", port.get("targetPort"))
        if (application := port.get("appProtocol")) is not None:
            out += [invalid(f"{here}.appProtocol", application, text) for text in names.qualified(application)]
    return out


def _port_numbers(spec: Mapping[str, Any], kind: str) -> Complaints:
    out: Complaints = []
    ports = spec.get("ports") or ()
    if kind == "ClusterIP":
        text = "may not be used when `type` is 'ClusterIP'"
        out += [forbidden(f"spec.ports[{i}].nodePort", text) for i, port in enumerate(ports) if port.get("nodePort")]
    node_ports: set[Any] = set()
    own_ports: set[Any] = set()
    for i, port in enumerate(ports):
        if number := port.get("nodePort"):
            if (port.get("protocol"), number) in node_ports:
                out.append(duplicate(f"spec.ports[{i}].nodePort", number))
            node_ports.add((port.get("protocol"), number))
    for i, port in enumerate(ports):
        key = (port.get("protocol"), port.get("port"))
        if key in own_ports:
            shown = {
                "Name": "",
                "Protocol": key[0],
                "AppProtocol": None,
                "Port": key[1],
                "TargetPort": 0,
                "NodePort": 0,
            }
            out.append(FieldError("FieldValueDuplicate", f"spec.ports[{i}]", f"Duplicate value: {_json(shown)}", shown))
        own_ports.add(key)
    return out


def _json(value: Any) -> str:
    import json

    return json.dumps(value, separators=(",", ":"))


def _affinity(spec: Mapping[str, Any]) -> Complaints:
    affinity = spec.get("sessionAffinity") or ""
    if not affinity:
        return [required("spec.sessionAffinity")]
    config = spec.get("sessionAffinityConfig")
    if affinity == "None":
        text = "must not be set when session affinity is None"
        return [] if config is None else [forbidden("spec.sessionAffinityConfig", text)]
    if affinity != "ClientIP":
        return [not_supported("spec.sessionAffinity", affinity, ("ClientIP", "None"))]
    here, when = "spec.sessionAffinityConfig", "when session affinity type is ClientIP"
    for step in ("", ".clientIP", ".clientIP.timeoutSeconds"):
        if dig({"": config}, "", *step.split(".")[1:]) is None:
            return [required(f"{here}{step}", when)]
    seconds = dig(config, "clientIP", "timeoutSeconds")
    if 0 < seconds <= _DAY:
        return []
    return [invalid(f"{here}.clientIP.timeoutSeconds", seconds, f"must be greater than 0 and less than {_DAY}")]


def cluster_ips(spec: Mapping[str, Any]) -> Complaints:
    """Addresses and families that agree; checked before any is given, too."""
    first, addresses = spec.get("clusterIP") or "", spec.get("clusterIPs") or []
    families = spec.get("ipFamilies") or []
    out: Complaints = []
    if first and not addresses:
        out.append(required("spec.clusterIPs"))
    elif first and addresses[0] != first:
        out.append(invalid("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    elif addresses and not first:
        out.append(invalid("spec.clusterIPs", addresses, "must be empty when `clusterIP` is not specified"))
    for i, family in enumerate(families):
        if family not in ("IPv4", "IPv6"):
            out.append(not_supported(f"spec.ipFamilies[{i}]", family, ("IPv4", "IPv6")))
        if family in families[:i]:
            out.append(duplicate(f"spec.ipFamilies[{i}]", family))
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _FAMILY_POLICIES:
        out.append(not_supported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES))
    wrong: Complaints = []
    for i, address in enumerate(addresses):
        if i == 0 and address == "None":
            if len(addresses) > 1:
                wrong.append(invalid("spec.clusterIPs", addresses, "'None' must be the first and only value"))
            continue
        wrong += names.legacy_ip(f"spec.clusterIPs[{i}]", address)
    if len(addresses) > 2:
        out.append(invalid("spec.clusterIPs", addresses, "may only hold up to 2 values"))
    return out + wrong if wrong else out + _families(addresses, families)


def _families(addresses: list[str], families: list[str]) -> Complaints:
    out: Complaints = []
    if len(addresses) > 1 and len({":" in address for address in addresses}) == 1:
        out.append(invalid("spec.clusterIPs", addresses, "may specify no more than one IP for each IP family"))
    if addresses != ["None"]:
        for i, (address, family) in enumerate(zip(addresses, families, strict=False)):
            if family in ("IPv4", "IPv6") and (":" in address) != (family == "IPv6"):
                text = f"expected an {family} value as indicated by `ipFamilies[{i}]`"
                out.append(invalid(f"spec.clusterIPs[{i}]", address, text))
    return out


def endpoint_ip(path: str, value: str) -> Complaints:
    """An address that traffic may be sent to: not unspecified, loopback or link-local."""
    address = names.parse_ip(value)
    if address is None:
        return [invalid(path, value, "must be a valid IP address")]
    out: Complaints = []
    if address.is_unspecified:
        out.append(invalid(path, value, f"may not be unspecified ({value})"))
    if address.is_loopback:
        out.append(invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    if address.is_link_local:
        out.append(invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    if address.is_multicast and (
        int(address) >> 8 == 0xE00000 if address.version == 4 else value[:4].lower() == "ff02"
    ):
        text = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        out.append(invalid(path, value, text))
    return out


def _balancer(service: Object, spec: Mapping[str, Any], kind: str) -> Complaints:
    out: Complaints = []
    balanced = kind == "LoadBalancer"
    annotated = (service["metadata"].get("annotations") or {}).get(_RANGES)
    if ranges := spec.get("loadBalancerSourceRanges"):
        here = "spec.LoadBalancerSourceRanges"
        if not balanced:
            out.append(forbidden(here, _ONLY_BALANCER))
        for i, value in enumerate(ranges):
            out += names.cidr(f"{here}[{i}]", value.strip())
    elif annotated is not None:
        here = f"metadata.annotations[{_RANGES}]"
        if not balanced:
            out.append(forbidden(here, _ONLY_BALANCER))
        for value in annotated.strip().split(",") if annotated.strip() else ():
            out += names.cidr(here, value.strip())
    if spec.get("allocateLoadBalancerNodePorts") is not None and not balanced:
        out.append(forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_BALANCER))
    if balanced and spec.get("allocateLoadBalancerNodePorts") is None:
        out.append(required("allocateLoadBalancerNodePorts"))
    return out + serviceupdate.balancer_class(spec)


def _traffic(spec: Mapping[str, Any], kind: str) -> Complaints:
    out: Complaints = []
    external, internal = spec.get("externalTrafficPolicy") or "", spec.get("internalTrafficPolicy")
    here = "spec.externalTrafficPolicy"
    if not externally_accessible(spec):
        if external:
            out.append(invalid(here, external, "may only be set for externally-accessible services"))
    elif not external:
        out.append(required(here))
    elif external not in _POLICIES:
        out.append(not_supported(here, external, _POLICIES))
    check = spec.get("healthCheckNodePort") or 0
    if needs_health_check(spec):
        if not check:
            out.append(required("spec.healthCheckNodePort"))
        else:
            out += [invalid("spec.healthCheckNodePort", check, text) for text in names.port(check)]
    elif check:
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        out.append(invalid("spec.healthCheckNodePort", check, text))
    if internal is None and kind in _CLUSTERED:
        out.append(required("spec.internalTrafficPolicy"))
    if internal is not None and internal not in _POLICIES:
        out.append(not_supported("spec.internalTrafficPolicy", internal, _POLICIES))
    spread = spec.get("trafficDistribution")
    if spread is not None and spread not in _DISTRIBUTIONS:
        out.append(not_supported("spec.trafficDistribution", spread, _DISTRIBUTIONS))
    return out


def _external(service: Object, now: float) -> str:
    spec, given = service["spec"], service["spec"].get("externalIPs") or []
    match spec.get("type"):
        case "ClusterIP" | "NodePort":
            return ",".join(given) or NONE
        case "LoadBalancer":
            found = dig(service, "status", "loadBalancer", "ingress") or ()
            shown = sorted({each.get("ip") or each.get("hostname") or "" for each in found} - {""})
            return ",".join([*shown, *given]) or "<pending>"
        case "ExternalName":
            return spec.get("externalName") or ""
    return UNKNOWN


def _ports_text(service: Object, now: float) -> str:
    shown = []
    for port in service["spec"].get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        shown.append(f"{port.get('port', 0)}{node}/{port.get('protocol', '')}")
    return ",".join(shown) or NONE


def warnings(service: Object) -> list[str]:
    """Fields that are on their way out, or say nothing here."""
    spec = service["spec"]
    headless = spec.get("clusterIP") == "None" and spec.get("type") != "ExternalName"
    found = []
    if headless and spec.get("loadBalancerIP"):
        found.append("spec.loadBalancerIP is ignored for headless services")
    if headless and spec.get("externalIPs"):
        found.append("spec.externalIPs is ignored for headless services")
    if headless and spec.get("sessionAffinity", "None") != "None":
        found.append("spec.SessionAffinity is ignored for headless services")
    if spec.get("externalIPs") and spec.get("type") == "ExternalName":
        found.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    elif spec.get("externalIPs") and not headless:
        found.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if spec.get("externalName") and spec.get("type") != "ExternalName":
        found.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        found.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return found


SERVICE = Behavior(
    "",
    "Service",
    order="muv",
    default=default,
    validate=validate,
    validate_update=serviceupdate.validate_update,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    updates={"status": Update(only_status, serviceupdate.validate_status)},
    columns=(
        NAME,
        field("Type", "spec", "type"),
        field("Cluster-IP", "spec", "clusterIPs", 0, empty=NONE),
        Column("External-IP", _external),
        Column("Port(s)", _ports_text),
        AGE,
        wide("Selector", lambda service, now: label_text(service["spec"].get("selector"))),
    ),
    fields={"spec.clusterIP": text_at("spec", "clusterIP"), "spec.type": text_at("spec", "type")},
    name_rule=names.label_name,
    warnings=warnings,
)
