"""The trail of a request: its audit event, filled in as the request goes through the pipeline.

Owns events of audit.k8s.io/v1 and the Audit-Id header. `Auditor` wraps the API server's handler; the pipeline tells the
trail who asks, as whom, and what the authorizer says. Source: apiserver's pkg/audit and pkg/endpoints/filters.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from steersman.api import names, protobuf
from steersman.api.resource import Object
from steersman.apiserver.audit.policy import Chosen, Policy
from steersman.apiserver.call import User
from steersman.apiserver.request import Query, RequestInfo, resolve
from steersman.lib.clock import Clock, rfc3339_micro
from steersman.lib.http.messages import Answer, Duplex, Handler, Request, Response, Stream, Upgrade, Writer

Sink = Callable[[Object], None]
_LONGEST_AGENT, _LONGEST_ID = 1024, 64


class Tally:
    """What was audited: events handed to the sinks, and requests by the level that the policy gave them."""

    __slots__ = ("events", "levels")

    def __init__(self) -> None:
        self.events = 0
        self.levels = Counter[str]()


class Auditor:
    """Gives every answer its Audit-Id and, by policy, every request its events."""

    def __init__(self, policy: Policy | None, sinks: Sequence[Sink], clock: Clock, random: Any) -> None:
        self._policy = policy
        self._sinks = sinks
        self._clock = clock
        self._random = random
        self.tally = Tally()

    def __call__(self, request: Request, handle: Handler) -> Answer | Awaitable[Answer]:
        """The handler's answer, with what auditing adds."""
        number = (request.header("audit-id") or "") or self._number()
        if self._policy is None:
            trail = None
        else:
            trail = request.context = Trail(self._policy, self._sinks, self._clock, request, number, self.tally)
        answer = handle(request)
        if answer.__class__ is not Response and isinstance(answer, Awaitable):
            return self._later(answer, trail, number)
        return _finished(answer, trail, number)

    async def _later(self, answer: Awaitable[Answer], trail: Trail | None, number: str) -> Answer:
        return _finished(await answer, trail, number)

    def _number(self) -> str:
        text = f"{self._random.getrandbits(128):032x}"
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"


class Trail:
    """One request's events. Nothing is recorded until `identify`, or the answer of a request that nobody made."""

    def __init__(
        self, policy: Policy, sinks: Sequence[Sink], clock: Clock, request: Request, number: str, tally: Tally
    ) -> None:
        self._policy, self._sinks, self._clock, self._request, self._tally = policy, sinks, clock, request, tally
        self._received = clock.now()
        self._chosen: Chosen | None = None
        self._user: User | None = None
        self._impersonated: User | None = None
        self._constraint = ""
        self._meta: Object = {}  # of the object in the body
        self._asked: Any = None
        self._info = RequestInfo(request.path, request.method.lower())
        self._number = number
        self.annotations: dict[str, str] = {}

    def identify(self, user: User, info: RequestInfo) -> None:
        """Somebody is known to ask for something."""
        self._user, self._info = user, info
        self._chosen = self._policy.choose(user, info)
        self._tally.levels[self._chosen.level] += 1
        self._record("RequestReceived", {})

    def impersonate(self, user: User, constraint: str) -> None:
        """They may act as somebody else; `constraint` is the verb that allowed it, empty in the older way."""
        self._impersonated, self._constraint = user, constraint

    def asked_for(self, obj: Object) -> None:
        """What the body was understood as. It is shown as it is now, whatever becomes of it."""
        meta = obj.get("metadata")
        self._meta = dict(meta) if isinstance(meta, dict) else {}
        if self.wants_bodies():
            self._asked = msgspec.json.decode(msgspec.json.encode(self._shown(obj)))

    def patched(self) -> None:
        """The body is a patch, which is shown as it came."""
        body = self._request.body
        if self.wants_bodies() and (found := _object(body, self._request.headers)) is not None:
            self._asked = found

    def wants_bodies(self) -> bool:
        """Whether the event shows what is asked for."""
        return self._wants("Request")

    def annotate(self, key: str, value: str, level: str = "Metadata") -> None:
        """Add a fact, which events of a lower level do not have; the first of a key stays."""
        if level == "Metadata" or self._wants(level):
            self.annotations.setdefault(key, value)

    def answered(self, answer: Answer) -> None:
        """A whole answer, or the head of a long one."""
        if self._chosen is None:  # nobody: refused before anything was looked at
            self._info = resolve(self._request.method, self._request.path, Query(self._request.query))
            self._chosen = self._policy.choose(None, self._info)
            self._tally.levels[self._chosen.level] += 1
            self._record("ResponseStarted", self._answer(answer) if isinstance(answer, Response) else {})
            return
        if not isinstance(answer, Response):
            self._record("ResponseStarted", {"responseStatus": {"metadata": {}, "code": answer_code(answer)}})
            return
        more = self._answer(answer)
        if self._info.long_running:
            self._record("ResponseStarted", more)
        self._record("ResponseComplete", more)

    def _answer(self, answer: Response) -> Object:
        """What an event says of a whole answer."""
        whole = self._wants("RequestResponse")
        plain = isinstance(answer.body, bytes) and answer.body.startswith(b'{"kind":"Status"')
        told = _object(answer.body, answer.headers) if answer.status >= 400 or whole or plain else None
        more: Object = {"responseStatus": _status(answer.status, told)}
        if whole and isinstance(told, dict) and "kind" in told:
            more["responseObject"] = self._shown(told)
        return more

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
        if info.is_resource:
            event["objectRef"] = _reference(info, self._meta)
        event |= {key: value for key, value in more.items() if key == "responseStatus"}
        if self._asked is not None:
            event["requestObject"] = self._asked
        event |= more
        event["requestReceivedTimestamp"] = rfc3339_micro(self._received)
        event["stageTimestamp"] = rfc3339_micro(self._clock.now())
        if self.annotations:
            event["annotations"] = dict(self.annotations)
        self._tally.events += 1
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
    """Source: apimachinery's util/net.SourceIPs."""
    told = [text.strip() for text in (request.header("x-forwarded-for") or "").split(",")]
    found = [text for text in told if names.parse_ip(text) is not None]
    real, peer = (request.header("x-real-ip") or "").strip(), request.peer.address
    if real and real not in found and names.parse_ip(real) is not None:
        found.append(real)
    return found if not peer or (found and found[-1] == peer) else [*found, peer]


def _reference(info: RequestInfo, meta: Object) -> Object:
    out = {
        "resource": info.resource,
        "namespace": info.namespace or meta.get("namespace"),
        "name": info.about or meta.get("name"),
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
