"""`x-kubernetes-validations`: rules in CEL on every level of a custom resource's schema.

Owns what is wrong with the rules of a definition, and what they say about an object. Called for definitions that are
written and for custom objects. Pure. Source: KEP-2876, KEP-4008 (ratcheting), apiextensions-apiserver's
pkg/apiserver/schema/cel and its validation of definitions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from steersman.api import cel
from steersman.api.cel import schemas
from steersman.api.cel.syntax import CostError
from steersman.api.cel.types import Type, optional_of
from steersman.api.cel.values import NONE, Optional
from steersman.api.correlation import Correlated, same_item
from steersman.api.errors import FieldError
from steersman.api.validation import duplicate, forbidden, invalid, not_supported, required

RULES = "x-kubernetes-validations"
_RULE_LIMIT, _TOTAL_LIMIT, _BUDGET = 10_000_000, 100_000_000, 10_000_000
_HINT = (
    "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength "
    "where arrays, maps, and strings are declared)"
)


@dataclass(slots=True)
class Rule:
    """One rule that compiled."""

    given: Mapping[str, Any]
    program: cel.Program
    message: cel.Program | None
    transition: bool

    @property
    def optional(self) -> bool:
        """Whether oldSelf is an optional, so that the rule runs where there is no old value too."""
        return bool(self.given.get("optionalOldSelf"))


@dataclass(slots=True)
class Level:
    """The rules on one place of a schema and below it."""

    schema: Mapping[str, Any]
    rules: list[Rule] = field(default_factory=list)
    properties: dict[str, Level] = field(default_factory=dict)
    items: Level | None = None
    extra: Level | None = None

    def __bool__(self) -> bool:
        return bool(self.rules or self.properties or self.items or self.extra)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a schema is: how often its values may be in one object (None: nothing bounds it), and below what path old
    values cannot be found again."""

    times: int | None = 1
    root: bool = True
    forgetful: str = ""


def _times(schema: Mapping[str, Any], times: int | None) -> int | None:
    kind = schema.get("type")
    if kind == "object" and schema.get("additionalProperties") is not None:
        most = schema.get("maxProperties")
    elif kind == "array":
        most = schema.get("maxItems")
    else:
        return times
    return None if times is None or most is None else times * max(int(most), 0)


