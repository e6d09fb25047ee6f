"""The four access reviews: may somebody do something?

Source: pkg/registry/authorization.
"""

from __future__ import annotations

from typing import Any

from steersman.api import errors
from steersman.api.resource import Object
from steersman.apiserver import managed
from steersman.apiserver.authz.opinions import Deny, Failed
from steersman.apiserver.call import Call, User
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.subresources.reviewrules import complaints
from steersman.apiserver.verbs.write import body_of, options
from steersman.lib.http.messages import Response


async def self_subject_access_review(server: Any, call: Call) -> Response:
    """May I?"""
    return await _review(server, call, call.user)


async def subject_access_review(server: Any, call: Call) -> Response:
    """May they?"""
    return await _review(server, call, None)


async def local_subject_access_review(server: Any, call: Call) -> Response:
    """May they, in this namespace?"""
    return await _review(server, call, None, call.info.namespace)


async def _review(server: Any, call: Call, user: User | None, namespace: str = "") -> Response:
    options(call)
    body = body_of(call)
    spec = body.get("spec") or {}
    resource, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if problems := complaints(body, nobody=user is None, namespace=namespace):
        raise errors.invalid(call.kind.group, "", "", problems)
    who = user or User(
        spec.get("user", ""),
        tuple(spec.get("groups") or ()),
        spec.get("uid", ""),
        {key: tuple(values) for key, values in (spec.get("extra") or {}).items()},
    )
    why = await server.authorize(who, _asked(resource, path))
    explain = getattr(server.authorizer, "reason", None)
    status: Object = {"allowed": why is None}
    if isinstance(why, Deny):
        status["denied"] = True
    if isinstance(why, Failed):
        status["evaluationError"] = why.problem
    if why is None and explain is not None:
        why = explain(who, _asked(resource, path))
    if why:
        status["reason"] = str(why)
    body["metadata"] = {key: value for key, value in (body.get("metadata") or {}).items() if value is not None}
    managed.track(call, body, None)
    body["status"] = status
    return call.document(201, body)


def _asked(resource: Object | None, path: Object | None) -> RequestInfo:
    if resource is not None:
        return RequestInfo(
            "",
            resource.get("verb", ""),
            True,
            resource.get("group", ""),
            resource.get("version", ""),
            resource.get("resource", ""),
            resource.get("subresource", ""),
            resource.get("namespace", ""),
            resource.get("name", ""),
            selectors=(_selector(resource.get("fieldSelector") or {}), _selector(resource.get("labelSelector") or {})),
        )
    path = path or {}
    return RequestInfo(path.get("path", ""), path.get("verb", ""))


_OPERATORS = {"In": "in", "NotIn": "notin"}


def _selector(given: Object) -> str:
    """A selector of attributes as a query would hold it."""
    if given.get("rawSelector"):
        return str(given["rawSelector"])
    parts = []
    for term in given.get("requirements") or ():
        key, values = term.get("key", ""), ",".join(term.get("values") or ())
        match term.get("operator"):
            case "Exists":
                parts.append(key)
            case "DoesNotExist":
                parts.append(f"!{key}")
            case operator if operator in _OPERATORS:
                parts.append(f"{key} {_OPERATORS[operator]} ({values})")
    return ",".join(parts)


async def self_subject_rules_review(server: Any, call: Call) -> Response:
    """Everything I may do in a namespace."""
    options(call)
    body = body_of(call)
    namespace = (body.get("spec") or {}).get("namespace", "")
    if not namespace:
        raise errors.bad_request("no namespace on request")
    rules = getattr(server.authorizer, "rules", None)
    resources, paths = rules(call.user, namespace) if rules is not None else ([], [])
    body["metadata"], body["spec"] = {}, {}
    problem = getattr(server.authorizer, "incomplete", "") if rules is not None else "no rules can be told"
    status: Object = {"resourceRules": resources, "nonResourceRules": paths, "incomplete": bool(problem)}
    body["status"] = status | ({"evaluationError": problem} if problem else {})
    return call.document(201, body)
