"""A checked tree as nested Python functions, run under a budget.

Owns evaluation order, the errors that && and || forgive, and what each step costs (cel-go's cost model: a name or a
field 1, a list 10, a map 30, an object 40, a call what its function says). Source: cel-go's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from steersman.api.cel.check import TYPE_NAMES
from steersman.api.cel.functions import Overload, no_such_overload, size_of
from steersman.api.cel.library import all_overloads
from steersman.api.cel.parser import dotted
from steersman.api.cel.syntax import (
    Bind,
    Call,
    CelError,
    Comprehension,
    CostError,
    Ident,
    ListLiteral,
    Literal,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)
from steersman.api.cel.values import NONE, Opaque, Optional, TypeValue, as_key, equal, from_key, is_number, type_name

LIST_COST, MAP_COST, STRUCT_COST = 10, 30, 40
_STEP_COST = 3  # what a macro's hidden accumulator costs an item


@dataclass(slots=True)
class Frame:
    """One evaluation: its variables and what it may still spend."""

    variables: dict[str, Any]
    left: int

    def spend(self, cost: int) -> None:
        """Raises CostError when nothing is left."""
        self.left -= cost
        if self.left < 0:
            raise CostError("operation cancelled: actual cost limit exceeded")


Step = Callable[[Frame], Any]


def build(node: Node) -> Step:
    """The function that evaluates a node. Its errors are CelError."""
    return _BUILDERS[type(node)](node)


def _literal(node: Literal) -> Step:
    value = node.value
    return lambda frame: value


def _ident(node: Ident) -> Step:
    name = node.name
    constant = TypeValue(TYPE_NAMES[name]) if name in TYPE_NAMES else None

    def run(frame: Frame) -> Any:
        frame.spend(1)
        try:
            return frame.variables[name]
        except KeyError:
            if constant is not None:
                return constant
            raise CelError(f"no such attribute(s): {name}") from None

    return run


def _get(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        try:
            return value[name]
        except KeyError:
            raise CelError(f"no such key: {name}") from None
    if isinstance(value, Opaque) and name in value.fields:
        return value.fields[name]
    raise CelError(f"no such overload: type {type_name(value)} has no field {name}")


def _select(node: Select) -> Step:
    if (whole := dotted(node)) in TYPE_NAMES:
        constant = TypeValue(TYPE_NAMES[whole])
        return lambda frame: constant
    operand, name, test, optional = build(node.operand), node.name, node.test, node.optional

    def run(frame: Frame) -> Any:
        value = operand(frame)
        frame.spend(1)
        if isinstance(value, Optional):
            if not value.present:
                return False if test else NONE
            found = value.value
            there = isinstance(found, dict) and name in found
            return there if test else Optional(True, found[name]) if there else NONE
        if test:
            return isinstance(value, dict) and name in value  # of what has no fields, none is there
        if optional:
            return Optional(True, value[name]) if isinstance(value, dict) and name in value else NONE
        return _get(value, name)

    return run


def _index(value: Any, key: Any) -> Any:
    if isinstance(value, dict):
        try:
            return value[as_key(key)]
        except KeyError:
            raise CelError(f"no such key: {from_key(as_key(key))}") from None
    if isinstance(value, list) and is_number(key) and key == int(key):
        if not 0 <= key < len(value):
            raise CelError(f"index out of bounds: {int(key)}")
        return value[int(key)]
    raise no_such_overload("_[_]", (value, key))


def _indexing(node: Call) -> Step:
    operand, index = build(node.args[0]), build(node.args[1])
    optional = node.function == "_[?_]"

    def run(frame: Frame) -> Any:
        value, key = operand(frame), index(frame)
        frame.spend(1)
        if not (optional or isinstance(value, Optional)):
            return _index(value, key)
        if isinstance(value, Optional):
            if not value.present:
                return NONE
            value = value.value
        try:
            return Optional(True, _index(value, key))
        except CelError:
            return NONE

    return run


def _truth(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise CelError("no such overload")


def _logic(node: Call) -> Step:
    """&& and ||: either side may decide alone, even when the other has no value."""
    left, right = build(node.args[0]), build(node.args[1])
    decisive = node.function == "_||_"

    def run(frame: Frame) -> bool:
        try:
            if _truth(left(frame)) is decisive:
                return decisive
        except CostError:
            raise
        except CelError:
            if _truth(right(frame)) is decisive:
                return decisive
            raise
        return _truth(right(frame))

    return run


def _ternary(node: Call) -> Step:
    condition, good, bad = (build(each) for each in node.args)
    return lambda frame: good(frame) if _truth(condition(frame)) else bad(frame)


def _equality(node: Call) -> Step:
    left, right = build(node.args[0]), build(node.args[1])
    wanted = node.function == "_==_"

    def run(frame: Frame) -> bool:
        a, b = left(frame), right(frame)
        frame.spend(1 + min(size_of(a), size_of(b)) // 10)
        return equal(a, b) is wanted

    return run


_SPECIAL: Mapping[str, Callable[[Call], Step]] = {
    "_&&_": _logic,
    "_||_": _logic,
    "_?_:_": _ternary,
    "_[_]": _indexing,
    "_[?_]": _indexing,
    "_==_": _equality,
    "_!=_": _equality,
}


def _call(node: Call) -> Step:
    special = _SPECIAL.get(node.function) if node.target is None else None
    if special is not None:
        return special(node)
    name, member = node.function, node.target is not None
    overloads = all_overloads().get((name, member), [])
    steps = [build(each) for each in ([node.target] if node.target is not None else []) + node.args]
    if name in ("or", "orValue") and member:
        return _or_else(name, steps)

    def run(frame: Frame) -> Any:
        args = [step(frame) for step in steps]
        return invoke(frame, name, overloads, args)

    return run


def _or_else(name: str, steps: list[Step]) -> Step:
    def run(frame: Frame) -> Any:
        value = steps[0](frame)
        frame.spend(1)
        if not isinstance(value, Optional):
            raise CelError("no such overload")
        if not value.present:
            return steps[1](frame)
        return value if name == "or" else value.value

    return run


def invoke(frame: Frame, name: str, overloads: list[Overload], args: list[Any]) -> Any:
    """The first overload that takes the arguments, paid for before it runs. Raises CelError."""
    for each in overloads:
        if each.accepts(args):
            frame.spend(each.price([size_of(arg) for arg in args]) if each.price is not None else 1)
            try:
                return each.run(*args)
            except (AttributeError, TypeError, IndexError) as error:
                raise no_such_overload(name, args) from error
    raise no_such_overload(name, args)


def _list(node: ListLiteral) -> Step:
    steps, optional = [build(each) for each in node.items], node.optional

    def run(frame: Frame) -> list[Any]:
        frame.spend(LIST_COST)
        found: list[Any] = []
        for at, step in enumerate(steps):
            value = step(frame)
            if at in optional:
                if not isinstance(value, Optional):
                    raise CelError("cannot initialize optional list element from non-optional value")
                if value.present:
                    found.append(value.value)
            else:
                found.append(value)
        return found

    return run


def _map(node: MapLiteral) -> Step:
    steps = [(build(key), build(value), optional) for key, value, optional in node.items]

    def run(frame: Frame) -> dict[Any, Any]:
        frame.spend(MAP_COST)
        found: dict[Any, Any] = {}
        for key_of, value_of, optional in steps:
            key, value = as_key(key_of(frame)), value_of(frame)
            if optional:
                if not isinstance(value, Optional):
                    raise CelError("cannot initialize optional entry from non-optional value")
                if not value.present:
                    continue
                value = value.value
            if key in found:
                raise CelError(f"Failed with repeated key {from_key(key)}")
            found[key] = value
        return found

    return run


class Struct(dict[str, Any]):
    """An object that an expression made: its type's name and its fields."""

    name = ""


