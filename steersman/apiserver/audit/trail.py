"""The trail of a request: its audit event, filled in as the request goes through the pipeline.

Owns events of audit.k8s.io/v1 and the Audit-Id header. `Auditor` wraps the API server's handler; the pipeline tells the
trail who asks, as whom, and what the authorizer says. Source: apiserver's pkg/audit and pkg/endpoints/filters.
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from steersman.api import protobuf
from steersman.api.resource import Object
from steersman.apiserver.audit.policy import Chosen, Policy
from steersman.apiserver.call import User
from steersman.apiserver.request import Query, RequestInfo, resolve
from steersman.lib.clock import Clock, rfc3339_micro
from steersman.lib.http.messages import Answer, Duplex, Handler, Request, Response, Stream, Upgrade, Writer

Sink = Callable[[Object], None]
_LONGEST_AGENT, _LONGEST_ID = 1024, 64
_FAILED = "Authentication failed, attempted: "


class Auditor:
    """Gives every answer its Audit-Id and, by policy, every request its events."""

    def __init__(self, policy: Policy | None, sinks: Sequence[Sink], clock: Clock, random: Any) -> None:
        self._policy = policy
        self._sinks = sinks
        self._clock = clock
        self._random = random

    def __call__(self, request: Request, handle: Handler) -> Answer | Awaitable[Answer]:
        """The handler's answer, with what auditing adds."""
        number = (request.header("audit-id") or "") or self._number()
        if self._policy is None:
            trail = None
        else:
            trail = request.context = Trail(self._policy, self._sinks, self._clock, request, number)
        answer = handle(request)
        if isinstance(answer, Awaitable):
            return self._later(answer, trail, number)
        return _finished(answer, trail, number)

    async def _later(self, answer: Awaitable[Answer], trail: Trail | None, number: str) -> Answer:
        return _finished(await answer, trail, number)

    def _number(self) -> str:
        text = f"{self._random.getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


class Trail:
    """One request's events. Nothing is recorded until `identify`, or the answer of a request that nobody made."""

    def __init__(self, policy: Policy, sinks: Sequence[Sink], clock: Clock, request: Request, number: str) -> None:
        self._policy, self._sinks, self._clock, self._request = policy, sinks, clock, request
        self._received = clock.now()
        self._chosen: Chosen | None = None
        self._user: User | None = None
        self._impersonated: User | None = None
        self._constraint = ""
        self._info = RequestInfo(request.path, request.method.lower())
        self._number = number
        self.annotations: dict[str, str] = {}

    def identify(self, user: User, info: RequestInfo) -> None:
        """Somebody is known to ask for something."""
        self._user, self._info = user, info
        self._chosen = self._policy.choose(user, info)
        self._record("RequestReceived", {})

    def impersonate(self, user: User, constraint: str) -> None:
        """They may act as somebody else; `constraint` is the verb that allowed it, empty in the older way."""
        self._impersonated, self._constraint = user, constraint

    def annotate(self, key: str, value: str, level: str = "Metadata") -> None:
        """Add a fact, which events of a lower level do not have; the first of a key stays."""
        if level == "Metadata" or self._wants(level):
            self.annotations.setdefault(key, value)

    def answered(self, answer: Answer) -> None:
        """A whole answer, or the head of a long one."""
        if self._chosen is None:  # nobody: refused before anything was looked at
            self._info = resolve(self._request.method, self._request.path, Query(self._request.query))
            self._chosen = self._policy.choose(None, self._info)
            kind = (self._request.header("authorization") or "").partition(" ")[0].lower() or "x509"
            status = {"metadata": {}, "status": "Failure", "message": _FAILED + kind, "code": answer_code(answer)}
            self._record("ResponseStarted", {"responseStatus": status})
            return
        if not isinstance(answer, Response):
            self._record("ResponseStarted", {"responseStatus": {"metadata": {}, "code": answer_code(answer)}})
            return
        told = _object(answer.body, answer.headers) if answer.status >= 400 or self._wants("RequestResponse") else None
        more: Object = {"responseStatus": _status(answer.status, told)}
        if told is not None and self._wants("RequestResponse") and self._info.is_resource:
            more["responseObject"] = self._shown(told)
        self._record("ResponseComplete", more)

    def ended(self, code: int) -> None:
        """A long answer is over."""
        self._record("ResponseComplete", {"responseStatus": {"metadata": {}, "code": code}})

    def _wants(self, level: str) -> bool:
        return self._chosen is not None and self._chosen.at_least(level)

    def _record(self, stage: str, more: Object) -> None:
        chosen = self._chosen
        if chosen is None or chosen.level == "None" or stage in chosen.omit_stages:
            return
        request, info = self._request, self._info
        event: Object = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": chosen.level,
            "auditID": self._number,
            "stage": stage,
            "requestURI": f"{request.path}?{request.query}" if request.query else request.path,
            "verb": info.verb,
            "user": _user(self._user),
        }
        if self._impersonated is not None:
            event["impersonatedUser"] = _user(self._impersonated)
        if self._constraint:
            event["authenticationMetadata"] = {"impersonationConstraint": self._constraint}
        event["sourceIPs"] = _sources(request)
        if agent := request.header("user-agent"):
            event["userAgent"] = agent if len(agent) <= _LONGEST_AGENT else agent[:_LONGEST_AGENT] + "...TRUNCATED"
        body = None
        if stage != "RequestReceived" and request.body and (chosen.at_least("Request") or info.verb == "create"):
            body = _object(request.body, request.headers)
        if info.is_resource:
            event["objectRef"] = _reference(info, body)
        event |= {key: value for key, value in more.items() if key == "responseStatus"}
        if body is not None and chosen.at_least("Request") and info.is_resource:
            event["requestObject"] = self._shown(body)
        event |= more
        event["requestReceivedTimestamp"] = rfc3339_micro(self._received)
        event["stageTimestamp"] = rfc3339_micro(self._clock.now())
        if self.annotations:
            event["annotations"] = dict(self.annotations)
        for sink in self._sinks:
            sink(event)

    def _shown(self, obj: Any) -> Any:
        if not (self._chosen and self._chosen.omit_managed) or not isinstance(obj, dict):
            return obj
        bare = {key: value for key, value in obj.items() if key != "items"}
        if isinstance(obj.get("items"), list):
            bare["items"] = [self._shown(item) for item in obj["items"]]
        if isinstance(obj.get("metadata"), dict):
            bare["metadata"] = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
        return bare


