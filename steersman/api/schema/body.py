"""A request's body as an object: content type, apiVersion and kind, types, unknown fields.

Owns `read`, the one way in for created, replaced and applied objects and for the bodies of subresources. Called by
the API server's verbs. Raises ApiError with kube-apiserver's wording (source: apiserver's handlers/create.go and
rest.go, apimachinery's serializers). Custom resources are decoded without types here; their structural schema is
applied by whoever serves them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from steersman.api import errors
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.api.schema.decode import DecodeError, Decoders, YamlError, malformed

JSON = "application/json"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
IGNORE, WARN, STRICT = "Ignore", "Warn", "Strict"


class GroupVersionKind(NamedTuple):
    """What an object claims to be, or should be."""

    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        """`v1`, or `group/version`."""
        return f"{self.group}/{self.version}" if self.group else self.version


_NOBODY = GroupVersionKind("", "", "")


class Body(NamedTuple):
    """The object, with apiVersion and kind set, and texts for Warning headers."""

    obj: Object
    warnings: list[str]


class _Head(msgspec.Struct):
    apiVersion: str = ""
    kind: str = ""


_HEAD = msgspec.json.Decoder(_Head)


def read(
    decoders: Decoders,
    wanted: GroupVersionKind,
    body: bytes,
    media_type: str = JSON,
    validation: str = WARN,
) -> Body:
    """Decode `body` into an object of the kind `wanted`.

    `media_type` is the Content-Type, parameters allowed, "" for JSON. `validation` is the fieldValidation parameter.
    Raises ApiError: 415 for a content type not understood here, 400 for everything else that is wrong.
    """
    problems: list[str] = []
    found, obj, given = wanted, None, body
    media, custom = media_of(media_type), decoders.schemas.name(*wanted) is None
    try:
        if media == PROTOBUF:
            found, obj = _from_protobuf(wanted, body)
        elif media == YAML:
            body = _json_of(body, problems)
        elif media != JSON:
            raise _unknown_format()
        if obj is None and media == JSON:
            obj = _as_claimed(decoders, wanted, body, problems if validation != IGNORE else None)
        if obj is None:
            found = _claim(_NOBODY if custom else wanted, body)
            if custom:
                _check_custom(found, wanted, given, validation)
            else:
                _check_kind(decoders, wanted, found)
            if body.strip() == b"null":
                body = b"{}"
            obj = _typed(decoders, found, body, problems if validation != IGNORE else None)
        elif found is not wanted:
            _check_kind(decoders, wanted, found)
    except _Unrecognized as error:
        text = f"the object provided is unrecognized (must be of type {wanted.kind}): {error} ({_summary(given)})"
        raise errors.bad_request(text) from None
    except (DecodeError, YamlError) as error:
        raise _cannot_handle(found, wanted, str(error)) from None
    if found.api_version != wanted.api_version:
        raise _other_version(found, wanted)
    if problems and validation == STRICT:
        raise _cannot_handle(found, wanted, f"strict decoding error: {', '.join(problems)}")
    obj["apiVersion"], obj["kind"] = wanted.api_version, found.kind if custom else wanted.kind
    return Body(obj, warned(problems) if validation == WARN and problems else [])


def read_options(decoders: Decoders, body: bytes, media_type: str) -> Object:
    """DeleteOptions, which belong to every group. Raises ApiError: 400, and 415 as `read` does.

    Source: apiserver's handlers/delete.go, where a reader says what is wrong without saying of what.
    """
    wanted, media = GroupVersionKind("", "v1", "DeleteOptions"), media_of(media_type)
    try:
        if media == PROTOBUF:
            return _from_protobuf(wanted, body)[1]
        if media == YAML:
            body = _json_of(body, [])
        elif media != JSON:
            raise _unknown_format()
        found = _claim(GroupVersionKind(_META, "v1", wanted.kind), body)
        if found.kind in ("CreateOptions", "GetOptions", "ListOptions", "PatchOptions", "UpdateOptions"):
            raise DecodeError(f"converting (v1.{found.kind}) to (v1.DeleteOptions): unknown conversion")
        if found.kind != wanted.kind:
            raise DecodeError(_unregistered(found))
        return _typed(decoders, wanted, b"{}" if body.strip() == b"null" else body, None)
    except (_Unrecognized, DecodeError, YamlError) as error:
        raise errors.bad_request(str(error)) from None


def media_of(content_type: str) -> str:
    """The media type of a Content-Type, "" being JSON; nothing that is known where it cannot be read."""
    media, *parameters = content_type.split(";")
    if any("=" not in parameter for parameter in parameters if parameter.strip() or len(parameters) > 1):
        return content_type
    return media.strip().lower() or JSON


_META = "meta.k8s.io"
_METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
STRUCT = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'


def warned(problems: list[str]) -> list[str]:
    """The problems of a body that is taken all the same, as warnings."""
    from steersman.api.schema import yaml

    return [line for problem in problems for line in yaml.warnings(problem)]


class _Unrecognized(ValueError):
    """The body does not even say what it is."""


def _as_claimed(decoders: Decoders, wanted: GroupVersionKind, body: bytes, problems: list[str] | None) -> Object | None:
    """The object, if it says that it is what is wanted and nothing is wrong with it: as nearly always."""
    if decoders.schemas.name(*wanted) is None:
        return None
    try:
        obj = _typed(decoders, wanted, body, problems)
    except DecodeError:
        return None
    same = obj.get("kind") == wanted.kind and obj.get("apiVersion") == wanted.api_version
    if not same and problems is not None:
        problems.clear()
    return obj if same else None


def _claim(wanted: GroupVersionKind, body: bytes) -> GroupVersionKind:
    """What the body says it is; what it leaves out is taken from `wanted`."""
    try:
        head = _HEAD.decode(body)
    except msgspec.ValidationError as error:
        kind = str(error).partition("got `")[2].partition("`")[0]
        if kind == "null":
            return wanted
        field = str(error).partition(" - at `$.")[2].rstrip("`")
        where = f"Go struct field .{field} of type string" if field else f"Go value of type {STRUCT}"
        got = {"str": "string", "int": "number", "float": "number", "bool": "bool"}.get(kind, kind)
        raise _Unrecognized(
            f"couldn't get version/kind; json parse error: json: cannot unmarshal {got} into {where}"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Unrecognized(f"couldn't get version/kind; json parse error: {malformed(body, error)}") from None
    group, _, version = head.apiVersion.rpartition("/")
    if not head.apiVersion:
        group, version = wanted.group, wanted.version
    return GroupVersionKind(group, version, head.kind or wanted.kind)


def _knows_older(found: GroupVersionKind) -> bool:
    """Alpha and beta versions that are no longer served are registered all the same."""
    return "alpha" in found.version or "beta" in found.version


def _check_kind(decoders: Decoders, wanted: GroupVersionKind, found: GroupVersionKind) -> None:
    known = decoders.schemas.name(*found) is not None
    if found.kind == wanted.kind and (known or _knows_older(found) or decoders.schemas.name(*wanted) is None):
        return
    if not known:
        raise DecodeError(_unregistered(found))
    internal = (wanted.group or "core").partition(".")[0]
    raise DecodeError(f"converting ({found.version}.{found.kind}) to ({internal}.{wanted.kind}): unknown conversion")


def _unregistered(found: GroupVersionKind) -> str:
    where = 'in scheme "pkg/runtime/scheme.go:111"'
    return f'no kind "{found.kind}" is registered for version "{found.api_version}" {where}'


def _check_custom(found: GroupVersionKind, wanted: GroupVersionKind, body: bytes, validation: str) -> None:
    """Custom resources have to say what they are; whether they are of the right kind, validation says."""
    if not found.kind:
        missing = f"Object 'Kind' is missing in '{body.decode('utf-8', 'replace')}'"
        raise _cannot_handle(wanted, wanted, missing) if validation == IGNORE else _Unrecognized(missing)
    if found.api_version != wanted.api_version:
        raise _other_version(found, wanted)


def _other_version(found: GroupVersionKind, wanted: GroupVersionKind) -> ApiError:
    return errors.bad_request(
        f"the API version in the data ({found.api_version}) does not match the expected API version"
        f" ({wanted.api_version})"
    )


def _typed(decoders: Decoders, found: GroupVersionKind, body: bytes, problems: list[str] | None) -> Object:
    """The object; unknown and repeated fields are added to `problems` unless that is None."""
    name = decoders.schemas.name(*found)
    if name is None:
        try:
            obj = msgspec.json.decode(body)
            metadata = obj.get("metadata") if isinstance(obj, dict) else None
            if isinstance(metadata, dict):  # which is typed in every object
                decoders.decode(_METADATA, msgspec.json.encode(metadata))
            elif metadata is not None:
                shape = {list: "array", str: "string", bool: "bool"}.get(type(metadata), "number")
                raise DecodeError(f"json: cannot unmarshal {shape} into Go value of type v1.ObjectMeta")
            return obj
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(malformed(body, error)) from None
    return decoders.decode(name, body, problems, (found.api_version, found.kind))


def _json_of(body: bytes, problems: list[str]) -> bytes:
    """A YAML body as JSON text; JSON, which is YAML too, is left as it is."""
    if body.lstrip()[:1] == b"{":
        try:
            msgspec.json.decode(body, type=msgspec.Raw)
            return body
        except (msgspec.DecodeError, RecursionError):
            pass
    from steersman.api.schema import yaml  # here: it costs a tenth of a start, and most clients send JSON

    try:
        twice: list[str] = []
        read = msgspec.json.encode(yaml.load(body, twice), order="deterministic")
        if twice:
            problems.append(yaml.repeated(twice))
        return read
    except RecursionError:
        raise _Unrecognized("yaml: exceeded max depth") from None
    except YamlError as error:
        raise _Unrecognized(str(error).removeprefix("error converting YAML to JSON: ")) from None


def _from_protobuf(wanted: GroupVersionKind, body: bytes) -> tuple[GroupVersionKind, Object]:
    from steersman.api import protobuf  # here: only typed Go clients need it

    try:
        claimed, obj = protobuf.decode(body, wanted.api_version, wanted.kind)
    except protobuf.ProtobufError as error:
        raise _Unrecognized(str(error)) from None
    group, _, version = claimed[0].rpartition("/")
    return GroupVersionKind(group, version, claimed[1]), obj


def _cannot_handle(found: GroupVersionKind, wanted: GroupVersionKind, why: str) -> ApiError:
    text = f'{found.kind} in version "{found.version}" cannot be handled as a {wanted.kind}: {why}'
    return errors.bad_request(text)


def _unknown_format() -> ApiError:
    return errors.unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join((JSON, YAML, PROTOBUF))
    )


def _summary(body: bytes) -> str:
    if not body:
        return "<empty>"
    head: Any = body[:30]
    text = head.decode("utf-8", "replace") if body[:1] == b"{" else head.hex()
    return text + (" ..." if len(body) > 30 else "")
