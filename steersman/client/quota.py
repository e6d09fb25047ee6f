"""What an object uses of a ResourceQuota, and which quotas mean it.

Owns pure rules for the quota controller, which counts, and for admission, which refuses. Amounts are quantities.
Source: kubernetes' pkg/quota/v1/evaluator/core and the documentation of resource quotas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from steersman.api import pods, quantity
from steersman.api.quantity import Quantity
from steersman.api.resource import Object, Resource
from steersman.lib.clock import parse_rfc3339

Usage = dict[str, Quantity]

_ONE = quantity.parse("1")
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_COUNTED_BARE = frozenset(
    {
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
    }
)
_CLASS = ".storageclass.storage.k8s.io/"
DEVICES = ".deviceclass.resource.k8s.io/devices"
"""How a quota names the devices of a class, with the class's name before."""
MOST_DEVICES = 32  # of one request that asks for all
_CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"


def usage(resource: Resource, obj: Object, now: float) -> Usage:
    """What one object uses, under every name that a quota may give it."""
    name = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    out: Usage = {f"count/{name}": _ONE}
    if name == "resourceclaims.resource.k8s.io":
        return out | _devices(obj)
    if resource.group or resource.plural not in _COUNTED_BARE:
        return out
    if resource.plural == "pods":
        return out | _pod(obj, now)
    out[resource.plural] = _ONE
    if resource.plural == "services":
        out |= _service(obj)
    elif resource.plural == "persistentvolumeclaims":
        out |= _claim(obj)
    return out


def _pod(pod: Object, now: float) -> Usage:
    """Pods that have ended, or should have long ago, use nothing."""
    meta = pod["metadata"]
    if pods.is_terminal(pod):
        return {}
    grace = meta.get("deletionGracePeriodSeconds")
    if grace is not None and now > parse_rfc3339(meta["deletionTimestamp"]) + float(grace):
        return {}
    out: Usage = {"pods": _ONE}
    for name, amount in pods.requests(pod).items():
        out[f"requests.{name}"] = quantity.parse(amount)
        if name in _COMPUTE or name.startswith("hugepages-"):
            out[name] = quantity.parse(amount)
    for name, amount in pods.limits(pod).items():
        if name in _COMPUTE:
            out[f"limits.{name}"] = quantity.parse(amount)
    return out


def _service(service: Object) -> Usage:
    spec = service["spec"]
    ports = quantity.parse(str(len(spec.get("ports") or ())))
    if spec.get("type") == "NodePort":
        return {"services.nodeports": ports}
    if spec.get("type") == "LoadBalancer":
        out = {"services.loadbalancers": _ONE}
        return out | ({"services.nodeports": ports} if spec.get("allocateLoadBalancerNodePorts", True) else {})
    return {}


def _claim(claim: Object) -> Usage:
    spec, out = claim["spec"], Usage()
    annotations = claim["metadata"].get("annotations") or {}
    chosen = annotations.get(_CLASS_ANNOTATION) or spec.get("storageClassName")
    if chosen:
        out[f"{chosen}{_CLASS}persistentvolumeclaims"] = _ONE
    if asked := ((spec.get("resources") or {}).get("requests") or {}).get("storage"):
        given = ((claim.get("status") or {}).get("allocatedResources") or {}).get("storage", asked)
        amount = max(_bytes(asked), _bytes(given))
        out["requests.storage"] = amount
        if chosen:
            out[f"{chosen}{_CLASS}requests.storage"] = amount
    return out


def _bytes(text: str) -> Quantity:
    amount = quantity.parse(text)
    return amount if amount.value.denominator == 1 else quantity.parse(str(amount.whole()))


