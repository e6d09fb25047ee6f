"""What create, update and patch share: reading the body, options, the order of the steps.

Owns the one pipeline of every write: decode, default, mutate, prepare, validate, store. Called by the verbs beside it.
Source: apiserver's registry/rest BeforeCreate and BeforeUpdate, and the handlers' option parsing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from steersman.api import changing, errors, meta, structural
from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.api.resource import Object
from steersman.api.schema.body import STRICT, WARN, GroupVersionKind, read
from steersman.api.validation import invalid
from steersman.apiserver.cache import Item, stored_api_version
from steersman.apiserver.call import Call
from steersman.apiserver.conversion import remote
from steersman.apiserver.managed import track
from steersman.lib.clock import rfc3339

_GENERATED = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no 0 1 3: apimachinery's util/rand
_NAME_MOST = 63 - 5
_TRIES = 8
_DIRECT = ("binding",)  # the API server's own changes: no strategy stands between


def options(call: Call, *, patch: str = "") -> None:
    """Check and keep dryRun, fieldManager, fieldValidation and force. Raises ApiError."""
    query = call.query
    given: Object = {
        "dryRun": query.all("dryRun"),
        "fieldManager": query.get("fieldManager"),
        "fieldValidation": query.get("fieldValidation"),
    }
    if query.has("force"):
        given["force"] = query.flag("force")
    if problems := meta.validate_options(given, patch=patch):
        name = "PatchOptions" if patch else ("CreateOptions" if call.info.verb == "create" else "UpdateOptions")
        raise errors.invalid("meta.k8s.io", name, "", problems)
    call.options = given
    call.dry_run = bool(given["dryRun"])


def body_of(call: Call, *, kind: str = "", group: str | None = None, version: str = "") -> Object:
    """The request's body, typed; of the resource's own kind unless another is named. Raises ApiError."""
    wanted = GroupVersionKind(
        call.kind.group if group is None else group, version or call.version, kind or call.kind.kind
    )
    media = call.request.header("content-type") or ""
    validation = call.query.get("fieldValidation") or WARN
    found = read(call.services.decoders, wanted, call.request.body, media, validation)
    call.warnings += found.warnings
    if call.kind.custom and not kind:
        check_unknown(call, found.obj, validation)
    if call.request.context is not None and call.request.context.wants_bodies():
        shown = msgspec.json.decode(msgspec.json.encode(found.obj))
        if not kind:
            shown.setdefault("metadata", {})
            call.kind.default(shown)
        call.asked_for(shown)
    else:
        call.asked_for(found.obj)
    return found.obj


def check_unknown(call: Call, obj: Object, validation: str) -> None:
    """Drop fields that a custom resource's schema does not know; say so as fieldValidation asks. Raises ApiError."""
    version = call.kind.version(call.version)
    if version is None or isinstance(version.schema, str) or not version.schema:
        return
    unknown = [f'unknown field "{path}"' for path in sorted(structural.prune(obj, version.schema))]
    if unknown and validation == STRICT:
        raise errors.bad_request(
            f'{call.kind.kind} in version "{call.version}" cannot be handled as a {call.kind.kind}: '
            f"strict decoding error: {', '.join(unknown)}"
        )
    if validation == WARN:
        call.warnings += unknown


def to_storage(kind: Kind, obj: Object) -> Object:
    """The object in the version that is defaulted and validated: the stored one, or where every version of a custom
    kind has a schema of its own, that of the request."""
    return obj if _by_versions(kind) else _converted(kind, obj)


def _by_versions(kind: Kind) -> bool:
    return kind.custom and kind.convert is not None and not remote(kind)


def _converted(kind: Kind, obj: Object) -> Object:
    wanted = stored_api_version(kind)
    if obj["apiVersion"] != wanted:
        if kind.convert is not None:
            obj = kind.convert(obj, wanted)
        obj["apiVersion"] = wanted
    return obj


def _at_rest(kind: Kind, obj: Object) -> Object:
    """The object as it is stored: what that version's schema does not know, the original drops when it reads."""
    if not _by_versions(kind) or obj["apiVersion"] == stored_api_version(kind):
        return obj
    stored = _converted(kind, obj)
    kind.default(stored)
    return stored


def to_served(call: Call, obj: Object) -> Object:
    """The object in the version of the request."""
    wanted = call.kind.api_version(call.version)
    if obj["apiVersion"] != wanted:
        if call.kind.convert is not None:
            obj = call.kind.convert(obj, wanted)
        obj["apiVersion"] = wanted
    return obj


