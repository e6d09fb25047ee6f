"""tokenreviews and selfsubjectreviews: who is this?

Source: pkg/registry/authentication; KEP-3325 (SelfSubjectReview).
"""

from __future__ import annotations

import inspect
from typing import Any

from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.apiserver.call import Call, User
from steersman.apiserver.verbs.write import body_of, options
from steersman.lib.http.messages import Request, Response


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
    body["metadata"] = {"creationTimestamp": None}
    body["status"] = {"userInfo": user_info(call.user)}
    return call.document(201, body)


async def token_review(server: Any, call: Call) -> Response:
    """Whether a token is good, and whose it is."""
    options(call)
    body = body_of(call)
    spec = body.get("spec") or {}
    asked = Request("GET", "/", headers=[("authorization", f"Bearer {spec.get('token', '')}")])
    user: User | None = None
    problem = ""
    for authenticator in server.authenticators:
        try:
            found = authenticator(asked)
            user = await found if inspect.isawaitable(found) else found
        except ApiError as error:
            problem = error.message
        if user is not None:
            break
    status: Object = {"user": {}}
    if user is not None:
        status = {
            "authenticated": True,
            "user": user_info(user),
            "audiences": spec.get("audiences") or server.services.extras["tokens"].audiences,
        }
    elif problem:
        status["error"] = problem
    body["metadata"] = {"creationTimestamp": None}
    body["status"] = status
    return call.document(201, body)