def _struct(node: StructLiteral) -> Step:
    steps = [(name, build(value), optional) for name, value, optional, _ in node.items]

    def run(frame: Frame) -> Struct:
        frame.spend(STRUCT_COST)
        found = Struct()
        found.name = node.name
        for name, step, optional in steps:
            value = step(frame)
            if optional:
                if not isinstance(value, Optional) or not value.present:
                    continue
                value = value.value
            found[name] = value
        return found

    return run


def _pairs(value: Any, two: bool) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [(from_key(key), each) for key, each in value.items()] if two else [(from_key(key),) for key in value]
    if isinstance(value, list):
        return list(enumerate(value)) if two else [(each,) for each in value]
    raise CelError(f"no such overload: range of {type_name(value)}")


def _comprehension(node: Comprehension) -> Step:
    over, body = build(node.range), build(node.body)
    where = build(node.where) if node.where is not None else None
    names, loop = node.variables, _LOOPS[node.macro]

    def run(frame: Frame) -> Any:
        pairs = _pairs(over(frame), len(names) == 2)
        kept = frame.variables
        frame.variables = inner = dict(kept)

        def each(pair: tuple[Any, ...]) -> Any:
            frame.variables = inner
            inner.update(zip(names, pair, strict=True))
            frame.spend(_STEP_COST)
            if where is not None and not _truth(where(frame)):
                return _SKIPPED
            return body(frame)

        try:
            return loop(pairs, each)
        finally:
            frame.variables = kept

    return run


