"""What an expression may cost at worst, from the sizes that a schema allows. Source: cel-go's checker/cost.go."""

from __future__ import annotations

from steersman.api.cel.evaluate import LIST_COST, MAP_COST, STRUCT_COST
from steersman.api.cel.library import all_overloads
from steersman.api.cel.syntax import (
    Bind,
    Call,
    Comprehension,
    ListLiteral,
    Literal,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)

REQUEST_MOST = 3 * 1024 * 1024  # bytes of a request's body: nothing in it is larger
UNBOUNDED = 2**63
_LOOP_COST = 5


def worst(node: Node) -> int:
    """The most that evaluating a checked node costs."""
    if isinstance(node, Literal):
        return 0
    if isinstance(node, Select):
        return worst(node.operand) + 1
    if isinstance(node, Call):
        return _call(node)
    if isinstance(node, ListLiteral):
        return LIST_COST + sum(map(worst, node.items))
    if isinstance(node, MapLiteral):
        return MAP_COST + sum(worst(key) + worst(value) for key, value, _ in node.items)
    if isinstance(node, StructLiteral):
        return STRUCT_COST + sum(worst(value) for _, value, _, _ in node.items)
    if isinstance(node, Comprehension):
        inner = worst(node.body) + (worst(node.where) if node.where is not None else 0) + _LOOP_COST
        return min(UNBOUNDED, worst(node.range) + _size(node.range) * inner + 1)
    if isinstance(node, Bind):
        return worst(node.value) + worst(node.body) + 1
    return 1


def _size(node: Node) -> int:
    kind = node.type
    if kind is None or kind.name not in ("string", "bytes", "list", "map", "dyn"):
        return 1
    return REQUEST_MOST if kind.size is None else int(kind.size)


def _call(node: Call) -> int:
    parts = ([node.target] if node.target is not None else []) + node.args
    inside = [worst(each) for each in parts]
    if node.function == "_?_:_":
        return inside[0] + max(inside[1:])
    if node.function in ("_&&_", "_||_"):
        return sum(inside)
    sizes = [_size(each) for each in parts]
    if node.function in ("_==_", "_!=_"):
        return sum(inside) + 1 + min(sizes) // 10
    found = all_overloads().get((node.function, node.target is not None), ())
    prices = [each.price(sizes) for each in found if each.price is not None and len(each.signature.args) == len(parts)]
    return min(UNBOUNDED, sum(inside) + max(prices, default=1))
