"""Rules of probes and lifecycle hooks.

Owns `probe` and `lifecycle`. Source: validateProbe, validateHandler and their neighbours in pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.validation import forbidden, invalid, not_negative, not_supported, required

Complaints = list[FieldError]

_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")
_PLAIN = (
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP "
    "TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX"
)
_SIGNALS = {
    "linux": sorted(
        [f"SIG{name}" for name in _PLAIN.split()]
        + [f"SIGRTMIN+{i}" for i in range(1, 16)]
        + [f"SIGRTMAX-{i}" for i in range(1, 15)]
    ),
    "windows": ["SIGKILL", "SIGTERM"],
}


def port(path: str, value: int | str | None) -> Complaints:
    """A port by number or name."""
    if isinstance(value, str):
        return [invalid(path, value, text) for text in names.port_name(value)]
    return [invalid(path, value or 0, text) for text in names.port(value or 0)]


def probe(path: str, kind: str, found_probe: Mapping[str, Any], grace: int | None) -> Complaints:
    """A probe; `kind` is its field's name, such as livenessProbe."""
    found = handler(path, found_probe, grace)
    for name in _NUMBERS:
        found += not_negative(f"{path}.{name}", found_probe.get(name))
    grace_path, own = f"{path}.terminationGracePeriodSeconds", found_probe.get("terminationGracePeriodSeconds")
    if own is not None and own <= 0:
        found.append(invalid(grace_path, own, "must be greater than 0"))
    if kind == "readinessProbe":
        if own is not None:
            found.append(invalid(grace_path, own, "must not be set for readinessProbes"))
    elif found_probe.get("successThreshold", 1) != 1:
        found.append(invalid(f"{path}.successThreshold", found_probe["successThreshold"], "must be 1"))
    return found


def lifecycle(path: str, hooks: Mapping[str, Any], grace: int | None, os: str | None) -> Complaints:
    """A container's lifecycle; `os` is spec.os.name."""
    found: Complaints = []
    for name in ("postStart", "preStop"):
        if name in hooks:
            found += handler(f"{path}.{name}", hooks[name], grace)
    if signal := hooks.get("stopSignal"):
        here = f"{path}.stopSignal"
        if os is None:
            found.append(forbidden(here, "may not be set for containers with empty `spec.os.name`"))
        elif signal not in _SIGNALS.get(os, (signal,)):
            found.append(not_supported(here, signal, _SIGNALS[os]))
    return found


def handler(path: str, action: Mapping[str, Any], grace: int | None) -> Complaints:
    """Exactly one of the ways to act."""
    present = [key for key in _HANDLERS if key in action]
    if not present:
        return [required(path, "must specify a handler type")]
    found = _one(f"{path}.{present[0]}", present[0], action[present[0]], grace)
    return found + [forbidden(f"{path}.{key}", "may not specify more than 1 handler type") for key in present[1:]]


def _one(path: str, kind: str, action: Mapping[str, Any], grace: int | None) -> Complaints:
    match kind:
        case "exec":
            return [] if action.get("command") else [required(f"{path}.command")]
        case "httpGet":
            return _http_get(path, action)
        case "sleep":
            wanted = action.get("seconds", 0)
            if grace is not None and not 0 <= wanted <= grace:
                text = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                return [invalid(path, wanted, text)]
            return []
        case _:
            return port(f"{path}.port", action.get("port"))


def _http_get(path: str, action: Mapping[str, Any]) -> Complaints:
    found = [] if action.get("path") else [required(f"{path}.path")]
    found += port(f"{path}.port", action.get("port"))
    if action.get("scheme") not in ("HTTP", "HTTPS"):
        found.append(not_supported(f"{path}.scheme", action.get("scheme") or "", ("HTTP", "HTTPS")))
    for header in action.get("httpHeaders") or ():
        name = header.get("name") or ""
        found += [invalid(f"{path}.httpHeaders", name, text) for text in names.header(name)]
    return found
