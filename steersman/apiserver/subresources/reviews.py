"""tokenreviews and selfsubjectreviews: who is this?

Source: pkg/registry/authentication; KEP-3325 (SelfSubjectReview).
"""

from __future__ import annotations

from typing import Any

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver.call import Call, User
from steersman.apiserver.verbs.write import body_of, options
from steersman.lib.clock import rfc3339
from steersman.lib.http.messages import Response


def user_info(user: User) -> Object:
    """authentication/v1 UserInfo."""
    info: Object = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


async def self_subject_review(server: Any, call: Call) -> Response:
    """The caller's own attributes."""
    options(call)
    body = body_of(call)
    body["metadata"] = {"creationTimestamp": rfc3339(call.services.clock.now())}
    body["status"] = {"userInfo": user_info(call.user)}
    return call.document(201, body)


async def token_review(server: Any, call: Call) -> Response:
    """Whether a token is good, and whose it is."""
    options(call)
    body = body_of(call)
    spec = body.get("spec") or {}
    if not spec.get("token"):
        raise errors.bad_request("token is required for TokenReview in authentication")
    found = await server.services.extras["bearer"].review(spec["token"], spec.get("audiences") or ())
    if isinstance(found, str):
        status: Object = {"user": {}, "error": found}
    else:
        status = {"authenticated": True, "user": user_info(found.user), "audiences": list(found.audiences)}
    body["metadata"] = {"creationTimestamp": None}
    body["status"] = status
    return call.document(201, body)
