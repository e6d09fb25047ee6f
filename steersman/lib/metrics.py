"""A tiny Prometheus registry: counters, gauges and histograms with labels, and their text form.

Owns the numbers and how they are printed; knows nothing of who asks. A hot path keeps the child that `labels` gives it:
counting is then one addition. Source: the Prometheus text exposition format, version 0.0.4.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from math import isnan
from typing import Any, Generic, TypeVar

DURATIONS = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 10.0, 30.0, 60.0)
"""Histogram bounds in seconds for requests."""


class Value:
    """One counter or gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add; a counter only ever grows."""
        self.value += amount

    def dec(self, amount: float = 1.0) -> None:
        """Subtract (gauges)."""
        self.value -= amount

    def set(self, value: float) -> None:
        """Replace (gauges)."""
        self.value = value

    def samples(self, name: str, labels: str) -> Iterator[str]:
        """The lines of the text form."""
        yield f"{name}{_braces(labels)} {_number(self.value)}"


class Distribution:
    """One histogram: how many observations were at most each bound, their number and sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count one observation, or several alike."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self._counts)

    @property
    def counts(self) -> Sequence[int]:
        """How many observations fell between one bound and the next, those above the last at the end."""
        return self._counts

    @property
    def total(self) -> float:
        """The sum of all observations."""
        return self._sum

    def load(self, counts: Sequence[int], total: float) -> None:
        """Replace everything by what somebody else has counted, as `counts` has it. Raises ValueError."""
        if len(counts) != len(self._counts):
            raise ValueError(f"{len(self._counts)} counts are wanted, not {len(counts)}")
        self._counts, self._sum = list(counts), total

    def samples(self, name: str, labels: str) -> Iterator[str]:
        """The lines of the text form."""
        total = 0
        comma = "," if labels else ""
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            yield f'{name}_bucket{{{labels}{comma}le="{_number(bound)}"}} {total}'
        yield f"{name}_sum{_braces(labels)} {_number(self._sum)}"
        yield f"{name}_count{_braces(labels)} {total}"


Child = TypeVar("Child", Value, Distribution)


class Family(Generic[Child]):
    """A metric's children, one for each combination of label values."""

    def __init__(self, name: str, text: str, kind: str, labels: Sequence[str], make: Callable[[], Child]) -> None:
        self.name = name
        self.kind = kind
        self._text = _escape(text)
        self._labels = tuple(labels)
        self._shown = sorted(range(len(self._labels)), key=lambda at: self._labels[at])
        self._make = make
        self._children: dict[tuple[str, ...], Child] = {}

    def labels(self, *values: str) -> Child:
        """The child with these label values, in the order of the names. Raises ValueError for a wrong number."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self.name} has {len(self._labels)} labels, not {len(values)}")
            child = self._children[values] = self._make()
        return child

    def forget(self, *values: str) -> None:
        """Drop a child whose subject is gone."""
        self._children.pop(values, None)

    def children(self) -> Iterator[tuple[tuple[str, ...], Child]]:
        """Label values, in the order of the names, and what is counted under them."""
        yield from list(self._children.items())

    def clear(self) -> None:
        """Drop every child: what is counted anew at each print."""
        self._children.clear()

    def lines(self, mark: str = "") -> Iterator[str]:
        """The text form of every child; nothing where there is none. Labels are in the order of their names.

        `mark` stands in front of the help."""
        if not self._children:
            return
        yield f"# HELP {self.name} {mark}{self._text}\n# TYPE {self.name} {self.kind}"
        for values, child in sorted(self._children.items()):
            pairs = ",".join(f'{self._labels[at]}="{_quote(values[at])}"' for at in self._shown)
            yield from child.samples(self.name, pairs)


class Registry:
    """The metrics of one component. `mark` says what a metric's help begins with."""

    def __init__(self, mark: Callable[[str], str] = lambda name: "") -> None:
        self.mark = mark
        self._families: dict[str, Family[Value] | Family[Distribution]] = {}
        self._collectors: list[Callable[[], None]] = []

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Family[Value]:
        """A number that only grows; its name ends in `_total`. Raises ValueError when the name is taken."""
        return self._add(Family(name, text, "counter", labels, Value))

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Family[Value]:
        """A number that goes up and down. Raises ValueError when the name is taken."""
        return self._add(Family(name, text, "gauge", labels, Value))

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = DURATIONS
    ) -> Family[Distribution]:
        """A distribution over `bounds`, ascending. Raises ValueError when the name is taken."""
        sorted_bounds = tuple(sorted(bounds))
        return self._add(Family(name, text, "histogram", labels, lambda: Distribution(sorted_bounds)))

    def _add(self, family: Any) -> Any:
        if family.name in self._families:
            raise ValueError(f"metric {family.name} exists already")
        self._families[family.name] = family
        return family

    def names(self) -> list[str]:
        """Of every metric, whether it has been counted yet or not."""
        return sorted(self._families)

    def collect(self, collector: Callable[[], None]) -> None:
        """Call `collector` before every print, to set gauges that are cheaper to ask for than to keep."""
        self._collectors.append(collector)

    def include(self, other: Registry) -> None:
        """Print what `other` has, too. Raises ValueError when a name is taken."""
        for family in other._families.values():
            self._add(family)
        self._collectors += other._collectors

    def text(self) -> str:
        """Everything, in the text format."""
        for collector in self._collectors:
            collector()
        lines = [line for name in sorted(self._families) for line in self._families[name].lines(self.mark(name))]
        return "\n".join([*lines, ""])


def _braces(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quote(value: str) -> str:
    return _escape(value).replace('"', '\\"')


def _number(value: float) -> str:
    if isnan(value):
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if abs(value) < 1e6:
        return str(int(value)) if value == int(value) else repr(float(value))
    digits, exponent = f"{Decimal(repr(float(value))).normalize():e}".split("e")  # as Go writes %g
    return f"{digits}e+{int(exponent):02}"
