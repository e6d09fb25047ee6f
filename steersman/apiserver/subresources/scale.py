"""scale: the autoscaling/v1 Scale view of whatever has replicas.

Source: the ScaleREST of pkg/registry/apps/*/storage; CustomResourceDefinition's subresources.scale.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from steersman.api import errors, labels
from steersman.api.errors import ApiError
from steersman.api.kind import Column, ScalePaths
from steersman.api.patch import apply, fieldset
from steersman.api.patch.types import Types
from steersman.api.resource import Object
from steersman.api.schema.body import GroupVersionKind
from steersman.api.table import AGE, NAME, dig, number, table
from steersman.apiserver import managed
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Call
from steersman.apiserver.encode import in_medium
from steersman.apiserver.subresources.own import admitted
from steersman.apiserver.verbs.patch import changing, configuration, kind_of
from steersman.apiserver.verbs.read import check_export, check_not_future, parse_version
from steersman.apiserver.verbs.write import another, body_of, options, to_served, update_object
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Response

_USUAL = ScalePaths()
_SCALE = GroupVersionKind("autoscaling", "v1", "Scale")
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
        check_export(call)
        if (version := call.query.get("resourceVersion")) not in ("", "0"):
            check_not_future(call, parse_version(version, plain=True))
        obj = item.obj()
        if paths is not None and dig(obj, *paths.spec) is None:
            raise errors.internal(f'the spec replicas field ".{".".join(paths.spec)}" does not exist')
        return _answer(call, view(obj, paths))
    if call.info.verb not in ("update", "patch"):
        raise errors.method_not_allowed(call.kind.group, f"{call.kind.plural}/scale", call.info.verb)
    body, kind = None, ""
    if call.info.verb == "update":
        options(call)
        body = body_of(call, kind="Scale", group="autoscaling", version="v1")
        _check_name(call, body)
    else:
        kind = kind_of(call)
    for left in reversed(range(_TRIES)):
        try:
            return await _written(call, item, body, kind, paths)
        except ApiError as error:
            if body is not None or not left or error.reason != "Conflict":
                raise
        item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    raise AssertionError("unreachable: the last try returns or raises")


async def _written(call: Call, item: Item, body: Object | None, kind: str, paths: ScalePaths | None) -> Response:
    """Admit a Scale and set the replicas that it says."""
    old = view(item.obj(), paths)
    applied: Object | None = None
    if body is not None:
        given = body
    elif kind == "apply":
        applied = _applied(call, item, paths)
        given = {"spec": {"replicas": dig(applied, *(paths or _USUAL).spec) or 0}}
    else:
        given = changing(call, kind, _SCALE)(view(item.obj(), paths))
        _check_name(call, given)
    uid = str((given.get("metadata") or {}).get("uid") or "")
    if body is not None and uid and uid != old["metadata"]["uid"]:
        raise another(call, uid, old["metadata"]["uid"], root="")
    wanted = {**old, **given, "metadata": {**old["metadata"], **(given.get("metadata") or {})}}
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
        if applied is not None:
            obj["metadata"]["managedFields"] = applied["metadata"].get("managedFields", [])
        return obj

    written.info = replace(call.info, subresource="")
    written.options["through"] = "scale"
    written.options["merged"] = applied is not None  # else managedFields are the pipeline's to set
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
    if call.format.transform == "PartialObjectMetadata":
        version = f"meta.k8s.io/{call.format.version}"
        shown = {"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": scale["metadata"]}
        return call.document(200, shown)
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


def _check_name(call: Call, given: Object) -> None:
    name = (given.get("metadata") or {}).get("name")
    if not name:
        text = f"the name of the object ({call.info.name} based on URL) was undeterminable: name must be provided"
        raise errors.bad_request(text)
    if name != call.info.name:
        text = f"the name of the object ({name}) does not match the name on the URL ({call.info.name})"
        raise errors.bad_request(text)


def _applied(call: Call, item: Item, paths: ScalePaths | None) -> Object:
    """The whole object with an applied Scale's replicas, and who manages them. Raises ApiError 400, 409, 500."""
    config = configuration(call, (_SCALE.api_version, _SCALE.kind))
    schema = call.services.registry.schemas.of(*_SCALE)
    apply.check(config, Types(call.services.registry.schemas).of(schema))
    if (config.get("metadata") or {}).get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    if (name := (config.get("metadata") or {}).get("name")) and name != call.info.name:
        raise errors.bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({call.info.name})"
        )
    live, path = to_served(call, item.obj()), (paths or _USUAL).spec
    whole: Object = {"apiVersion": live["apiVersion"], "kind": live["kind"]}
    if (replicas := dig(config, "spec", "replicas")) is not None:
        _set(whole, path, replicas)
    now, manager = rfc3339(call.services.clock.now()), str(call.options["fieldManager"])
    try:
        return apply.apply(
            live, whole, managed.type_of(call), manager, now,
            subresource="scale", force=bool(call.options.get("force")), keep=fieldset.of(".".join(path)),
        )  # fmt: skip
    except ApiError as error:  # in a Scale's words
        error.message = error.message.replace(f"using {live['apiVersion']}", f"using {_SCALE.api_version}")
        for cause in (error.details or {}).get("causes", ()):
            cause["message"] = cause["message"].replace(f"using {live['apiVersion']}", f"using {_SCALE.api_version}")
        raise


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
