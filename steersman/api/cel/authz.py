"""`authorizer`: questions about rights inside an expression. Source: apiserver's pkg/cel/library/authz.go, KEP-3488.

Owns the values and the functions; who decides is a function that the caller puts into the first value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from steersman.api import names
from steersman.api.cel.functions import Overload, define
from steersman.api.cel.syntax import CelError
from steersman.api.cel.types import Type, object_of
from steersman.api.cel.values import Opaque

_PACKAGE = "kubernetes.authorization."
AUTHORIZER, PATH, GROUP, RESOURCE, DECISION = (
    _PACKAGE + name for name in ("Authorizer", "PathCheck", "GroupCheck", "ResourceCheck", "Decision")
)
TYPE = object_of(AUTHORIZER, {"requestResource": Type(RESOURCE)}.get)
_CHECK_COST = 350_000  # so that one expression can ask twice


@dataclass(frozen=True, slots=True)
class Question:
    """May `subject` (None: who makes the request) do `verb`? To a path, or to a resource."""

    subject: tuple[str, str] | None = None  # a service account's namespace and name
    verb: str = ""
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    fields: str = ""
    labels: str = ""


Decide = Callable[[Question], str | None]
"""None when it is allowed, else why not."""


@dataclass(frozen=True, slots=True)
class _Asking:
    decide: Decide
    question: Question


def authorizer(decide: Decide, request: Question) -> Opaque:
    """The variable `authorizer`; `request` is what `authorizer.requestResource` asks about."""
    whole = Opaque(RESOURCE, _Asking(decide, request), request)
    return Opaque(AUTHORIZER, _Asking(decide, Question()), id(decide), {"requestResource": whole})


def _with(kind: str, field: str, empty: str = "") -> Callable[..., Opaque]:
    """A builder that puts its argument into one field; `empty` is the complaint where it may not be."""

    def run(given: Opaque, text: str) -> Opaque:
        if empty and not text.strip():
            raise CelError(empty)
        asking: _Asking = given.value
        changed: dict[str, Any] = {field: text}
        question = replace(asking.question, **changed)
        return Opaque(kind, _Asking(asking.decide, question), question)

    return run


def _service_account(given: Opaque, namespace: str, name: str) -> Opaque:
    if names.dns_subdomain(name):
        raise CelError("Invalid service account name")
    if names.dns_label(namespace):
        raise CelError("Invalid service account namespace")
    asking: _Asking = given.value
    question = replace(asking.question, subject=(namespace, name))
    return Opaque(AUTHORIZER, _Asking(asking.decide, question), question)


def _check(given: Opaque, verb: str) -> Opaque:
    asking: _Asking = given.value
    why = asking.decide(replace(asking.question, verb=verb))
    return Opaque(DECISION, why, why)


def _problem(given: Opaque) -> str:
    """Why the authorizer could not be asked, where it says so."""
    return str(getattr(given.value, "problem", ""))


def _cost(sizes: Any) -> int:
    return _CHECK_COST


TABLE: list[Overload] = [
    *define(_with(PATH, field="path", empty="path must not be empty"), f"{AUTHORIZER}.path(string) {PATH}"),
    *define(_with(GROUP, field="group"), f"{AUTHORIZER}.group(string) {GROUP}"),
    *define(_service_account, f"{AUTHORIZER}.serviceAccount(string, string) {AUTHORIZER}"),
    *define(
        _with(RESOURCE, field="resource", empty="resource must not be empty"), f"{GROUP}.resource(string) {RESOURCE}"
    ),
    *define(_with(RESOURCE, field="subresource"), f"{RESOURCE}.subresource(string) {RESOURCE}"),
    *define(_with(RESOURCE, field="namespace"), f"{RESOURCE}.namespace(string) {RESOURCE}"),
    *define(_with(RESOURCE, field="name"), f"{RESOURCE}.name(string) {RESOURCE}"),
    *define(_with(RESOURCE, field="fields"), f"{RESOURCE}.fieldSelector(string) {RESOURCE}"),
    *define(_with(RESOURCE, field="labels"), f"{RESOURCE}.labelSelector(string) {RESOURCE}"),
    *define(_check, f"{PATH}.check(string) {DECISION}", f"{RESOURCE}.check(string) {DECISION}", price=_cost),
    *define(lambda given: given.value is None, f"{DECISION}.allowed() bool"),
    *define(lambda given: str(given.value or ""), f"{DECISION}.reason() string"),
    *define(lambda given: bool(_problem(given)), f"{DECISION}.errored() bool"),
    *define(lambda given: _problem(given), f"{DECISION}.error() string"),
]
