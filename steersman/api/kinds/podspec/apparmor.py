"""AppArmor profiles in annotations, which fields have replaced since 1.30.

Owns what is said of such annotations, and what of them becomes a field of a new pod. Called by `validate.py` and by
`core/pod.py`. Source: ValidateAppArmorPodAnnotations, validateAppArmorAnnotationsAndFieldsMatchOnCreate, and
applyAppArmorVersionSkew in pkg/registry/core/pod; KEP-24.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api.errors import FieldError
from steersman.api.kinds.podspec import security, windows
from steersman.api.resource import Object
from steersman.api.validation import forbidden, invalid, quote

PREFIX = "container.apparmor.security.beta.kubernetes.io/"

_DEFAULT, _FREE, _LOCAL = "runtime/default", "unconfined", "localhost/"
_TYPES = {_DEFAULT: "RuntimeDefault", _FREE: "Unconfined"}


def annotations(path: str, found: Mapping[str, str], spec: Mapping[str, Any]) -> list[FieldError]:
    """Annotations are of containers that there are, with profiles that could be."""
    out: list[FieldError] = []
    keys = [key for key in found if key.startswith(PREFIX)]
    known = {container.get("name") for _, container in windows.containers("", spec)} if keys else set()
    for key in keys:
        name, profile = key.removeprefix(PREFIX), found[key]
        if name not in known:
            out.append(invalid(f"{path}[{key}]", name, "container not found"))
        if profile and profile not in _TYPES and not profile.startswith(_LOCAL):
            out.append(invalid(f"{path}[{key}]", profile, f"invalid AppArmor profile name: {quote(profile)}"))
    return out


def agreed(path: str, metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> list[FieldError]:
    """In a new pod an annotation and the field for the same say the same."""
    out: list[FieldError] = []
    if (spec.get("os") or {}).get("name") == "windows":
        return out
    for here, container, said in _annotated(path, metadata, spec):
        contexts = (container.get("securityContext") or {}, spec.get("securityContext") or {})
        profile = next((each["appArmorProfile"] for each in contexts if each.get("appArmorProfile")), None)
        if profile is None:
            continue
        here = f"{here}.securityContext.appArmorProfile"
        kind = profile.get("type")
        local = kind == "Localhost"
        if kind in ("Unconfined", "RuntimeDefault", "Localhost"):
            same = said.startswith(_LOCAL) if local else _TYPES.get(said) == kind
            if not same:
                out.append(forbidden(f"{here}.type", "apparmor type in annotation and field must match"))
            elif local and said.removeprefix(_LOCAL) != profile.get("localhostProfile"):
                text = "apparmor profile in annotation and field must match"
                out.append(forbidden(f"{here}.localhostProfile", text))
    return out


def _annotated(
    path: str, metadata: Mapping[str, Any], spec: Mapping[str, Any]
) -> list[tuple[str, Mapping[str, Any], str]]:
    found = metadata.get("annotations") or {}
    if not any(key.startswith(PREFIX) for key in found):
        return []
    each = ((here, container, found.get(f"{PREFIX}{container.get('name')}")) for here, container in
            windows.containers(path, spec))  # fmt: skip
    return [(here, container, said) for here, container, said in each if said is not None]


def apply(pod: Object) -> None:
    """A new pod's annotations become fields, where there is no field and nothing else is said for the whole pod."""
    spec = pod["spec"]
    if (spec.get("os") or {}).get("name") == "windows":
        return
    whole = (spec.get("securityContext") or {}).get("appArmorProfile")
    for _, container, said in _annotated("", pod["metadata"], spec):
        context: Object = container.get("securityContext") or {}
        field = _field(said)
        if context.get("appArmorProfile") is not None or field is None or field == whole:
            continue
        if not security.app_armor("", field):
            container["securityContext"] = {**context, "appArmorProfile": field}  # type: ignore[index]  # pyrefly: ignore


def _field(said: str) -> dict[str, Any] | None:
    if said in _TYPES:
        return {"type": _TYPES[said]}
    local = said.removeprefix(_LOCAL)
    return {"type": "Localhost", "localhostProfile": local} if local and local != said else None
