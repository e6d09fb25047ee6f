"""The four access reviews: may somebody do something?

Source: pkg/registry/authorization.
"""

from __future__ import annotations

from typing import Any

from steersman.api import errors, fields, labels
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
    if wrong := complaints(body, nobody=user is None, namespace=namespace):
        raise errors.invalid(call.kind.group, "", "", wrong)
    who = user or User(
        spec.get("user", ""),
        tuple(spec.get("groups") or ()),
        spec.get("uid", ""),
        {key: tuple(values) for key, values in (spec.get("extra") or {}).items()},
    )
    info, problems = _asked(resource, path)
    why = await server.authorize(who, info)
    explain = getattr(server.authorizer, "reason", None)
    status: Object = {"allowed": why is None}
    if isinstance(why, Deny):
        status["denied"] = True
    if isinstance(why, Failed):
        problems.insert(0, why.problem)
    if problems:
        status["evaluationError"] = "; ".join(problems)
    if why is None and explain is not None:
        why = explain(who, info)
    if why:
        status["reason"] = str(why)
    body["metadata"] = {key: value for key, value in (body.get("metadata") or {}).items() if value is not None}
    if namespace:
        body["metadata"].setdefault("namespace", namespace)
    for key in ("fieldSelector", "labelSelector"):
        for each in ((resource or {}).get(key) or {}).get("requirements") or ():
            each.setdefault("operator", "")
    managed.track(call, body, None)
    body["status"] = status
    return call.document(201, body)


def _asked(resource: Object | None, path: Object | None) -> tuple[RequestInfo, list[str]]:
    """What is asked, and which selectors of it could not be read: less is asked then."""
    if resource is not None:
        fields_, unread = _selector("fieldSelector", resource)
        labels_, more = _selector("labelSelector", resource)
        info = RequestInfo(
            "",
            resource.get("verb", ""),
            True,
            resource.get("group", ""),
            resource.get("version", ""),
            resource.get("resource", ""),
            resource.get("subresource", ""),
            resource.get("namespace", ""),
            resource.get("name", ""),
            selectors=(fields_, labels_),
        )
        return info, [*unread, *more]
    path = path or {}
    return RequestInfo(path.get("path", ""), path.get("verb", "")), []


_OPERATORS = {"In": "in", "NotIn": "notin"}


def _selector(key: str, resource: Object) -> tuple[str, list[str]]:
    """A selector of attributes as a query would hold it, and a note where not all of it can be read."""
    given = resource.get(key) or {}
    wanted = given.get("requirements") or ()
    if raw := given.get("rawSelector"):
        parts, wanted = [str(raw)], (raw,)
    else:
        term = _field_term if key == "fieldSelector" else _label_term
        parts = [text for each in wanted if (text := term(each))]
    good = [text for text in parts if _readable(text, key)]
    if len(good) == len(wanted):
        return ",".join(good), []
    partly = "partially " if good else ""
    return ",".join(good), [f"spec.resourceAttributes.{key} {partly}ignored due to parse error"]


def _readable(text: str, key: str) -> bool:
    try:
        fields.parse(text) if key == "fieldSelector" else labels.parse(text)
    except ValueError:
        return False
    return True


def _field_term(term: Object) -> str:
    """Fields have one value each, and always have one."""
    values = term.get("values") or ()
    mark = {"In": "=", "NotIn": "!="}.get(term.get("operator") or "")
    return f"{term.get('key', '')}{mark}{values[0]}" if mark and len(values) == 1 else ""


def _label_term(term: Object) -> str:
    key, values, operator = term.get("key", ""), ",".join(term.get("values") or ()), term.get("operator") or ""
    if operator in _OPERATORS:
        return f"{key} {_OPERATORS[operator]} ({values})"
    return {"Exists": key, "DoesNotExist": f"!{key}"}.get(operator, "")


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
