"""What cel-go's parser says of a text that is no expression: its complaints, and how it goes on after each.

Owns the grammar once more, as ANTLR runs it: each rule looks at the next token, complains, and leaves out or imagines a
token, or skips to what may follow. Called by `parser` when it has failed; makes no tree. Pure. Source: cel-go's CEL.g4;
ANTLR's DefaultErrorStrategy (the names of its steps are kept).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from steersman.api.cel.lexer import Token
from steersman.api.cel.syntax import Issue

_LITERALS = (
    "'=='", "'!='", "'in'", "'<'", "'<='", "'>='", "'>'", "'&&'", "'||'", "'['", "']'", "'{'", "'}'", "'('", "')'",
    "'.'", "','", "'-'", "'!'", "'?'", "':'", "'+'", "'*'", "'/'", "'%'", "'true'", "'false'", "'null'", "NUM_FLOAT",
    "NUM_INT", "NUM_UINT", "STRING", "BYTES", "IDENTIFIER", "ESC_IDENTIFIER",
)  # fmt: skip
_ORDER = {name: at for at, name in enumerate(("<EOF>", *_LITERALS))}
_MOST = 30  # recoveries, after which cel-go gives up
_END, _RULE_END = "<EOF>", ""
_NUMBERS = {"NUM_INT", "NUM_FLOAT"}
_PRIMARY = {
    "'['", "'{'", "'('", "'.'", "'-'", "'true'", "'false'", "'null'", "NUM_FLOAT", "NUM_INT", "NUM_UINT", "STRING",
    "BYTES", "IDENTIFIER",
}  # fmt: skip
_EXPR = _PRIMARY | {"'!'"}
_RELATIONS = {"'<'", "'<='", "'>='", "'>'", "'=='", "'!='", "'in'"}
_SUMS = {"'*'", "'/'", "'%'", "'+'", "'-'"}
_Set = set[str]


class _Failed(Exception):
    """A rule that cannot go on: it was told of, or is to be."""

    def __init__(self, at: int, text: str) -> None:
        super().__init__(text)
        self.at, self.text = at, text


class _GiveUp(Exception):
    pass


def kind_of(token: Token) -> str:
    """A token's name in the grammar."""
    if token.kind == "end":
        return _END
    if token.kind == "quoted":
        return "ESC_IDENTIFIER"
    if token.kind == "literal":
        if isinstance(token.value, (str, bytes)):
            return "BYTES" if isinstance(token.value, bytes) else "STRING"
        return "NUM_FLOAT" if isinstance(token.value, float) else "NUM_UINT" if token.text[-1] in "uU" else "NUM_INT"
    if token.kind == "op" or token.text in ("in", "true", "false", "null"):
        return f"'{token.text}'"
    return "IDENTIFIER"


def complaints(source: str, tokens: Sequence[Token]) -> list[Issue]:
    """Every complaint about the syntax, as far as recovery leads."""
    found = _Recovery(source, tokens)
    with suppress(_GiveUp):
        found.start()
    return found.issues