class _Compiler:
    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self.total = 0
        self.dearest: list[tuple[int, str]] = []

    def level(self, schema: Mapping[str, Any], path: str, place: _Place) -> Level:
        """Compile a schema's rules, those below first, as the original lists what is wrong with them."""
        made = Level(schema)
        inner = replace(place, times=_times(schema, place.times), root=False)
        if isinstance(extra := schema.get("additionalProperties"), dict):
            made.extra = self.level(extra, f"{path}.additionalProperties", inner) or None
        for name, each in (schema.get("properties") or {}).items():
            if below := self.level(each, f"{path}.properties[{name}]", inner):
                made.properties[name] = below
        if isinstance(items := schema.get("items"), dict):
            if schema.get("x-kubernetes-list-type") != "map":
                inner = replace(inner, forgetful=place.forgetful or path)
            made.items = self.level(items, f"{path}.items", inner) or None
        for at, rule in enumerate(schema.get(RULES) or ()):
            if (ready := self._rule(rule, schema, f"{path}.{RULES}[{at}]", place)) is not None:
                made.rules.append(ready)
        return made

    def _rule(self, rule: Mapping[str, Any], schema: Mapping[str, Any], path: str, place: _Place) -> Rule | None:
        source = rule.get("rule") or ""
        if not source.strip():
            return None
        kind = schemas.type_of(schema, root=place.root)
        known: dict[str, Type] = {"self": kind}
        old = optional_of(kind) if rule.get("optionalOldSelf") else kind
        transition = False
        try:
            try:
                program = cel.compile(source, known)
            except cel.CompileError:
                program = cel.compile(source, {**known, "oldSelf": old})
                transition = True
        except cel.CompileError as error:
            self.errors.append(_bad(f"{path}.rule", rule, f"compilation failed: {error}"))
            self._unused(rule, path)
            return None
        if program.type.name != "bool":
            self.errors.append(_bad(f"{path}.rule", rule, "cel expression must evaluate to a bool"))
            self._unused(rule, path)
            return None
        times = place.times if place.times is not None else schemas.most_often(schema)
        self._cost(program.estimate(lambda _: kind) * times, f"{path}.rule", "estimated rule cost")
        message = self._message(rule, {**known, "oldSelf": old}, path, kind)
        if not transition:
            self._unused(rule, path)
        elif place.forgetful:
            text = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {place.forgetful}"
            self.errors.append(invalid(f"{path}.rule", source, text))
        return Rule(rule, program, message, transition)

    def _unused(self, rule: Mapping[str, Any], path: str) -> None:
        if rule.get("optionalOldSelf") is not None:
            text = "may not be set if oldSelf is not used in rule"
            self.errors.append(invalid(f"{path}.optionalOldSelf", rule["optionalOldSelf"], text))

    def _message(self, rule: Mapping[str, Any], known: Mapping[str, Type], path: str, kind: Type) -> cel.Program | None:
        source = rule.get("messageExpression")
        if source is None:
            return None
        here = f"{path}.messageExpression"
        try:
            program = cel.compile(source, known)
        except cel.CompileError as error:
            text = f"messageExpression compilation failed: {error}"
            self.errors.append(_bad(here, rule, text))
            return None
        if program.type.name != "string":
            self.errors.append(_bad(here, rule, "messageExpression must evaluate to a string"))
            return None
        self._cost(program.estimate(lambda _: kind), here, "estimated messageExpression cost")
        return program

    def _cost(self, cost: int, path: str, what: str) -> None:
        self.total += cost
        if cost >= _TOTAL_LIMIT // 100:
            self.dearest = sorted([*self.dearest, (cost, path)], key=lambda each: -each[0])[:4]
        if cost > _RULE_LIMIT:
            self.errors.append(forbidden(path, _over(what, cost, _RULE_LIMIT)))


_FIELDS = ("Rule", "Message", "MessageExpression", "Reason", "FieldPath", "OptionalOldSelf")
"""A rule as the original's own type has it, which its complaints show."""


def _bad(path: str, rule: Mapping[str, Any], detail: str) -> FieldError:
    none = {"Reason": None, "OptionalOldSelf": None}
    shown = {name: rule.get(name[0].lower() + name[1:], none.get(name, "")) for name in _FIELDS}
    text = json.dumps(shown, separators=(",", ":"), ensure_ascii=False)
    for plain in "<>&":
        text = text.replace(plain, f"\\u{ord(plain):04x}")
    return FieldError("FieldValueInvalid", path, f"Invalid value: {text}: {detail}", dict(rule))


def _over(what: str, cost: int, limit: int) -> str:
    factor = cost / limit
    shown = "more than 100x" if factor > 100 else f"{factor:.1f}x" if factor >= 1.5 else f"{factor:f}x"
    return f"{what} exceeds budget by factor of {shown} {_HINT}"


def compile_rules(schema: Mapping[str, Any], path: str = "") -> tuple[Level, list[FieldError]]:
    """The rules of a schema, and what is wrong with them; `path` is where the schema is."""
    found = _Compiler()
    level = found.level(schema, path, _Place())
    if found.total > _TOTAL_LIMIT:
        text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
        found.errors += [forbidden(where, text) for _, where in found.dearest]
        what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
        found.errors.append(forbidden(path, _over(what, found.total, _TOTAL_LIMIT)))
    return level, found.errors


def check_keywords(schema: Mapping[str, Any], path: str) -> list[FieldError]:
    """Complaints about what the rules of one level say beside their expressions."""
    found: list[FieldError] = []
    for at, rule in enumerate(schema.get(RULES) or ()):
        found += _keywords(rule, schema, f"{path}.{RULES}[{at}]")
    return found


