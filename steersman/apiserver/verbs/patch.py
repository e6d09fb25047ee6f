"""patch: JSON patch, merge patch, strategic merge patch, server-side apply.

Owns the choice by Content-Type and the retry on a lost race. Source: apiserver's handlers/patch.go.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from steersman.api import errors
from steersman.api.errors import ApiError
from steersman.api.patch import apply, json, merge, strategic
from steersman.api.patch.fieldmanager import limits
from steersman.api.resource import Object
from steersman.api.schema.body import IGNORE, STRICT, STRUCT, WARN, GroupVersionKind, read
from steersman.api.schema.decode import YamlError, malformed
from steersman.api.schema.strict import clean, repeated
from steersman.apiserver import managed
from steersman.apiserver.cache import encode
from steersman.apiserver.call import Call
from steersman.apiserver.verbs.create import answer
from steersman.apiserver.verbs.write import (
    Change,
    check_unknown,
    create_object,
    nameless,
    options,
    settle_name,
    settle_namespace,
    update_object,
)
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Response

TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


async def patch(call: Call) -> Response:
    """200 with the object as stored; 201 when an apply created it."""
    kind = kind_of(call)
    if kind == "apply":
        return await _apply(call)
    item = call.storage.get(call.kind, call.info.namespace, call.info.name)
    wanted = GroupVersionKind(call.kind.group, call.version, call.kind.kind)
    change = changing(call, kind, wanted)

    def changed(current: Object) -> Object:
        obj = change(current)
        if not (obj.get("metadata") or {}).get("name"):
            raise nameless(call.info.name)
        return _settled(call, obj)

    return answer(call, 200, await update_object(call, item, changed, retry=True))


def kind_of(call: Call) -> str:
    """Which kind of patch it is, its options being kept. Raises ApiError 415, 422."""
    media = (call.request.header("content-type") or "").partition(";")[0].strip()
    kind = TYPES.get(media)
    if kind is None and not call.kind.custom:
        raise errors.generic(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    if kind is None or (kind == "strategic" and call.kind.custom):
        accepted = [name for name, short in TYPES.items() if not (short == "strategic" and call.kind.custom)]
        raise errors.unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
        )
    options(call, patch=kind)
    if call.request.context is not None:
        call.request.context.patched()
    return kind


def changing(call: Call, kind: str, wanted: GroupVersionKind) -> Change:
    """What makes the patched object, a `wanted`, of a current one. Raises ApiError 400; so does the change, or 422."""
    document = _document(call, kind)
    validation = call.query.get("fieldValidation") or WARN
    twice: list[str] = []
    if (
        kind != "json"
        and validation != IGNORE
        and isinstance(document, dict)
        and not clean(call.request.body, msgspec.json.encode(document))
    ):
        twice = repeated(call.request.body)

    def change(current: Object) -> Object:
        patched = _patched(call, kind, current, _document(call, kind), wanted)
        try:
            typed = _typed(call, dict(patched), wanted)
            if twice and validation == STRICT:
                raise errors.patched_wrong(_whole(patched), f"strict decoding error: {', '.join(twice)}")
            call.warnings += twice
            return typed
        except ApiError as error:
            if error.reason != "BadRequest":
                raise
            _, handled, why = error.message.partition(" cannot be handled as a ")
            why = why.partition(": ")[2] if handled else error.message
            why = _in_order(why)
            if kind == "strategic":
                raise strategic.unfit(_document(call, kind), why) from None
            raise errors.patched_wrong(_whole(patched), why) from None

    return change


def _in_order(why: str) -> str:
    """Unknown fields are told of as Go reads maps: sorted."""
    head, strict, fields = why.partition("strict decoding error: ")
    return f"{head}{strict}{', '.join(sorted(fields.split(', ')))}" if strict else why


def _whole(patched: Object) -> str:
    """A patched object as it is shown where it is wrong."""
    return encode(dict(sorted(patched.items()))).decode()


def _document(call: Call, kind: str) -> object:
    """The patch, decoded anew each time: patching changes it."""
    try:
        return msgspec.json.decode(call.request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        why = malformed(call.request.body, error)
        raise errors.bad_request(why if kind == "strategic" else f"error decoding patch: {why}") from None


def _patched(call: Call, kind: str, current: Object, document: object, wanted: GroupVersionKind) -> Object:
    if kind == "json":
        bare = not call.kind.custom and "status" not in current and call.kind.subresource("status") is not None
        if bare:
            current["status"] = {}  # as Go writes a struct that is empty: paths may lead into it
        patched: Any = json.apply(current, document)
        if patched is None:
            return {}
        if not isinstance(patched, dict):
            text = f"json: cannot unmarshal {json.shape(patched)} into Go value of type {STRUCT}"
            raise errors.patched_wrong(encode(patched).decode(), f"couldn't get version/kind; json parse error: {text}")
        if bare and patched.get("status") == {}:
            del patched["status"]
        return patched
    if document is None:
        if kind == "strategic":
            return current
        raise errors.bad_request("Invalid JSON Patch")
    if not isinstance(document, dict):
        text = f"json: cannot unmarshal {json.shape(document)} into Go value of type map[string]interface {{}}"
        raise errors.bad_request(text if kind == "strategic" else f"error decoding patch: {text}")
    if kind == "merge":
        return merge.apply(current, document)
    schemas = call.services.registry.schemas
    return strategic.apply(current, document, schemas.of(*wanted), schemas)


def _typed(call: Call, obj: Object, wanted: GroupVersionKind) -> Object:
    """The patched object through the decoder: types are checked, unknown fields reported."""
    obj.setdefault("apiVersion", wanted.api_version)
    obj.setdefault("kind", wanted.kind)
    own = wanted.group == call.kind.group and call.kind.custom
    claimed = obj["apiVersion"], obj["kind"]
    if own and all(isinstance(each, str) for each in claimed):  # what it says it is, is validated later
        obj["apiVersion"], obj["kind"] = wanted.api_version, wanted.kind
    validation = call.query.get("fieldValidation") or WARN
    found = read(call.services.decoders, wanted, msgspec.json.encode(obj), validation=validation)
    call.warnings[:] = sorted(found.warnings)  # as what Go makes of maps is read
    if own and "merged" not in call.options:
        check_unknown(call, found.obj, validation)
    if own:
        found.obj["apiVersion"], found.obj["kind"] = claimed
    return found.obj


def _settled(call: Call, obj: Object) -> Object:
    settle_namespace(call, obj)
    settle_name(call, obj)
    return obj


async def _apply(call: Call) -> Response:
    """Server-side apply: the fields a manager wants, merged with everybody else's (KEP-555)."""
    wanted = configuration(call, (call.kind.api_version(call.version), call.kind.kind))
    if not call.kind.custom:
        apply.check(wanted, managed.type_of(call))
    settle_namespace(call, wanted)
    settle_name(call, wanted)
    if (wanted["metadata"]).get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    call.options["merged"] = True  # managedFields are set here, not by `track`
    applied = _settled(call, _typed(call, wanted, GroupVersionKind(call.kind.group, call.version, call.kind.kind)))
    item = call.storage.find(call.kind, call.info.namespace, call.info.name)
    if item is not None and call.kind.custom:
        _known_versions(call, item.obj()["metadata"])
    if item is None:
        if call.info.subresource:
            raise errors.not_found(call.kind.group, call.kind.plural, call.info.name)
        if applied["metadata"].get("resourceVersion"):
            raise errors.conflict(
                call.kind.group, call.kind.plural, call.info.name, "cannot create an object with a resourceVersion"
            )
        return answer(call, 201, await create_object(call, _merged(call, None, applied)))
    return answer(call, 200, await update_object(call, item, lambda live: _merged(call, live, applied), retry=True))