def settle_namespace(call: Call, obj: Object) -> None:
    """The body's namespace is the path's. Raises ApiError 400 when they differ."""
    metadata = obj.setdefault("metadata", {})
    wanted = call.info.namespace if call.kind.namespaced else ""
    given = metadata.get("namespace", "")
    if given and given != wanted:
        if not call.kind.namespaced:
            metadata.pop("namespace")
            return
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    if wanted:
        metadata["namespace"] = wanted


def nameless(name: str) -> ApiError:
    """400: the body says no name, or none any more; `name` is the path's."""
    return errors.bad_request(f"the name of the object ({name} based on URL) was undeterminable: name must be provided")


def settle_name(call: Call, obj: Object) -> None:
    """The body's name is the path's. Raises ApiError 400 when they differ."""
    metadata, wanted = obj["metadata"], call.info.name
    if not metadata.get("name"):
        metadata["name"] = wanted
    if metadata["name"] != wanted:
        raise errors.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({wanted})"
        )
    settle_kind(call, obj)


def settle_kind(call: Call, obj: Object) -> None:
    """A custom resource says itself what it is. Raises ApiError 422 when it is something else."""
    wanted, version = call.kind.kind, call.kind.api_version(call.version)
    found = [] if obj["kind"] == wanted else [invalid("kind", obj["kind"], f"must be {wanted}")]
    if obj["apiVersion"] != version:
        found.append(invalid("apiVersion", obj["apiVersion"], f"must be {version}"))
    if found and call.kind.custom:
        raise errors.invalid(call.kind.group, str(obj["kind"]), obj["metadata"].get("name", ""), found)


async def create_object(call: Call, obj: Object, *, mutate: bool = True) -> Item | Object:
    """Everything between a decoded body and a stored object; for a dry run the object as it would be stored."""
    kind = call.kind
    call.operation = "CREATE"
    settle_namespace(call, obj)
    settle_kind(call, obj)
    call.warnings += meta.dedup_owners(obj)
    metadata = obj["metadata"]
    generate = metadata.get("generateName", "")
    generated = not metadata.get("name") and bool(generate)
    obj = to_storage(kind, obj)
    meta.strip(obj)
    meta.bare(metadata)
    kind.default(obj)
    track(call, obj, None)
    if mutate:
        await call.services.admission.mutate(call, obj, None)
        metadata = obj["metadata"]
    for left in reversed(range(_TRIES if generated else 1)):
        if generated:
            if left not in call.chosen:
                call.chosen[left] = "".join(call.services.random.choices(_GENERATED, k=5))
            metadata["name"] = generate[:_NAME_MOST] + call.chosen[left]
        try:
            return await _create_named(call, obj)
        except ApiError as error:
            if not (generated and left and error.reason == "AlreadyExists"):
                raise
    raise AssertionError("unreachable: the last try returns or raises")


async def _create_named(call: Call, obj: Object) -> Item | Object:
    kind, services = call.kind, call.services
    if "uid" not in call.chosen:
        call.chosen["uid"] = _uid(services.random.getrandbits(128))
        call.chosen["now"] = rfc3339(services.clock.now())
    meta.fill(obj, uid=call.chosen["uid"], now=call.chosen["now"])
    kind.prepare_create(obj)
    with ExitStack() as undo:
        await _run_hooks("before_create", undo, call, obj)
        found = meta.validate(obj, namespaced=kind.namespaced, rule=kind.name_rule, core=changing.core(kind))
        found += kind.validate(obj)
        if found:
            raise errors.invalid(kind.storage_location[0], kind.kind, obj["metadata"].get("name", ""), found)
        if kind.warnings is not None:
            call.warnings += kind.warnings(obj)
        await services.admission.validate(call, obj, None)
        if call.dry_run:
            if call.storage.find(kind, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) is not None:
                raise errors.already_exists(kind.group, kind.plural, obj["metadata"]["name"])
            return _at_rest(kind, obj)
        if obj["metadata"].pop("resourceVersion", "") not in ("", "0") and call.info.verb == "create":
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        made = await call.storage.create(kind, _at_rest(kind, obj), term=call.term)
        undo.pop_all()
        return made


def _uid(bits: int) -> str:
    """A version 4 UUID (RFC 9562) of 128 random bits."""
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{'89ab'[bits >> 62 & 3]}{text[17:20]}-{text[20:]}"


async def _run_hooks(when: str, undo: ExitStack, call: Call, *objects: Object) -> None:
    """What the kind's writes are tied to (allocations); `undo` takes it back unless the write happens."""
    for hook in call.services.extras.get(when, {}).get((call.kind.group, call.kind.kind), ()):
        back = await hook(call, *objects)
        if back is not None:
            undo.callback(back)


Change = Callable[[Object], Object]
"""Makes the wanted object from the current one (in the served version); may be called again after a conflict."""


