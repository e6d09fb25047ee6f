"""Tokens to a tree, macros expanded. Depth and length are bounded: a hostile text gets an error, not a deep stack.

Source: cel-go's parser (grammar, macros, limits: 250 deep in cel-go; 100,000 code points).
"""

from __future__ import annotations

from collections.abc import Sequence

from steersman.api.cel import lexer, recovery
from steersman.api.cel.syntax import (
    Bind,
    Call,
    CompileError,
    Comprehension,
    Ident,
    Issue,
    ListLiteral,
    Literal,
    MapLiteral,
    Node,
    Select,
    StructLiteral,
)

MOST_CHARACTERS = 100_000
MOST_DEPTH = 60  # of brackets and operators within one another: each is some ten frames of this parser
_MOST_CHAIN = 400  # steps of one chain: a + b + ..., a.b.c...: each is a frame of the evaluator
_RELATIONS = ("==", "!=", "<", "<=", ">", ">=", "in")
_OPERATORS = {"+": "_+_", "-": "_-_", "*": "_*_", "/": "_/_", "%": "_%_"} | {op: f"_{op}_" for op in _RELATIONS}
_LOOPS = ("all", "exists", "exists_one", "existsOne", "filter", "map")
_SORTED = "@__sortBy_input__"
_LOOPS_OF_TWO = ("all", "exists", "exists_one", "existsOne", "transformList", "transformMap", "transformMapEntry")


def parse(source: str, *, bindings: bool = False) -> Node:
    """The tree; with `bindings`, cel.bind is a macro. Raises CompileError."""
    if len(source) > MOST_CHARACTERS:
        text = f"expression code point size exceeds limit: size: {len(source)}, limit {MOST_CHARACTERS}"
        raise CompileError("", [Issue(0, text)])
    issues: list[Issue] = []
    tokens = lexer.tokens(source, issues)
    found = _Parser(tokens, issues, bindings=bindings)
    try:
        tree = found.expression()
        if found.here.kind != "end":
            raise _Stop
    except _Stop:
        tree = Literal(0, None)
        if not found.too_deep:
            issues += recovery.complaints(source, tokens)
    if issues:
        raise CompileError(source, issues)
    return tree


class _Stop(Exception):
    """Here is no expression; `recovery` says why."""