_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


def _keywords(rule: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> list[FieldError]:
    source, message, told, where = (
        rule.get(key) or "" for key in ("rule", "message", "messageExpression", "fieldPath")
    )
    found: list[FieldError] = []
    if not source.strip():
        found.append(required(f"{path}.rule", "rule is not specified"))
    elif message and not message.strip():
        found.append(invalid(f"{path}.message", message, "must be non-empty if specified"))
    elif "\n" in message.strip():
        found.append(invalid(f"{path}.message", message, "must not contain line breaks"))
    elif "\n" in source.strip() and not message.strip():
        found.append(required(f"{path}.message", "message must be specified if rule contains line breaks"))
    if told and not told.strip():
        found.append(required(f"{path}.messageExpression", "messageExpression must be non-empty if specified"))
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        found.append(not_supported(f"{path}.reason", reason, _REASONS))
    here = f"{path}.fieldPath"
    if where and not where.strip():
        found.append(invalid(here, where, "must be non-empty if specified"))
    if "\n" in where:
        found.append(invalid(here, where, "must not contain line breaks"))
    if where and not _leads(where, schema):
        found.append(invalid(here, where, "must be a valid path"))
    return found


_STEP = re.compile(r"\.([A-Za-z_][A-Za-z0-9_]*)|\['((?:[^'\\]|\\.)*)'\]")


def _leads(path: str, schema: Mapping[str, Any]) -> bool:
    """Whether a path such as `.a['b']` names a field below a schema."""
    at, here = 0, schema
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return False
        name, at = step[1] or step[2] or "", step.end()
        inner = (here.get("properties") or {}).get(name)
        inner = inner if inner is not None else here.get("additionalProperties")
        if not isinstance(inner, dict):
            return False
        here = inner
    return True


_OMITTED = object()


_NO_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"
_NO_MESSAGE = (
    "messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run"
)


@dataclass(frozen=True, slots=True)
class _Was:
    """What a value was: `here`, and at the nearest place above that is known."""

    here: Correlated | None = None
    above: Correlated | None = None

    @property
    def unchanged(self) -> bool:
        """Whether what is wrong may stay."""
        known = self.here or self.above
        return known is not None and known.equal

    def below(self, step: str | int) -> _Was:
        """Of a field or an item."""
        if self.here is None:
            return self
        if self.above is None and step in ("apiVersion", "kind"):
            return _Was()
        return _Was(self.here.key(step) if isinstance(step, str) else self.here.index(step), self.here)


class _Run:
    def __init__(self) -> None:
        self.errors: list[FieldError] = []
        self.warnings: list[str] = []
        self.left = _BUDGET

    def level(self, level: Level, value: Any, old: Any, path: str, was: _Was) -> None:
        """Run the rules of one value, then of those in it. `old` is None where there is none to compare with."""
        if value is None or self.left < 0:
            return
        if level.rules:
            self._rules(level, value, old, path, was)
        if isinstance(value, dict):
            before = old if isinstance(old, dict) else {}
            for key, each in value.items():
                below = level.properties.get(key) or level.extra
                if below is not None and not (key == "metadata" and not path):
                    here = f"{path}[{key}]" if level.extra is below else f"{path}.{key}" if path else key
                    self.level(below, each, before.get(key), here, was.below(key))
        elif isinstance(value, list) and level.items is not None:
            for at, each in enumerate(value):
                self.level(level.items, each, same_item(level.schema, each, old), f"{path}[{at}]", was.below(at))

    def _stop(self, path: str, schema: Mapping[str, Any], text: str) -> None:
        self.left = -1
        self.errors.append(invalid(path or "<nil>", schema.get("type"), text))

    def _rules(self, level: Level, value: Any, old: Any, path: str, was: _Was) -> None:
        schema = level.schema
        if self.left <= 0:
            self._stop(path, schema, _NO_BUDGET)
            return
        try:
            known = {"self": schemas.value_of(value, schema)}
            before = schemas.value_of(old, schema) if old is not None else None
        except cel.CelError as error:
            self.errors.append(invalid(path or "<nil>", schema.get("type"), str(error)))
            return
        for rule in level.rules:
            if rule.transition and old is None and not rule.optional:
                continue
            variables = dict(known)
            if rule.optional:
                variables["oldSelf"] = NONE if old is None else Optional(True, before)
            elif old is not None:
                variables["oldSelf"] = before
            self._rule(rule, variables, schema, value, path, was)
            if self.left < 0:
                return

    def _rule(
        self, rule: Rule, variables: Mapping[str, Any], schema: Mapping[str, Any], value: Any, path: str, was: _Was
    ) -> None:
        kind, where = schema.get("type"), path or "<nil>"
        shown = (rule.given.get("message") or "").strip() or rule.program.source.strip()
        try:
            holds, cost = rule.program.evaluate(variables, limit=min(cel.PER_CALL_LIMIT, self.left))
        except CostError as error:
            if self.left < cel.PER_CALL_LIMIT:
                self._stop(path, schema, _NO_BUDGET)
                return
            text = f"'{error}': no further validation rules will be run due to call cost exceeds limit for rule: "
            self._stop(path, schema, text + shown)
            return
        except cel.CelError as error:
            overload = str(error).startswith("no such overload")
            text = "call arguments did not match a supported operator, function or macro signature for rule"
            detail = f"'{error}': {text}: {shown}" if overload else f"{error} evaluating rule: {shown}"
            self.errors.append(invalid(where, kind, detail))
            return
        self.left -= cost
        if holds is not True:
            said = self._violated(rule, variables, schema, value, path)
            if not rule.transition and was.unchanged:
                self.warnings.append(str(said))
            else:
                self.errors.append(said)

    def _violated(
        self, rule: Rule, variables: Mapping[str, Any], schema: Mapping[str, Any], value: Any, path: str
    ) -> FieldError:
        detail = (rule.given.get("message") or "").strip() or f"failed rule: {rule.program.source.strip()}"
        where = path + (rule.given.get("fieldPath") or "")
        where = (where.removeprefix(".") if not path else where) or "<nil>"
        if rule.message is not None:
            try:
                said, cost = rule.message.evaluate(variables, limit=min(cel.PER_CALL_LIMIT, max(self.left, 0)))
                self.left -= cost
                if isinstance(said, str) and said.strip() and "\n" not in said.strip() and len(said) <= 5 * 1024:
                    detail = said.strip()
            except CostError:
                self.left = -1
                return invalid(where, schema.get("type"), _NO_MESSAGE)
            except cel.CelError:
                pass
        whole = schema.get("type") in ("object", "array")
        return _complaint(rule.given.get("reason"), where, _OMITTED if whole else value, detail)


def _complaint(reason: str | None, path: str, value: Any, detail: str) -> FieldError:
    if reason == "FieldValueForbidden":
        return forbidden(path, detail)
    if reason == "FieldValueRequired":
        return required(path, detail)
    if reason == "FieldValueDuplicate":
        return FieldError(reason, path, f"Duplicate value: {detail}") if value is _OMITTED else duplicate(path, value)
    if value is _OMITTED:
        return FieldError("FieldValueInvalid", path, f"Invalid value: {detail}")
    return invalid(path, value, detail)


def check_object(
    level: Level, obj: Mapping[str, Any], old: Mapping[str, Any] | None = None, was: Correlated | None = None
) -> tuple[list[FieldError], list[str]]:
    """What the rules say about an object that is created, or updated from `old`; and warnings of what `was` wrong."""
    if not level:
        return [], []
    run = _Run()
    run.level(level, obj, old, "", _Was(was))
    return run.errors, run.warnings
