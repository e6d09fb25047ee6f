"""Defaults of a pod spec.

Owns `pod` and `template`, called by the kinds that have one. Changes the object in place; twice is the same as once.
Source: pkg/apis/core/v1/defaults.go, and the +default markers of core/v1's types.
"""

from __future__ import annotations

from typing import Any

from steersman.api import pods, quantity
from steersman.api.kinds.podspec.image import pull_policy
from steersman.api.resource import Object

_FILES = 0o644
_TOKEN_SECONDS = 3600
_DEFAULT_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_POD_LEVEL = ("cpu", "memory")


def pod(obj: Object) -> None:
    """A Pod: the spec, and what only pods get: requests from limits, service links, host ports."""
    spec = obj.setdefault("spec", {})
    for field in ("containers", "initContainers"):
        for container in spec.get(field) or ():
            resources = container.setdefault("resources", {})
            if limits := resources.get("limits"):
                resources["requests"] = {**limits, **(resources.get("requests") or {})}
    if spec.get("resources"):
        _pod_level(obj, spec["resources"])
    spec.setdefault("enableServiceLinks", True)
    if spec.get("hostNetwork"):
        for field in ("containers", "initContainers"):
            for container in spec.get(field) or ():
                for port in container.get("ports") or ():
                    if not port.get("hostPort"):
                        port["hostPort"] = port.get("containerPort", 0)
    pod_spec(spec)
    if spec["terminationGracePeriodSeconds"] < 0:
        spec["terminationGracePeriodSeconds"] = 1
    _status(obj.setdefault("status", {}))


def _status(status: Object) -> None:
    """The one address and the list of addresses agree; a condition's times are there, if only as null."""
    one, several = status.get("podIP"), status.get("podIPs")
    if one and (not several or several[0].get("ip") != one):
        status["podIPs"] = [{"ip": one}]
    elif several and not one:
        status["podIP"] = several[0].get("ip", "")
    for condition in status.get("conditions") or ():
        condition.setdefault("lastProbeTime", None)
        condition.setdefault("lastTransitionTime", None)


def template(holder: Object) -> None:
    """`holder["template"]`."""
    inner = holder.setdefault("template", {})
    inner.setdefault("metadata", {})
    pod_spec(inner.setdefault("spec", {}))


def pod_spec(spec: Object) -> None:
    """A pod spec, in a Pod or in a template."""
    for key, value in (
        ("dnsPolicy", "ClusterFirst"),
        ("restartPolicy", "Always"),
        ("schedulerName", "default-scheduler"),
    ):
        if not spec.get(key):
            spec[key] = value
    spec.setdefault("securityContext", {})
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.pop("schedulingGroup", None)  # behind a gate that is off
    spec.setdefault("containers", [])
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for volume in spec.get("volumes") or ():
        volume_source(volume)
    for field in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            _container(container)
    if "overhead" in spec:
        resource_list(spec["overhead"])
    for which in ("limits", "requests"):
        resource_list((spec.get("resources") or {}).get(which))


def resource_list(amounts: dict[str, str] | None) -> None:
    """Amounts in canonical form, nothing finer than a thousandth."""
    for name, amount in (amounts or {}).items():
        amounts[name] = round_up(amount)  # type: ignore[index]  # pyrefly: ignore


def round_up(amount: str) -> str:
    """`amount` rounded up to thousandths, in canonical form."""
    parsed = quantity.parse(amount)
    if parsed.nanos % 10**6:
        parsed = quantity.Quantity(parsed.milli() * 10**6, parsed.format)
        return str(parsed)
    return quantity.canonical(amount)


def _pod_level(obj: Object, own: Object) -> None:
    """Huge page limits, then requests, from the containers' and from the limits (KEP-2837)."""
    asked, capped = own.get("requests") or {}, own.get("limits") or {}
    if asked or capped:
        for name, amount in pods.container_totals(obj, "limits").items():
            if name.startswith("hugepages-") and name not in asked and name not in capped:
                own.setdefault("limits", {})[name] = amount
    if not own.get("limits"):
        return
    requests = dict(asked)
    for name, amount in pods.container_totals(obj, "requests").items():
        if name in _POD_LEVEL:
            requests.setdefault(name, amount)
    for name, amount in own["limits"].items():
        if name in _POD_LEVEL or name.startswith("hugepages-"):
            requests.setdefault(name, amount)
    if requests:
        own["requests"] = requests


