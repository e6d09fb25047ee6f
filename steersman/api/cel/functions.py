"""What a function is to the checker, the estimate and the evaluator.

Owns `Overload`, how one is chosen at run time, and what calls cost. The modules of functions are made of it;
`library.py` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api.cel.syntax import CelError
from steersman.api.cel.types import Signature, Type, is_parameter, signature
from steersman.api.cel.values import type_name

Price = Callable[[Sequence[int]], int]
"""What a call costs, of the sizes of its arguments (what is no text and no collection has size 1)."""


@dataclass(frozen=True, slots=True)
class Overload:
    """One signature, what it does, what it costs."""

    name: str
    signature: Signature
    run: Callable[..., Any]
    price: Price | None = None  # None: 1

    def accepts(self, args: Sequence[Any]) -> bool:
        """Whether values fit, as far as their outermost type tells."""
        wanted = self.signature.args
        return len(args) == len(wanted) and all(map(_fits, wanted, args))


def _fits(wanted: Type, value: Any) -> bool:
    return wanted.name == "dyn" or is_parameter(wanted) or wanted.name == type_name(value)


def scan(*places: int) -> Price:
    """A tenth of the size of these arguments."""
    return lambda sizes: 1 + sum(-(-sizes[place] // 10) for place in places if place < len(sizes))


def whole(*places: int) -> Price:
    """The whole size of these arguments."""
    return lambda sizes: 1 + sum(sizes[place] for place in places if place < len(sizes))


def product(sizes: Sequence[int]) -> int:
    """A search of one text, or one collection, for another."""
    return 1 + -(-sizes[0] // 10) * max(1, -(-sizes[1] // 10))


def matching(sizes: Sequence[int]) -> int:
    """A regular expression (sizes[1]) on a text."""
    return (-(-(sizes[0] + 1) // 10)) * max(1, -(-sizes[1] // 4))


def define(run: Callable[..., Any], *texts: str, price: Price | None = None) -> list[Overload]:
    """The overloads that one Python function carries."""
    return [Overload(*signature(text), run, price) for text in texts]


def no_such_overload(name: str, args: Sequence[Any]) -> CelError:
    """What a call says whose arguments fit nothing."""
    return CelError(f"no such overload: {name}({', '.join(map(type_name, args))})")


def size_of(value: Any) -> int:
    """How large a value is to the costs."""
    return len(value) if isinstance(value, (str, bytes, list, dict)) else 1
