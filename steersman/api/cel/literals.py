"""What constants in a checked expression must be: spans, moments and patterns that can be read, lists of one type.

Owns the checks that come after types are known, one kind after another; the first that finds something ends them.
Called by `program`. Pure. Source: cel-go's cel/validator.go, in the order of apiserver's base environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from steersman.api.cel.operators import regex
from steersman.api.cel.syntax import (
    Bind,
    Call,
    CelError,
    Comprehension,
    Issue,
    ListLiteral,
    Literal,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)
from steersman.api.cel.types import Type
from steersman.api.cel.values import duration, timestamp

_EXEMPT = ("format",)


def check(tree: Node) -> list[Issue]:
    """Complaints about a checked tree."""
    nodes = list(_walk(tree, exempt=False))
    calls = [node for node, _ in nodes if isinstance(node, Call)]
    for found in (
        _read(calls, "duration", duration),
        _read(calls, "timestamp", timestamp),
        _patterns(calls),
        [issue for node, exempt in nodes if not exempt for issue in _mixed(node)],
    ):
        if found:
            return found
    return []


def _below(node: Node) -> Iterator[Node]:
    if isinstance(node, Select):
        yield node.operand
    elif isinstance(node, Call):
        if node.target is not None:
            yield node.target
        yield from node.args
    elif isinstance(node, ListLiteral):
        yield from node.items
    elif isinstance(node, MapLiteral):
        for key, value, _ in node.items:
            yield from (key, value)
    elif isinstance(node, StructLiteral):
        yield from (value for _, value, _, _ in node.items)
    elif isinstance(node, Comprehension):
        yield node.range
        if node.where is not None:
            yield node.where
        yield node.body
    elif isinstance(node, Bind):
        yield from (node.value, node.body)


def _walk(node: Node, *, exempt: bool) -> Iterator[tuple[Node, bool]]:
    """Every node, and whether it is inside a call that takes lists of anything."""
    yield node, exempt
    inside = exempt or (isinstance(node, Call) and node.function in _EXEMPT)
    for each in _below(node):
        yield from _walk(each, exempt=inside)


def _read(calls: list[Call], function: str, read: Callable[[str], object]) -> list[Issue]:
    out: list[Issue] = []
    for call in calls:
        if call.function != function or call.target is not None or len(call.args) != 1:
            continue
        given = call.args[0]
        if isinstance(given, Literal) and isinstance(given.value, str):
            try:
                read(given.value)
            except CelError:
                out.append(Issue(given.at, f"invalid {function} argument"))
    return out


def _patterns(calls: list[Call]) -> list[Issue]:
    out: list[Issue] = []
    for call in calls:
        given = call.args[-1] if call.function == "matches" and call.args else None
        if isinstance(given, Literal) and isinstance(given.value, str):
            try:
                regex(given.value)
            except CelError:
                out.append(Issue(given.at, "invalid matches argument"))
    return out


def _mixed(node: Node) -> Iterator[Issue]:
    """Items of a list, or keys and values of a map, that are not of the type of the first."""
    if isinstance(node, ListLiteral):
        kinds = [(each, _plain(each.type, at in node.optional)) for at, each in enumerate(node.items)]
        yield from list(_others(kinds))[:1]
    elif isinstance(node, MapLiteral):
        yield from _others([(key, key.type) for key, _, _ in node.items])
        yield from _others([(value, _plain(value.type, optional)) for _, value, optional in node.items])


def _plain(kind: Type, optional: bool) -> Type:
    return kind.params[0] if optional and kind.params else kind


def _others(kinds: list[tuple[Node, Type]]) -> Iterator[Issue]:
    for node, kind in kinds[1:]:
        if str(kind) != str(kinds[0][1]) and 0 not in (kind.size, kinds[0][1].size):
            yield Issue(node.at, f"expected type '{kinds[0][1]}' but found '{kind}'")