def answer_code(answer: Answer) -> int:
    """The status of any answer."""
    return 101 if isinstance(answer, Upgrade) else answer.status


def _user(user: User | None) -> Object:
    if user is None:
        return {}
    out: Object = {"username": user.name}
    if user.uid:
        out["uid"] = user.uid
    if user.groups:
        out["groups"] = list(user.groups)
    if user.extra:
        out["extra"] = {key: list(values) for key, values in user.extra.items()}
    return out


def _sources(request: Request) -> list[str]:
    told = (request.header("x-forwarded-for") or "").split(",")
    return [text for text in dict.fromkeys([*(text.strip() for text in told), request.peer.address]) if text]


def _reference(info: RequestInfo, body: Any) -> Object:
    meta = body.get("metadata") if isinstance(body, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    out = {
        "resource": info.resource,
        "namespace": info.namespace,
        "name": info.name or meta.get("name"),
        "uid": meta.get("uid"),
        "apiGroup": info.group,
        "apiVersion": info.version,
        "resourceVersion": meta.get("resourceVersion"),
        "subresource": info.subresource,
    }
    return {key: value for key, value in out.items() if value}


def _status(code: int, told: Any) -> Object:
    if isinstance(told, dict) and told.get("kind") == "Status":
        kept = ("metadata", "status", "message", "reason", "details")
        return {key: told[key] for key in kept if key in told} | {"code": code}
    return {"metadata": {}, "code": code}


def _object(body: bytes | Sequence[bytes], headers: Sequence[tuple[str, str]]) -> Any:
    """A body's object; None for what is neither JSON nor protobuf."""
    whole = body if isinstance(body, bytes) else b"".join(body)
    found = dict(headers)
    try:
        if found.get("content-encoding") == "gzip":
            whole = gzip.decompress(whole)
        if "protobuf" in found.get("content-type", ""):
            (api_version, kind), obj = protobuf.decode(whole)
            return {"kind": kind, "apiVersion": api_version, **obj}
        return msgspec.json.decode(whole)
    except (ValueError, OSError, RecursionError, msgspec.DecodeError):
        return None


def _finished(answer: Answer, trail: Trail | None, number: str) -> Answer:
    """The answer with its Audit-Id, and with the trail told of it and of its end."""
    answer.headers = headers = [*answer.headers, ("audit-id", number[:_LONGEST_ID])]
    if trail is None:
        return answer
    trail.answered(answer)
    if isinstance(answer, Stream):
        stream, run = answer, answer.run

        async def streamed(writer: Writer) -> None:
            try:
                await run(writer)
            finally:
                trail.ended(stream.status)

        return Stream(answer.status, headers, streamed)
    if isinstance(answer, Upgrade):
        switched = answer.run

        async def through(duplex: Duplex) -> None:
            try:
                await switched(duplex)
            finally:
                trail.ended(101)

        return Upgrade(headers, through)
    return answer
