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
    check_unknown,
    create_object,
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


_NAMES = ("the name", "the namespace", "metadata.name")  # complaints about the request, not about the object


async def patch(call: Call) -> Response:
    """200 with the object as stored; 201 when an apply created it."""
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
    if kind == "apply":
        return await _apply(call)
    item = call.storage.get(call.kind, call.info.namespace, call.info.name)
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
        patched = _patched(call, kind, current, _document(call, kind))
        try:
            typed = _typed(call, dict(patched))
            if twice and validation == STRICT:
                raise errors.patched_wrong(_whole(patched), f"strict decoding error: {', '.join(twice)}")
            call.warnings += twice
            return typed
        except ApiError as error:
            if error.reason != "BadRequest" or error.message.startswith(_NAMES):
                raise
            _, handled, why = error.message.partition(" cannot be handled as a ")
            why = why.partition(": ")[2] if handled else error.message
            if kind == "strategic" and not why.startswith("strict"):
                raise strategic.unfit(_document(call, kind), why) from None
            raise errors.patched_wrong(_whole(patched), why) from None

    return answer(call, 200, await update_object(call, item, change, retry=True))


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


def _patched(call: Call, kind: str, current: Object, document: object) -> Object:
    if kind == "json":
        bare = not call.kind.custom and "status" not in current and call.kind.subresource("status") is not None
        if bare:
            current["status"] = {}  # as Go writes a struct that is empty: paths may lead into it
        patched: Any = json.apply(current, document)
        if patched is None:
            return {}
        if not isinstance(patched, dict):
            text = f"json: cannot unmarshal {_shape(patched)} into Go value of type {STRUCT}"
            raise errors.patched_wrong(encode(patched).decode(), f"couldn't get version/kind; json parse error: {text}")
        if bare and patched.get("status") == {}:
            del patched["status"]
        return patched
    if not isinstance(document, dict):
        text = f"json: cannot unmarshal {_shape(document)} into Go value of type map[string]interface {{}}"
        raise errors.bad_request(text if kind == "strategic" else f"error decoding patch: {text}")
    if kind == "merge":
        return merge.apply(current, document)
    schemas = call.services.registry.schemas
    return strategic.apply(current, document, schemas.of(call.kind.group, call.version, call.kind.kind), schemas)


def _shape(document: object) -> str:
    """What Go calls the type of a JSON value."""
    if isinstance(document, bool):
        return "bool"
    return "array" if isinstance(document, list) else "string" if isinstance(document, str) else "number"


def _typed(call: Call, obj: Object) -> Object:
    """The patched object through the decoder: types are checked, unknown fields reported."""
    wanted = GroupVersionKind(call.kind.group, call.version, call.kind.kind)
    obj.setdefault("apiVersion", wanted.api_version)
    obj.setdefault("kind", wanted.kind)
    found = read(
        call.services.decoders, wanted, msgspec.json.encode(obj), validation=call.query.get("fieldValidation") or "Warn"
    )
    call.warnings[:] = found.warnings
    if call.kind.custom and "merged" not in call.options:
        check_unknown(call, found.obj, call.query.get("fieldValidation") or "Warn")
    settle_namespace(call, found.obj)
    settle_name(call, found.obj)
    return found.obj


async def _apply(call: Call) -> Response:
    """Server-side apply: the fields a manager wants, merged with everybody else's (KEP-555)."""
    wanted = _configuration(call)
    if not isinstance(wanted, dict):
        text = f"json: cannot unmarshal {_shape(wanted)} into Go value of type map[string]interface {{}}"
        raise errors.bad_request(f"error decoding YAML: error unmarshaling JSON: while decoding JSON: {text}")
    _check_claim(call, wanted)
    if not call.kind.custom:
        apply.check(wanted, managed.type_of(call))
    settle_namespace(call, wanted)
    settle_name(call, wanted)
    if (wanted["metadata"]).get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    call.options["merged"] = True  # managedFields are set here, not by `track`
    applied = _typed(call, wanted)
    item = call.storage.find(call.kind, call.info.namespace, call.info.name)
    if item is None:
        if call.info.subresource:
            raise errors.not_found(call.kind.group, call.kind.plural, call.info.name)
        if applied["metadata"].get("resourceVersion"):
            raise errors.conflict(
                call.kind.group, call.kind.plural, call.info.name, "cannot create an object with a resourceVersion"
            )
        return answer(call, 201, await create_object(call, _merged(call, None, applied)))
    return answer(call, 200, await update_object(call, item, lambda live: _merged(call, live, applied), retry=True))


def _configuration(call: Call) -> object:
    """An applied document. Most clients write their YAML as JSON, which is read a hundred times as fast."""
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


def _check_claim(call: Call, wanted: Object) -> None:
    expected = (call.kind.api_version(call.version), call.kind.kind)
    given = (wanted.get("apiVersion"), wanted.get("kind"))
    if given != expected:
        shown = str(given[0] or "")
        shown = shown if "/" in shown else f"/{shown}"
        raise errors.bad_request(f"invalid object type: {shown}, Kind={given[1] or ''}")
