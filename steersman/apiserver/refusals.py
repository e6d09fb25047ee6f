"""What somebody is told who may not do something, or of whom nobody could say.

Owns the words. Called by `app.py` and by impersonation. Source: apiserver's pkg/endpoints/handlers/responsewriters.
"""

from __future__ import annotations

from steersman.api import errors
from steersman.api.errors import ApiError, PlainError
from steersman.apiserver.authz.opinions import Failed
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.lib.http.messages import Request

NOSNIFF = ("x-content-type-options", "nosniff")
_NO_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def forbidden(user: User, info: RequestInfo, why: str) -> ApiError:
    """403 in the original's words."""
    tail = f": {why}" if why else ""
    who = errors.quoted(user.name)
    if not info.is_resource:
        text = f"User {who} cannot {info.verb} path {errors.quoted(info.path)}".translate(_NO_HTML)
        return ApiError(403, "Forbidden", f"forbidden: {text}{tail}", {}, [NOSNIFF])
    plural = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f"in API group {errors.quoted(info.group)}"
    scope = f"in the namespace {errors.quoted(info.namespace)}" if info.namespace else "at the cluster scope"
    text = f"User {who} cannot {info.verb} resource {errors.quoted(plural)} {where} {scope}".translate(_NO_HTML)
    error = errors.forbidden(info.group, info.resource, info.about, f"{text}{tail}")
    error.headers = [NOSNIFF]
    return error


def unjudged(request: Request, why: Failed) -> ApiError:
    """500: no authorizer allowed it, and one could not be asked."""
    target = f"{request.path}?{request.query}" if request.query else request.path
    text = f"Internal Server Error: {errors.quoted(target)}: {why.problem}"
    return PlainError(500, "", text.translate(_NO_HTML))


def undetermined(request: Request) -> PlainError:
    """500: an old path that names nothing."""
    target = f"{request.path}?{request.query}" if request.query else request.path
    why = f"failed to create RequestInfo: unable to determine kind and namespace from url, {request.path}"
    return PlainError(500, "", f"Internal Server Error: {errors.quoted(target)}: {why}")
