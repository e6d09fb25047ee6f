"""The tree of an expression, and the errors of every stage.

Owns what the parser makes and the checker and the evaluator read. Macros are nodes of their own (`Comprehension`,
`Bind`, `OptMap`), so that each is checked, priced and run as what it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class CelError(Exception):
    """An evaluation that has no value: no such key, division by zero, overflow."""


class CostError(CelError):
    """The evaluation was stopped: it cost more than it may."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One complaint at one place; `offset` counts characters from the start."""

    offset: int
    text: str


class CompileError(Exception):
    """What is wrong with an expression, shown as cel-go shows it."""

    def __init__(self, source: str, issues: list[Issue]) -> None:
        self.issues = issues
        super().__init__("\n".join(_shown(source, each) for each in sorted(issues, key=lambda one: one.offset)[:100]))


def _shown(source: str, issue: Issue) -> str:
    before = source[: issue.offset]
    line, column = before.count("\n"), len(before) - (before.rfind("\n") + 1)
    if not source:
        return f"ERROR: <input>:1:0: {issue.text}"
    text = (source.split("\n") or [""])[line].replace("\t", " ")
    return f"ERROR: <input>:{line + 1}:{column + 1}: {issue.text}\n | {text}\n | {'.' * column}^"


@dataclass(slots=True, eq=False)
class Node:
    """What every node has: where it stands, and the type that the checker found."""

    at: int
    type: Any = field(default=None, init=False)


@dataclass(slots=True, eq=False)
class Literal(Node):
    """A constant, as a value of the evaluator."""

    value: Any


@dataclass(slots=True, eq=False)
class Ident(Node):
    """A variable, or a type's name."""

    name: str


@dataclass(slots=True, eq=False)
class Select(Node):
    """`operand.field`; with `test`, has(operand.field); with `optional`, operand.?field."""

    operand: Node
    name: str
    test: bool = False
    optional: bool = False


@dataclass(slots=True, eq=False)
class Call(Node):
    """A function, an operator or a method (`target`)."""

    function: str
    target: Node | None
    args: list[Node]


@dataclass(slots=True, eq=False)
class ListLiteral(Node):
    """`[a, ?b]`; `optional` holds the places of the optional ones."""

    items: list[Node]
    optional: frozenset[int]


@dataclass(slots=True, eq=False)
class MapLiteral(Node):
    """`{k: v, ?k: v}`."""

    items: list[tuple[Node, Node, bool]]


@dataclass(slots=True, eq=False)
class StructLiteral(Node):
    """`Name{field: value}`."""

    name: str
    items: list[tuple[str, Node, bool, int]]


@dataclass(slots=True, eq=False)
class Comprehension(Node):
    """all, exists, exists_one, map, filter, transformList, transformMap, transformMapEntry over a list or a map."""

    macro: str
    range: Node
    variables: tuple[str, ...]
    where: Node | None
    body: Node


@dataclass(slots=True, eq=False)
class Bind(Node):
    """cel.bind(name, value, body); with `optional`, optMap and optFlatMap on an optional `value`."""

    name: str
    value: Node
    body: Node
    optional: str = ""
