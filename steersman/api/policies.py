"""The expressions of admission: what they may name, whether they compile, what they give.

Owns compilation (kept, since the same expressions are written once and run often) and the complaints about an
expression that does not compile. Called by the kinds that hold expressions and by admission. Pure.
Source: apiserver's pkg/admission/plugin/cel.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from steersman.api import cel, names
from steersman.api.cel import authz
from steersman.api.cel.syntax import CostError
from steersman.api.cel.types import BOOL, DYN, STRING, Type, list_of, map_of, object_of
from steersman.api.errors import FieldError
from steersman.api.resource import Object
from steersman.api.validation import duplicate, invalid, not_supported, required, struct, too_many

BUDGET = 10_000_000  # of one policy's expressions: apiserver's RuntimeCELCostBudget
CONDITIONS_BUDGET = BUDGET // 4
APPLIED, PATCHES = "Object", "list(JSONPatch)"  # what the two kinds of mutation evaluate to

_KIND = object_of("kubernetes.GroupVersionKind", dict.fromkeys(("group", "version", "kind"), STRING).get)
_RESOURCE = object_of("kubernetes.GroupVersionResource", dict.fromkeys(("group", "version", "resource"), STRING).get)
_USER_FIELDS: Mapping[str, Type] = {
    "username": STRING,
    "uid": STRING,
    "groups": list_of(STRING),
    "extra": map_of(STRING, list_of(STRING)),
}
_REQUEST_FIELDS: Mapping[str, Type] = {
    **dict.fromkeys(("kind", "requestKind"), _KIND),
    **dict.fromkeys(("resource", "requestResource"), _RESOURCE),
    **dict.fromkeys(("subResource", "requestSubResource", "name", "namespace", "operation"), STRING),
    "userInfo": object_of("kubernetes.UserInfo", _USER_FIELDS.get),
    "dryRun": BOOL,
    "options": DYN,
}
_META_FIELDS: Mapping[str, Type] = {
    **dict.fromkeys(("name", "generateName", "namespace", "uid", "resourceVersion", "selfLink"), STRING),
    **dict.fromkeys(("labels", "annotations"), map_of(STRING, STRING)),
    **dict.fromkeys(("generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"), DYN),
    "finalizers": list_of(STRING),
}
_NAMESPACE_FIELDS: Mapping[str, Type] = {
    "metadata": object_of("kubernetes.NamespaceMetadata", _META_FIELDS.get),
    "spec": object_of("kubernetes.NamespaceSpec", {"finalizers": list_of(STRING)}.get),
    "status": object_of("kubernetes.NamespaceStatus", {"phase": STRING, "conditions": DYN}.get),
}
BASE: Mapping[str, Type] = {
    "object": DYN,
    "oldObject": DYN,
    "request": object_of("kubernetes.AdmissionRequest", _REQUEST_FIELDS.get),
    "namespaceObject": object_of("kubernetes.Namespace", _NAMESPACE_FIELDS.get),
}


Variables = tuple[tuple[str, str], ...]
"""The names and expressions of `spec.variables`, in order."""


@lru_cache(maxsize=4096)
def program(
    source: str,
    results: tuple[str, ...],
    *,
    params: bool,
    variables: Variables | None = None,
    structs: bool = False,
    authorizer: bool = True,
) -> cel.Program:
    """A compiled expression, which may make objects with `structs`, and ask for rights with `authorizer`; `variables`
    are None where there are none to be named.

    Raises CompileError, or ValueError when it gives none of `results`.
    """
    known = dict(BASE)
    if authorizer:
        known["authorizer"] = authz.TYPE
    if params:
        known["params"] = DYN
    types: dict[str, Type] = {}
    for at, (name, expression) in enumerate(variables or ()):
        if not expression.strip():
            continue
        types[name] = DYN
        with suppress(cel.CompileError):  # which is told of the variable itself
            types[name] = program(expression, (), params=params, variables=(variables or ())[:at]).type
    if variables is not None:
        known["variables"] = object_of("kubernetes.variables", types.get)
    made = cel.compile(source, known, structs=structs)
    if results and not _gives(made.type, results):
        wanted = results[0] if len(results) == 1 else f"one of [{' '.join(results)}]"
        raise ValueError(f"must evaluate to {wanted} but got {made.type.declared}")
    return made


def _gives(kind: Type, results: tuple[str, ...]) -> bool:
    return kind.declared in results


class Lazy(dict[str, Any]):
    """`variables`: each is computed when it is first asked for."""

    def __init__(self, run: Run, programs: Variables) -> None:
        super().__init__()
        self._run = run
        self._programs = dict(programs)

    def __contains__(self, name: object) -> bool:
        return name in self._programs

    def __missing__(self, name: str) -> Any:
        if name not in self._programs:
            raise KeyError(name)
        self[name] = value = self._run.value(self._programs[name], ())
        return value


class Run:
    """One evaluation of one policy: its values, its variables, and the budget that all its expressions share."""

    def __init__(self, values: Mapping[str, Any], variables: Variables = (), budget: int = BUDGET) -> None:
        self._params = "params" in values
        self._variables = variables
        self._values = {**values, "variables": Lazy(self, variables)}
        self.left = budget

    def value(self, source: str, results: tuple[str, ...], *, structs: bool = False, authorizer: bool = True) -> Any:
        """What an expression gives. Raises CelError with the text that a denial shows."""
        try:
            made = program(
                source,
                results,
                params=self._params,
                variables=self._variables or None,
                structs=structs,
                authorizer=authorizer,
            )
            found, cost = made.evaluate(self._values, limit=min(cel.PER_CALL_LIMIT, self.left))
        except (cel.CompileError, ValueError) as error:
            raise cel.CelError(f"compilation error: {compile_text(error)}") from error
        except CostError as error:
            text = "validation failed due to running out of cost budget, no further validation expressions will be run"
            raise CostError(text) from error
        except cel.CelError as error:
            shown = " ".join(source.split())
            raise cel.CelError(f"expression '{shown}' resulted in error: {error}") from error
        self.left -= cost
        return found


def conditions(given: Sequence[Object], run: Run) -> tuple[bool, list[str]]:
    """Whether match conditions all hold, and what could not be evaluated. One that is false settles it."""
    failures: list[str] = []
    for each in given:
        try:
            if run.value(each["expression"], ("bool",)) is not True:
                return False, []
        except cel.CelError as error:
            failures.append(str(error))
    return not failures, failures


def compile_text(error: Exception) -> str:
    """How a complaint about an expression begins."""
    return f"compilation failed: {error}" if isinstance(error, cel.CompileError) else str(error)


def check(
    path: str,
    source: str,
    results: tuple[str, ...],
    *,
    params: bool = False,
    variables: Variables | None = None,
    structs: bool = False,
    authorizer: bool = True,
) -> list[FieldError]:
    """Complaints about one expression of an object that is written."""
    if not source.strip():
        return [required(path)]
    try:
        program(source, results, params=params, variables=variables, structs=structs, authorizer=authorizer)
    except (cel.CompileError, ValueError) as error:
        return [invalid(path, source, compile_text(error))]
    return []


def check_conditions(path: str, given: Sequence[Object], *, params: bool = False) -> list[FieldError]:
    """Complaints about match conditions."""
    found: list[FieldError] = []
    seen: set[str] = set()
    if len(given) > 64:
        found.append(too_many(path, len(given), 64))
    for at, each in enumerate(given):
        source = (each.get("expression") or "").strip()
        found += check(f"{path}[{at}].expression", source, ("bool",), params=params)
        name, here = each.get("name") or "", f"{path}[{at}].name"
        found += [invalid(here, name, text) for text in names.qualified(name)] if name else [required(here)]
        if name and name in seen:
            found.append(duplicate(here, name))
        seen.add(name)
    return found


def variables_of(spec: Object) -> Variables:
    """`spec.variables` as a key."""
    return tuple((each.get("name") or "", each.get("expression") or "") for each in spec.get("variables") or ())


def check_mutations(policy: Object) -> list[FieldError]:
    """Complaints about a MutatingAdmissionPolicy's expressions."""
    spec = policy.get("spec") or {}
    params, known = bool(spec.get("paramKind")), variables_of(spec) or None
    found = check_conditions("spec.matchConditions", spec.get("matchConditions") or (), params=params)
    found += _variables(known or (), params)
    if not spec.get("mutations"):
        found.append(required("spec.mutations", "mutations must contain at least one item"))
    for at, each in enumerate(spec.get("mutations") or ()):
        found += _mutation(f"spec.mutations[{at}]", each, params, known)
    return found


