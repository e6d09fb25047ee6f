"""What an expression may cost at worst, from the sizes that a schema allows.

Owns the estimate of checked trees: what each node costs, how large its value may be, and which place in the schema it
stands for, where it stands for one. Called by `program`. Pure. Sizes are pairs (least, most); everything stops at 2**64
- 1, as there. Source: cel-go's checker/cost.go and ext/lists.go, apiserver's pkg/cel/library/cost.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from steersman.api.cel.evaluate import LIST_COST, MAP_COST, STRUCT_COST
from steersman.api.cel.syntax import (
    Bind,
    Call,
    Comprehension,
    Ident,
    ListLiteral,
    Literal,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)
from steersman.api.cel.types import Type

REQUEST_MOST = 3 * 1024 * 1024  # bytes of a request's body: nothing in it is larger
UNBOUNDED = 2**64 - 1
Size = tuple[int, int]
Roots = Callable[[str], "Type | None"]
"""The type of what a variable holds, whose sizes are known; nothing where none are."""

_UNKNOWN: Size = (0, UNBOUNDED)
_ONE: Size = (1, 1)
_SCALARS = frozenset(("bool", "double", "int", "uint", "google.protobuf.Duration", "google.protobuf.Timestamp"))
_TEXTS = frozenset(("string", "bytes"))
_SCAN, _PATTERN = 0.1, 0.25
_CHECK = 350_000
_CHEAP = frozenset(
    (
        *("serviceAccount", "path", "group", "resource", "subresource", "namespace", "name", "allowed", "reason"),
        *("error", "errored", "masked", "prefixLength", "family", "isUnspecified", "isLoopback", "format.named"),
        *("isLinkLocalMulticast", "isLinkLocalUnicast", "isGlobalUnicast", "sign", "asInteger", "isInteger"),
        *("asApproximateFloat", "isGreaterThan", "isLessThan", "compareTo", "add", "sub", "major", "minor", "patch"),
        *("getScheme", "getHostname", "getHost", "getPort", "getEscapedPath", "getQuery"),
    )
)
"""What costs one, whatever it is asked of."""
_READ = frozenset(("cidr", "isIP", "isCIDR", "ip", "quantity", "isQuantity", "semver", "isSemver"))
_LOOKED_THROUGH = frozenset(("isSorted", "sum", "max", "min", "indexOf", "lastIndexOf"))
_COMPARED = frozenset(("_<_", "_<=_", "_>_", "_>=_"))
_FORMAT_PATTERN = 128 * _PATTERN
_ADDRESS = 16


def _times(a: int, b: int) -> int:
    return min(UNBOUNDED, a * b)


def _plus(*costs: int) -> int:
    return min(UNBOUNDED, sum(costs))


def _part(size: int, factor: float) -> int:
    """A size times a factor, rounded up."""
    if size >= 2**53:
        return min(UNBOUNDED, int(float(size) * factor))
    found = size * factor
    return min(UNBOUNDED, int(found) + (found > int(found)))


def _union(a: Size, b: Size) -> Size:
    return (min(a[0], b[0]), max(a[1], b[1]))


class _Entry:
    """Sizes of the keys and values of a computed collection."""

    __slots__ = ("key", "listed", "value")

    def __init__(self, listed: bool, key: Size, value: Size) -> None:
        self.listed, self.key, self.value = listed, key, value

    def union(self, other: _Entry | None) -> _Entry | None:
        """Of either."""
        if other is None:
            return None
        return _Entry(self.listed, _union(self.key, other.key), _union(self.value, other.value))


class _Place:
    """A path into a variable; `type` is None where it leads nowhere that is known."""

    __slots__ = ("type",)

    def __init__(self, kind: Type | None) -> None:
        self.type = kind

    @property
    def size(self) -> Size | None:
        """How large what is there may be; a scalar is nothing."""
        return None if self.type is None else (0, self.type.size or 0)


class _Local:
    """A variable of a loop or a binding."""

    __slots__ = ("entry", "place", "size")

    def __init__(self, place: _Place | None, size: Size | None, entry: _Entry | None = None) -> None:
        self.place, self.size, self.entry = place, size, entry


def worst(node: Node, roots: Roots, *, open_maps: bool = False) -> int:
    """The most that evaluating a checked node costs; `open_maps`: a map's entry is known by any name."""
    return _Coster(roots, open_maps).cost(node)


