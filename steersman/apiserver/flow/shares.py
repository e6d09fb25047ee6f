"""How many seats each priority level has: its nominal share of the server's, and what it lends and borrows. Pure.

Called by `gate.py` when the configuration changes and every few seconds.
Source: KEP-1040 (Concurrency limits, Borrowing).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from steersman.api.resource import Object

_LEAST_TARGET = 0.001
_HALVINGS = 60


@dataclass(frozen=True)
class Limits:
    """Seats: by its shares; what it keeps after lending all it may; what it may have after borrowing all it may."""

    nominal: int
    least: int
    most: int


def limits(specs: dict[str, Object], seats: int) -> dict[str, Limits]:
    """Each level's limits out of the server's `seats`, by its spec."""
    shares = {name: _common(spec, "nominalConcurrencyShares", 0) for name, spec in specs.items()}
    total = sum(shares.values()) or 1
    found = {}
    for name, spec in specs.items():
        nominal = math.ceil(seats * shares[name] / total)
        lendable = _rounded(nominal * _common(spec, "lendablePercent", 0) / 100)
        percent = (spec.get("limited") or {}).get("borrowingLimitPercent")
        borrowing = seats if percent is None else _rounded(nominal * percent / 100)
        found[name] = Limits(nominal, nominal - lendable, nominal + borrowing)
    return found


def _common(spec: Object, key: str, otherwise: int) -> int:
    part = spec.get("limited") or spec.get("exempt") or {}
    if key == "nominalConcurrencyShares":  # before v1beta3 it had another name
        return int(part.get(key, part.get("assuredConcurrencyShares", otherwise)))
    return int(part.get(key, otherwise))


def _rounded(value: float) -> int:
    """Halves away from zero, where Python's own goes to the even number."""
    return math.floor(value + 0.5)


@dataclass(frozen=True)
class Wish:
    """What a level should get: never less than `least` or more than `most`, in proportion to `target`."""

    target: float
    least: int
    most: int


def shared_out(wishes: Sequence[Wish], seats: int) -> list[int]:
    """Seats for each: the one proportion of all targets, within everybody's bounds, that uses up `seats`."""

    def given(proportion: float) -> list[float]:
        return [min(max(proportion * max(one.target, _LEAST_TARGET), one.least), one.most) for one in wishes]

    low, high = 0.0, 2.0 * max(seats, 1) / _LEAST_TARGET
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(given(middle)) < seats else (low, middle)
    return [_rounded(each) for each in given(high)]