def _variables(known: Variables, params: bool) -> list[FieldError]:
    found: list[FieldError] = []
    for at, (name, source) in enumerate(known):
        here = f"spec.variables[{at}]"
        if not name.strip():
            found.append(required(f"{here}.name", "name is not specified"))
        elif not _IDENTIFIER.fullmatch(name) or name in _RESERVED:
            found.append(invalid(f"{here}.name", name, "must be a valid CEL identifier"))
        if not source.strip():
            found.append(required(f"{here}.expression", "expression is not specified"))
        else:
            found += check(f"{here}.expression", source, (), params=params, variables=known[:at])
    return found


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset(
    (
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
    )
)
_REASONS = ("Forbidden", "Invalid", "RequestEntityTooLarge")
_PATCHES = {"ApplyConfiguration": ("applyConfiguration", APPLIED), "JSONPatch": ("jsonPatch", PATCHES)}


def _mutation(path: str, mutation: Object, params: bool, known: Variables | None) -> list[FieldError]:
    kind = mutation.get("patchType")
    if not kind:
        return [required(f"{path}.patchType")]
    if kind not in _PATCHES:
        return [not_supported(f"{path}.patchType", kind, list(_PATCHES))]
    key, result = _PATCHES[kind]
    found: list[FieldError] = []
    if key not in mutation:
        found.append(required(f"{path}.{key}", f"must be specified when patchType is {kind}"))
    else:
        source = (mutation[key].get("expression") or "").strip()
        found += check(f"{path}.{key}.expression", source, (result,), params=params, variables=known, structs=True)
    for other, _ in _PATCHES.values():
        if other != key and other in mutation:
            text = f"must not be specified when patchType is {kind}"
            found.append(invalid(f"{path}.{other}", f"{{{other}}}", text))
    return found


