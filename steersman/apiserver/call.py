"""One request to a resource, on its way through the pipeline.

Owns `Call` (what the verbs are handed) and `Services` (what the API server is made of). Built by `app.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from steersman.api.kind import Kind
from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.api.schema.decode import Decoders
from steersman.api.term import HEADER, Term, parse
from steersman.apiserver.admission.rounds import Rounds
from steersman.apiserver.encode import Encoder, content_type, headed, in_medium
from steersman.apiserver.negotiate import Format
from steersman.apiserver.request import Query, RequestInfo
from steersman.apiserver.storage import Storage
from steersman.lib.clock import Clock
from steersman.lib.http.messages import Request, Response


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. `extra` maps keys to lists of values."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Admission(Protocol):
    """The admission chain: may change the object, may refuse it (ApiError)."""

    async def mutate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """Change the object in place before it is validated."""
        ...

    async def validate(self, call: Call, obj: Object | None, old: Object | None) -> None:
        """Refuse what must not be."""
        ...


@dataclass(slots=True)
class Services:
    """Everything that verbs need besides the request."""

    registry: Registry
    decoders: Decoders
    storage: Storage
    clock: Clock
    admission: Admission
    random: Any
    extras: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Call:
    """One request. `operation` is what admission calls it: CREATE, UPDATE, DELETE or CONNECT."""

    services: Services
    request: Request
    info: RequestInfo
    query: Query
    kind: Kind
    version: str
    user: User
    format: Format
    operation: str = ""
    warnings: list[str] = field(default_factory=list)
    options: Object = field(default_factory=dict)
    apart: bool = False  # what admission is shown is a subresource's own object: a Scale, an Eviction
    settled: bool = False  # what was to be admitted has been
    dry_run: bool = False
    rounds: Rounds = field(default_factory=Rounds)  # of the mutation that is under way
    decisions: dict[Any, str | None] = field(default_factory=dict)  # what expressions asked the authorizer
    chosen: dict[Any, Any] = field(default_factory=dict)  # by chance or by the clock: once, if the verb runs again
    written: tuple[int, Any] | None = None  # status and object of an answer to a write that has happened

    @property
    def storage(self) -> Storage:
        """Where objects are."""
        return self.services.storage

    @property
    def term(self) -> Term | None:
        """The leader's term that a write belongs to; None for everybody's. Raises ApiError 400."""
        text = self.request.header(HEADER)
        return None if text is None else parse(text)

    def annotate(self, key: str, value: str, level: str = "Metadata") -> None:
        """Add a fact to the request's audit event, where there is one of at least that level."""
        if self.request.context is not None:
            self.request.context.annotate(key, value, level)

    def asked_for(self, obj: Object) -> None:
        """Tell the audit event, where there is one, what the body was understood as."""
        if self.request.context is not None:
            self.request.context.asked_for(obj)

    def encoder(self) -> Encoder:
        """How answers are written."""
        return Encoder(
            self.kind,
            self.version,
            self.format,
            include=self.query.get("includeObject"),
            now=self.services.clock.now(),
            texts=self.services.registry.column_texts,
        )

    def respond(self, status: int, body: Any, kind: str = "", api_version: str = "") -> Response:
        """An answer with ready bytes; `kind` is given where it is not the resource's own."""
        media = content_type(kind, api_version, self.format) if kind else self.format.content_type
        headers = [("cache-control", "no-cache, private"), ("content-type", media)]
        if self.warnings:
            headers += self.warning_headers()
        return Response(status, headers, body)

    def warning_headers(self) -> list[tuple[str, str]]:
        """One Warning header for each text."""
        return [("warning", f'299 - "{_quoted(text)}"') for text in dict.fromkeys(self.warnings)]

    def document(self, status: int, document: Object) -> Response:
        """An answer that is not of the resource's kind: a Status, a Scale, a review."""
        body = in_medium(headed(document), self.format)
        return self.respond(status, body, document.get("kind", ""), document.get("apiVersion", ""))


def _quoted(text: str) -> str:
    """A warning's text as RFC 7234 wants it quoted."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", " ").replace("\n", " ")


Verb = Callable[[Call], Any]
