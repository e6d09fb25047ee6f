"""The types of an expression: every name known, every call with an overload. Source: cel-go's checker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steersman.api.cel import types
from steersman.api.cel.library import all_overloads
from steersman.api.cel.parser import dotted
from steersman.api.cel.syntax import (
    Bind,
    Call,
    CompileError,
    Comprehension,
    Ident,
    Issue,
    ListLiteral,
    Literal,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)
from steersman.api.cel.types import BOOL, DYN, INT, Type, assignable, joined, list_of, map_of, optional_of
from steersman.api.cel.values import Uint

TYPE_NAMES: Mapping[str, str] = {
    **{name: name for name in ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type")},
    "google.protobuf.Timestamp": "google.protobuf.Timestamp",
    "google.protobuf.Duration": "google.protobuf.Duration",
    "optional_type": "optional_type",
    **{name: name for name in ("net.IP", "net.CIDR", "kubernetes.URL", "kubernetes.Quantity", "kubernetes.Semver")},
}
_LITERALS = {bool: BOOL, int: INT, Uint: types.UINT, float: types.DOUBLE, bytes: types.BYTES, type(None): types.NULL}
_BOOLS = ("_&&_", "_||_")


def check(tree: Node, source: str, variables: Mapping[str, Type], *, structs: bool = False) -> Type:
    """The expression's type, after noting each node's. With `structs`, Object{...} and JSONPatch{...} can be made and
    jsonpatch.escapeKey is known.

    Raises CompileError.
    """
    found = _Checker(variables, structs)
    result = found.of(tree)
    if found.issues:
        raise CompileError(source, found.issues)
    return result


class _Checker:
    def __init__(self, variables: Mapping[str, Type], structs: bool) -> None:
        self._scopes: list[Mapping[str, Type]] = [variables]
        self._structs = structs
        self.issues: list[Issue] = []

    def of(self, node: Node) -> Type:
        """The type of a node; one that fits everywhere after an error, so that it is told once."""
        node.type = _STEPS[type(node)](self, node)
        found: Type = node.type
        return found

    def _fail(self, at: int, text: str) -> Type:
        self.issues.append(Issue(at, text))
        return types.ERROR

    def _known(self, name: str) -> Type | None:
        return next((scope[name] for scope in reversed(self._scopes) if name in scope), None)

    def literal(self, node: Literal) -> Type:
        """A constant."""
        if isinstance(node.value, str):
            return Type("string", (), len(node.value))
        return _LITERALS[type(node.value)]

    def ident(self, node: Ident) -> Type:
        """A variable or a type."""
        found = self._known(node.name)
        if found is None and node.name in TYPE_NAMES:
            return Type("type", (Type(node.name),))
        return found or self._fail(node.at, f"undeclared reference to '{node.name}' (in container '')")

    def select(self, node: Select) -> Type:
        """A field."""
        whole = dotted(node)
        if whole in TYPE_NAMES and self._known(whole.partition(".")[0]) is None:
            return Type("type", (Type(whole),))
        operand = self.of(node.operand)
        inner = operand.params[0] if operand.name == "optional_type" and operand.params else operand
        found = self._field(node, inner)
        if node.test:
            return BOOL
        return optional_of(found) if node.optional or inner is not operand else found

    def _field(self, node: Select, operand: Type) -> Type:
        if operand.name in types.UNTYPED or types.is_parameter(operand):
            return operand if operand.name in types.UNTYPED else DYN
        if operand.name == "map":
            return operand.params[1] if operand.params else DYN
        if operand.name.startswith("kubernetes.authorization.") and node.name != "requestResource":
            return self._fail(node.at, f"unexpected failed resolution of '{operand.name}'")
        if operand.fields is None:
            return self._fail(node.at, f"type '{operand}' does not support field selection")
        return operand.fields(node.name) or self._fail(node.at, f"undefined field '{node.name}'")

    def call(self, node: Call) -> Type:
        """A function, a method or an operator."""
        name, target = node.function, node.target
        if target is not None:
            where = dotted(target)
            whole = f"{where}.{name}"
            known = (whole, False) in all_overloads() and (self._structs or where != "jsonpatch")
            if where and known and self._known(where.partition(".")[0]) is None:
                node.function, node.target = whole, None
                return self._resolve(node, whole, [self.of(each) for each in node.args], member=False)
            return self._resolve(node, name, [self.of(target), *map(self.of, node.args)], member=True)
        args = [self.of(each) for each in node.args]
        if name in _BOOLS:
            for part, each in zip(node.args, args, strict=True):
                if not assignable(BOOL, each, {}):
                    self._fail(part.at, f"expected type 'bool' but found '{each}'")
            return BOOL
        if name == "_?_:_":
            fits = assignable(BOOL, args[0], {}) and assignable(args[1], args[2], {})
            return joined(args[1:]) if fits else self._mismatch(node, args)
        if name in ("_[_]", "_[?_]"):
            return self._index(node, args)
        return self._resolve(node, name, args, member=False)

    def _mismatch(self, node: Call, args: Sequence[Type], *, member: bool = False) -> Type:
        shown = ", ".join(map(str, args[1:] if member else args))
        text = f"{args[0]}.({shown})" if member else f"({shown})"
        return self._fail(node.at, f"found no matching overload for '{node.function}' applied to '{text}'")

    def _index(self, node: Call, args: Sequence[Type]) -> Type:
        operand, key = args
        optional = operand.name == "optional_type" and bool(operand.params)
        inner = operand.params[0] if optional else operand
        if inner.name == "list" and assignable(INT, key, {}):
            found = inner.params[0]
        elif inner.name == "map" and assignable(inner.params[0], key, {}):
            found = inner.params[1]
        elif inner.name in types.UNTYPED:
            found = inner
        else:
            return self._mismatch(node, args)
        return optional_of(found) if optional or node.function == "_[?_]" else found

    def _resolve(self, node: Call, name: str, args: list[Type], *, member: bool) -> Type:
        overloads = all_overloads().get((name, member))
        if overloads is None and (name, not member) in all_overloads():
            return self._mismatch(node, args, member=member)
        if overloads is None:
            return self._fail(node.at, f"undeclared reference to '{name}' (in container '')")
        results: list[Type] = []
        for each in overloads:
            bound: dict[str, Type] = {}
            wanted = each.signature.args
            if len(wanted) == len(args) and all(
                assignable(one, given, bound) for one, given in zip(wanted, args, strict=True)
            ):
                results.append(types.substituted(each.signature.result, bound))
        if not results:
            return self._mismatch(node, args, member=member)
        return results[0] if len({each.name for each in results}) == 1 else DYN

    def list_literal(self, node: ListLiteral) -> Type:
        """[...]."""
        kinds = []
        for at, item in enumerate(node.items):
            found = self.of(item)
            if at in node.optional and found.name == "optional_type":
                found = found.params[0]
            kinds.append(found)
        return list_of(joined(kinds), len(kinds))

    def map_literal(self, node: MapLiteral) -> Type:
        """{...}."""
        keys, values = [], []
        for key, value, optional in node.items:
            keys.append(self.of(key))
            found = self.of(value)
            values.append(found.params[0] if optional and found.name == "optional_type" else found)
        return map_of(joined(keys), joined(values), len(keys))

    def struct_literal(self, node: StructLiteral) -> Type:
        """Object{...}, where an admission policy makes what it applies."""
        known = self._structs and (node.name in ("Object", "JSONPatch") or node.name.startswith("Object."))
        if not known and (variable := self._known(node.name)):
            for _, _, _, at in node.items:
                self._fail(at, f"unexpected failed resolution of '{node.name}'")
            return self._fail(node.at, f"'{variable}' is not a type")
        if not known:
            return self._fail(node.at, f"undeclared reference to '{node.name}' (in container '')")
        for _name, value, _, _ in node.items:
            self.of(value)
        if node.name == "JSONPatch":
            for name, value, _, at in node.items:
                wanted = {"op": "string", "path": "string", "from": "string", "value": "dyn"}.get(name, "")
                if "dyn" not in (wanted, value.type.name) and value.type.name != wanted:
                    text = f"expected type of field '{name}' is '{wanted}' but provided type is '{value.type}'"
                    self._fail(at, text)
            return Type("JSONPatch")
        return Type(node.name, (), None, lambda _: DYN)

    def comprehension(self, node: Comprehension) -> Type:
        """all, exists, map and the like."""
        over = self.of(node.range)
        first: Type = DYN
        second: Type = DYN
        if over.name == "list":
            first, second = INT, over.params[0] if over.params else DYN
        elif over.name == "map":
            first, second = over.params if over.params else (DYN, DYN)
        elif over.name not in types.UNTYPED:
            text = "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)"
            self._fail(node.range.at, text.format(over))
        if len(node.variables) == 2:
            self._scopes.append(dict(zip(node.variables, (first, second), strict=True)))
        else:
            self._scopes.append({node.variables[0]: first if over.name == "map" else second})
        if node.where is not None:
            self._bool(node.where)
        if node.macro in ("map", "transformList"):
            result = list_of(self.of(node.body), over.size)
        elif node.macro == "transformMap":
            result = map_of(first, self.of(node.body), over.size)
        elif node.macro == "transformMapEntry":
            made = self.of(node.body)
            result = made if made.name == "map" else DYN
        else:
            self._bool(node.body)
            item = first if over.name == "map" else second
            result = list_of(item, over.size) if node.macro == "filter" else BOOL
        self._scopes.pop()
        return result

    def _bool(self, node: Node) -> None:
        found = self.of(node)
        if not assignable(BOOL, found, {}):
            self._fail(node.at, f"expected type 'bool' but found '{found}'")

    def bind(self, node: Bind) -> Type:
        """cel.bind, optMap, optFlatMap."""
        value = self.of(node.value)
        if node.optional:
            value = value.params[0] if value.name == "optional_type" and value.params else DYN
        self._scopes.append({node.name: value})
        result = self.of(node.body)
        self._scopes.pop()
        return optional_of(result) if node.optional == "optMap" else result


_STEPS: Mapping[type, Callable[[_Checker, Any], Type]] = {
    Literal: _Checker.literal,
    Ident: _Checker.ident,
    Select: _Checker.select,
    Call: _Checker.call,
    ListLiteral: _Checker.list_literal,
    MapLiteral: _Checker.map_literal,
    StructLiteral: _Checker.struct_literal,
    Comprehension: _Checker.comprehension,
    Bind: _Checker.bind,
}
