"""Rules of environment variables and of references to a pod's own fields.

Owns `env`, `env_from`, and the field and resource references that downward API volumes share. Source: ValidateEnv and
its neighbours in pkg/apis/core/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import names, quantity
from steersman.api.errors import FieldError
from steersman.api.kinds.podspec.paths import no_backsteps
from steersman.api.validation import invalid, not_supported, required

Complaints = list[FieldError]

ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
VOLUME_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")

_RESOURCES = tuple(
    sorted(f"{which}.{name}" for which in ("limits", "requests") for name in ("cpu", "memory", "ephemeral-storage"))
)
_HUGE = ("limits.hugepages-", "requests.hugepages-")
_BYTES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_SUBSCRIPT = re.compile(r"(.+)\['(.*)'\]")
_KNOWN = {*ENV_FIELDS, *VOLUME_FIELDS}
_MANY = "may not have more than one field specified at a time"
_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")


def env(path: str, variables: Sequence[Mapping[str, Any]] | None) -> Complaints:
    """spec.containers[].env."""
    found: Complaints = []
    for i, variable in enumerate(variables or ()):
        name = variable.get("name") or ""
        if not name:
            found.append(required(f"{path}[{i}].name"))
        else:
            found += [invalid(f"{path}[{i}].name", name, text) for text in names.env_name(name)]
        if "valueFrom" in variable:
            found += _value_from(f"{path}[{i}].valueFrom", variable["valueFrom"], variable.get("value") or "")
    return found


def _value_from(path: str, source: Mapping[str, Any], value: str) -> Complaints:
    found: Complaints = []
    present = [key for key in _SOURCES if key in source]
    for key in present:
        here, chosen = f"{path}.{key}", source[key]
        if key == "fieldRef":
            found += field_ref(here, chosen, ENV_FIELDS)
        elif key == "resourceFieldRef":
            found += resource_ref(here, chosen, volume=False)
        elif key == "fileKeyRef":
            found += _file_key(here, chosen)
        else:
            found += _object_key(here, chosen)
    if not present:
        text = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        found.append(invalid(path, "", text))
    elif value:
        found.append(invalid(path, "", "may not be specified when `value` is not empty"))
    elif len(present) > 1:
        found.append(invalid(path, "", _MANY))
    return found


def field_ref(path: str, ref: Mapping[str, Any], allowed: Sequence[str]) -> Complaints:
    """An ObjectFieldSelector."""
    for key in ("apiVersion", "fieldPath"):
        if not ref.get(key):
            return [required(f"{path}.{key}")]
    version, chosen = ref["apiVersion"], ref["fieldPath"]
    where = f"{path}.fieldPath"
    if version != "v1":
        return [invalid(where, chosen, f"error converting fieldPath: unsupported pod version: {version}")]
    match = _SUBSCRIPT.fullmatch(chosen)
    base = match[1] if match else chosen
    if match and base not in ("metadata.annotations", "metadata.labels"):
        return [invalid(where, chosen, f"error converting fieldPath: field label does not support subscript: {chosen}")]
    if base not in _KNOWN:
        return [invalid(where, chosen, f"error converting fieldPath: field label not supported: {chosen}")]
    if match:
        subscript = match[2].lower() if base == "metadata.annotations" else match[2]
        return [invalid(path, subscript, text) for text in names.qualified(subscript)]
    return [] if chosen in allowed else [not_supported(where, chosen, sorted(allowed))]


def resource_ref(path: str, ref: Mapping[str, Any], *, volume: bool) -> Complaints:
    """A ResourceFieldSelector; in a volume it must name its container."""
    resource = ref.get("resource") or ""
    found: Complaints = []
    if volume and not ref.get("containerName"):
        found.append(required(f"{path}.containerName"))
    elif not resource:
        found.append(required(f"{path}.resource"))
    elif resource not in _RESOURCES and not resource.startswith(_HUGE):
        found.append(not_supported(f"{path}.resource", resource, _RESOURCES))
    return found + _divisor(f"{path}.divisor", resource, ref.get("divisor") or "0")


def _divisor(path: str, resource: str, divisor: str) -> Complaints:
    parsed = quantity.parse(divisor)
    if not parsed:
        return []
    kind = resource.partition(".")[2]
    if kind == "cpu":
        text = "only divisor's values 1m and 1 are supported with the cpu resource"
        return [] if str(parsed) in ("1m", "1") else [invalid(path, resource, text)]
    shown = {"memory": "memory", "ephemeral-storage": "local ephemeral storage"}.get(kind)
    if shown is None and resource.startswith(_HUGE):
        shown = "hugepages"
    if shown is None or str(parsed) in _BYTES:
        return []
    text = f"only divisor's values {', '.join(_BYTES)} are supported with the {shown} resource"
    return [invalid(path, resource, text)]


def _object_key(path: str, ref: Mapping[str, Any]) -> Complaints:
    name, key = ref.get("name") or "", ref.get("key") or ""
    found = [invalid(f"{path}.name", name, text) for text in names.subdomain_name(name)]
    if not key:
        return [*found, required(f"{path}.key")]
    return found + [invalid(f"{path}.key", key, text) for text in names.config_key(key)]


def _file_key(path: str, ref: Mapping[str, Any]) -> Complaints:
    checks = (("key", names.env_name), ("volumeName", names.dns_label))
    found: Complaints = []
    for field, check in checks:
        value = ref.get(field) or ""
        if not value:
            found.append(required(f"{path}.{field}"))
        else:
            found += [invalid(f"{path}.{field}", value, text) for text in check(value)]
    if not ref.get("path"):
        return [*found, required(f"{path}.path")]
    return found + no_backsteps(f"{path}.path", ref["path"])


def env_from(path: str, sources: Sequence[Mapping[str, Any]] | None) -> Complaints:
    """spec.containers[].envFrom."""
    found: Complaints = []
    for i, source in enumerate(sources or ()):
        if prefix := source.get("prefix"):
            found += [invalid(f"{path}[{i}].prefix", prefix, text) for text in names.env_name(prefix)]
        present = [key for key in ("configMapRef", "secretRef") if key in source]
        for key in present:
            name, here = source[key].get("name") or "", f"{path}[{i}].{key}.name"
            if not name:
                found.append(required(here))
            else:
                found += [invalid(here, name, text) for text in names.subdomain_name(name, True)]
        if not present:
            found.append(invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(present) > 1:
            found.append(invalid(path, "", _MANY))
    return found
