"""Conditions as metav1 has them: what is wrong with a list of them.

Called by the rules of kinds whose status holds such conditions. Pure. Source: apimachinery's metav1/validation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.validation import duplicate, each_invalid, invalid, not_supported, required, too_long

_STATUSES = ("False", "True", "Unknown")
_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_LONGEST_REASON, _LONGEST_MESSAGE = 1024, 32 * 1024
_NO_REASON = names.regex_error(
    "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
    "characters or '_,:', and must end with an alphanumeric character or '_'",
    _REASON,
    *("my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"),
)


def check(path: str, conditions: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """Complaints about conditions, of which no two may be of one type."""
    out: list[FieldError] = []
    seen: set[str] = set()
    for at, each in enumerate(conditions):
        kind, here = each.get("type") or "", f"{path}[{at}]"
        out += [duplicate(f"{here}.type", kind)] if kind in seen else []
        seen.add(kind)
        out += each_invalid(f"{here}.type", kind, names.qualified(kind)) + _check(here, each)
    return out


def _check(path: str, found: Mapping[str, Any]) -> list[FieldError]:
    status, reason = found.get("status") or "", found.get("reason") or ""
    out = [] if status in _STATUSES else [not_supported(f"{path}.status", status, _STATUSES)]
    generation = found.get("observedGeneration") or 0
    if generation < 0:
        out.append(invalid(f"{path}.observedGeneration", generation, "must be greater than or equal to zero"))
    out += [] if found.get("lastTransitionTime") else [required(f"{path}.lastTransitionTime")]
    if not reason:
        out.append(required(f"{path}.reason"))
    elif not re.fullmatch(_REASON, reason):
        out.append(invalid(f"{path}.reason", reason, _NO_REASON))
    if len(reason.encode()) > _LONGEST_REASON:
        out.append(too_long(f"{path}.reason", _LONGEST_REASON))
    if len((found.get("message") or "").encode()) > _LONGEST_MESSAGE:
        out.append(too_long(f"{path}.message", _LONGEST_MESSAGE))
    return out
