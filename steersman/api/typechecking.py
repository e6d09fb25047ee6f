"""Whether a policy's expressions fit the kinds that it is about: what they would say if objects had types.

Owns the step from definitions of an OpenAPI v3 document to types, and the warnings' texts. Called by the controller
of ValidatingAdmissionPolicies' status. Pure. Source: apiserver's pkg/admission/plugin/policy/validating/typechecking.go
and pkg/cel/common/schemas.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from steersman.api import cel, policies
from steersman.api.cel import authz, types
from steersman.api.cel.types import DYN, STRING, Type, list_of, map_of, object_of
from steersman.api.resource import Object

MOST = 10  # kinds of a policy that are looked at

Node = Mapping[str, Any]
_SCALARS = {"boolean": types.BOOL, "integer": types.INT, "number": types.DOUBLE}
_FORMATS = {"date-time": types.TIMESTAMP, "date": types.TIMESTAMP, "duration": types.DURATION, "byte": types.BYTES}


def type_of(node: Node, definitions: Mapping[str, Node], name: str) -> Type | None:
    """The type of what a definition describes, under a name; None for what has no type: quantities."""
    node = _resolved(node, definitions)
    if node.get("x-kubernetes-int-or-string") or node.get("format") == "int-or-string":
        return DYN
    kind = node.get("type")
    if kind == "array":
        items = type_of(node.get("items") or {}, definitions, f"{name}.@idx")
        return list_of(items) if items is not None else None
    if kind == "string":
        return _FORMATS.get(node.get("format", ""), STRING)
    if kind != "object":
        return _SCALARS.get(kind or "")
    if isinstance(extra := node.get("additionalProperties"), dict):
        value = type_of(extra, definitions, f"{name}.@elem")
        return map_of(STRING, value) if value is not None else None
    properties = node.get("properties") or {}
    known: dict[str, Type | None] = {}

    def find(field: str) -> Type | None:
        if field not in known:
            found = properties.get(field)
            known[field] = type_of(found, definitions, f"{name}.{field}") if found is not None else None
        return known[field]

    return object_of(name, find)


def _resolved(node: Node, definitions: Mapping[str, Node]) -> Node:
    while True:
        target = node.get("$ref") or next((each.get("$ref") for each in node.get("allOf") or ()), None)
        if target is None:
            return node
        node = definitions.get(target.rpartition("/")[2], {})


def resources(policy: Object) -> list[tuple[str, str, str]]:
    """The groups, versions and resources that a policy names without wildcards, each rule's sorted."""
    found: list[tuple[str, str, str]] = []
    for rule in (policy["spec"].get("matchConstraints") or {}).get("resourceRules") or ():
        groups, versions = rule.get("apiGroups") or (), rule.get("apiVersions") or ()
        if any("*" in each for each in (*groups, *versions)):
            continue
        plain = [each for each in rule.get("resources") or () if "*" not in each and "/" not in each]
        found += [(group, version, each) for group in sorted(groups) for version in sorted(versions)
                  for each in sorted(plain)]  # fmt: skip
    return found


def expressions(policy: Object) -> Iterable[tuple[str, str]]:
    """The fields that are checked, and what they hold."""
    for at, each in enumerate(policy["spec"].get("validations") or ()):
        yield f"spec.validations[{at}].expression", each["expression"]
        if each.get("messageExpression"):
            yield f"spec.validations[{at}].messageExpression", each["messageExpression"]


def warnings(
    policy: Object, kinds: Sequence[tuple[tuple[str, str, str], Type | None]], params: Type | None
) -> list[Object]:
    """The ExpressionWarnings; `kinds` are groups, versions, kinds and their types, `params` the type of parameters."""
    environments = [(_shown(*identity), _environment(policy, found, params)) for identity, found in sorted(
        kinds, key=lambda each: each[0])]  # fmt: skip
    out: list[Object] = []
    for field, source in expressions(policy):
        texts = []
        for identity, known in environments:
            try:
                cel.compile(source, known)
            except cel.CompileError as error:
                texts.append(f"{identity}: {error}\n")
        if texts:
            out.append({"fieldRef": field, "warning": "\n".join(texts)})
    return out


def _shown(group: str, version: str, kind: str) -> str:
    return f"{group}/{version}, Kind={kind}"


def _environment(policy: Object, found: Type | None, params: Type | None) -> dict[str, Type]:
    known: dict[str, Type] = {**policies.BASE, "authorizer": authz.TYPE}
    known |= dict.fromkeys(("object", "oldObject"), found or DYN)
    if policy["spec"].get("paramKind"):
        known["params"] = params or DYN
    variables: dict[str, Type] = {}
    known["variables"] = object_of("kubernetes.variables", variables.get)
    for name, source in policies.variables_of(policy["spec"]):
        try:
            variables[name] = cel.compile(source, known).type
        except cel.CompileError:
            variables[name] = DYN
    return known
