"""When a webhook is asked whether somebody may do something: its matchConditions, in CEL.

Owns the type of `request` and the evaluation. Called by `webhook.py` and by the reader of AuthorizationConfigurations.
Pure. Source: apiserver's pkg/authorization/cel; KEP-3221.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steersman.api import cel, validation
from steersman.api.cel.types import STRING, Type, list_of, map_of, object_of
from steersman.api.errors import FieldError
from steersman.api.resource import Object

_MOST = 64
_TEXTS = ("namespace", "verb", "group", "version", "resource", "subresource", "name")


def _object(name: str, fields: Mapping[str, Type]) -> Type:
    return object_of(f"kubernetes.{name}", fields.get)


_REQUIREMENT = _object("SelectorRequirement", {"key": STRING, "operator": STRING, "values": list_of(STRING)})
_SELECTOR: Mapping[str, Type] = {"rawSelector": STRING, "requirements": list_of(_REQUIREMENT)}
_RESOURCE: Mapping[str, Type] = {
    **dict.fromkeys(_TEXTS, STRING),
    "fieldSelector": _object("FieldSelectorAttributes", _SELECTOR),
    "labelSelector": _object("LabelSelectorAttributes", _SELECTOR),
}
_REQUEST = _object(
    "SubjectAccessReviewSpec",
    {
        "resourceAttributes": _object("ResourceAttributes", _RESOURCE),
        "nonResourceAttributes": _object("NonResourceAttributes", {"path": STRING, "verb": STRING}),
        "user": STRING,
        "groups": list_of(STRING),
        "extra": map_of(STRING, list_of(STRING)),
        "uid": STRING,
    },
)


class Conditions:
    """Expressions that compiled."""

    def __init__(self, programs: Sequence[cel.Program]) -> None:
        self._programs = programs

    def hold(self, spec: Object) -> bool:
        """Whether all are true of a review's spec. One that is false settles it; else CelError for what failed."""
        request = {"user": "", "groups": [], "uid": "", "extra": {}, **spec}
        if (resource := spec.get("resourceAttributes")) is not None:
            request["resourceAttributes"] = {**dict.fromkeys(_TEXTS, ""), **resource}
        failures: list[str] = []
        for program in self._programs:
            try:
                if program.evaluate({"request": request})[0] is not True:
                    return False
            except cel.CelError as error:
                failures.append(f"cel evaluation error: expression '{program.source}' resulted in error: {error}")
        if failures:
            raise cel.CelError(failures[0] if len(failures) == 1 else f"[{', '.join(failures)}]")
        return True


def compiled(path: str, given: Sequence[Object]) -> tuple[Conditions | None, list[FieldError]]:
    """The conditions, None where there are none, and what is wrong with them."""
    if len(given) > _MOST:
        return None, [validation.too_many(path, len(given), _MOST)]
    problems: list[FieldError] = []
    programs: list[cel.Program] = []
    seen: set[str] = set()
    for at, each in enumerate(given):
        here, source = f"{path}[{at}].expression", str(each.get("expression") or "")
        if not source.strip():
            problems.append(validation.required(here))
        elif source in seen:
            problems.append(validation.duplicate(here, source))
        else:
            seen.add(source)
            try:
                program = cel.compile(source, {"request": _REQUEST})
            except cel.CompileError as error:
                problems.append(validation.invalid(here, source, f"compilation failed: {error}"))
                continue
            if str(program.type) != "bool":
                problems.append(validation.invalid(here, source, f"must evaluate to bool but got {program.type}"))
            programs.append(program)
    return (Conditions(programs) if programs else None), problems