def _known_versions(call: Call, metadata: Object) -> None:
    """Fields that are owned in a version which is no more cannot be compared. Raises ApiError 500, as the original."""
    known = {call.kind.api_version(each.name) for each in call.kind.versions}
    for entry in metadata.get("managedFields") or ():
        if entry.get("apiVersion") not in known:
            text = f"request to convert CR to an invalid group/version: {entry.get('apiVersion')}"
            raise ApiError(500, "", text)


def configuration(call: Call, expected: tuple[str, str]) -> Object:
    """An applied document, which says that it is what is expected. Raises ApiError 400."""
    wanted = _written(call)
    if not isinstance(wanted, dict):
        text = f"json: cannot unmarshal {json.shape(wanted)} into Go value of type map[string]interface {{}}"
        raise errors.bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {text}")
    given = (wanted.get("apiVersion"), wanted.get("kind"))
    if given != expected:
        shown = str(given[0] or "")
        shown = shown if "/" in shown else f"/{shown}"
        raise errors.bad_request(f"invalid object type: {shown}, Kind={given[1] or ''}")
    return wanted


def _written(call: Call) -> object:
    """An applied document as it is. Most clients write their YAML as JSON, which is read a hundred times as fast."""
    body, twice = call.request.body, list[str]()
    if body[:1] == b"{":
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return msgspec.json.decode(body)
    from steersman.api.schema.yaml import load, repeated, warnings

    try:
        found = load(body, twice)
    except YamlError as error:
        raise errors.bad_request(f"error decoding YAML: {error}") from None
    validation = call.query.get("fieldValidation") or WARN
    if twice and validation == STRICT:
        raise errors.bad_request(f"error strict decoding YAML: error converting YAML to JSON: {repeated(twice)}")
    if twice and validation == WARN:
        call.warnings += warnings(repeated(twice))
    return found


def _merged(call: Call, live: Object | None, config: Object) -> Object:
    ignore, keep = limits(call.kind, call.info.subresource)
    return apply.apply(
        live,
        _copy(config),
        managed.type_of(call),
        str(call.options["fieldManager"]),
        rfc3339(call.services.clock.now()),
        subresource=call.info.subresource,
        force=bool(call.options.get("force")),
        ignore=ignore,
        keep=keep,
    )


def _copy(obj: Object) -> Object:
    copied: Object = msgspec.json.decode(encode(obj))
    return copied