async def update_object(call: Call, item: Item, change: Change, *, retry: bool, whole: bool = False) -> Item | Object:
    """Apply `change` to `item` and store the result. With `retry` a lost race is run again on the new state; `whole`:
    the change does not look at what was there."""
    for _ in range(100):
        with ExitStack() as undo:
            obj = await _updated(call, item, change, undo, whole=whole)
            if call.dry_run:
                return _at_rest(call.kind, obj)
            if _ready_to_go(obj):
                gone = await call.storage.remove(call.kind, item, term=call.term)
                if gone is not None:
                    return gone
            else:
                written = await call.storage.replace(call.kind, item, _at_rest(call.kind, obj), term=call.term)
                if written is not None:
                    undo.pop_all()
                    return written
        fresh = call.storage.get(call.kind, item.namespace, item.name)
        if not retry:
            raise modified(call.kind, item.name)
        item = fresh
    raise modified(call.kind, item.name)


def modified(kind: Kind, name: str) -> ApiError:
    """409: the object is not what the writer thought."""
    text = "the object has been modified; please apply your changes to the latest version and try again"
    return errors.conflict(kind.group, kind.plural, name, text)


def _ready_to_go(obj: Object) -> bool:
    """Whether an update has taken away the last thing that kept a deleted object."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if (obj.get("spec") or {}).get("finalizers") and obj["kind"] == "Namespace":
        return False
    return not metadata.get("deletionGracePeriodSeconds")


async def _updated(call: Call, item: Item, change: Change, undo: ExitStack, *, whole: bool) -> Object:
    kind, services = call.kind, call.services
    call.operation = "UPDATE"
    old = to_served(call, item.obj()) if _by_versions(kind) else item.obj()
    obj = to_storage(kind, change({} if whole else to_served(call, item.obj())))
    metadata = obj["metadata"]
    _check_preconditions(call, item, metadata, old)
    meta.bare(metadata)
    call.warnings += meta.dedup_owners(obj)
    kind.default(obj)
    meta.carry_over(obj, old)
    track(call, obj, old)
    await services.admission.mutate(call, obj, old)
    strategy = call.info.subresource not in _DIRECT
    if strategy:
        changing.prepare(kind, obj, old, call.info.subresource)
    await _run_hooks("before_update", undo, call, obj, old)
    if strategy and (found := changing.complaints(kind, obj, old, call.info.subresource)):
        raise errors.invalid(kind.storage_location[0], kind.kind, metadata.get("name", ""), found)
    if kind.warnings is not None and not call.info.subresource:
        call.warnings += _of_update(kind.warnings(obj), kind, obj, old)
    await services.admission.validate(call, obj, old)
    return obj


def _of_update(warnings: list[str], kind: Kind, obj: Object, old: Object) -> list[str]:
    """Only what is new is warned of: no name, no spec that is as it was, and no pod, which people seldom change."""
    generation = obj["metadata"].get("generation")
    if kind.kind == "Pod" or (generation is not None and generation == old["metadata"].get("generation")):
        return []
    if kind.kind == "CSIDriver" and obj["spec"].get("tokenRequests") == old["spec"].get("tokenRequests"):
        return []
    return [text for text in warnings if not text.startswith("metadata.name:")]


def _check_preconditions(call: Call, item: Item, metadata: Object, old: Object) -> None:
    version = str(metadata.get("resourceVersion") or "")
    if version and version != "0" and version != str(item.revision):
        if not (version.isascii() and version.isdigit()):
            raise ApiError(500, "", f"strconv.ParseUint: parsing {errors.quoted(version)}: invalid syntax")
        raise modified(call.kind, item.name)
    metadata["resourceVersion"] = str(item.revision)
    uid = metadata.get("uid")
    if uid and uid != old["metadata"]["uid"] and call.info.verb == "update":  # of a patch, validation says so
        raise another(call, uid, old["metadata"]["uid"])


_PREFIXES = {
    "endpoints": "services/endpoints",
    "ingresses": "ingress",
    "nodes": "minions",
    "replicationcontrollers": "controllers",
    "services": "services/specs",
}
"""Where the original keeps kinds that are not kept under their plural."""
_GROUPED = ("apiextensions.k8s.io", "apiregistration.k8s.io")


def another(call: Call, given: str, known: str, *, root: str = "/registry") -> ApiError:
    """409: the object has not the uid that the writer thought; the original names its key in the store."""
    kind, info = call.kind, call.info
    group, plural = kind.storage_location
    whole = kind.custom or group in _GROUPED
    where = f"{group}/{plural}" if whole else _PREFIXES.get(plural, plural)
    key = "/".join([root, *(part for part in (where, info.namespace, info.name) if part)])
    text = f"Precondition failed: UID in precondition: {given}, UID in object meta: {known}"
    why = f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: {text}"
    return errors.conflict(kind.group, kind.plural, info.name, why)