class _Coster:
    def __init__(self, roots: Roots, open_maps: bool) -> None:
        self._roots = roots
        self._open_maps = open_maps
        self._locals: dict[str, list[_Local]] = {}
        self._places: dict[int, _Place] = {}
        self._sizes: dict[int, Size] = {}
        self._entries: dict[int, _Entry] = {}

    def cost(self, node: Node) -> int:
        """What a node costs; its size and place are noted."""
        if isinstance(node, Literal):
            return 0
        if isinstance(node, Ident):
            return 1
        if isinstance(node, Select):
            return self._select(node)
        if isinstance(node, Call):
            return self._call(node)
        if isinstance(node, Comprehension):
            return self._loop(node)
        if isinstance(node, Bind):
            return self._bind(node)
        if isinstance(node, ListLiteral):
            return self._list(node)
        if isinstance(node, MapLiteral):
            return self._map(node)
        assert isinstance(node, StructLiteral)
        return _plus(STRUCT_COST, *(self.cost(value) for _, value, _, _ in node.items))

    # Sizes and places ------------------------------------------------------------------------------------------------

    def _local(self, node: Node) -> _Local | None:
        found = self._locals.get(node.name) if isinstance(node, Ident) else None
        return found[-1] if found else None

    def _place(self, node: Node) -> _Place | None:
        if isinstance(node, Ident):
            local = self._local(node)
            return _Place(self._roots(node.name)) if local is None else local.place
        return self._places.get(id(node))

    def _below(self, place: _Place | None, step: str) -> _Place:
        """Where `@items`, `@values`, `@keys`, `@indices` or a field leads; from nowhere, to a variable of that name."""
        if place is None:
            return _Place(self._roots(step))
        kind = place.type
        if kind is None:
            return _Place(None)
        if step in ("@items", "@values"):
            return _Place(kind.params[-1] if kind.name in ("list", "map") and kind.params else None)
        if step == "@keys":
            return _Place(Type("string", (), 0) if kind.name == "map" else None)
        if self._open_maps and kind.name == "map" and kind.params[-1].name == "dyn":
            return _Place(kind.params[-1])
        return _Place(kind.fields(step) if kind.fields is not None and step != "@indices" else None)

    def _known(self, node: Node) -> Size | None:
        found = self._sizes.get(id(node))
        if found is not None:
            return found
        if isinstance(node, Literal):
            size = len(node.value) if isinstance(node.value, (str, bytes)) else 1
            return (size, size)
        if isinstance(node, (ListLiteral, MapLiteral)):
            return (len(node.items), len(node.items))
        place = self._place(node)
        if place is not None and place.size is not None:
            return place.size
        if _scalar(node.type):
            return _ONE
        local = self._local(node)
        return local.size if local is not None else None

    def size(self, node: Node) -> Size:
        """How large a node's value may be."""
        return self._known(node) or _UNKNOWN

    def _entry(self, node: Node) -> _Entry | None:
        local = self._local(node)
        return self._entries.get(id(node)) or (local.entry if local is not None else None)

    def _items(self, node: Node) -> Size:
        """How large an item of a list may be."""
        place = self._place(node)
        return (self._below(place, "@items").size if place is not None else None) or _UNKNOWN

    # Nodes -----------------------------------------------------------------------------------------------------------

    def _select(self, node: Select) -> int:
        inner = self.cost(node.operand)
        if node.test:
            return inner
        if node.optional:
            return _plus(inner, 1)
        self._places[id(node)] = self._below(self._place(node.operand), node.name)
        kind = node.operand.type
        return _plus(inner, 1 if kind.name == "map" or kind.fields is not None or len(kind.name) == 1 else 0)

    def _list(self, node: ListLiteral) -> int:
        total, sizes = LIST_COST, (0 if not node.items else UNBOUNDED, 0)
        for each in node.items:
            total = _plus(total, self.cost(each))
            sizes = _union(sizes, self.size(each))
        self._entries[id(node)] = _Entry(True, _ONE, sizes)
        return total

    def _map(self, node: MapLiteral) -> int:
        least = 0 if not node.items else UNBOUNDED
        total, keys, values = MAP_COST, (least, 0), (least, 0)
        for key, value, _ in node.items:
            total = _plus(total, self.cost(key), self.cost(value))
            keys, values = _union(keys, self.size(key)), _union(values, self.size(value))
        self._entries[id(node)] = _Entry(False, keys, values)
        return total

    def _loop(self, node: Comprehension) -> int:
        """A macro over a collection, by what it is expanded to there."""
        total = self.cost(node.range)
        entry, place, listed = self._entry(node.range), self._place(node.range), node.range.type.name == "list"
        if entry is not None:
            listed = entry.listed
        first = _Local(self._below(place, "@indices" if listed else "@keys"), entry.key if entry else None)
        second = _Local(self._below(place, "@items" if listed else "@values"), entry.value if entry else None)
        scope = [first, second] if len(node.variables) == 2 else [second if listed else first]
        for name, local in zip(node.variables, scope, strict=True):
            self._locals.setdefault(name, []).append(local)
        where = self.cost(node.where) if node.where is not None else 0
        body = self.cost(node.body)
        made = self.size(node.body)
        for name in node.variables:
            self._locals[name].pop()
        count = self.size(node.range)
        start, step, end = _expanded(node, where, body)
        if node.macro in ("map", "filter", "transformList"):
            self._sizes[id(node)] = count
            value = made if node.macro != "filter" else scope[0].size or self._size_of(scope[0]) or _UNKNOWN
            self._entries[id(node)] = _Entry(True, _ONE, _union((0, 0), value))
        elif node.macro in ("transformMap", "transformMapEntry"):
            self._sizes[id(node)] = count
        return _plus(total, start, _times(count[1], step), end)

    def _size_of(self, local: _Local) -> Size | None:
        return local.place.size if local.place is not None else None

    def _bind(self, node: Bind) -> int:
        value = self.cost(node.value)
        if not node.optional:
            local = _Local(self._place(node.value), self._known(node.value), self._entry(node.value))
            return _plus(LIST_COST, value, self._bound(node, local))
        local = _Local(None, _ONE if _scalar(node.value.type) else None)
        inner = _plus(LIST_COST, value, 1, self._bound(node, local))
        return _plus(value, 1, max(inner + (node.optional == "optMap"), 1))

    def _bound(self, node: Bind, local: _Local) -> int:
        self._locals.setdefault(node.name, []).append(local)
        cost = self.cost(node.body)
        known, entry = self._known(node.body), self._entry(node.body)
        self._locals[node.name].pop()
        if known is not None:
            self._sizes[id(node)] = known
        if entry is not None:
            self._entries[id(node)] = entry
        return cost

    # Calls -----------------------------------------------------------------------------------------------------------

    def _call(self, node: Call) -> int:
        parts = ([node.target] if node.target is not None else []) + node.args
        inside = [self.cost(each) for each in parts]
        if node.function == "_?_:_":
            return self._choice(node, inside)
        if node.function in ("_&&_", "_||_"):
            return _plus(*inside)
        if node.function == "dyn":
            if (known := self._known(node.args[0])) is not None:
                self._sizes[id(node)] = known
            return _plus(inside[0], 1)
        if node.function in ("_[_]", "_[?_]"):
            operand, entry = node.args[0], self._entry(node.args[0])
            if node.function == "_[_]":
                self._places[id(node)] = self._below(self._place(operand), "@items")
            if entry is not None:
                self._sizes[id(node)] = entry.value
            return _plus(*inside, 1)
        own, size = self._priced(node)
        if size is not None:
            self._sizes[id(node)] = size
        return _plus(*inside, own)

    def _choice(self, node: Call, inside: Sequence[int]) -> int:
        _, good, bad = node.args
        self._sizes[id(node)] = _union(self.size(good), self.size(bad))
        entry = self._entry(good)
        if entry is not None and (joined := entry.union(self._entry(bad))) is not None:
            self._entries[id(node)] = joined
        return _plus(inside[0], max(inside[1:]))

    def _priced(self, node: Call) -> tuple[int, Size | None]:
        """A call's own cost, and the size of what it gives where that follows from its arguments."""
        name, target, args = node.function, node.target, node.args
        if name == "check":
            return _CHECK, None
        if name == "ip" and target is not None:
            return 1, None
        if name in _CHEAP:
            return 1, None
        if name in _READ and args:
            return _part(self.size(args[0])[1], _SCAN), None
        if target is not None and name in _LOOKED_THROUGH:
            return self._looked_through(target), None
        found = self._text(name, target, args) or self._pattern(name, target, args)
        found = found or self._collection(name, target, args) or self._operator(node)
        return found or (1, None)

    def _looked_through(self, target: Node) -> int:
        size = self.size(target)[1]
        if not target.type.params:
            return _part(size, _SCAN)
        item = 1
        if target.type.params[0].name in _TEXTS:
            item = _plus(1, _part(self._items(target)[1], _SCAN))
        return _times(size, item)

    def _text(self, name: str, target: Node | None, args: Sequence[Node]) -> tuple[int, Size | None] | None:
        if name in ("url", "jsonpatch.escapeKey") and len(args) == 1:
            size = self.size(args[0])
            return _part(size[1], _SCAN), size
        if name in ("fieldSelector", "labelSelector") and len(args) == 1:
            size = self.size(args[0])[1]
            return _plus(LIST_COST, _part(size, _SCAN), _times(_part(size, 0.5), LIST_COST + STRUCT_COST)), None
        if name in ("string", "bytes", "strings.quote") and len(args) == 1:
            least, most = self.size(args[0])
            if name == "strings.quote":
                return _part(most, _SCAN), (least + 2, _plus(_times(most, 2), 2))
            if args[0].type.name == ("bytes" if name == "string" else "string"):
                return _part(most, _SCAN), (least // 4, most) if name == "string" else (least, _times(most, 4))
        if target is None:
            return None
        size = self.size(target)
        if name == "format":
            return _part(size[1], _SCAN), None
        if name in ("lowerAscii", "upperAscii", "substring", "trim"):
            return _part(size[1], _SCAN), size
        if name == "replace" and len(args) >= 2:
            return _part(size[1], 2 * _SCAN), _replaced(size, self.size(args[0]), self.size(args[1]))
        if name == "split":
            most = size[1]
            if len(args) > 1 and isinstance(args[1], Literal) and type(args[1].value) is int:
                most = args[1].value % 2**64
            return _part(size[1], 2 * _SCAN), (0, most)
        if name == "join":
            return self._join(target, args)
        if name in ("startsWith", "endsWith") and len(args) == 1:
            return _part(self.size(args[0])[1], _SCAN), None
        return None

    def _join(self, target: Node, args: Sequence[Node]) -> tuple[int, Size | None]:
        count, item = self.size(target), self._items(target)
        size = (_times(count[0], item[0]), _times(count[1], item[1]))
        if args:
            between = self.size(args[0])
            more = (_times(between[0], max(0, count[0] - 1)), _times(between[1], max(0, count[1] - 1)))
            size = (_plus(size[0], more[0]), _plus(size[1], more[1]))
        return _part(size[1], _SCAN), size

    def _pattern(self, name: str, target: Node | None, args: Sequence[Node]) -> tuple[int, Size | None] | None:
        if name == "validate" and args:
            return _part(_part(self.size(args[0])[1], _SCAN), _FORMAT_PATTERN), None
        if target is None or not args:
            return None
        if name in ("find", "findAll", "matches"):
            most = self.size(target)[1]
            cost = _times(_part(_plus(most, 1), _SCAN), _part(self.size(args[0])[1], _PATTERN))
            return cost, None if name == "matches" else (0, most)
        if name == "contains":
            return _times(_part(self.size(target)[1], _SCAN), _part(self.size(args[0])[1], _SCAN)), None
        if name in ("containsIP", "containsCIDR"):
            cost = _part(2 * _ADDRESS, _SCAN) + (_part(_ADDRESS, _SCAN) + 1 if name == "containsCIDR" else 0)
            more = _part(self.size(args[0])[1], _SCAN) if args[0].type.name == "string" else 0
            return _plus(cost, more), None
        return None

    def _collection(self, name: str, target: Node | None, args: Sequence[Node]) -> tuple[int, Size | None] | None:
        if name in ("sets.contains", "sets.intersects", "sets.equivalent") and len(args) == 2:
            pairs = _times(self.size(args[0])[1], self.size(args[1])[1])
            return _plus(_times(pairs, 2 if name == "sets.equivalent" else 1), 1), None
        if name == "lists.range" and len(args) == 1:
            return _allocated(1, _whole(args[0], UNBOUNDED))
        if target is None or target.type.name != "list":
            return None
        most = self.size(target)[1]
        if name == "slice" and len(args) == 2:
            return _allocated(1, (_whole(args[1], most) - _whole(args[0], 0)) % 2**64)
        if name == "reverse":
            return _allocated(1, most, self.size(target)[0])
        if name == "flatten":
            return _allocated(_whole(args[0], UNBOUNDED) if args else 1, most, self.size(target)[0])
        if name in ("distinct", "sort"):
            text = name == "sort" and bool(target.type.params) and target.type.params[0].name in _TEXTS
            least = self.size(target)[0]
            return _allocated(2 + _SCAN * text, _times(most, most), _times(least, least))
        return None

    def _operator(self, node: Call) -> tuple[int, Size | None] | None:
        name, args = node.function, node.args
        if len(args) != 2 or node.target is not None:
            return None
        kinds = {each.type.name for each in args} - {"dyn"}
        one, other = self.size(args[0]), self.size(args[1])
        if name == "@in" and (not kinds or args[1].type.name in ("list", "dyn")):
            return max(other[1], 1 if args[1].type.name == "dyn" else 0), None
        if name == "_+_" and (not kinds or kinds & {*_TEXTS, "list"}):
            total = (_plus(one[0], other[0]), _plus(one[1], other[1]))
            entry = self._entry(args[0])
            if entry is not None and (joined := entry.union(self._entry(args[1]))) is not None:
                self._entries[id(node)] = joined
            if "list" in kinds:
                return 1, total
            return max(_part(total[1], _SCAN), 0 if kinds else 1), total
        if name in ("_==_", "_!=_"):
            if name == "_==_" and kinds <= _BY_ONE and len(kinds) == 1:
                return 1, None
            return _part(min(one[1], other[1]), _SCAN), None
        if name in _COMPARED and (not kinds or kinds & _TEXTS):
            return max(_part(min(one[1], other[1]), _SCAN), 0 if kinds else 1), None
        return None


_BY_ONE = {"net.IP", "net.CIDR", "kubernetes.Quantity", "kubernetes.Semver"}


def _scalar(kind: Type) -> bool:
    if kind.name == "optional_type" and kind.params:
        return _scalar(kind.params[0])
    return kind.name in _SCALARS


def _expanded(node: Comprehension, where: int, body: int) -> tuple[int, int, int]:
    """Before, in each round, and after: the costs of a macro's own steps. The collected variable costs one a look."""
    match node.macro:
        case "all":
            return 0, _plus(2, 1, body), 1
        case "exists":
            return 0, _plus(3, 1, body), 1
        case "exists_one" | "existsOne":
            return 0, _plus(body, 2), 2
        case "filter":
            return LIST_COST, _plus(body, 1 + 1 + LIST_COST + 1), 1
        case "map" | "transformList":
            added = _plus(1, 1, LIST_COST, body)
            return LIST_COST, _plus(where, added), 1
        case "transformMap":
            return MAP_COST, _plus(where, 1 + 1 + 1, body), 1
        case _:
            return MAP_COST, _plus(where, 1 + 1, body), 1


def _whole(node: Node, otherwise: int) -> int:
    return node.value if isinstance(node, Literal) and type(node.value) is int and node.value >= 0 else otherwise


def _allocated(factor: float, most: int, least: int | None = None) -> tuple[int, Size]:
    """A call that makes a list."""
    return _plus(_part(most, factor), LIST_COST, 1), (most if least is None else least, most)


def _replaced(size: Size, old: Size, new: Size) -> Size:
    """How large a text is after each of one kind is replaced by another."""
    if old[0] == 0:
        most, kept = min(UNBOUNDED, size[1] + 1), size[1]
    elif new[1] <= old[0]:
        most, kept = 0, size[1]
    else:
        most, kept = -(-size[1] // old[0]), 0
    if old[1] == 0:
        least, stays = min(UNBOUNDED, size[0] + 1), size[0]
    elif old[1] <= new[0]:
        least, stays = 0, size[0]
    else:
        least, stays = -(-size[0] // old[1]), 0
    return (_plus(_times(least, new[0]), stays), _plus(_times(most, new[1]), kept))
