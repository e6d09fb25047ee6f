"""The API's errors as values: one exception, one constructor per reason, each with kube-apiserver's wording.

Owns the mapping from an error to a metav1.Status. Raised by the API server and by anything in `api`; clients raise the
same class when a server answers with a Status. Source: apimachinery's metav1.StatusReason and errors package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FieldError:
    """One complaint about one field. `kind` is the cause's reason, such as FieldValueInvalid."""

    kind: str
    field: str
    detail: str
    value: Any = None

    def __str__(self) -> str:
        return f"{self.field}: {self.detail}"


class ApiError(Exception):
    """What becomes a Status: HTTP code, reason, message, details."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}
        self._shown = details is not None  # some errors have details with nothing in them
        self.headers = headers

    def status(self) -> dict[str, Any]:
        """The metav1.Status object."""
        out: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        }
        if self.details or self._shown:
            out["details"] = self.details
        out["code"] = self.code
        if not self.reason:
            del out["reason"]
        return out


class PlainError(ApiError):
    """Told as plain text, as Go's http.Error does, where others become a Status."""


def from_status(code: int, status: dict[str, Any]) -> ApiError:
    """The exception for a Status that a server sent."""
    return ApiError(
        int(status.get("code") or code),
        str(status.get("reason") or ""),
        str(status.get("message") or f"the server answered {code}"),
        status.get("details") or {},
    )


_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {'"': '\\"', "\\": "\\\\"}


def quoted(text: object) -> str:
    """A string as Go's %q prints it."""
    return f'"{"".join(map(escaped, str(text)))}"'


def escaped(char: str) -> str:
    """A character as it is between Go's quotes."""
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _qualified(group: str, plural: str) -> str:
    return f"{plural}.{group}" if group else plural


def _details(group: str, kind: str, name: str, **more: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"name": name, "group": group, "kind": kind, **more}
    return {key: value for key, value in out.items() if value not in ("", None)}


def not_found(group: str, plural: str, name: str) -> ApiError:
    """404: there is no such object."""
    message = f"{_qualified(group, plural)} {quoted(name)} not found"
    return ApiError(404, "NotFound", message, _details(group, plural, name))


def already_exists(group: str, plural: str, name: str) -> ApiError:
    """409: `create` found the name taken."""
    message = f"{_qualified(group, plural)} {quoted(name)} already exists"
    return ApiError(409, "AlreadyExists", message, _details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str) -> ApiError:
    """409: the write was based on an old state."""
    message = f'Operation cannot be fulfilled on {_qualified(group, plural)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(group, plural, name))


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """403: known, and not allowed."""
    where = _qualified(group, plural)
    subject = f'{where} "{name}" is forbidden' if name else f"{where} is forbidden"
    return ApiError(403, "Forbidden", f"{subject}: {why}", _details(group, plural, name))


def unauthorized(why: str = "Unauthorized") -> ApiError:
    """401: not known."""
    return ApiError(401, "Unauthorized", why)


def bad_request(why: str) -> ApiError:
    """400: the request makes no sense."""
    return ApiError(400, "BadRequest", why)


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422: the object breaks rules; one cause per broken rule."""
    texts = list(dict.fromkeys(str(error) for error in errors))
    summary = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    causes = [{"reason": error.kind, "message": error.detail, "field": error.field} for error in errors]
    message = f'{kind}.{group} "{name}" is invalid: {summary}' if group else f'{kind} "{name}" is invalid: {summary}'
    return ApiError(422, "Invalid", message, _details(group, kind, name, causes=causes))


def patched_wrong(shown: str, why: str) -> ApiError:
    """422: what a patch made is not an object of its kind; `shown` is that, or the patch."""
    found = FieldError("FieldValueInvalid", "patch", f"Invalid value: {json.dumps(shown, ensure_ascii=False)}: {why}")
    error = invalid("", "", "", [found])
    error.message = f' "" is invalid: {found}'
    return error


def generic(code: int, reason: str, message: str) -> ApiError:
    """An error that the original makes from a bare status code: its details are there and empty."""
    return ApiError(code, reason, message, {})


def gone(why: str) -> ApiError:
    """410 Expired: the resource version is no longer kept."""
    return ApiError(410, "Expired", why)


def method_not_allowed(group: str, plural: str, verb: str) -> ApiError:
    """405: this resource has no such verb."""
    message = f'{verb} is not supported on resources of kind "{_qualified(group, plural)}"'
    return ApiError(405, "MethodNotAllowed", message, _details(group, plural, ""))


def no_such_method() -> ApiError:
    """405: a built-in resource has no route for this method. Custom resources are told `method_not_allowed`."""
    return generic(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def unsupported_media_type(message: str) -> ApiError:
    """415: the body's content type is not understood here."""
    return ApiError(415, "UnsupportedMediaType", message)


def not_acceptable(message: str) -> ApiError:
    """406: nothing that the client accepts can be served."""
    return ApiError(406, "NotAcceptable", message)


def too_large(message: str) -> ApiError:
    """413: the request's body is over the limit."""
    return ApiError(413, "RequestEntityTooLarge", message)


def too_many_requests(message: str, retry_after: int) -> ApiError:
    """429: come back after `retry_after` seconds."""
    return ApiError(
        429,
        "TooManyRequests",
        message,
        {"retryAfterSeconds": retry_after},
        [("retry-after", str(retry_after))],
    )


def internal(message: str) -> ApiError:
    """500: our fault."""
    return ApiError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def unavailable(message: str) -> ApiError:
    """503: try again later."""
    return ApiError(503, "ServiceUnavailable", message)


def timeout(message: str) -> ApiError:
    """504: it took too long."""
    return ApiError(504, "Timeout", message)
