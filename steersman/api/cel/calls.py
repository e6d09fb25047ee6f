"""What calls cost at worst, and how large what they give may be: a line for each function that is not simply one unit.

Owns the table of prices. Called by the estimate of costs alone. Pure. Source: apiserver's pkg/cel/library/cost.go,
cel-go's checker/cost.go and the estimates of its extensions for lists and sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from steersman.api.cel.sizes import MOST, ONE, REGEX, TRAVERSAL, UNKNOWN, Size, priced
from steersman.api.cel.types import Type

_LIST = 10  # units for making a list
_CHECK = 350_000  # a question to the authorizer: two of them fit into what an expression may cost
_REGEX_OF_A_NAME = 128  # characters
_ADDRESS = Size(4, 16)  # bytes
_TEXTS = ("string", "bytes")


@dataclass(frozen=True, slots=True)
class Operand:
    """The target or an argument: its type, how large it may be, how large each of its items (of a list), and its value
    where that is a number in the expression."""

    type: Type
    size: Size = UNKNOWN
    item: Size = UNKNOWN
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Priced:
    """A call's own units, without its operands', and the size of what it gives where that is known."""

    cost: int = 1
    size: Size | None = None


Operands = Sequence[Operand]


def price(name: str, operands: Operands, *, member: bool) -> Priced:
    """What one call costs; the target of a method comes first."""
    found = (_METHODS if member else _FUNCTIONS).get(name)
    return Priced() if found is None else found(operands)


def _scan(place: int, times: float = 1) -> Callable[[Operands], Priced]:
    return lambda operands: Priced(operands[place].size.traversed(times))


def _same(operands: Operands) -> Priced:
    return Priced(operands[0].size.traversed(), operands[0].size)


def _compared(operands: Operands) -> Priced:
    return Priced(priced(min(operands[0].size.most, operands[1].size.most), TRAVERSAL))


def _equal(operands: Operands) -> Priced:
    one, other = (each.type for each in operands)
    if one == other:
        if one.name in ("net.IP", "net.CIDR", "kubernetes.URL") or one.name.startswith("kubernetes.authorization."):
            return Priced()
        if one.name in ("kubernetes.Quantity", "kubernetes.Semver"):
            return Priced()
        if one.name == "kubernetes.NamedFormat":
            return Priced(priced(64, TRAVERSAL))
    return _compared(operands)


def _ordered(operands: Operands) -> Priced:
    kinds = {each.type.name for each in operands}
    if kinds <= {*_TEXTS, "dyn"}:
        found = _compared(operands).cost
        return Priced(found if kinds & {*_TEXTS} else max(1, found))
    return Priced()


def _plus(operands: Operands) -> Priced:
    kinds, size = {each.type.name for each in operands}, operands[0].size + operands[1].size
    if not kinds <= {*_TEXTS, "list", "dyn"}:
        return Priced()
    return Priced(1 if "list" in kinds else size.traversed(), size)


def _in(operands: Operands) -> Priced:
    return Priced(1 if operands[1].type.name == "map" else operands[1].size.most)


def _matching(operands: Operands) -> Priced:
    text, regex = operands[0].size + ONE, operands[1].size
    return Priced(min(MOST, text.traversed() * priced(regex.most, REGEX)))


def _finding(operands: Operands) -> Priced:
    return Priced(_matching(operands).cost, Size(0, operands[0].size.most))


def _containing(operands: Operands) -> Priced:
    return Priced(min(MOST, operands[0].size.traversed() * operands[1].size.traversed()))


def _each(operands: Operands) -> Priced:
    target = operands[0]
    if not target.type.params:
        return Priced(target.size.traversed())
    item = 1 + (target.item.traversed() if target.type.params[0].name in _TEXTS else 0)
    return Priced(min(MOST, target.size.most * item))


def _replaced(operands: Operands) -> Priced:
    text, old, new = (each.size for each in operands[:3])
    if old.least == 0:
        most = min(MOST, text.most + 1) * new.most + text.most
    elif new.most <= old.least:
        most = text.most
    else:
        most = -(-text.most // old.least) * new.most
    if old.most == 0:
        least = min(MOST, text.least + 1) * new.least + text.least
    elif old.most <= new.least:
        least = text.least
    else:
        least = -(-text.least // old.most) * new.least
    return Priced(text.traversed(2), Size(min(MOST, least), min(MOST, most)))


def _split(operands: Operands) -> Priced:
    limit = operands[2].number if len(operands) > 2 else None
    most = operands[0].size.most if limit is None else limit % (MOST + 1)
    return Priced(operands[0].size.traversed(2), Size(0, most))


def _joined(operands: Operands) -> Priced:
    count, size = operands[0].size, Size(0, 0)
    if operands[0].type.params:
        size = count * operands[0].item
    if len(operands) > 1:
        size += operands[1].size * Size(max(count.least - 1, 0), max(count.most - 1, 0))
    return Priced(size.traversed(), size)


def _quoted(operands: Operands) -> Priced:
    size = operands[0].size
    return Priced(size.traversed(), Size(min(MOST, size.least + 2), min(MOST, size.most * 2 + 2)))


def _to_text(operands: Operands) -> Priced:
    size = operands[0].size
    if operands[0].type.name not in ("bytes", "dyn"):
        return Priced()
    return Priced(max(1 if operands[0].type.name == "dyn" else 0, size.traversed()), Size(size.least // 4, size.most))


def _to_bytes(operands: Operands) -> Priced:
    size = operands[0].size
    return Priced(size.traversed(), Size(size.least, min(MOST, size.most * 4)))


def _made(factor: float, size: Size) -> Priced:
    return Priced(min(MOST, priced(size.most, factor) + 1 + _LIST), size)


def _slice(operands: Operands) -> Priced:
    start, end = operands[1].number, operands[2].number
    length = ((operands[0].size.most if end is None else end) - (start or 0)) % (MOST + 1)
    return _made(1, Size(length, length))


def _flat(operands: Operands) -> Priced:
    depth = 1 if len(operands) == 1 else operands[1].number if operands[1].number is not None else MOST
    return _made(depth, operands[0].size)


def _distinct(operands: Operands) -> Priced:
    return _made(2, operands[0].size * operands[0].size)


def _sorted(operands: Operands) -> Priced:
    kind = operands[0].type.params[0].name if operands[0].type.params else "dyn"
    return _made(2 + (TRAVERSAL if kind in (*_TEXTS, "dyn") else 0), operands[0].size * operands[0].size)


def _sorted_by(operands: Operands) -> Priced:
    return _sorted(operands[1:])


def _counted(operands: Operands) -> Priced:
    count = operands[0].number
    return _made(1, UNKNOWN if count is None else Size(count % (MOST + 1), count % (MOST + 1)))


def _reversed(operands: Operands) -> Priced:
    return _made(1, operands[0].size)


def _sets(factor: int) -> Callable[[Operands], Priced]:
    return lambda operands: Priced(min(MOST, (operands[0].size * operands[1].size).most * factor + 1))


def _within(more: int) -> Callable[[Operands], Priced]:
    compared = (_ADDRESS + _ADDRESS).traversed() + more

    def found(operands: Operands) -> Priced:
        text = operands[1].size.traversed() if operands[1].type.name in ("string", "dyn") else 0
        return Priced(min(MOST, compared + text))

    return found


def _selected(operands: Operands) -> Priced:
    size = operands[1].size.most
    requirements = priced(priced(size, 0.5), 50)
    return Priced(min(MOST, 10 + priced(size, TRAVERSAL) + requirements))


def _validated(operands: Operands) -> Priced:
    return Priced(priced(operands[1].size.traversed(), _REGEX_OF_A_NAME * REGEX))


_FUNCTIONS: Mapping[str, Callable[[Operands], Priced]] = {
    **dict.fromkeys(("_==_", "_!=_"), _compared),
    "_==_": _equal,
    **dict.fromkeys(("_<_", "_<=_", "_>_", "_>=_"), _ordered),
    "_+_": _plus,
    "@in": _in,
    "string": _to_text,
    "bytes": _to_bytes,
    "strings.quote": _quoted,
    **dict.fromkeys(("url", "jsonpatch.escapeKey"), _same),
    **dict.fromkeys(("cidr", "isIP", "isCIDR", "ip", "quantity", "isQuantity", "semver", "isSemver"), _scan(0)),
    "ip.isCanonical": _scan(0, 2),
    **dict.fromkeys(("sets.contains", "sets.intersects"), _sets(1)),
    "sets.equivalent": _sets(2),
    "lists.range": _counted,
}
_METHODS: Mapping[str, Callable[[Operands], Priced]] = {
    "check": lambda _: Priced(_CHECK),
    **dict.fromkeys(("fieldSelector", "labelSelector"), _selected),
    **dict.fromkeys(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"), _each),
    **dict.fromkeys(("lowerAscii", "upperAscii", "substring", "trim"), _same),
    "replace": _replaced,
    "split": _split,
    "join": _joined,
    **dict.fromkeys(("find", "findAll"), _finding),
    "matches": _matching,
    "contains": _containing,
    **dict.fromkeys(("startsWith", "endsWith"), _scan(1)),
    "format": _scan(0),
    "containsIP": _within(0),
    "containsCIDR": _within(_ADDRESS.traversed() + 1),
    "validate": _validated,
    "slice": _slice,
    "flatten": _flat,
    "distinct": _distinct,
    "sort": _sorted,
    "@sortByAssociatedKeys": _sorted_by,
    "reverse": _reversed,
}