def check_policy(policy: Object) -> list[FieldError]:
    """Complaints about a ValidatingAdmissionPolicy's expressions."""
    spec = policy.get("spec") or {}
    params, known = bool(spec.get("paramKind")), variables_of(spec) or None
    found = check_conditions("spec.matchConditions", spec.get("matchConditions") or (), params=params)
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        text = "validations or auditAnnotations must contain at least one item"
        found += [required("spec.validations", text), required("spec.auditAnnotations", text)]
    found += _variables(known or (), params)
    for at, each in enumerate(spec.get("validations") or ()):
        found += _validation(f"spec.validations[{at}]", each, params, known)
    keys: set[str] = set()
    name, annotations = policy["metadata"].get("name") or "", spec.get("auditAnnotations") or ()
    if len(annotations) > _MOST_ANNOTATIONS:
        text = f"must not have more than {_MOST_ANNOTATIONS} auditAnnotations"
        shown = [struct(each, Key="", ValueExpression="") for each in annotations]
        found.append(invalid("spec.auditAnnotations", shown, text))
    for at, each in enumerate(annotations):
        here, key = f"spec.auditAnnotations[{at}]", each.get("key") or ""
        found += _annotation(here, name, key, each.get("valueExpression") or "", params, known)
        found += [duplicate(f"{here}.key", key)] if key in keys else []
        keys.add(key)
    return found


_MOST_ANNOTATIONS = 20
_LONGEST_ANNOTATION = 5 * 1024


def _annotation(
    path: str, policy: str, key: str, source: str, params: bool, known: Variables | None
) -> list[FieldError]:
    if policy:
        whole = f"{policy}/{key}"
        found = [invalid(f"{path}.key", whole, text) for text in names.qualified(whole)]
    else:
        found = [invalid(f"{path}.key", key, "requires metadata.name be non-empty")]
    here = f"{path}.valueExpression"
    if not source.strip():
        found.append(required(here, "valueExpression is not specified"))
    elif len(source.strip()) > _LONGEST_ANNOTATION:
        found.append(required(here, f"must not exceed {_LONGEST_ANNOTATION} bytes in length"))
    else:
        try:
            program(source.strip(), ("string", "null_type"), params=params, variables=known)
        except (cel.CompileError, ValueError) as error:
            found.append(invalid(here, source, compile_text(error)))
    return found


def _validation(path: str, each: Object, params: bool, known: Variables | None) -> list[FieldError]:
    source, message, told = (each.get(key) or "" for key in ("expression", "message", "messageExpression"))
    found: list[FieldError] = []
    if not source.strip():
        found.append(required(f"{path}.expression", "expression is not specified"))
    else:
        found += check(f"{path}.expression", source, ("bool",), params=params, variables=known)
    here = f"{path}.messageExpression"
    if told and not told.strip():
        found.append(invalid(here, told, "must be non-empty if specified"))
    elif told:
        found += check(here, told, ("string",), params=params, variables=known, authorizer=False)
    if message and not message.strip():
        found.append(invalid(f"{path}.message", message, "must be non-empty if specified"))
    elif "\n" in message.strip():
        found.append(invalid(f"{path}.message", message, "must not contain line breaks"))
    reason = each.get("reason")
    if reason is not None and reason not in _REASONS:
        found.append(not_supported(f"{path}.reason", reason, _REASONS))
    return found
