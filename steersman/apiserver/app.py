"""The API server: one handler for every request.

Owns the pipeline (authenticate, impersonate, wait for a turn, authorize, then the verb), paths that are no resource,
start and stop. Called by the HTTP server, or directly in process. It listens to nothing and runs no control loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, Protocol

from steersman.api import errors
from steersman.api.discovery import Discovery
from steersman.api.errors import ApiError, PlainError
from steersman.api.kind import Kind
from steersman.api.registry import Registry
from steersman.api.schema.resources import GROUPS
from steersman.apiserver import conversion, devicerights, discovering, impersonate, refusals, requestor
from steersman.apiserver.audit.trail import Auditor
from steersman.apiserver.authz.opinions import Failed
from steersman.apiserver.call import Admission, Call, Services, User
from steersman.apiserver.compress import compressed
from steersman.apiserver.cors import Cors
from steersman.apiserver.encode import in_medium
from steersman.apiserver.flow.gate import Serve
from steersman.apiserver.negotiate import (
    DEFAULT,
    INDENTED,
    JSON,
    LOGGED,
    PRODUCES,
    PROTOBUF,
    WATCHED,
    YAML,
    Format,
    indented,
    negotiate,
    routed,
)
from steersman.apiserver.refusals import NOSNIFF
from steersman.apiserver.request import Query, RequestInfo, resolve
from steersman.apiserver.storage import Storage
from steersman.apiserver.subresources import SUBRESOURCES, VIRTUAL, websocket
from steersman.apiserver.telemetry.requests import Requests, Route, size_of
from steersman.apiserver.verbs import create, delete, patch, read, update, watch
from steersman.apiserver.webhookpost import CLIENTS, Clients
from steersman.lib.clock import Clock
from steersman.lib.deadlines import Deadlines
from steersman.lib.http.messages import Answer, Request, Response, Stream, Upgrade
from steersman.store.interface import Store, StoreUnavailable

log = logging.getLogger(__name__)

_VERBS: dict[str, Any] = {
    "get": read.get,
    "list": read.list_,
    "watch": watch.watch,
    "create": create.create,
    "update": update.update,
    "patch": patch.patch,
    "delete": delete.delete,
    "deletecollection": delete.delete_collection,
}
NO_PATH = "404 page not found"
_PRIVATE = ("cache-control", "no-cache, private")
_ANYTHING = frozenset({"attach", "exec", "portforward", "proxy"})  # subresources that answer what nobody knows before
_REQUEST_SECONDS = 60.0  # that a request may take, unless it is meant to last
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))


class Authenticator(Protocol):
    """Says who a request comes from."""

    def __call__(self, request: Request) -> User | Awaitable[User | None] | None:
        """The user; None when this authenticator does not know. Raises ApiError 401 for bad credentials."""
        ...


class Authorizer(Protocol):
    """Says who may do what."""

    def __call__(self, user: User, info: RequestInfo) -> str | Awaitable[str | None] | None:
        """None when allowed, else the reason (often empty); or what to wait for, where others are asked."""
        ...


class NonResource(Protocol):
    """Answers a path that is no resource; None when it is not its path."""

    def __call__(self, request: Request, user: User) -> Answer | Awaitable[Answer] | None: ...


class Remote(Protocol):
    """Another API server, to which requests for a group version are handed on."""

    def serve(self, request: Request, user: User, info: RequestInfo) -> Answer | Awaitable[Answer]:
        """Its answer."""
        ...


class Flow(Protocol):
    """Says when a request may go on, or that there are too many."""

    def through(
        self, serve: Serve, request: Request, query: Query, info: RequestInfo, user: User
    ) -> Answer | Awaitable[Answer]:
        """What `serve` answers, in time."""
        ...


class ApiServer:
    """Serves a registry's kinds from a store. `start` before the first request."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        clock: Clock,
        *,
        admission: Admission,
        authenticators: Sequence[Authenticator],
        authorizer: Authorizer,
        paths: Sequence[NonResource] = (),
        random: Random | None = None,
        address: str = "127.0.0.1:6443",
        anonymous: Callable[[str], bool] = lambda path: True,
    ) -> None:
        """`anonymous` says for which paths a request may come from nobody in particular."""
        self.registry = registry
        self.storage = Storage(store, clock)
        self._shared = store.shared
        self.services = Services(registry, registry.decoders, self.storage, clock, admission, random or Random())
        self.services.extras[CLIENTS] = Clients()
        requestor.install(self.services.extras)
        devicerights.install(self.services.extras)
        self.authenticators = list(authenticators)
        self.authorizer = authorizer
        self.anonymous = anonymous
        self.paths = list(paths)
        self.discovery = Discovery(registry, address)
        self.remote: Mapping[tuple[str, str], Remote] = {}
        self.ready = False
        self.started = False  # with everything that a cluster begins with
        self.audit: Auditor | None = None
        self.flow: Flow | None = None
        self.cors: Cors | None = None
        self.leaving: list[Callable[[], Awaitable[None]]] = []  # what is to be done before it ends
        self.impersonation = impersonate.Impersonation(constrained=impersonate.constrained(registry.release))
        self.request_seconds = _REQUEST_SECONDS
        self.requests: Requests | None = None
        self._deadlines = Deadlines()
        self._now = clock.monotonic

    async def start(self) -> None:
        """Load every kind; afterwards requests are served."""
        await self.storage.start()
        for kind in list(self.registry):
            await self.storage.open(kind)
        self.ready = True

    async def leave(self) -> None:
        """Do what is to be done while requests are still answered; then `close`."""
        for work in self.leaving:
            await work()

    async def close(self) -> None:
        """Stop following the store; the store itself is its owner's."""
        self.ready = False
        await self.services.extras[CLIENTS].close()
        await self.storage.close()

    # The pipeline --------------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        """Answer one request; without a task when nothing has to be waited for."""
        return self._audited(request) if self.cors is None else self.cors(request, self._audited)

    def _audited(self, request: Request) -> Answer | Awaitable[Answer]:
        return self._handle(request) if self.audit is None else self.audit(request, self._handle)

    def _handle(self, request: Request) -> Answer | Awaitable[Answer]:
        began = self._now()
        try:
            user = self._authenticate(request)
            if not isinstance(user, User):
                return self._guarded(self._serve_later(request, user), request, began)
            answer = self._serve(request, user)
            if answer.__class__ is not Response and isinstance(answer, Awaitable):
                return self._guarded(answer, request, began)
            answer = compressed(request, answer)
        except ApiError as error:
            answer = failure(error, request)
        except Exception as error:
            answer = self._broken(error, request)
        return answer if self.requests is None else self._counted(self.requests, request, answer, began)

    def _counted(self, requests: Requests, request: Request, answer: Answer, began: float) -> Answer:
        route = request.route
        if route is None:  # refused before anybody looked at what is asked
            query = Query(request.query)
            route = requests.route(resolve(request.method, request.path, Query("")), query, request.query)
            tried = request.peer.certificate is not None or request.header("authorization") is not None
            requests.unauthenticated["error" if tried else "failure"] += 1
        if answer.__class__ is Response:
            route.note(answer.status, self._now() - began, size_of(answer), request)
            if answer.status in (429, 504):
                route.ended(answer.status)
            return answer
        status = 101 if isinstance(answer, Upgrade) else answer.status
        return requests.lasting(route, answer, lambda: route.note(status, self._now() - began, 0, request))

    async def _serve_later(self, request: Request, user: Awaitable[User]) -> Answer:
        began = self._now()
        found = await user
        if self.requests is not None:
            self.requests.waits[0].observe(self._now() - began)
        answer = self._serve(request, found)
        return await answer if isinstance(answer, Awaitable) else answer

    async def _guarded(self, waiting: Awaitable[Answer], request: Request, began: float) -> Answer:
        route: Route | None = request.route
        if route is not None:
            route.kind.value += 1
        try:
            answer = compressed(request, await waiting)
        except ApiError as error:
            answer = failure(error, request)
        except ConnectionError:
            raise
        except Exception as error:
            answer = self._broken(error, request)
        finally:
            if route is not None:
                route.kind.value -= 1
        return answer if self.requests is None else self._counted(self.requests, request, answer, began)

    def _broken(self, error: Exception, request: Request) -> Response:
        log.error("%s %s failed", request.method, request.path, exc_info=error)
        return failure(errors.internal(str(error) or type(error).__name__), request)

    def _authenticate(self, request: Request) -> User | Awaitable[User]:
        for at, authenticator in enumerate(self.authenticators):
            user = authenticator(request)
            if isinstance(user, User):
                return user
            if user is not None:
                return self._authenticate_later(request, user, at + 1)
        return self._nobody(request)

    async def _authenticate_later(self, request: Request, first: Awaitable[User | None], at: int) -> User:
        found = await first
        for authenticator in self.authenticators[at:]:
            if found is not None:
                return found
            answer = authenticator(request)
            found = await answer if isinstance(answer, Awaitable) else answer
        return found or self._nobody(request)

    def _nobody(self, request: Request) -> User:
        if not self.anonymous(request.path):
            raise errors.unauthorized()
        return ANONYMOUS

    def _serve(self, request: Request, user: User) -> Answer | Awaitable[Answer]:
        query = Query(request.query)
        info = resolve(request.method, request.path, query)
        if info.old and not info.is_resource:
            raise refusals.undetermined(request)
        if self.requests is not None:
            self.requests.users[user.name] += 1
            request.route = self.requests.route(info, query, request.query)
        if request.context is not None:
            request.context.identify(user, info)
        if (target := impersonate.wanted(request)) is not None:
            answer: Answer | Awaitable[Answer] = self._impersonated(request, query, info, user, target)
        elif self.flow is not None:
            answer = self.flow.through(self._authorized, request, query, info, user)
        else:
            answer = self._authorized(request, query, info, user)
        if answer.__class__ is not Response and isinstance(answer, Awaitable) and not info.long_running:
            return self._in_time(answer, min(info.seconds or self.request_seconds, self.request_seconds))
        return answer

    async def _in_time(self, answer: Awaitable[Answer], seconds: float) -> Answer:
        """The answer, or that there is none yet. A write that has come to the store may happen even so."""
        try:
            if seconds >= _REQUEST_SECONDS:
                return await self._deadlines.within(seconds, answer)
            async with asyncio.timeout(seconds):
                return await answer
        except TimeoutError:
            raise errors.timeout("Timeout: request did not complete within the allotted timeout") from None

    def _authorized(self, request: Request, query: Query, info: RequestInfo, user: User) -> Answer | Awaitable[Answer]:
        why = self.authorizer(user, info)
        if why is None:
            return self._allowed(request, query, info, user)
        if isinstance(why, str):
            raise self._denied(request, user, info, why)
        return self._authorized_later(why, request, query, info, user)

    def _allowed(self, request: Request, query: Query, info: RequestInfo, user: User) -> Answer | Awaitable[Answer]:
        if request.context is not None:
            explain = getattr(self.authorizer, "reason", None)
            request.context.annotate("authorization.k8s.io/decision", "allow")
            request.context.annotate("authorization.k8s.io/reason", explain(user, info) if explain is not None else "")
        if not info.is_resource:
            return self._path(request, user)
        if self._shared and not (info.verb in ("get", "list") and query.get("resourceVersion") == "0"):
            return self._fresh(request, query, info, user)
        return self._resource(request, query, info, user)

    async def _fresh(self, request: Request, query: Query, info: RequestInfo, user: User) -> Answer:
        """With other API servers on the store: first see what was acknowledged to anybody (KEP-2340)."""
        try:
            await self.storage.store.fresh()
        except StoreUnavailable as error:
            raise errors.internal(str(error)) from error
        answer = self._resource(request, query, info, user)
        return await answer if isinstance(answer, Awaitable) else answer

    async def _authorized_later(
        self, waiting: Awaitable[str | None], request: Request, query: Query, info: RequestInfo, user: User
    ) -> Answer:
        began = self._now()
        if (why := await waiting) is not None:
            raise self._denied(request, user, info, why)
        if self.requests is not None:
            self.requests.waits[1].observe(self._now() - began)
        answer = self._allowed(request, query, info, user)
        return await answer if isinstance(answer, Awaitable) else answer

    def _denied(self, request: Request, user: User, info: RequestInfo, why: str) -> ApiError:
        failed = isinstance(why, Failed)
        if request.context is not None:
            if not failed:
                request.context.annotate("authorization.k8s.io/decision", "forbid")
            request.context.annotate("authorization.k8s.io/reason", "internal error" if failed else str(why))
        if self.requests is not None:
            self.requests.denied["error" if failed else "no-opinion"] += 1
        return refusals.unjudged(request, why) if isinstance(why, Failed) else refusals.forbidden(user, info, why)

    async def authorize(self, user: User, info: RequestInfo) -> str | None:
        """What the authorizer says, waited for."""
        why = self.authorizer(user, info)
        return why if why is None or isinstance(why, str) else await why

    async def _impersonated(
        self, request: Request, query: Query, info: RequestInfo, user: User, target: User
    ) -> Answer:
        began, constraint = self._now(), None
        try:
            target, constraint = await self.impersonation.become(self.authorize, user, info, target)
        finally:
            self.impersonation.tried(constraint, self._now() - began)
        if request.context is not None:
            request.context.impersonate(target, constraint)
        if self.flow is not None:
            answer = self.flow.through(self._authorized, request, query, info, target)
        else:
            answer = self._authorized(request, query, info, target)
        return await answer if isinstance(answer, Awaitable) else answer

    # Paths that are no resource --------------------------------------------------------------------------------------

    def _path(self, request: Request, user: User) -> Answer | Awaitable[Answer]:
        for path in self.paths:
            answer = path(request, user)
            if answer is not None:
                if isinstance(answer, Response) and all(name != "cache-control" for name, _ in answer.headers):
                    answer.headers = [_PRIVATE, *answer.headers]
                return answer
        if request.path.startswith("/api"):
            if (found := discovering.answer(self.discovery, request)) is not None:
                return found
            if self._built_in(request.path):
                raise unknown_resource()
        raise ApiError(404, "", NO_PATH)

    def _built_in(self, path: str) -> bool:
        """Whether a path is below that of a built-in group, where an unknown version is an unknown resource."""
        root, _, rest = path.strip("/").partition("/")
        group = "" if root == "api" else rest.partition("/")[0]
        return root in ("api", "apis") and bool(rest) and group in GROUPS and bool(self.registry.versions(group))

    # Resources -------------------------------------------------------------------------------------------------------

    def _resource(self, request: Request, query: Query, info: RequestInfo, user: User) -> Answer | Awaitable[Answer]:
        if (remote := self.remote.get((info.group, info.version))) is not None:
            return remote.serve(request, user, info)
        virtual = VIRTUAL.get((info.group, info.resource))
        kind = self.registry.by_resource(info.group, info.version, info.resource)
        if kind is None:
            raise self._nothing(info)
        if info.verb == "proxy" or (info.old and not kind.custom and (info.subresource or "watch" not in kind.verbs)):
            raise unknown_resource()  # a path that was never there
        if kind.namespaced and not info.namespace and not _everywhere(kind, info):
            raise ApiError(404, "", NO_PATH) if kind.custom else unknown_resource()
        if info.namespace and not (kind.namespaced or kind.custom or kind.plural == "namespaces"):
            raise unknown_resource()
        if wrong := _misnamed(info.name):
            raise errors.bad_request(f"Name parameter invalid: {errors.quoted(info.name)}: {wrong}")
        call = Call(self.services, request, info, query, kind, info.version, user, self._format(request, info, kind))
        if request.notes:
            call.warnings += request.notes
        if (found := kind.version(info.version)) is not None and found.deprecation:
            call.warnings.append(found.deprecation)
        if virtual is not None:
            return self._virtual(call, virtual)
        if info.subresource:
            return self._subresource(call)
        verb = _VERBS.get(info.verb)
        named = info.verb in ("get", "update", "patch", "delete")
        if (
            verb is None
            or info.verb not in kind.verbs
            or (info.verb == "create" and info.name)
            or named > bool(info.name)
        ):
            raise _unsupported(kind, info, request)
        if kind.namespaced and not info.namespace and info.verb in ("create", "deletecollection"):
            # across namespaces there are lists and watches only
            raise ApiError(404, "", NO_PATH) if kind.custom else errors.no_such_method()
        if request.method != "GET" and info.verb in ("get", "list", "watch") and not kind.custom:
            raise errors.no_such_method()  # HEAD, or a write to the old path of watches
        try:
            answer = _performed(verb, call)
        except ApiError as error:
            raise _with_warnings(error, call) from None
        if answer.__class__ is not Response and isinstance(answer, Awaitable):
            return _warned(answer, call)
        if isinstance(answer, Stream) and websocket.wanted(request):
            return websocket.over_websocket(request, answer, text=True)
        return answer

    def _nothing(self, info: RequestInfo) -> ApiError:
        """What an unknown resource is told: in words of its group and version where those are built in."""
        if info.group in GROUPS and self.registry.versions(info.group):
            return unknown_resource()
        return ApiError(404, "", NO_PATH)

    def _virtual(self, call: Call, virtual: Any) -> Answer | Awaitable[Answer]:
        if call.info.verb not in call.kind.verbs or call.request.method == "HEAD":
            raise _with_warnings(_unsupported(call.kind, call.info, call.request), call)
        answer: Answer | Awaitable[Answer] = virtual(self, call)
        return _warned(answer, call) if isinstance(answer, Awaitable) else answer

    def _subresource(self, call: Call) -> Answer | Awaitable[Answer]:
        info, kind = call.info, call.kind
        sub = kind.subresource(info.subresource, info.version)
        if sub is None:
            raise errors.not_found(kind.group, kind.plural, info.name) if kind.custom else unknown_resource()
        if not kind.custom and info.subresource != "proxy":
            if info.rest:
                raise unknown_resource()
            if call.request.method == "HEAD":
                raise errors.no_such_method()
        special = SUBRESOURCES.get((kind.group, kind.plural, info.subresource)) or SUBRESOURCES.get(
            ("*", "*", info.subresource)
        )
        if special is not None:
            if not kind.custom and info.verb not in sub.verbs and info.subresource != "proxy":
                raise errors.no_such_method()
            answer: Answer | Awaitable[Answer] = special(self, call)
            return _warned(answer, call) if isinstance(answer, Awaitable) else answer
        if info.verb not in sub.verbs or info.verb not in ("get", "update", "patch"):
            raise _unsupported(kind, info, call.request)
        answer = _performed(_VERBS[info.verb], call)
        if answer.__class__ is not Response and isinstance(answer, Awaitable):
            return _warned(answer, call)
        return answer

    def _format(self, request: Request, info: RequestInfo, kind: Kind) -> Format:
        accept, agent = None, ""
        for name, value in request.headers:
            if name == "accept":
                accept = accept or value
            elif name == "user-agent":
                agent = value
        indent = indented(request.query, agent)
        if not accept or accept in ("application/json", "*/*", "application/json, */*"):
            return INDENTED if indent else DEFAULT
        if not kind.custom and info.subresource not in _ANYTHING:
            listed = not info.name and info.verb in ("list", "watch")
            routed(accept, WATCHED if listed else LOGGED if info.subresource == "log" else PRODUCES)
        listed = "get" in kind.verbs or (kind.group, kind.plural) not in VIRTUAL  # a review cannot be shown as a table
        found = negotiate(accept, protobuf=not kind.custom, transforms=listed, indent=indent)
        return found if found.plain else _fitting(found, info, kind)

    def call_for(self, call: Call, **changes: Any) -> Call:
        """A copy of a call with other facts: for subresources that act as another verb."""
        return replace(call, **changes)


