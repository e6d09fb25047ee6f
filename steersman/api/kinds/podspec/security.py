"""Rules of security contexts, of pods and containers.

Owns `of_pod` and `of_container`. Source: ValidateSecurityContext and validatePodSpecSecurityContext.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.godump import dump
from steersman.api.kinds.podspec import windows
from steersman.api.kinds.podspec.paths import descending
from steersman.api.validation import Struct, duplicate, forbidden, invalid, not_supported, required, struct, too_long

Complaints = list[FieldError]

_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_SEGMENT = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_SYSCTL = rf"({_SEGMENT}[\./])*{_SEGMENT}"
_sysctl = re.compile(_SYSCTL).fullmatch
_CHOICES = {
    "supplementalGroupsPolicy": ("Merge", "Strict"),
    "seLinuxChangePolicy": ("Recursive",),
}
_CHANGES = ("Always", "OnRootMismatch")
_IPC = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def of_pod(path: str, spec: Mapping[str, Any]) -> Complaints:
    """spec.securityContext, and what of the spec excludes what."""
    context = spec.get("securityContext") or {}
    found = _ids(path, context, ("fsGroup", "runAsUser", "runAsGroup"))
    for i, group in enumerate(context.get("supplementalGroups") or ()):
        found += [invalid(f"{path}.supplementalGroups[{i}]", group, text) for text in names.user_id(group)]
    if spec.get("hostPID") and spec.get("shareProcessNamespace"):
        text = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.append(invalid(f"{path}.shareProcessNamespace", True, text))
    if sysctls := context.get("sysctls"):
        found += _sysctls(f"{path}.sysctls", sysctls, spec)
    change = context.get("fsGroupChangePolicy")
    if change is not None and change not in _CHANGES:
        found.append(not_supported(f"{path}.fsGroupChangePolicy", change, _CHANGES))
    found += seccomp(f"{path}.seccompProfile", context.get("seccompProfile"))
    found += windows.options(f"{path}.windowsOptions", context.get("windowsOptions"))
    found += app_armor(f"{path}.appArmorProfile", context.get("appArmorProfile"))
    for field, choices in _CHOICES.items():
        if field in context and context[field] not in choices:
            found.append(not_supported(f"{path}.{field}", context[field], choices))
    return found


def of_container(path: str, context: Mapping[str, Any] | None, *, host_users: bool) -> Complaints:
    """A container's securityContext; `host_users` says that the pod has no user namespace of its own."""
    if not context:
        return []
    found = _ids(path, context, ("runAsUser", "runAsGroup"))
    mount = context.get("procMount")
    if mount is not None:
        if mount not in ("Default", "Unmasked"):
            found.append(not_supported(f"{path}.procMount", mount, ("Default", "Unmasked")))
        if host_users and mount == "Unmasked":
            found.append(invalid(f"{path}.procMount", mount, "`hostUsers` must be false to use `Unmasked`"))
    found += seccomp(f"{path}.seccompProfile", context.get("seccompProfile"))
    if context.get("allowPrivilegeEscalation") is False:
        text = "cannot set `allowPrivilegeEscalation` to false and "
        if context.get("privileged"):
            found.append(invalid(path, _shown(context), f"{text}`privileged` to true"))
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            found.append(invalid(path, _shown(context), f"{text}`capabilities.Add` CAP_SYS_ADMIN"))
    found += windows.options(f"{path}.windowsOptions", context.get("windowsOptions"))
    return found + app_armor(f"{path}.appArmorProfile", context.get("appArmorProfile"))


def _ids(path: str, context: Mapping[str, Any], fields: tuple[str, ...]) -> Complaints:
    return [
        invalid(f"{path}.{field}", context[field], text)
        for field in fields
        if context.get(field) is not None
        for text in names.user_id(context[field])
    ]


def seccomp(path: str, profile: Mapping[str, Any] | None) -> Complaints:
    """A seccompProfile."""
    if profile is None:
        return []
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    found: Complaints = []
    if not kind:
        found.append(required(f"{path}.type", "type is required when seccompProfile is set"))
    elif kind not in _PROFILES:
        found.append(not_supported(f"{path}.type", kind, _PROFILES))
    if kind != "Localhost":
        if local is not None:
            text = "can only be set when seccomp type is Localhost"
            found.append(invalid(f"{path}.localhostProfile", struct(profile, Type="", LocalhostProfile=None), text))
    elif local is None:
        found.append(required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost"))
    else:
        found += descending(f"{path}.localhostProfile", local)
    return found


def app_armor(path: str, profile: Mapping[str, Any] | None) -> Complaints:
    """An appArmorProfile."""
    if profile is None:
        return []
    kind, local = profile.get("type") or "", profile.get("localhostProfile")
    here = f"{path}.localhostProfile"
    if not kind:
        return [required(f"{path}.type", "type is required when appArmorProfile is set")]
    if kind not in _PROFILES:
        return [not_supported(f"{path}.type", kind, _PROFILES)]
    if kind != "Localhost":
        text = "can only be set when AppArmor type is Localhost"
        return [] if local is None else [invalid(here, local, text)]
    if not local:
        return [required(here, "must be set when AppArmor type is Localhost")]
    found = [] if local.strip() == local else [invalid(here, local, "must not be padded with whitespace")]
    return [*found, too_long(here, 4095)] if len(local) > 4095 else found


def _sysctls(path: str, sysctls: list[dict[str, Any]], spec: Mapping[str, Any]) -> Complaints:
    found: Complaints = []
    seen: set[str] = set()
    for i, sysctl in enumerate(sysctls):
        name, here = sysctl.get("name") or "", f"{path}[{i}].name"
        if not name:
            found.append(required(here))
        elif len(name) > 253 or not _sysctl(name):
            found.append(invalid(here, name, f"must have at most 253 characters and match regex ^{_SYSCTL}$"))
        elif name in seen:
            found.append(duplicate(here, name))
        seen.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            found.append(invalid(here, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and dotted.startswith(_IPC):
            found.append(invalid(here, name, "may not be specified when 'hostIPC' is true"))
    return found


def host_users(path: str, spec: Mapping[str, Any]) -> Complaints:
    """What a user namespace excludes (KEP-127)."""
    if spec.get("hostUsers") is not False:
        return []
    pairs = (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC"))
    found = [forbidden(f"{path}.{shown}", "when `hostUsers` is false") for field, shown in pairs if spec.get(field)]
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(field) or ()):
            if container.get("volumeDevices"):
                found.append(forbidden(f"{path}.{field}[{i}].volumeDevices", "when `hostUsers` is false"))
    return found


def _shown(context: Mapping[str, Any]) -> Struct:
    return dump(context, "v1:SecurityContext")
