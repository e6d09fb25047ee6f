"""Quantities: `500m`, `1.5Gi`, `12e6`. Exact, never floating point.

Owns reading, the canonical form, comparison and sums. Called by decoders, defaults, validation, quota, scheduler and
kubelet. Pure; reading is cached, for the same few texts come again and again. Source: apimachinery's resource.Quantity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, total_ordering

DECIMAL_SI = "DecimalSI"
DECIMAL_EXPONENT = "DecimalExponent"
BINARY_SI = "BinarySI"

FORMAT_ERROR = r"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
NUMBER_ERROR = "unable to parse numeric part of quantity"
SUFFIX_ERROR = "unable to parse quantity's suffix"

_TEXT = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]{1,9})")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_SUFFIX = {power: suffix for suffix, power in _DECIMAL.items()}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_BINARY_SUFFIX = {power: suffix for suffix, power in _BINARY.items()} | {0: ""}
_NANO = 10**9
_MAX = 2**63 - 1
_MOST_DIGITS = 1000


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An amount in billionths (`nanos`), and how it likes to be written."""

    nanos: int
    format: str = DECIMAL_SI

    @property
    def value(self) -> Fraction:
        """The exact amount."""
        return Fraction(self.nanos, _NANO)

    def milli(self) -> int:
        """In thousandths, rounded away from zero."""
        return _ceil(self.nanos, 10**6)

    def whole(self) -> int:
        """In units, rounded away from zero."""
        return _ceil(self.nanos, _NANO)

    def __add__(self, other: Quantity) -> Quantity:
        format = other.format if not self.nanos else self.format
        return Quantity(self.nanos + other.nanos, format)

    def __sub__(self, other: Quantity) -> Quantity:
        format = other.format if not self.nanos else self.format
        return Quantity(self.nanos - other.nanos, format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nanos, self.format)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __lt__(self, other: Quantity) -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __str__(self) -> str:
        """The canonical form: no fraction, the largest suffix that loses nothing."""
        if not self.nanos:
            return "0"
        if self.format == BINARY_SI and abs(self.nanos) >= 1024 * _NANO and self.nanos % _NANO == 0:
            units, power = self.nanos // _NANO, 0
            while units % 1024 == 0 and power < 60:
                units //= 1024
                power += 10
            return f"{units}{_BINARY_SUFFIX[power]}"
        digits, power = self.nanos, -9
        while digits % 1000 == 0 and (power < 18 or self.format == DECIMAL_EXPONENT):
            digits //= 1000
            power += 3
        if self.format == DECIMAL_EXPONENT:
            return f"{digits}e{power}" if power else str(digits)
        return f"{digits}{_DECIMAL_SUFFIX[power]}"


ZERO = Quantity(0)


@lru_cache(maxsize=4096)
def parse(text: str) -> Quantity:
    """The quantity in `text`. Raises ValueError with Go's wording."""
    match = _TEXT.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        raise ValueError(FORMAT_ERROR)
    sign, whole, fraction, suffix = match[1], match[2], match[3] or "", match[4]
    if len(whole) + len(fraction) > _MOST_DIGITS:
        raise ValueError(NUMBER_ERROR)
    factor, format = _suffix(suffix)
    amount = int(whole + fraction or "0") * factor * _NANO / 10 ** len(fraction)
    nanos = -(-amount.numerator // amount.denominator)  # what is too small to say is rounded up
    if format == BINARY_SI:
        nanos = min(nanos, _MAX * _NANO)
        if 0 < nanos < _NANO:
            format = DECIMAL_SI
    return Quantity(-nanos if sign == "-" else nanos, format)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """`text` in canonical form, as an API server answers it. Raises ValueError."""
    return str(parse(text))


@lru_cache(maxsize=4096)
def milli(text: str) -> int:
    """In thousandths, rounded up. Raises ValueError."""
    return parse(text).milli()


@lru_cache(maxsize=4096)
def whole(text: str) -> int:
    """In units, rounded up. Raises ValueError."""
    return parse(text).whole()


def compare(one: str, other: str) -> int:
    """-1, 0 or 1. Raises ValueError."""
    left, right = parse(one), parse(other)
    return (left > right) - (left < right)


def add(one: str, other: str) -> str:
    """The sum, in canonical form, written like the first that is not zero. Raises ValueError."""
    return str(parse(one) + parse(other))


def _suffix(text: str) -> tuple[Fraction, str]:
    if text in _DECIMAL:
        return Fraction(10) ** _DECIMAL[text], DECIMAL_SI
    if text in _BINARY:
        return Fraction(2 ** _BINARY[text]), BINARY_SI
    match = _EXPONENT.fullmatch(text)
    if match is None or abs(int(match[1])) > 400:  # a larger one is refused: it would only fill memory
        raise ValueError(SUFFIX_ERROR)
    return Fraction(10) ** int(match[1]), DECIMAL_EXPONENT


def _ceil(amount: int, unit: int) -> int:
    """Rounded away from zero."""
    size = -(-abs(amount) // unit)
    return size if amount >= 0 else -size