def _misnamed(name: str) -> str:
    """Why a name can be no part of a path. Source: apimachinery's pkg/api/validation/path."""
    if name in (".", ".."):
        return f"may not be '{name}'"
    return "may not contain '%'" if "%" in name else ""


def _fitting(format: Format, info: RequestInfo, kind: Kind) -> Format:
    """The format, if what is asked for has it. Raises ApiError 406."""
    if info.verb == "watch" and format.media == YAML:
        streams = f"{JSON};stream=watch, {PROTOBUF};stream=watch"
        raise errors.not_acceptable(f"only the following media types are accepted: {streams}")
    if format.transform == "PartialObjectMetadata" and info.verb == "list":
        group = (kind.group or "core").partition(".")[0]
        if not format.listed:
            what = (
                "*unstructured.UnstructuredList" if kind.custom else f"*{group}.{kind.list_kind or kind.kind + 'List'}"
            )
            text = f"you requested PartialObjectMetadata, but the requested object is a list ({what})"
            raise errors.not_acceptable(text)
    return format


def _everywhere(kind: Kind, info: RequestInfo) -> bool:
    """Whether a kind that has namespaces can be asked for across them."""
    if kind.custom:
        return not info.name and info.verb in ("list", "watch")
    return not info.name and "list" in kind.verbs


