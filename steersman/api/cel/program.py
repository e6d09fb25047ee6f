"""An expression made ready once and run often. The way in for everybody outside this package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steersman.api.cel import literals
from steersman.api.cel.check import check
from steersman.api.cel.estimate import Roots, worst
from steersman.api.cel.evaluate import Frame, Step, build
from steersman.api.cel.parser import parse
from steersman.api.cel.syntax import CelError, CompileError, Issue, Node
from steersman.api.cel.types import Type

PER_CALL_LIMIT = 1_000_000  # cel-go's cost units for one evaluation: apiserver's pkg/apis/cel


@dataclass(frozen=True, slots=True)
class Program:
    """`type` is what it gives, as far as known before it runs."""

    source: str
    type: Type
    tree: Node
    run: Step

    def estimate(self, roots: Roots, *, open_maps: bool = False) -> int:
        """The most that it may cost on values which the types' sizes allow; `roots`: what variables hold."""
        return worst(self.tree, roots, open_maps=open_maps)

    def evaluate(self, variables: Mapping[str, Any], *, limit: int = PER_CALL_LIMIT) -> tuple[Any, int]:
        """The value and what it cost. Raises CelError, or CostError beyond `limit`."""
        frame = Frame(dict(variables), limit)
        try:
            return self.run(frame), limit - frame.left
        except RecursionError as error:
            raise CelError("evaluation is nested too deeply") from error


def compile(source: str, variables: Mapping[str, Type], *, structs: bool = False, bindings: bool = False) -> Program:
    """Parse and check; with `bindings`, cel.bind may be used. Raises CompileError, whose text is cel-go's."""
    tree = parse(source, bindings=bindings)
    try:
        kind = check(tree, source, variables, structs=structs)
        if issues := literals.check(tree):
            raise CompileError(source, issues)
        return Program(source, kind, tree, build(tree))
    except RecursionError as error:
        raise CompileError(source, [Issue(0, "expression recursion limit exceeded: 250")]) from error
