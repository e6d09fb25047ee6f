"""Expressions about a token: what user its claims make, and which tokens and users are not let in.

Owns the types of `claims` and `user`, what the expressions must give, and the complaints. Made by the reader of
AuthenticationConfigurations, called by `oidc.py`. Pure. Source: KEP-3331; apiserver's pkg/authentication/cel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from steersman.api import cel
from steersman.api.cel.syntax import Ident, Node, Select
from steersman.api.cel.types import DYN, STRING, Type, list_of, map_of, object_of
from steersman.api.resource import Object
from steersman.apiserver.authn.serviceaccount import BadToken
from steersman.apiserver.call import User

_CLAIMS: Mapping[str, Type] = {"claims": map_of(STRING, DYN)}
_USER_FIELDS: Mapping[str, Type] = {
    **dict.fromkeys(("username", "uid"), STRING),
    "groups": list_of(STRING),
    "extra": map_of(STRING, list_of(STRING)),
}
_USER: Mapping[str, Type] = {"user": object_of("kubernetes.UserInfo", _USER_FIELDS.get)}


@dataclass(frozen=True)
class Rule:
    """An expression that must be true, and what to say where it is not."""

    program: cel.Program
    message: str = ""


@dataclass(frozen=True)
class Expressions:
    """What of an issuer is said in CEL."""

    username: cel.Program | None = None
    groups: cel.Program | None = None
    uid: cel.Program | None = None
    extra: Sequence[tuple[str, cel.Program]] = ()
    claim_rules: Sequence[Rule] = ()
    user_rules: Sequence[Rule] = ()


NOTHING = Expressions()


def of_claims(source: str, *, rule: bool = False) -> cel.Program:
    """An expression about `claims`. Raises ValueError."""
    return _compiled(source, _CLAIMS, rule)


def of_user(source: str) -> cel.Program:
    """A rule about `user`. Raises ValueError."""
    return _compiled(source, _USER, rule=True)


def _compiled(source: str, variables: Mapping[str, Type], rule: bool) -> cel.Program:
    try:
        made = cel.compile(source, variables)
    except cel.CompileError as error:
        raise ValueError(f"compilation failed: {error}") from None
    if rule and str(made.type) != "bool":
        raise ValueError("must evaluate to bool")
    return made


def names_claim(program: cel.Program, claim: str) -> bool:
    """Whether an expression reads `claims.CLAIM`, or `claims.?CLAIM`."""
    found = (node for node in _nodes(program.tree) if isinstance(node, Select) and node.name == claim)
    return any(isinstance(node.operand, Ident) and node.operand.name == "claims" for node in found)


def _nodes(found: Any) -> Iterator[Node]:
    if isinstance(found, Node):
        yield found
        for each in fields(found):
            if each.name not in ("at", "type"):
                yield from _nodes(getattr(found, each.name))
    elif isinstance(found, (list, tuple)):
        for one in found:
            yield from _nodes(one)


def shown(claims: Object) -> Object:
    """Claims as expressions see them: every number is a double."""
    return {key: _doubles(value) for key, value in claims.items()}


def _doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return shown(value)
    if isinstance(value, list):
        return [_doubles(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def text(program: cel.Program, claims: Object, what: str) -> str:
    """A string that claims make. Raises BadToken."""
    where = f"error evaluating {what} claim expression"
    found = _value(program, {"claims": claims}, where)
    if not isinstance(found, str):
        raise BadToken(f"oidc: {where}: {what} claim expression must return a string")
    if not found and what == "username":
        raise BadToken("oidc: empty username via CEL expression is not allowed")
    return found


def texts(program: cel.Program, claims: Object, where: str) -> list[str]:
    """The strings that claims make; empty ones are not there. Raises BadToken."""
    found = _value(program, {"claims": claims}, where)
    listed = [] if found is None else [found] if isinstance(found, str) else found
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise BadToken(f"oidc: {where}: expression must return a string or a list of strings")
    return [each for each in listed if each]


def check_claims(rules: Sequence[Rule], claims: Object) -> None:
    """Raises BadToken where a rule is not true."""
    _check(rules, {"claims": claims}, "error evaluating claim validation expression")


def check_user(rules: Sequence[Rule], user: User) -> None:
    """Raises BadToken where a rule is not true."""
    extra = {key: list(values) for key, values in user.extra.items()}
    shown = {"username": user.name, "uid": user.uid, "groups": list(user.groups), "extra": extra}
    _check(rules, {"user": shown}, "error evaluating user info validation rule")


def _check(rules: Sequence[Rule], variables: Object, where: str) -> None:
    for rule, held in [(rule, _value(rule.program, variables, where)) for rule in rules]:
        if held is not True:
            raise BadToken(f"oidc: {where}: validation expression '{rule.program.source}' failed: {rule.message}")


def _value(program: cel.Program, variables: Object, where: str) -> Any:
    try:
        return program.evaluate(variables)[0]
    except cel.CelError as error:
        raise BadToken(f"oidc: {where}: expression '{program.source}' resulted in error: {error}") from None
