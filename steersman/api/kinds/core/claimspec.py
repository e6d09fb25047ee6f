"""Rules of a PersistentVolumeClaimSpec, in a claim, a StatefulSet or an ephemeral volume.

Source: ValidatePersistentVolumeClaimSpec in pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import labels, names, quantity
from steersman.api.errors import FieldError
from steersman.api.validation import forbidden, invalid, not_supported, required

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")


def validate(path: str, spec: Mapping[str, Any]) -> list[FieldError]:
    """Access modes, size, class, sources."""
    out = access_modes(path, spec, missing="at least 1 access mode is required")
    if "selector" in spec:
        out += labels.validate(spec["selector"], f"{path}.selector")
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    here = f"{path}.resources[storage]"
    if size is None:
        out.append(required(here))
    elif quantity.parse(size).nanos <= 0:
        out.append(invalid(here, size, "must be greater than zero"))
    for field in ("storageClassName", "volumeAttributesClassName"):
        if value := spec.get(field):
            out += [invalid(f"{path}.{field}", value, text) for text in names.dns_subdomain(value)]
    mode = spec.get("volumeMode")
    if mode is not None and mode not in VOLUME_MODES:
        out.append(not_supported(f"{path}.volumeMode", mode, VOLUME_MODES))
    return out + _sources(path, spec)


def access_modes(path: str, spec: Mapping[str, Any], *, missing: str) -> list[FieldError]:
    """spec.accessModes; ReadWriteOncePod stands alone."""
    modes = spec.get("accessModes") or ()
    here = f"{path}.accessModes"
    out = [] if modes else [required(here, missing)]
    out += [not_supported(here, mode, ACCESS_MODES) for mode in modes if mode not in ACCESS_MODES]
    known = {mode for mode in modes if mode in ACCESS_MODES}
    if "ReadWriteOncePod" in known and len(known) > 1:
        out.append(forbidden(here, "may not use ReadWriteOncePod with other access modes"))
    return out


def _sources(path: str, spec: Mapping[str, Any]) -> list[FieldError]:
    source, ref = spec.get("dataSource"), spec.get("dataSourceRef")
    out: list[FieldError] = []  # the original shows a path, which has nothing to show, where the source should be
    for field, found in (("dataSource", source), ("dataSourceRef", ref)):
        if found is not None:
            out += _source(f"{path}.{field}", found)
    if source is not None and ref is not None:
        if ref.get("namespace"):
            text = "may not be specified when dataSourceRef.namespace is specified"
            out.append(invalid(path, {}, text))
        elif any(source.get(key) != ref.get(key) for key in ("apiGroup", "kind", "name")):
            out.append(invalid(path, {}, "must match dataSourceRef"))
    return out


def _source(path: str, source: Mapping[str, Any]) -> list[FieldError]:
    out = [required(f"{path}.{key}") for key in ("name", "kind") if not source.get(key)]
    group, kind = source.get("apiGroup") or "", source.get("kind") or ""
    if not group and kind != "PersistentVolumeClaim":
        text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        out.append(invalid(path, kind, text))
    if group:
        out += [invalid(f"{path}.apiGroup", group, text) for text in names.dns_subdomain(group)]
    if namespace := source.get("namespace"):
        out += [invalid(f"{path}.namespace", namespace, text) for text in names.dns_label(namespace)]
    return out