def _devices(claim: Object) -> Usage:
    """Devices of each class; of several ways to satisfy a request, the one that takes most of a class."""
    out = Usage()
    for request in (claim["spec"].get("devices") or {}).get("requests") or ():
        old = [request] if request.get("deviceClassName") else []  # v1beta1 asks without `exactly`
        ways = [request["exactly"]] if request.get("exactly") else request.get("firstAvailable") or old
        most: dict[str, int] = {}
        for way in ways:
            count = MOST_DEVICES if way.get("allocationMode") == "All" else way.get("count") or 1
            most[way["deviceClassName"]] = max(count, most.get(way["deviceClassName"], 0))
        for name, count in most.items():
            key = f"{name}{DEVICES}"
            out[key] = out.get(key, quantity.ZERO) + quantity.parse(str(count))
    return out


def total(parts: Iterable[Usage], names: Iterable[str]) -> dict[str, str]:
    """The sum of all parts under the names of a quota, as text."""
    out = {name: quantity.parse("0") for name in names}
    for part in parts:
        for name in out:
            if name in part:
                out[name] = out[name] + part[name]
    return {name: str(amount) for name, amount in out.items()}


def terms(quota: Object) -> list[Object]:
    """A quota's scopes, each as a term of a selector."""
    spec = quota["spec"]
    found: list[Object] = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    return found + list((spec.get("scopeSelector") or {}).get("matchExpressions") or ())


def concerns(quota: Object, resource: Resource, obj: Object) -> bool:
    """Whether the quota's scopes include the object; a quota without scopes includes all."""
    return all(in_scope(term, resource, obj) for term in terms(quota))


def in_scope(term: Object, resource: Resource, obj: Object) -> bool:
    """Whether one scope includes the object."""
    if (resource.group, resource.plural) == ("", "pods"):
        return _pod_in_scope(term, obj)
    if (resource.group, resource.plural) == ("", "persistentvolumeclaims"):
        names = attribute_classes(obj) or {None}
        return term["scopeName"] == "VolumeAttributesClass" and any(_holds(term, name) for name in names)
    return False


def attribute_classes(claim: Object) -> set[str]:
    """The classes of volume attributes that a claim has, wants, or is on its way to: it counts under all of them."""
    status = claim.get("status") or {}
    target = (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName")
    names = (claim["spec"].get("volumeAttributesClassName"), status.get("currentVolumeAttributesClassName"), target)
    return {name for name in names if name}


def may_change(group: str, plural: str, subresource: str, obj: Object, old: Object | None) -> bool:
    """Whether this write may change what quotas count, on creation (no `old`) or on an update."""
    if group:
        return not subresource
    if plural == "pods":
        if subresource or old is None:
            return subresource in ("", "resize")
        return _deadline(obj) != _deadline(old)
    if plural == "persistentvolumeclaims" and subresource == "status":
        assert old is not None, "a status is never created"
        allocated, before = ((each.get("status") or {}).get("allocatedResources") for each in (obj, old))
        return allocated != before or attribute_classes(obj) != attribute_classes(old)
    return not subresource


def _deadline(pod: Object) -> bool:
    return pod["spec"].get("activeDeadlineSeconds") is not None


def _pod_in_scope(term: Object, pod: Object) -> bool:
    spec = pod["spec"]
    match term["scopeName"]:
        case "Terminating":
            return _deadline(pod)
        case "NotTerminating":
            return not _deadline(pod)
        case "BestEffort":
            return pods.qos_class(pod) == pods.BEST_EFFORT
        case "NotBestEffort":
            return pods.qos_class(pod) != pods.BEST_EFFORT
        case "PriorityClass":
            return _holds(term, spec.get("priorityClassName"))
        case "CrossNamespacePodAffinity":
            return _crosses(spec.get("affinity") or {})
    return False


def _holds(term: Object, value: str | None) -> bool:
    match term["operator"]:
        case "In":
            return value in (term.get("values") or ())
        case "NotIn":
            return value not in (term.get("values") or ())
        case "DoesNotExist":
            return not value
    return bool(value)


def _crosses(affinity: Mapping[str, Object]) -> bool:
    """Whether a pod's affinity names other namespaces."""
    for kind in ("podAffinity", "podAntiAffinity"):
        chosen = affinity.get(kind) or {}
        terms = list(chosen.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        preferred = chosen.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [each["podAffinityTerm"] for each in preferred]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False
