"""Ingress, IngressClass, NetworkPolicy.

Source: pkg/apis/networking/v1/defaults.go, pkg/apis/networking/validation, printIngress and its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import labels, names
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, dig, field, selector_text
from steersman.api.validation import forbidden, immutable, invalid, not_supported, required, too_long

Complaints = list[FieldError]

GROUP = "networking.k8s.io"
CLASS = "kubernetes.io/ingress.class"
DEFAULT_CLASS = "ingressclass.kubernetes.io/is-default-class"

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_SUFFIXES = ("/..", "/.")
_PROTOCOLS = ("TCP", "UDP", "SCTP")
_DIRECTIONS = ("Ingress", "Egress")
_ABSOLUTE = "must be an absolute path"
_NOT_IP = "must be a DNS name, not an IP address"


# Ingress


def _default_ingress(ingress: Object) -> None:
    spec = ingress.setdefault("spec", {})
    backends = [spec.get("defaultBackend")]
    for rule in spec.get("rules") or ():
        backends += [path.setdefault("backend", {}) for path in (rule.get("http") or {}).get("paths") or ()]
    for backend in backends:
        if backend and "resource" in backend:
            backend["resource"].setdefault("apiGroup", None)
    ingress.setdefault("status", {}).setdefault("loadBalancer", {})


def _validate_ingress(ingress: Object) -> Complaints:
    spec = ingress.get("spec") or {}
    rules = spec.get("rules") or []
    out: Complaints = []
    if not rules and "defaultBackend" not in spec:
        text = "either `defaultBackend` or `rules` must be specified"
        out.append(invalid("spec", spec.get("rules"), text))
    if "defaultBackend" in spec:
        out += _backend("spec.defaultBackend", spec["defaultBackend"])
    for i, rule in enumerate(rules):
        out += _rule(f"spec.rules[{i}]", rule)
    for i, tls in enumerate(spec.get("tls") or ()):
        for j, host in enumerate(tls.get("hosts") or ()):
            out += [invalid(f"spec.tls[{i}].hosts[{j}]", host, text) for text in _host(host)]
        if secret := tls.get("secretName"):
            out += [invalid(f"spec.tls[{i}].secretName", secret, text) for text in names.dns_subdomain(secret)]
    chosen = spec.get("ingressClassName")
    if chosen is not None:
        out += [invalid("spec.ingressClassName", chosen, text) for text in names.dns_subdomain(chosen)]
    annotated = (ingress["metadata"].get("annotations") or {}).get(CLASS)
    fresh = not ingress["metadata"].get("resourceVersion")
    if fresh and annotated is not None and chosen is not None and annotated != chosen:
        text = "must match `ingressClassName` when both are specified"
        out.append(invalid(f"annotations.{CLASS}", annotated, text))
    return out


def _host(host: str) -> list[str]:
    return names.wildcard_subdomain(host) if "*" in host else names.dns_subdomain(host)


def _rule(path: str, rule: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    if host := rule.get("host"):
        if names.parse_ip(host) is not None:
            out.append(invalid(f"{path}.host", host, _NOT_IP))
        out += [invalid(f"{path}.host", host, text) for text in _host(host)]
    http = rule.get("http")
    if http is None:
        return out
    paths = http.get("paths") or ()
    if not paths:
        out.append(required(f"{path}.http.paths"))
    for i, each in enumerate(paths):
        out += _path(f"{path}.http.paths[{i}]", each)
    return out


def _path(path: str, found: Mapping[str, Any]) -> Complaints:
    kind, value = found.get("pathType"), found.get("path") or ""
    here = f"{path}.path"
    if kind is None:
        return [required(f"{path}.pathType", "pathType must be specified")]
    out: Complaints = []
    if kind not in _PATH_TYPES:
        out.append(not_supported(f"{path}.pathType", kind, _PATH_TYPES))
    elif kind == "ImplementationSpecific":
        if value and not value.startswith("/"):
            out.append(invalid(here, value, _ABSOLUTE))
    else:
        if not value.startswith("/"):
            out.append(invalid(here, value, _ABSOLUTE))
        out += [invalid(here, value, f"must not contain '{part}'") for part in _SEQUENCES if part in value]
        out += [invalid(here, value, f"cannot end with '{part}'") for part in _SUFFIXES if value.endswith(part)]
    return out + _backend(f"{path}.backend", found.get("backend") or {})


def _backend(path: str, backend: Mapping[str, Any]) -> Complaints:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        return [invalid(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _reference(f"{path}.resource", resource)
    if service is None:
        return [invalid(path, "", "resource or service backend is required")]
    name, port = service.get("name") or "", service.get("port") or {}
    out: Complaints = []
    if not name:
        out.append(required(f"{path}.service.name"))
    else:
        out += [invalid(f"{path}.service.name", name, text) for text in names.dns_label(name)]
    if port.get("name") and port.get("number"):
        out.append(invalid(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        here = f"{path}.service.port.name"
        out += [invalid(here, port["name"], text) for text in names.port_name(port["name"])]
    elif port.get("number"):
        here = f"{path}.service.port.number"
        out += [invalid(here, port["number"], text) for text in names.port(port["number"])]
    else:
        out.append(required(path, "port name or number is required"))
    return out


def _reference(path: str, found: Mapping[str, Any]) -> Complaints:
    """A typed reference: its group if it says one, its kind and name."""
    group = found.get("apiGroup")
    texts = names.dns_subdomain(group) if group is not None else ()
    out = [invalid(f"{path}.apiGroup", group, text) for text in texts]
    for key in ("kind", "name"):
        value = found.get(key) or ""
        if not value:
            out.append(required(f"{path}.{key}"))
        else:
            out += [invalid(f"{path}.{key}", value, text) for text in names.path_segment(value)]
    return out


def _ingress_status(new: Object, old: Object) -> Complaints:
    out: Complaints = []
    for i, each in enumerate(dig(new, "status", "loadBalancer", "ingress") or ()):
        here = f"status.loadBalancer.ingress[{i}]"
        if address := each.get("ip"):
            out += names.legacy_ip(f"{here}.ip", address)
        if host := each.get("hostname"):
            out += [invalid(f"{here}.hostname", host, text) for text in names.dns_subdomain(host)]
            if names.parse_ip(host) is not None:
                out.append(invalid(f"{here}.hostname", host, _NOT_IP))
    return out


def _hosts(ingress: Object, now: float) -> str:
    rules = dig(ingress, "spec", "rules") or ()
    shown: list[str] = []
    more = False
    for rule in rules:
        more = more or len(shown) == 3
        if not more and rule.get("host"):
            shown.append(rule["host"])
    if not shown:
        return "*"
    return f"{','.join(shown)} + {len(rules) - 3} more..." if more else ",".join(shown)


def _ingress_address(ingress: Object, now: float) -> str:
    found = dig(ingress, "status", "loadBalancer", "ingress") or ()
    return ",".join(sorted({each.get("ip") or each.get("hostname") or "" for each in found} - {""}))


INGRESS = Behavior(
    GROUP,
    "Ingress",
    order="mnv",
    default=_default_ingress,
    validate=_validate_ingress,
    prepare_create=strategy.begin({"loadBalancer": {}}, generations=True),
    updates={"status": Update(strategy.keep("spec"), _ingress_status)},
    columns=(
        NAME,
        field("Class", "spec", "ingressClassName", empty=NONE),
        Column("Hosts", _hosts),
        Column("Address", _ingress_address),
        Column("Ports", lambda ingress, now: "80, 443" if dig(ingress, "spec", "tls") else "80"),
        AGE,
    ),
)


# IngressClass


def _default_class(found: Object) -> None:
    parameters = (found.get("spec") or {}).get("parameters")
    if parameters is not None:
        parameters.setdefault("scope", "Cluster")


def _validate_class(found: Object) -> Complaints:
    spec = found.get("spec") or {}
    controller, parameters = spec.get("controller") or "", spec.get("parameters")
    out = [too_long("spec.controller", 250)] if len(controller) > 250 else []
    out += names.domain_path("spec.controller", controller)
    if parameters is None:
        return out
    here = "spec.parameters"
    out += _reference(here, parameters)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope not in ("Cluster", "Namespace"):
        out.append(not_supported(f"{here}.scope", scope or "", ("Cluster", "Namespace")))
    if scope == "Namespace" and namespace is None:
        out.append(required(f"{here}.namespace", "`parameters.scope` is set to 'Namespace'"))
    elif scope == "Namespace":
        out += [invalid(f"{here}.namespace", namespace, text) for text in names.dns_label(namespace)]
    if scope == "Cluster" and namespace is not None:
        out.append(forbidden(f"{here}.namespace", "`parameters.scope` is set to 'Cluster'"))
    return out


def _class_update(new: Object, old: Object) -> Complaints:
    pair = (dig(each, "spec", "controller") or "" for each in (new, old))
    return immutable("spec.controller", *pair)


def _class_name(found: Object, now: float) -> str:
    name = found["metadata"].get("name", "")
    marked = (found["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    return f"{name} (default)" if marked else name


def _parameters(found: Object, now: float) -> str:
    parameters = dig(found, "spec", "parameters")
    if not parameters:
        return NONE
    group = parameters.get("apiGroup")
    kind = parameters.get("kind", "")
    return f"{kind}.{group}/{parameters.get('name')}" if group is not None else f"{kind}/{parameters.get('name')}"


INGRESSCLASS = Behavior(
    GROUP,
    "IngressClass",
    order="munv",
    default=_default_class,
    validate=_validate_class,
    validate_update=_class_update,
    prepare_create=strategy.begin(None, generations=True),
    columns=(
        Column("Name", _class_name, format="name"),
        field("Controller", "spec", "controller"),
        Column("Parameters", _parameters),
        AGE,
    ),
)


# NetworkPolicy


def _default_policy(policy: Object) -> None:
    spec = policy.setdefault("spec", {})
    spec.setdefault("podSelector", {})
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
    for key in ("ingress", "egress"):
        for rule in spec.get(key) or ():
            for port in rule.get("ports") or ():
                port.setdefault("protocol", "TCP")


def _validate_policy(policy: Object) -> Complaints:
    spec = policy["spec"]
    out = labels.validate(spec.get("podSelector"), "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(direction) or ()):
            here = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.get("ports") or ()):
                out += _policy_port(f"{here}.ports[{j}]", port)
            for j, peer in enumerate(rule.get(peers) or ()):
                out += _peer(f"{here}.{peers}[{j}]", peer)
    kinds = spec.get("policyTypes") or []
    if len(kinds) > len(_DIRECTIONS):
        return [*out, invalid("spec.policyTypes", kinds, "may not specify more than two policyTypes")]
    wrong = [(i, kind) for i, kind in enumerate(kinds) if kind not in _DIRECTIONS]
    return out + [not_supported(f"spec.policyTypes[{i}]", kind, _DIRECTIONS) for i, kind in wrong]


def _policy_port(path: str, port: Mapping[str, Any]) -> Complaints:
    protocol, value, end = port.get("protocol"), port.get("port"), port.get("endPort")
    out: Complaints = []
    if protocol is not None and protocol not in _PROTOCOLS:
        out.append(not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
    if value is None:
        if end is not None:
            out.append(invalid(f"{path}.endPort", end, "may not be specified when `port` is not specified"))
    elif isinstance(value, str):
        if end is not None:
            out.append(invalid(f"{path}.endPort", end, "may not be specified when `port` is non-numeric"))
        out += [invalid(f"{path}.port", value, text) for text in names.port_name(value)]
    else:
        out += [invalid(f"{path}.port", value, text) for text in names.port(value)]
        if end is not None and end < value:
            out.append(invalid(f"{path}.endPort", value, "must be greater than or equal to `port`"))
        if end is not None:
            out += [invalid(f"{path}.endPort", end, text) for text in names.port(end)]
    return out


def _peer(path: str, peer: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    for key in ("podSelector", "namespaceSelector"):
        if key in peer:
            out += labels.validate(peer[key], f"{path}.{key}")
    block = peer.get("ipBlock")
    if block is not None:
        out += _block(f"{path}.ipBlock", block)
        if len(peer) > 1:
            out.append(forbidden(path, "may not specify both ipBlock and another peer"))
    elif not peer:
        out.append(required(path, "must specify a peer"))
    return out


def _block(path: str, block: Mapping[str, Any]) -> Complaints:
    import ipaddress  # here: few objects have one

    cidr = block.get("cidr") or ""
    if not cidr:
        return [required(f"{path}.cidr")]
    out = names.cidr(f"{path}.cidr", cidr)
    if out:
        return out
    whole = ipaddress.ip_network(cidr)
    for i, value in enumerate(block.get("except") or ()):
        here = f"{path}.except[{i}]"
        found = names.cidr(here, value)
        out += found
        if not found:
            part = ipaddress.ip_network(value)
            inside = part.version == whole.version and part.network_address in whole
            if not inside or part.prefixlen <= whole.prefixlen:
                out.append(invalid(here, value, "must be a strict subset of `cidr`"))
    return out


NETWORKPOLICY = Behavior(
    GROUP,
    "NetworkPolicy",
    order="mv",
    default=_default_policy,
    validate=_validate_policy,
    prepare_create=strategy.begin(None, generations=True),
    columns=(
        NAME,
        Column("Pod-Selector", lambda policy, now: selector_text(dig(policy, "spec", "podSelector"))),
        AGE,
    ),
)
