"""Conversion of custom resources by webhook: objects of one version made into another by somebody else's program.

Owns the ConversionReview, the judgement of its answer, and the memory of what was converted. Conversion is asked for in
the middle of code that does not wait: there a kind's `convert` finds the answer remembered or raises `Unconverted`,
and whoever runs the verb (`served`) fetches it and begins again. Source: apiextensions-apiserver's
pkg/apiserver/conversion, and "Webhook conversion" in the API concepts.
"""

from __future__ import annotations

import inspect
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.api.resource import Object
from steersman.api.schema.decode import malformed
from steersman.apiserver.call import Call, Services
from steersman.apiserver.unconverted import Unconverted
from steersman.apiserver.webhookpost import CallFailed, post

_TIMEOUT = 30  # seconds
_REMEMBERED = 4_096  # conversions kept
_ROUNDS = 20  # one verb may need several conversions, one after the other
_VERSIONS = ("v1", "v1beta1")
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder().decode


class Converter:
    """Implements `kind.Convert` for one CustomResourceDefinition's kind."""

    def __init__(self, services: Services, kind: Kind, webhook: Object) -> None:
        self._services = services
        self._kind = kind
        self._config = webhook.get("clientConfig") or {}
        self._reviews = webhook.get("conversionReviewVersions") or []
        self._known: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()

    def __call__(self, obj: Object, wanted: str) -> Object:
        """The object in the version `wanted`, when that is known. Raises Unconverted."""
        if obj["apiVersion"] == wanted:
            return obj
        found = self._known.get((wanted, _encode(obj)))
        if found is None:
            raise Unconverted(self, [obj], wanted)
        converted: Object = _decode(found)
        return converted

    async def fetch(self, objects: Sequence[Object], wanted: str) -> None:
        """Ask the webhook. Raises ApiError 500 in the original's words."""
        version = next((each for each in _VERSIONS if each in self._reviews), "v1")
        asked = {"uid": str(uuid.uuid4()), "desiredAPIVersion": wanted, "objects": list(objects)}
        review = {"apiVersion": f"apiextensions.k8s.io/{version}", "kind": "ConversionReview", "request": asked}
        try:
            body = await post(self._services, self._config, _TIMEOUT, review)
            response = _response(body, asked["uid"], review)
        except CallFailed as error:
            raise self._failed(objects[0], f"failed: {error}") from error
        self._remember(objects, self._judged(objects, response, wanted), wanted)

    def _remember(self, objects: Sequence[Object], converted: Sequence[Object], wanted: str) -> None:
        for obj, made in zip(objects, converted, strict=True):
            self._known[wanted, _encode(obj)] = _encode(made)
        while len(self._known) > max(_REMEMBERED, 2 * len(objects)):
            self._known.popitem(last=False)

    def _failed(self, obj: Object, text: str) -> ApiError:
        group_version = f"{obj['apiVersion']}, Kind={self._kind.kind}"
        return ApiError(500, "", f"conversion webhook for {group_version} {text}")

    def _judged(self, objects: Sequence[Object], response: Object, wanted: str) -> list[Object]:
        """The converted objects, with the metadata that a webhook must not touch. Raises ApiError."""
        first, result = objects[0], response.get("result") or {}
        if result.get("status") != "Success":
            status = f"response.result.status was '{result.get('status') or ''}', not 'Success'"
            raise self._failed(first, f"failed: {result.get('message') or status}")
        converted = response.get("convertedObjects") or []
        if len(converted) != len(objects):
            raise self._failed(first, f"returned {len(converted)} objects, expected {len(objects)}")
        for i, (obj, made) in enumerate(zip(objects, converted, strict=True)):
            what = "object" if len(objects) == 1 else "converted object"
            if why := _strange(obj, made, wanted):
                raise self._failed(first, f"returned invalid {what} at index {i}: {why}")
            if why := _wrong(obj, made):
                place = "" if len(objects) == 1 else f" at index {i}"
                raise self._failed(first, f"returned invalid {what}{place}: {why}")
            kept = dict(obj["metadata"])
            for name in ("labels", "annotations"):
                kept.pop(name, None)
                if made["metadata"].get(name):
                    kept[name] = made["metadata"][name]
            made["metadata"] = kept
        return converted


def _response(body: bytes, uid: str, review: Object) -> Object:
    if not body:
        raise CallFailed("0-length response with status code: 200 and content type: application/json")
    try:
        answer = _decode(body)
    except (ValueError, RecursionError) as error:
        raise CallFailed(f"couldn't get version/kind; json parse error: {malformed(body, error)}") from None
    if not isinstance(answer, dict):
        raise CallFailed("couldn't get version/kind; json parse error: json: cannot unmarshal into an object")
    version, kind = answer.get("apiVersion") or "", answer.get("kind") or ""
    if kind != review["kind"] or not str(version).startswith("apiextensions.k8s.io/"):
        where = 'in scheme "pkg/runtime/scheme.go:111"'
        raise CallFailed(f'no kind "{kind}" is registered for version "{version}" {where}')
    response = answer.get("response")
    if not isinstance(response, dict):
        raise CallFailed("no response provided")
    if response.get("uid") != uid and version.endswith("/v1"):
        raise CallFailed(f'expected response.uid="{uid}", got "{response.get("uid") or ""}"')
    return response


def _strange(obj: Object, made: Any, wanted: str) -> str:
    """Why it is not what was asked for; empty when it is."""
    if not isinstance(made, dict):
        return "invalid type, expected=Unstructured"
    if made.get("apiVersion") != wanted:
        return f"invalid groupVersion (expected {wanted}, received {made.get('apiVersion') or ''})"
    if made.get("kind") != obj["kind"]:
        return f"invalid kind (expected {obj['kind']}, received {made.get('kind') or ''})"
    return ""


def _wrong(obj: Object, made: Object) -> str:
    """What was changed that must not be; empty when nothing was."""
    meta = made.get("metadata") or {}
    if not isinstance(meta, dict):
        return "invalid metadata in converted object"
    for name, shown in (("name", "name"), ("namespace", "namespace"), ("uid", "UID")):
        before, after = obj["metadata"].get(name) or "", meta.get(name) or ""
        if before != after:
            return f"must have the same {shown}: {before} != {after}"
    for name in ("labels", "annotations"):
        if not isinstance(meta.get(name) or {}, dict):
            return f"invalid metadata.{name} in converted object"
    return "missing metadata in converted object" if "metadata" not in made else ""


def remote(kind: Kind) -> bool:
    """Whether the kind's objects are converted by a webhook."""
    return isinstance(kind.convert, Converter)


async def served(verb: Any, call: Call, answer: Callable[..., Any]) -> Any:
    """Run a verb, fetching what it lacks; what it has written already goes to `answer`, it is not written again."""
    for _ in range(_ROUNDS):
        try:
            found = answer(call, *call.written) if call.written is not None else verb(call)
            return await found if inspect.isawaitable(found) else found
        except Unconverted as need:
            call.warnings.clear()
            await need.converter.fetch(need.objects, need.wanted)
    raise ApiError(500, "", "conversion webhook gives another answer each time")