def _performed(verb: Any, call: Call) -> Answer | Awaitable[Answer]:
    """The verb's answer; where objects are converted by a webhook, it may take several goes."""
    if conversion.remote(call.kind) and call.info.verb != "watch":
        return conversion.served(verb, call, create.answer)
    answer: Answer | Awaitable[Answer] = verb(call)
    return answer


async def _warned(answer: Awaitable[Answer], call: Call) -> Answer:
    """A refusal carries the warnings that came up before it."""
    try:
        return await answer
    except ApiError as error:
        raise _with_warnings(error, call) from None


def _with_warnings(error: ApiError, call: Call) -> ApiError:
    error.headers = [*error.headers, *call.warning_headers()]
    return error


def _unsupported(kind: Kind, info: RequestInfo, request: Request) -> ApiError:
    """A kind's lack of a verb: only watches and custom resources come as far as to be told which."""
    if kind.custom or info.verb == "watch":
        return errors.method_not_allowed(kind.group, kind.plural, info.verb)
    return errors.no_such_method()


def unknown_resource() -> ApiError:
    """404: no such resource."""
    return errors.generic(404, "NotFound", "the server could not find the requested resource")


def failure(error: ApiError, request: Request) -> Response:
    """A Status, in the medium that the client reads; where it reads none, as JSON for people."""
    if error.message == NO_PATH and not error.reason:
        text = ("content-type", "text/plain; charset=utf-8")
        return Response(404, [_PRIVATE, text, NOSNIFF, *error.headers], b"404 page not found\n")
    if isinstance(error, PlainError):
        plain = [_PRIVATE, ("content-type", "text/plain; charset=utf-8"), NOSNIFF]
        return Response(error.code, plain, f"{error.message}\n".encode())
    indent = indented(request.query, request.header("user-agent") or "")
    try:
        format = negotiate(request.header("accept") or "", protobuf=True, transforms=False, indent=indent)
    except ApiError:
        format = INDENTED
    headers = [_PRIVATE, ("content-type", format.media), *error.headers]
    return Response(error.code, headers, in_medium(error.status(), format))
