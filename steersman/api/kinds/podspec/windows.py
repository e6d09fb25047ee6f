"""Rules of what is for Windows only, and of what a Windows pod may not have.

Owns `options`, `host_process` and `of_os`. Called by `validate.py` and `security.py`. Source:
validateWindowsSecurityContextOptions, validateWindowsHostProcessPod, validateWindows and validateLinux in
pkg/apis/core/validation; KEP-1981 (host processes).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.validation import forbidden, invalid, not_supported, required

Complaints = list[FieldError]

_SYSTEMS = ("linux", "windows")
_NOT_HERE = "cannot be set for a windows pod"
_OTHERS = "windows options cannot be set for a linux pod"
_SPEC_KIB = 64
_DOMAIN, _USER = 256, 104

_control = re.compile(r"[\x00-\x1f\x7f]").search
_netbios = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}').fullmatch
_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_dns = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_forbidden = re.compile(r'["/\\:;|=,+*?<>@\[\]]').search
_blank = re.compile(r"[. ]+").fullmatch

_OF_POD = (
    ("securityContext", "appArmorProfile"),
    ("securityContext", "seLinuxOptions"),
    ("hostUsers",),
    ("hostPID",),
    ("hostIPC",),
    ("securityContext", "seccompProfile"),
    ("securityContext", "fsGroup"),
    ("securityContext", "fsGroupChangePolicy"),
    ("securityContext", "sysctls"),
    ("shareProcessNamespace",),
    ("securityContext", "runAsUser"),
    ("securityContext", "runAsGroup"),
    ("securityContext", "supplementalGroups"),
    ("securityContext", "supplementalGroupsPolicy"),
    ("securityContext", "seLinuxChangePolicy"),
)
_OF_CONTAINER = (
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
)
_FLAGS = frozenset(
    ("hostPID", "hostIPC", "sysctls")
)  # of which false, or nothing in them, is as if they were not there


def options(path: str, found: Mapping[str, Any] | None) -> Complaints:
    """A windowsOptions."""
    if not found:
        return []
    out: Complaints = []
    if (name := found.get("gmsaCredentialSpecName")) is not None:
        out += [invalid(f"{path}.gmsaCredentialSpecName", name, text) for text in names.dns_subdomain(name)]
    if (spec := found.get("gmsaCredentialSpec")) is not None:
        here = f"{path}.gmsaCredentialSpec"
        if not spec:
            out.append(invalid(here, spec, "gmsaCredentialSpec cannot be an empty string"))
        elif len(spec.encode()) > _SPEC_KIB * 1024:
            out.append(invalid(here, spec, f"gmsaCredentialSpec size must be under {_SPEC_KIB} KiB"))
    if (user := found.get("runAsUserName")) is not None:
        out += [invalid(f"{path}.runAsUserName", user, f"runAsUserName{text}") for text in _user(user)]
    return out


def _user(name: str) -> Iterator[str]:
    """What is wrong with `DOMAIN\\user`."""
    if not name:
        yield " cannot be an empty string"
    elif _control(name):
        yield " cannot contain control characters"
    elif name.count("\\") > 1:
        yield " cannot contain more than one backslash"
    else:
        domain, slash, user = name.rpartition("\\")
        if len(domain.encode()) >= _DOMAIN:
            yield f"'s Domain length must be under {_DOMAIN} characters"
        if slash and not (_netbios(domain) or _dns(domain)):
            yield "'s Domain doesn't match the NetBios nor the DNS format"
        if not user:
            yield "'s User cannot be empty"
        elif len(user.encode()) > _USER:
            yield f"'s User length must not be longer than {_USER} characters"
        if _blank(user):
            yield "'s User cannot contain only periods or spaces"
        if _forbidden(user):
            yield "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"


def containers(path: str, spec: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All containers with their paths, in the order in which the original visits them."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for i, container in enumerate(spec.get(field) or ()):
            yield f"{path}.{field}[{i}]", container


def host_process(path: str, spec: Mapping[str, Any]) -> Complaints:
    """Containers that are processes of their host: all of a pod or none, in the host's network."""
    whole = ((spec.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    out: Complaints = []
    total = hosts = 0
    for here, container in containers(path, spec):
        own = ((container.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
        total += 1
        if whole is not None and own is not None and whole != own:
            said = "true" if whole else "false"
            text = f"pod hostProcess value must be identical if both are specified, was {said}"
            out.append(invalid(f"{here}.securityContext.windowsOptions.hostProcess", own, text))
        hosts += bool(whole if own is None else own)
    if hosts and hosts != total:
        text = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        out.append(invalid(path, "", text))
    if hosts and not spec.get("hostNetwork"):
        text = "hostNetwork must be true if pod contains any hostProcess containers"
        out.append(invalid(f"{path}.hostNetwork", False, text))
    return out


def of_os(path: str, spec: Mapping[str, Any]) -> Complaints:
    """spec.os, and what does not exist on that system."""
    if spec.get("os") is None:
        return []
    name = spec["os"].get("name") or ""
    if not name:
        return [required(f"{path}.os.name")]
    if name not in _SYSTEMS:
        return [not_supported(f"{path}.os", name, _SYSTEMS)]
    return _linux(path, spec) if name == "linux" else _windows(path, spec)


def _linux(path: str, spec: Mapping[str, Any]) -> Complaints:
    places = [(path, spec), *containers(path, spec)]
    return [
        forbidden(f"{here}.securityContext.windowsOptions", _OTHERS)
        for here, found in places
        if (found.get("securityContext") or {}).get("windowsOptions") is not None
    ]


def _windows(path: str, spec: Mapping[str, Any]) -> Complaints:
    out: Complaints = []
    for steps in _OF_POD:
        found: Any = spec
        for step in steps:
            found = (found or {}).get(step)
        if found if steps[-1] in _FLAGS else found is not None:
            out.append(forbidden(".".join((path, *steps)), _NOT_HERE))
    for here, container in containers(path, spec):
        context = container.get("securityContext") or {}
        fields = [key for key in _OF_CONTAINER if context.get(key) is not None]
        out += [forbidden(f"{here}.securityContext.{key}", _NOT_HERE) for key in fields]
    return out