_SKIPPED = object()
_Each = Callable[[tuple[Any, ...]], Any]
_Pairs = list[tuple[Any, ...]]


def _any(decisive: bool) -> Callable[[_Pairs, _Each], bool]:
    def loop(pairs: _Pairs, each: _Each) -> bool:
        failure: CelError | None = None
        for pair in pairs:
            try:
                if _truth(each(pair)) is decisive:
                    return decisive
            except CostError:
                raise
            except CelError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return not decisive

    return loop


def _exactly_one(pairs: _Pairs, each: _Each) -> bool:
    return sum(_truth(each(pair)) for pair in pairs) == 1


def _filter(pairs: _Pairs, each: _Each) -> list[Any]:
    return [pair[0] for pair in pairs if _truth(each(pair))]


def _transform(pairs: _Pairs, each: _Each) -> list[Any]:
    return [made for pair in pairs if (made := each(pair)) is not _SKIPPED]


def _transform_map(pairs: _Pairs, each: _Each) -> dict[Any, Any]:
    return {as_key(pair[0]): made for pair in pairs if (made := each(pair)) is not _SKIPPED}


def _transform_entries(pairs: _Pairs, each: _Each) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for pair in pairs:
        made = each(pair)
        if made is _SKIPPED:
            continue
        if not isinstance(made, dict):
            raise CelError("no such overload")
        for key, value in made.items():
            if key in found:
                raise CelError(f"insert failed: key {from_key(key)} already exists")
            found[key] = value
    return found


_LOOPS: Mapping[str, Callable[[_Pairs, _Each], Any]] = {
    "all": _any(False),
    "exists": _any(True),
    "exists_one": _exactly_one,
    "existsOne": _exactly_one,
    "filter": _filter,
    "map": _transform,
    "transformList": _transform,
    "transformMap": _transform_map,
    "transformMapEntry": _transform_entries,
}


def _bind(node: Bind) -> Step:
    value_of, body, name, optional = build(node.value), build(node.body), node.name, node.optional

    def run(frame: Frame) -> Any:
        value = value_of(frame)
        frame.spend(1)
        if optional:
            if not isinstance(value, Optional):
                raise CelError("no such overload")
            if not value.present:
                return NONE
            value = value.value
        kept = frame.variables
        frame.variables = {**kept, name: value}
        try:
            found = body(frame)
        finally:
            frame.variables = kept
        return Optional(True, found) if optional == "optMap" else found

    return run


_BUILDERS: Mapping[type, Callable[[Any], Step]] = {
    Literal: _literal,
    Ident: _ident,
    Select: _select,
    Call: _call,
    ListLiteral: _list,
    MapLiteral: _map,
    StructLiteral: _struct,
    Comprehension: _comprehension,
    Bind: _bind,
}