class _Parser:
    def __init__(self, tokens: list[lexer.Token], issues: list[Issue], *, bindings: bool) -> None:
        self._tokens = tokens
        self._issues = issues
        self._bindings = bindings
        self._next = 0
        self._depth = 0
        self.too_deep = False

    @property
    def here(self) -> lexer.Token:
        """The token that is looked at."""
        return self._tokens[self._next]

    def _note(self, at: int, text: str) -> None:
        """Something is wrong that is no matter of syntax: what comes next is looked at all the same."""
        self._issues.append(Issue(at, text))

    def _deeper(self) -> None:
        self.too_deep = True
        self._note(self.here.at, "expression recursion limit exceeded: 250")
        raise _Stop

    def _take(self, *texts: str) -> lexer.Token | None:
        token = self.here
        if token.text in texts and token.kind in ("op", "ident"):
            self._next += 1
            return token
        return None

    def _expect(self, text: str) -> lexer.Token:
        token = self._take(text)
        if token is None:
            raise _Stop
        return token

    def expression(self) -> Node:
        """condition ? a : b."""
        self._depth += 1
        if self._depth > MOST_DEPTH:
            self._deeper()
        chosen = self._or()
        if mark := self._take("?"):
            good = self._or()
            self._expect(":")
            chosen = Call(mark.at, "_?_:_", None, [chosen, good, self.expression()])
        self._depth -= 1
        return chosen

    def _balance(self, function: str, parts: list[Node], places: list[int]) -> Node:
        """a || b || c as a tree that is not deep."""
        if len(parts) == 1:
            return parts[0]
        middle = (len(parts) + 1) // 2
        left = self._balance(function, parts[:middle], places[: middle - 1])
        right = self._balance(function, parts[middle:], places[middle:])
        return Call(places[middle - 1], function, None, [left, right])

    def _or(self) -> Node:
        parts, places = [self._and()], []
        while mark := self._take("||"):
            places.append(mark.at)
            parts.append(self._and())
        return self._balance("_||_", parts, places)

    def _and(self) -> Node:
        parts, places = [self._relation()], []
        while mark := self._take("&&"):
            places.append(mark.at)
            parts.append(self._relation())
        return self._balance("_&&_", parts, places)

    def _chain(self, step: int) -> None:
        if step > _MOST_CHAIN:
            self._deeper()

    def _relation(self) -> Node:
        left, step = self._sum(), 0
        while mark := self._take(*_RELATIONS):
            self._chain(step := step + 1)
            name = "@in" if mark.text == "in" else _OPERATORS[mark.text]
            left = Call(mark.at, name, None, [left, self._sum()])
        return left

    def _sum(self) -> Node:
        left, step = self._product(), 0
        while mark := self._take("+", "-"):
            self._chain(step := step + 1)
            left = Call(mark.at, _OPERATORS[mark.text], None, [left, self._product()])
        return left

    def _product(self) -> Node:
        left, step = self._unary(), 0
        while mark := self._take("*", "/", "%"):
            self._chain(step := step + 1)
            left = Call(mark.at, _OPERATORS[mark.text], None, [left, self._unary()])
        return left

    def _unary(self) -> Node:
        marks: list[lexer.Token] = []
        while mark := self._take("!", "-"):
            if marks and marks[0].text != mark.text:
                raise _Stop
            marks.append(mark)
        token = self.here
        number = token.kind == "literal" and type(token.value) in (int, float)
        if marks and marks[0].text == "-" and number:
            marks.pop()
            self._next += 1
            found = self._members(Literal(token.at, -token.value))
        else:
            if number and token.value == 2**63 and type(token.value) is int:
                self._note(token.at, "invalid int literal")
            found = self._members(self._primary())
        if len(marks) % 2:
            found = Call(marks[0].at, f"{marks[0].text}_", None, [found])
        return found

    def _members(self, found: Node) -> Node:
        step = 0
        while mark := self._take(".", "["):
            self._chain(step := step + 1)
            optional = self._take("?") is not None
            if mark.text == "[":
                index = self.expression()
                self._expect("]")
                found = Call(mark.at, "_[?_]" if optional else "_[_]", None, [found, index])
                continue
            token = self.here
            if token.kind not in ("ident", "quoted") or token.text in lexer.WORDS:
                raise _Stop
            if token.kind == "quoted":
                self._note(token.at, "unsupported syntax: '`'")
            self._next += 1
            name = str(token.value if token.kind == "quoted" else token.text)
            if token.kind == "ident" and not optional and self.here.text == "(" and self.here.kind == "op":
                opening = self.here.at
                self._next += 1
                found = self._method(opening, found, name, self._list(")"))
            elif self.here.text == "{" and self.here.kind == "op" and (whole := dotted(found)):
                found = self._struct(f"{whole}.{name}")
            else:
                found = Select(mark.at, found, name, optional=optional)
        return found

    def _list(self, closing: str) -> list[Node]:
        items: list[Node] = []
        while not self._take(closing):
            if items:
                self._expect(",")
            items.append(self.expression())
        return items

    def _primary(self) -> Node:
        token = self.here
        if token.kind == "literal":
            self._next += 1
            return Literal(token.at, token.value)
        if token.kind == "ident" or (token.text == "." and token.kind == "op"):
            return self._name(token)
        if self._take("("):
            inner = self.expression()
            self._expect(")")
            return inner
        if self._take("["):
            return self._list_literal(token.at)
        if self._take("{"):
            return self._map_literal(token.at)
        raise _Stop

    def _name(self, token: lexer.Token) -> Node:
        leading = self._take(".")
        token = self.here
        if token.kind != "ident" or token.text == "in":
            raise _Stop
        self._next += 1
        name = token.text
        constants = {"true": True, "false": False, "null": None}
        if name in constants:
            if leading:
                raise _Stop
            return Literal(token.at, constants[name])
        if name in lexer.RESERVED:
            self._note(token.at, f"reserved identifier: {name}")
        if self.here.kind == "op" and self.here.text == "(":
            opening = self.here.at
            self._next += 1
            return self._function(opening, name, self._list(")"))
        if self.here.kind == "op" and self.here.text == "{":
            return self._struct(name)
        return Ident(token.at, name)

    def _closed(self, items: Sequence[object], closing: str) -> bool:
        """Whether a list ends here, perhaps after a last comma; else the comma before the next item is taken."""
        if self._take(closing):
            return True
        if items:
            self._expect(",")
        elif not self._take(","):
            return False
        else:
            self._expect(closing)
            return True
        return self._take(closing) is not None

    def _list_literal(self, at: int) -> Node:
        items: list[Node] = []
        optional: set[int] = set()
        while not self._closed(items, "]"):
            if self._take("?"):
                optional.add(len(items))
            items.append(self.expression())
        return ListLiteral(at, items, frozenset(optional))

    def _map_literal(self, at: int) -> Node:
        items: list[tuple[Node, Node, bool]] = []
        while not self._closed(items, "}"):
            optional = self._take("?") is not None
            key = self.expression()
            self._expect(":")
            items.append((key, self.expression(), optional))
        return MapLiteral(at, items)

    def _struct(self, name: str) -> Node:
        at = self._expect("{").at
        items: list[tuple[str, Node, bool, int]] = []
        while not self._closed(items, "}"):
            optional = self._take("?") is not None
            token = self.here
            if token.kind not in ("ident", "quoted") or token.text in lexer.WORDS:
                raise _Stop
            if token.kind == "quoted":
                self._note(token.at, "unsupported syntax: '`'")
            self._next += 1
            colon = self._expect(":").at
            items.append((str(token.value or token.text), self.expression(), optional, colon))
        return StructLiteral(at, name, items)

    def _function(self, at: int, name: str, args: list[Node]) -> Node:
        if name == "has" and len(args) == 1:
            if isinstance(args[0], Select) and not args[0].test:
                return Select(at, args[0].operand, args[0].name, test=True)
            self._note(args[0].at, "invalid argument to has() macro")
        return Call(at, name, None, args)

    def _method(self, at: int, target: Node, name: str, args: list[Node]) -> Node:
        if name in _LOOPS and (len(args) == 2 or (name == "map" and len(args) == 3)):
            where = args[1] if name == "map" and len(args) == 3 else None
            return Comprehension(at, name, target, (self._variable(args[0]),), where, args[-1])
        if name in _LOOPS_OF_TWO and (len(args) == 3 or (name.startswith("transform") and len(args) == 4)):
            variables = (self._variable(args[0]), self._variable(args[1]))
            return Comprehension(at, name, target, variables, args[2] if len(args) == 4 else None, args[-1])
        if self._bindings and name == "bind" and len(args) == 3 and isinstance(target, Ident) and target.name == "cel":
            return Bind(at, self._variable(args[0]), args[1], args[2])
        if name in ("optMap", "optFlatMap") and len(args) == 2:
            return Bind(at, self._variable(args[0]), target, args[1], name)
        if name == "sortBy" and len(args) == 2:
            keys = Comprehension(at, "map", Ident(at, _SORTED), (self._variable(args[0]),), None, args[1])
            return Bind(at, _SORTED, target, Call(at, "@sortByAssociatedKeys", Ident(at, _SORTED), [keys]))
        return Call(at, name, target, args)

    def _variable(self, node: Node) -> str:
        if not isinstance(node, Ident):
            self._note(node.at, "argument must be a simple name")
            return ""
        return node.name


def dotted(node: Node) -> str:
    """`a.b.c`, or nothing when it is not such a chain of names."""
    names: list[str] = []
    while isinstance(node, Select) and not node.test and not node.optional:
        names.append(node.name)
        node = node.operand
    if not isinstance(node, Ident):
        return ""
    return ".".join([node.name, *reversed(names)])
