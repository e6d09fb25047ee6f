"""managedFields: who set which field, kept on every write.

Owns the choice of manager and type for `api.patch.ownership`. Called by the write pipeline and by apply.
Source: KEP-555; apiserver's handlers/fieldmanager; the strategies' GetResetFields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from steersman.api.patch import ownership
from steersman.api.patch.fieldmanager import limits
from steersman.api.patch.types import Type, Types
from steersman.api.resource import Object
from steersman.apiserver.call import Call
from steersman.apiserver.conversion import remote
from steersman.lib.clock import rfc3339

_MANAGER_MOST = 128
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def type_of(call: Call, version: str = "") -> Type:
    """The type that the request's objects have, in its version or another: by the release's schemas, or its own."""
    types = call.services.extras.get("types")
    if types is None:
        types = call.services.extras["types"] = Types(call.services.registry.schemas)
    served = call.kind.version(version or call.version)
    if served is None:
        unknown: Type = types.unknown
        return unknown
    schemas = call.services.registry.schemas
    if isinstance(served.schema, str):
        node = schemas.definitions.get(served.schema)
    else:
        node = _custom(call, served.schema)
    found: Type = types.of(node) if node else types.unknown
    return found


def _custom(call: Call, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A custom resource's schema with what every object has; made once per schema, as types are told by identity."""
    made: dict[int, tuple[Any, Mapping[str, Any]]] = call.services.extras.setdefault("custom_types", {})
    found = made.get(id(schema))
    if found is None:
        text: Mapping[str, Any] = {"type": "string"}
        whole = {"apiVersion": text, "kind": text, "metadata": {"$ref": _OBJECT_META}}
        properties = {**(schema.get("properties") or {}), **whole}
        found = made[id(schema)] = (schema, {**schema, "type": "object", "properties": properties} if schema else {})
    return found[1]


def manager_of(call: Call) -> str:
    """The writer's name: fieldManager, else what its user agent begins with."""
    named = call.options.get("fieldManager")
    if named:
        return str(named)
    agent = call.request.header("user-agent") or ""
    return agent.partition("/")[0][:_MANAGER_MOST] or "unknown"


def track(call: Call, obj: Object, old: Object | None) -> None:
    """Set managedFields of an ordinary write, before admission changes it; an apply has set them itself."""
    if call.options.get("merged"):
        return
    through = str(call.options.get("through") or call.info.subresource)  # a scale is an update of the whole object
    now = rfc3339(call.services.clock.now())
    ignore, keep = limits(call.kind, call.info.subresource)
    new, before = _as_asked(call, obj), None if old is None else _as_asked(call, old)
    manager = ownership.Manager(manager_of(call), "Update", new["apiVersion"], through)
    ownership.update(before, new, type_of(call), manager, now, ignore=ignore, keep=keep)
    if new is not obj:
        obj["metadata"].pop("managedFields", None)
        if "managedFields" in new["metadata"]:
            obj["metadata"]["managedFields"] = new["metadata"]["managedFields"]


def _as_asked(call: Call, obj: Object) -> Object:
    """The object in the request's version, whose names the fields have; a copy where that is not the stored one.

    What only a webhook can convert stays in the stored version: it is not asked about objects that may never be.
    """
    wanted = call.kind.api_version(call.version)
    if call.kind.convert is None or remote(call.kind) or obj.get("apiVersion") == wanted:
        return obj
    copied: Object = msgspec.json.decode(msgspec.json.encode(obj))
    converted = call.kind.convert(copied, wanted)
    converted["apiVersion"] = wanted
    return converted