class _Recovery:
    def __init__(self, source: str, tokens: Sequence[Token]) -> None:
        self.issues: list[Issue] = []
        self._source = source
        self._tokens = tokens
        self._kinds = [kind_of(token) for token in tokens]
        self._next = 0
        self._quiet = False  # ANTLR's error recovery mode: one mistake is told once
        self._last = -1
        self._attempts = 0
        self._follow: list[_Set] = []  # what may come after each rule that runs, its end included

    # What ANTLR's parser and error strategy do ---------------------------------------------------------------------

    def _la(self, ahead: int = 1) -> str:
        return self._kinds[min(self._next + ahead - 1, len(self._kinds) - 1)]

    def _consume(self) -> None:
        self._next = min(self._next + 1, len(self._kinds) - 1)

    def _expected(self, here: _Set) -> _Set:
        """What may come next, looking out of rules that may end."""
        found = set(here)
        for outer in reversed(self._follow):
            if _RULE_END not in found:
                break
            found = (found - {_RULE_END}) | outer
        return (found - {_RULE_END}) | ({_END} if _RULE_END in found else set())

    def _shown(self, expected: _Set) -> str:
        names = sorted(expected, key=lambda each: _ORDER[each])
        return names[0] if len(names) == 1 else f"{{{', '.join(names)}}}"

    def _display(self) -> str:
        return f"'{self._tokens[self._next].text}'"

    def _tell(self, at: int, text: str) -> None:
        if not self._quiet:
            self._quiet = True
            self.issues.append(Issue(at, f"Syntax error: {text}"))

    def _unwanted(self, expected: _Set) -> None:
        self._tell(self._tokens[self._next].at, f"extraneous input {self._display()} expecting {self._shown(expected)}")

    def _mismatch(self, expected: _Set) -> _Failed:
        text = f"mismatched input {self._display()} expecting {self._shown(expected)}"
        return _Failed(self._tokens[self._next].at, text)

    def _no_way(self, ahead: int) -> _Failed:
        """No alternative fits the tokens from here to the one `ahead`."""
        last = self._tokens[min(self._next + ahead - 1, len(self._tokens) - 1)]
        start = self._tokens[self._next].at
        end = last.at if last.kind == "end" else last.at + len(last.text)
        text = self._source[start:end].rstrip() if last.kind == "end" else self._source[start:end]
        text = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
        return _Failed(last.at, f"no viable alternative at input '{text}'")

    def _attempt(self) -> None:
        if self._attempts == _MOST:
            raise _GiveUp
        self._attempts += 1

    def _delete_one(self, expected: _Set) -> bool:
        """SingleTokenDeletion: the next token is one too many."""
        if self._la(2) not in expected:
            return False
        self._unwanted(expected)
        self._consume()
        self._quiet = False
        return True

    def _sync(self, here: _Set) -> None:
        """Before a choice: what comes must be one of `here`, or what follows where the rule may end."""
        if self._quiet or self._la() in here or _RULE_END in here:
            return
        expected = self._expected(here)
        if not self._delete_one(expected):
            raise self._mismatch(expected)

    def _match(self, kind: str, after: _Set) -> None:
        """One token; `after`: what may come when it has come."""
        if self._la() == kind:
            self._quiet = False
            self._consume()
            return
        self._attempt()
        if self._delete_one({kind}):
            self._consume()
        elif self._la() in self._expected(after):
            self._tell(self._tokens[self._next].at, f"missing {kind} at {self._display()}")
        else:
            raise self._mismatch({kind})

    def _rule(self, body: Callable[[], None], follow: _Set) -> None:
        """Run a rule after which `follow` may come; one that fails skips to what may come after any that runs."""
        self._follow.append(follow)
        try:
            body()
        except _Failed as error:
            self._tell(error.at, error.text)
            self._recover()
        finally:
            self._follow.pop()

    def _recover(self) -> None:
        self._attempt()
        if self._last == self._next:
            self._consume()
        self._last = self._next
        until = set().union(*self._follow) - {_RULE_END}
        while self._la() not in until and self._la() != _END:
            self._consume()

    # The grammar ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """expr EOF."""
        self._rule(self._start, set())

    def _start(self) -> None:
        self._rule(self._expr, {_END})
        self._match(_END, {_RULE_END})

    def _expr(self) -> None:
        self._rule(self._or, {"'?'", _RULE_END})
        if self._la() == "'?'":
            self._match("'?'", _EXPR)
            self._rule(self._or, {"':'"})
            self._match("':'", _EXPR)
            self._rule(self._expr, {_RULE_END})

    def _repeated(self, inner: Callable[[], None], marks: _Set) -> None:
        self._rule(inner, marks | {_RULE_END})
        while self._la() in marks:
            self._quiet = False
            self._consume()
            self._rule(inner, marks | {_RULE_END})

    def _or(self) -> None:
        self._repeated(self._and, {"'||'"})

    def _and(self) -> None:
        self._repeated(self._relation, {"'&&'"})

    def _relation(self) -> None:
        self._repeated(self._calc, _RELATIONS)

    def _calc(self) -> None:
        self._repeated(self._unary, _SUMS)

    def _unary(self) -> None:
        self._sync(_EXPR)
        kind = self._la()
        if kind == "'-'" and self._la(2) not in _NUMBERS | _PRIMARY:
            raise self._no_way(2)
        if kind == "'!'" or (kind == "'-'" and self._la(2) not in _NUMBERS):
            while self._la() == kind and not (kind == "'-'" and self._la(2) in _NUMBERS):
                self._match(kind, _PRIMARY | {kind})
                if not self._quiet and self._la() not in _PRIMARY | {kind}:
                    expected = _PRIMARY | {kind}
                    self._unwanted(expected)
                    until = expected.union(*self._follow) - {_RULE_END}
                    while self._la() not in until and self._la() != _END:
                        self._consume()
        self._rule(self._member, {_RULE_END})

    def _member(self) -> None:
        more = {"'.'", "'['", _RULE_END}
        self._rule(self._primary, more)
        while self._la() in more:
            if self._la() == "'['":
                self._match("'['", _EXPR | {"'?'"})
                self._optional(_EXPR)
                self._rule(self._expr, {"']'"})
                self._match("']'", more)
                continue
            if self._la(2) not in ("IDENTIFIER", "ESC_IDENTIFIER", "'?'"):
                raise self._no_way(2)
            call = self._la(2) == "IDENTIFIER" and self._la(3) == "'('"
            self._match("'.'", {"IDENTIFIER", "ESC_IDENTIFIER", "'?'"})
            if call:
                self._match("IDENTIFIER", {"'('"})
                self._arguments(more)
                continue
            self._optional({"IDENTIFIER", "ESC_IDENTIFIER"})
            self._rule(self._name, more)

    def _optional(self, then: _Set) -> None:
        self._sync(then | {"'?'"})
        if self._la() == "'?'":
            self._match("'?'", then)

    def _name(self) -> None:
        self._sync({"IDENTIFIER", "ESC_IDENTIFIER"})
        if self._la() not in ("IDENTIFIER", "ESC_IDENTIFIER"):
            raise self._no_way(1)
        self._match(self._la(), {_RULE_END})

    def _arguments(self, after: _Set) -> None:
        self._match("'('", _EXPR | {"')'"})
        self._sync(_EXPR | {"')'"})
        if self._la() in _EXPR:
            self._rule(self._list, {"')'"})
        self._match("')'", after)

    def _list(self) -> None:
        self._repeated(self._expr, {"','"})

    def _primary(self) -> None:
        self._sync(_PRIMARY)
        kind = self._la()
        if kind in ("'.'", "IDENTIFIER"):
            self._named()
        elif kind == "'('":
            self._match("'('", _EXPR)
            self._rule(self._expr, {"')'"})
            self._match("')'", {_RULE_END})
        elif kind == "'['":
            self._items("'['", "']'", self._option)
        elif kind == "'{'":
            self._items("'{'", "'}'", self._pair)
        elif kind in _PRIMARY:
            self._rule(self._literal, {_RULE_END})
        else:
            raise self._no_way(1)

    def _named(self) -> None:
        at = 2 if self._la() == "'.'" else 1
        if self._la(at) != "IDENTIFIER":
            raise self._no_way(at)
        end = at + 1
        while self._la(end) == "'.'" and self._la(end + 1) == "IDENTIFIER":
            end += 2
        if at == 2:
            self._match("'.'", {"IDENTIFIER"})
        if self._la(end - at + 1) == "'{'":
            while self._la() != "'{'":
                self._match(self._la(), {"'.'", "'{'", "IDENTIFIER"})
            self._items("'{'", "'}'", self._field)
            return
        self._match("IDENTIFIER", {"'('", _RULE_END})
        if self._la() == "'('":
            self._arguments({_RULE_END})

    def _items(self, opening: str, closing: str, item: Callable[[], None]) -> None:
        first = {"IDENTIFIER", "ESC_IDENTIFIER", "'?'"} if item == self._field else _EXPR | {"'?'"}
        self._match(opening, first | {"','", closing})
        self._sync(first | {"','", closing})
        if self._la() in first:
            self._rule(lambda: self._several(item, first), {"','", closing})
        self._sync({"','", closing})
        if self._la() == "','":
            self._match("','", {closing})
        self._match(closing, {_RULE_END})

    def _several(self, item: Callable[[], None], first: _Set) -> None:
        item()
        while self._la() == "','" and self._la(2) in first:
            self._match("','", first)
            item()

    def _option(self) -> None:
        self._rule(self._optional_expr, {"','", _RULE_END})

    def _optional_expr(self) -> None:
        self._optional(_EXPR)
        self._rule(self._expr, {_RULE_END})

    def _pair(self) -> None:
        self._rule(self._optional_expr, {"':'"})
        self._match("':'", _EXPR)
        self._rule(self._expr, {"','", _RULE_END})

    def _field(self) -> None:
        self._rule(self._optional_name, {"':'"})
        self._match("':'", _EXPR)
        self._rule(self._expr, {"','", _RULE_END})

    def _optional_name(self) -> None:
        self._optional({"IDENTIFIER", "ESC_IDENTIFIER"})
        self._rule(self._name, {_RULE_END})

    def _literal(self) -> None:
        if self._la() == "'-'":
            if self._la(2) not in _NUMBERS:
                raise self._no_way(2)
            self._match("'-'", _NUMBERS)
        self._match(self._la(), {_RULE_END})
