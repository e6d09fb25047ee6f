"""scale: the autoscaling/v1 Scale view of whatever has replicas.

Source: the ScaleREST of pkg/registry/apps/*/storage; CustomResourceDefinition's subresources.scale.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from steersman.api import errors, labels
from steersman.api.errors import ApiError
from steersman.api.kind import Column, ScalePaths
from steersman.api.patch import json, merge
from steersman.api.resource import Object
from steersman.api.schema.decode import malformed
from steersman.api.table import AGE, NAME, dig, number, table
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Call
from steersman.apiserver.encode import in_medium
from steersman.apiserver.subresources.own import admitted
from steersman.apiserver.verbs.patch import TYPES
from steersman.apiserver.verbs.write import body_of, options, update_object
from steersman.lib.http.messages import Response

_USUAL = ScalePaths()
_TRIES = 5  # of a patch that lost a race, as in the original
_COLUMNS: tuple[Column, ...] = (
    NAME,
    number("Desired", "spec", "replicas"),
    number("Available", "status", "replicas"),
    AGE,
)


async def scale(server: Any, call: Call) -> Response:
    """GET, PUT and PATCH of NAME/scale."""
    item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    paths = _paths(call)
    if call.info.verb == "get":
        obj = item.obj()
        if paths is not None and dig(obj, *paths.spec) is None:
            raise errors.internal(f'the spec replicas field ".{".".join(paths.spec)}" does not exist')
        return _answer(call, view(obj, paths))
    if call.info.verb not in ("update", "patch"):
        raise errors.method_not_allowed(call.kind.group, f"{call.kind.plural}/scale", call.info.verb)
    options(call)
    body = body_of(call, kind="Scale", group="autoscaling", version="v1") if call.info.verb == "update" else None
    if body is None and call.request.context is not None:
        call.request.context.patched()
    for left in reversed(range(_TRIES)):
        try:
            return await _written(call, item, body, paths)
        except ApiError as error:
            if body is not None or not left or error.reason != "Conflict":
                raise
        item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    raise AssertionError("unreachable: the last try returns or raises")


async def _written(call: Call, item: Item, body: Object | None, paths: ScalePaths | None) -> Response:
    """Admit a Scale and set the replicas that it says."""
    old = view(item.obj(), paths)
    wanted = {**old, **(body if body is not None else _patched(call, view(item.obj(), paths)))}
    wanted["metadata"] = {**old["metadata"], **(wanted.get("metadata") or {})}
    if (given_name := wanted["metadata"].get("name")) and given_name != call.info.name:
        text = f"the name of the object ({given_name}) does not match the name on the URL ({call.info.name})"
        raise errors.bad_request(text)
    replicas = (wanted.get("spec") or {}).get("replicas", 0)
    if type(replicas) is not int:
        shape = {str: "string", dict: "object", list: "array", bool: "bool"}.get(type(replicas), "number")
        text = f"json: cannot unmarshal {shape} into Go struct field ScaleSpec.spec.replicas of type int32"
        raise errors.patched_wrong(msgspec.json.encode(dict(sorted(wanted.items()))).decode(), text)
    given = body if body is not None else wanted
    written = await admitted(call, "UPDATE", wanted, old)

    def change(obj: Object) -> Object:
        version = (given.get("metadata") or {}).get("resourceVersion")
        if version:
            obj["metadata"]["resourceVersion"] = version
        replicas = (wanted.get("spec") or {}).get("replicas", 0)
        if replicas < 0 and not call.kind.custom:  # which has rules of its own for its replicas
            text = f"Invalid value: {replicas}: must be greater than or equal to 0"
            found = errors.FieldError("FieldValueInvalid", "spec.replicas", text, replicas)
            raise errors.invalid("autoscaling", "Scale", call.info.name, [found])
        _set(obj, (paths or _USUAL).spec, replicas)
        return obj

    written.info = replace(call.info, subresource="")
    written.options["through"] = "scale"
    made = await update_object(written, item, change, retry=False)
    return _answer(call, view(made.obj() if isinstance(made, Item) else made, paths))


def _paths(call: Call) -> ScalePaths | None:
    """Where a custom resource has its replicas; it is read as it is stored."""
    found = call.kind.subresource("scale", call.kind.storage_version.name) if call.kind.custom else None
    return found.scale if found is not None else None


def _set(obj: Object, path: tuple[str, ...], replicas: int) -> None:
    for step in path[:-1]:
        obj = obj.setdefault(step, {})
    obj[path[-1]] = replicas


def _answer(call: Call, scale: Object) -> Response:
    if call.format.transform != "Table":
        return call.document(200, scale)
    made = table(
        _COLUMNS,
        [scale],
        call.services.clock.now(),
        include=call.query.get("includeObject") or "Metadata",
        list_meta={"resourceVersion": scale["metadata"].get("resourceVersion", "")},
        version=call.format.version or "v1",
    )
    return call.respond(200, in_medium(made, call.format))


def _patched(call: Call, current: Object) -> Object:
    media = (call.request.header("content-type") or "").partition(";")[0].strip()
    try:
        document = msgspec.json.decode(call.request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise errors.bad_request(f"error decoding patch: {malformed(call.request.body, error)}") from None
    if TYPES.get(media) == "json":
        patched: Object = json.apply(current, document)
        return patched
    if media not in TYPES or not isinstance(document, dict):
        raise errors.unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(TYPES)
        )
    return merge.apply(current, document)


def view(obj: Object, paths: ScalePaths | None = None) -> Object:
    """The Scale of an object; `paths` are a custom resource's."""
    meta = obj["metadata"]
    places = paths or _USUAL
    wanted, present = dig(obj, *places.spec), dig(obj, *places.status)
    text = _selector(obj) if paths is None else (dig(obj, *paths.selector) if paths.selector else "")
    shown = {
        key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp") if key in meta
    }
    made: Object = {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": shown,
        "spec": {"replicas": wanted} if wanted else {},
        "status": {"replicas": present or 0},
    }
    if text:
        made["status"]["selector"] = text
    return made


def _selector(obj: Object) -> str:
    selector = (obj.get("spec") or {}).get("selector") or {}
    is_set = obj["kind"] == "ReplicationController"
    return str(labels.from_set(selector) if is_set else labels.from_object(selector)) if selector else ""
