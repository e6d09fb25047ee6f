"""What an admission webhook answered: judged before anything is done with it.

Owns what is wrong with an answer, in the original's words. Called by `webhooks`. Pure. Source: apiserver's
pkg/admission/plugin/webhook/request and webhook/errors.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

import msgspec

from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.api.schema.decode import malformed

_GROUP, _KIND = "admission.k8s.io", "AdmissionReview"
_GO_VALUES = {"str": "string", "int": "number", "float": "number"}  # what JSON's values are called there
_GO_TYPES = {"str": "string", "array": "[]string", "object": "map[string]string"}


class Garbage(Exception):
    """The webhook did not answer sensibly; the text is what `failed calling webhook "x": ` is followed by."""


class Status(msgspec.Struct):
    """Why something is refused."""

    code: int = 0
    message: str = ""
    reason: str = ""
    details: Object | None = None


class Answer(msgspec.Struct, rename="camel"):
    """`response` of an AdmissionReview."""

    uid: str = ""
    allowed: bool = False
    status: Status | None = None
    patch: str | None = None
    patch_type: str | None = None
    audit_annotations: dict[str, str] | None = None
    warnings: list[str] | None = None

    def operations(self) -> list[Any]:
        """The patch, decoded. Raises Garbage."""
        if not self.patch:
            return []
        try:
            found = json.loads(base64.b64decode(self.patch, validate=True))
        except (binascii.Error, UnicodeEncodeError):
            odd = re.search(r"[^A-Za-z0-9+/\r\n]", self.patch)
            at = odd.start() if odd is not None else len(self.patch)
            raise Garbage(f"failed to call webhook: illegal base64 data at input byte {at}") from None
        except (ValueError, RecursionError) as error:
            raise Garbage(f"received undecodable patch in webhook response: {error}") from None
        if found is None:
            return []
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            text = "json: cannot unmarshal object into Go value of type jsonpatch.Patch"
            raise Garbage(f"received undecodable patch in webhook response: {text}")
        if self.patch_type != "JSONPatch":
            raise Garbage(f"unsupported patch type {json.dumps(self.patch_type)}")
        return found


class _Review(msgspec.Struct, rename="camel"):
    api_version: str = ""
    kind: str = ""
    response: Answer | None = None


def judged(body: bytes, uid: str, version: str, *, mutating: bool) -> Answer:
    """The answer to the review `uid`, which was asked in `version` of admission.k8s.io. Raises Garbage."""
    if not body:
        text = "0-length response with status code: 200 and content type: application/json"
        raise Garbage(f"failed to call webhook: {text}")
    try:
        review = msgspec.json.decode(body, type=_Review)
    except msgspec.ValidationError as error:
        raise Garbage(f"failed to call webhook: {_mistyped(str(error))}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        text = f"couldn't get version/kind; json parse error: {malformed(body, error)}"
        raise Garbage(f"failed to call webhook: {text}") from None
    answer = review.response
    if why := _strange(review, version):
        raise Garbage(f"failed to call webhook: {why}")
    if answer is None:
        raise Garbage("received invalid webhook response: webhook response was absent")
    if version == "v1beta1":  # was never verified
        answer.patch_type = "JSONPatch" if answer.patch else None
    elif why := _wrong(review, answer, uid, mutating=mutating):
        raise Garbage(f"received invalid webhook response: {why}")
    return answer


def _strange(review: _Review, version: str) -> str:
    """Why an answer cannot be read as what was asked for; one that says nothing of itself is taken for it."""
    if not review.kind or not review.api_version:
        return ""
    group, _, spoken = review.api_version.rpartition("/")
    if group != _GROUP or spoken not in ("v1", "v1beta1") or review.kind != _KIND:
        there = f'no kind "{review.kind}" is registered for version "{review.api_version}"'
        return f'{there} in scheme "pkg/runtime/scheme.go:111"'
    if spoken != version:
        return f"converting ({spoken}.{_KIND}) to ({version}.{_KIND}): unknown conversion"
    return ""


def _mistyped(text: str) -> str:
    """A complaint about types in Go's words: `Expected `bool`, got `str` - at `$.response.allowed``."""
    found = re.match(r"Expected `(\w+)(?: \| null)?`, got `(\w+)`(?: - at `\$\.(.*)`)?", text)
    if found is None:
        return text
    wanted, got, path = found[1], _GO_VALUES.get(found[2], found[2]), found[3]
    if not path:
        kept = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
        unread = f"json: cannot unmarshal {got} into Go value of type {kept}"
        return f"couldn't get version/kind; json parse error: {unread}"
    place = f"AdmissionResponse.{path}" if path.startswith("response.") else path
    return f"json: cannot unmarshal {got} into Go struct field {place} of type {_GO_TYPES.get(wanted, wanted)}"


def _wrong(review: _Review, answer: Answer, uid: str, *, mutating: bool) -> str:
    if answer.uid != uid:
        return f'expected response.uid="{uid}", got {json.dumps(answer.uid)}'
    if (review.api_version, review.kind) != ("admission.k8s.io/v1", _KIND):
        got = f"{review.api_version or '/'}, Kind={review.kind}"
        return f"expected webhook response of admission.k8s.io/v1, Kind={_KIND}, got {got}"
    if not mutating:
        wrong = "patch" if answer.patch else "patchType" if answer.patch_type is not None else ""
        return f"validating webhook may not return response.{wrong}" if wrong else ""
    if answer.patch and answer.patch_type is None:
        return "webhook returned response.patch but not response.patchType"
    if not answer.patch and answer.patch_type is not None:
        return "webhook returned response.patchType but not response.patch"
    return 'webhook returned invalid response.patchType of ""' if answer.patch_type == "" else ""


def refusal(name: str, status: Status | None) -> ApiError:
    """What a request gets that the webhook `name` does not allow."""
    given = status or Status()
    said = given.message or given.reason
    text = f'admission webhook "{name}" denied the request'
    text += f": {said}" if said else " without explanation"
    return ApiError(max(given.code, 400), given.reason, text, given.details)