def _container(container: Object) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = pull_policy(container.get("image", ""))
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    resources = container.setdefault("resources", {})
    resource_list(resources.get("limits"))
    resource_list(resources.get("requests"))
    for port in container.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in container.get("env") or ():
        if source := variable.get("valueFrom"):
            _field_ref(source)
            if "fileKeyRef" in source:
                source["fileKeyRef"].setdefault("optional", False)
            if "resourceFieldRef" in source:
                source["resourceFieldRef"].setdefault("divisor", "0")
    for name in _PROBES:
        if name in container:
            _probe(container[name])
    if "lifecycle" in container:
        container["lifecycle"].pop("stopSignal", None)  # behind a gate that is off
    for handler in (container.get("lifecycle") or {}).values():
        if isinstance(handler, dict) and "httpGet" in handler:
            _http_get(handler["httpGet"])
        if isinstance(handler, dict) and "sleep" in handler:
            handler["sleep"].setdefault("seconds", 0)


def _probe(probe: Object) -> None:
    for key, value in _DEFAULT_PROBE.items():
        if not probe.get(key):
            probe[key] = value
    if "httpGet" in probe:
        _http_get(probe["httpGet"])
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _http_get(action: Object) -> None:
    action["path"] = action.get("path") or "/"
    action["scheme"] = action.get("scheme") or "HTTP"


def _field_ref(source: Object) -> None:
    if "fieldRef" in source and not source["fieldRef"].get("apiVersion"):
        source["fieldRef"]["apiVersion"] = "v1"


def volume_source(volume: Object) -> None:
    """A volume of a pod; one without a source is an emptyDir."""
    sources = [key for key in volume if key != "name"]
    if not sources:
        volume["emptyDir"] = {}
    for key in sources:
        if key in _VOLUMES and isinstance(volume[key], dict):
            _VOLUMES[key](volume[key])


def _filled(**values: Any) -> Any:
    """A function that fills in these values where there is none."""

    def fill(source: Object) -> None:
        for key, value in values.items():
            source.setdefault(key, value)

    return fill


def _downward(source: Object) -> None:
    source.setdefault("defaultMode", _FILES)
    _downward_items(source)


def _downward_items(source: Object) -> None:
    for item in source.get("items") or ():
        _field_ref(item)
        if "resourceFieldRef" in item:
            item["resourceFieldRef"].setdefault("divisor", "0")


def _projected(source: Object) -> None:
    source.setdefault("defaultMode", _FILES)
    for each in source.setdefault("sources", None) or ():
        for gated in ("clusterTrustBundle", "podCertificate"):
            each.pop(gated, None)
        if "downwardAPI" in each:
            _downward_items(each["downwardAPI"])
        if "serviceAccountToken" in each:
            each["serviceAccountToken"].setdefault("expirationSeconds", _TOKEN_SECONDS)


def claim_spec(spec: Object) -> None:
    """A PersistentVolumeClaimSpec."""
    spec.setdefault("volumeMode", "Filesystem")
    resources = spec.setdefault("resources", {})
    resource_list(resources.get("limits"))
    resource_list(resources.get("requests"))


def _ephemeral(source: Object) -> None:
    if "volumeClaimTemplate" in source:
        claim = source["volumeClaimTemplate"]
        claim.setdefault("metadata", {})
        claim_spec(claim.setdefault("spec", {}))


def _image(source: Object) -> None:
    if not source.get("pullPolicy"):
        source["pullPolicy"] = pull_policy(source.get("reference", ""))


_VOLUMES = {
    "hostPath": _filled(type=""),
    "secret": _filled(defaultMode=_FILES),
    "configMap": _filled(defaultMode=_FILES),
    "downwardAPI": _downward,
    "projected": _projected,
    "ephemeral": _ephemeral,
    "image": _image,
    "iscsi": _filled(iscsiInterface="default", lun=0),
    "rbd": _filled(pool="rbd", user="admin", keyring="/etc/ceph/keyring"),
    "azureDisk": _filled(cachingMode="ReadWrite", fsType="ext4", readOnly=False, kind="Shared"),
    "scaleIO": _filled(storageMode="ThinProvisioned", fsType="xfs"),
}
