"""Who may do what, asked by an expression of admission: the variable `authorizer`.

Owns the way from an expression, which does not wait, to an authorizer, which may have to: an answer that is not there
stops the evaluation, is fetched, and the evaluation begins again. Answers are kept for the request. Called by webhooks
and policies. Source: KEP-3488 and apiserver's pkg/admission/plugin/authorizer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from steersman.api.cel import authz
from steersman.api.cel.authz import Question
from steersman.api.cel.values import Opaque
from steersman.apiserver.admission import matching
from steersman.apiserver.call import Call, User
from steersman.apiserver.request import RequestInfo

_ACCOUNTS = "system:serviceaccounts"
T = TypeVar("T")


class Undecided(Exception):
    """The authorizer has to be waited for."""

    def __init__(self, question: Question, answer: Awaitable[str | None]) -> None:
        super().__init__(question)
        self.question = question
        self.answer = answer


def authorizer(call: Call, name: str) -> Opaque:
    """The variable of one request, which is about the object `name`."""
    decide, known = call.services.extras.get("decide"), call.decisions

    def answer(question: Question) -> str | None:
        if decide is None:
            return None
        if question not in known:
            why = decide(_subject(call, question), _info(question))
            if isinstance(why, Awaitable):
                raise Undecided(question, why)
            known[question] = why
        found: str | None = known[question]
        return found

    info, kind = call.info, call.kind
    namespace = name if matching.is_namespace(call) else info.namespace
    whole = Question(
        group=kind.group, resource=kind.plural, subresource=info.subresource, namespace=namespace, name=name
    )
    return authz.authorizer(answer, whole)


async def settled(call: Call, evaluate: Callable[[], T]) -> T:
    """What an evaluation gives, once the authorizer has answered all that it asks."""
    while True:
        try:
            return evaluate()
        except Undecided as need:
            call.decisions[need.question] = await need.answer


def _subject(call: Call, question: Question) -> User:
    if question.subject is None:
        return call.user
    namespace, name = question.subject
    return User(f"system:serviceaccount:{namespace}:{name}", (_ACCOUNTS, f"{_ACCOUNTS}:{namespace}"))


def _info(question: Question) -> RequestInfo:
    if question.path:
        return RequestInfo(question.path, question.verb)
    return RequestInfo(
        "",
        question.verb,
        is_resource=True,
        group=question.group,
        version="*",
        resource=question.resource,
        subresource=question.subresource,
        namespace=question.namespace,
        name=question.name,
        selectors=(question.fields, question.labels),
    )
