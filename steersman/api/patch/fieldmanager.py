"""Field management for the kinds of one release: the right type, and what each endpoint may own.

Owns `FieldManager`, one per API server. Called on every write, and for server-side apply. Pure: time is an argument, in
Unix seconds. Source: KEP-555; GetResetFields and GetResetFieldsFilter of the registry strategies.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from steersman.api.kind import Kind
from steersman.api.patch import apply, fieldset, ownership
from steersman.api.patch.fieldset import Set
from steersman.api.patch.ownership import Manager
from steersman.api.patch.types import Type, Types
from steersman.api.resource import Object
from steersman.api.schema import Schemas

UNKNOWN = "unknown"

_STATUS = fieldset.of("status")
_NOTHING: Set = {}
_ONLY = {
    ("", "Pod", "ephemeralcontainers"): fieldset.of("spec.ephemeralContainers"),
    ("", "Pod", "resize"): fieldset.of(
        "spec.containers.*.resources",
        "spec.containers.*.resizePolicy",
        "spec.initContainers.*.resources",
        "spec.initContainers.*.resizePolicy",
        "spec.resources",
    ),
}
_NOT_IN_STATUS = {
    ("", "Pod"): fieldset.of("spec", "metadata.deletionTimestamp", "metadata.ownerReferences"),
    ("apps", "Deployment"): fieldset.of("spec", "metadata.labels"),
}
_SPEC = fieldset.of("spec")


class FieldManager:
    """Keeps the types of built-in and custom kinds."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._built_in = Types(schemas)
        self._custom: dict[tuple[str, str, str], tuple[object, Type]] = {}

    def type(self, kind: Kind, version: str) -> Type:
        """The type of a kind's objects in a version."""
        if not kind.custom:
            return self._built_in.of(self._schemas.of(kind.group, version, kind.kind))
        found = kind.version(version)
        schema: Any = found.schema if found is not None and isinstance(found.schema, Mapping) else {}
        key = (kind.group, kind.plural, version)
        known = self._custom.get(key)
        if known is None or known[0] is not schema:
            known = self._custom[key] = (schema, _custom(schema))
        return known[1]

    def track(
        self,
        kind: Kind,
        version: str,
        obj: Object,
        old: Object | None,
        *,
        manager: str,
        now: float,
        subresource: str = "",
    ) -> None:
        """Set managedFields of `obj` after a create (`old` is None) or update by `manager`, in place.

        Both are in the same version; `version` is the request's.
        """
        who = Manager(manager or UNKNOWN, "Update", kind.api_version(version), subresource)
        ignore, keep = limits(kind, subresource)
        in_version = str(obj.get("apiVersion") or "").rpartition("/")[2] or version
        ownership.update(old, obj, self.type(kind, in_version), who, stamp(now), ignore=ignore, keep=keep)

    def apply(
        self,
        kind: Kind,
        version: str,
        live: Object | None,
        config: Object,
        *,
        manager: str,
        now: float,
        force: bool = False,
        subresource: str = "",
    ) -> Object:
        """`live` with `config` applied by `manager`, not yet defaulted. Raises ApiError 400, 409 and 500."""
        ignore, keep = limits(kind, subresource)
        return apply.apply(
            live,
            config,
            self.type(kind, version),
            manager,
            stamp(now),
            subresource=subresource,
            force=force,
            ignore=ignore,
            keep=keep,
        )


def limits(kind: Kind, subresource: str) -> tuple[Set, Set | None]:
    """Fields that an endpoint resets, and the only ones it may change (None: all)."""
    if not subresource:
        return (_STATUS if kind.subresource("status") else _NOTHING), None
    only = _ONLY.get((kind.group, kind.kind, subresource))
    if only is not None:
        return _NOTHING, only
    if subresource == "status":
        return _NOT_IN_STATUS.get((kind.group, kind.kind), _SPEC), None
    return _NOTHING, None


def stamp(now: float) -> str:
    """Unix seconds as RFC 3339."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _custom(schema: Mapping[str, Any]) -> Type:
    """A custom resource's schema with the metadata that every object has."""
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        **(schema.get("properties") or {}),
        "metadata": _METADATA,
    }
    return Types().of({**schema, "type": "object", "properties": properties})


_LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "properties": {
        "annotations": _LABELS,
        "labels": _LABELS,
        "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "ownerReferences": {
            "type": "array",
            "items": {"type": "object", "additionalProperties": True},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
        },
        **{
            name: {"type": "string"}
            for name in (
                "creationTimestamp",
                "deletionTimestamp",
                "generateName",
                "name",
                "namespace",
                "resourceVersion",
                "selfLink",
                "uid",
            )
        },
        "deletionGracePeriodSeconds": {"type": "integer"},
        "generation": {"type": "integer"},
        "managedFields": {"type": "array"},
    },
}
