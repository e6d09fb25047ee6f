"""Variables and words in a Dockerfile: `$NAME`, `${NAME:-default}`, quotes and escapes.

Owns expansion as the Dockerfile reference defines it, which is less than a shell's. Pure. Called by `builder`.
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.engine.images.build.dockerfile import DockerfileError

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def expand(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """One word or line with variables replaced and quotes taken away. Raises DockerfileError."""
    return _Scanner(text, variables, escape).line()


def words(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """Text split at spaces outside of quotes, each word expanded. Raises DockerfileError."""
    return _Scanner(text, variables, escape).words()


def unquoted(text: str, variables: Mapping[str, str]) -> str:
    """Variables replaced, quotes kept: for embedded files."""
    return _Scanner(text, variables, "\\", quotes=False).line()


def pairs(text: str, variables: Mapping[str, str], escape: str, keyword: str) -> list[tuple[str, str]]:
    """`name=value name="other value"`, or the old `name rest of the line`. Raises DockerfileError."""
    first = text.split(None, 1)
    if "=" not in first[0]:
        if len(first) < 2:
            raise DockerfileError(f"{keyword} must have two arguments")
        return [(expand(first[0], variables, escape), expand(first[1], variables, escape))]
    out: list[tuple[str, str]] = []
    for word in words(text, variables, escape):
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        if not name:
            raise DockerfileError(f"{keyword} names can not be blank")
        out.append((name, value))
    return out


class _Scanner:
    """Walks a text once."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str, *, quotes: bool = True) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._quotes = quotes

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        self._at += 1
        return self._text[self._at - 1]

    def line(self) -> str:
        """Everything, spaces too."""
        return self._until("")

    def words(self) -> list[str]:
        """Split at unquoted spaces."""
        out: list[str] = []
        while self._at < len(self._text):
            if self._peek().isspace():
                self._at += 1
                continue
            out.append(self._until(" \t\n"))
        return out

    def _until(self, stops: str) -> str:
        out: list[str] = []
        while self._at < len(self._text) and (not stops or self._peek() not in stops):
            char = self._take()
            if char == self._escape and self._at < len(self._text):
                following = self._take()
                out.append(following if self._quotes or following in (self._escape, "$") else char + following)
            elif char == "'" and self._quotes:
                out.append(self._single())
            elif char == '"' and self._quotes:
                out.append(self._double())
            elif char == "$":
                out.append(self._variable())
            else:
                out.append(char)
        return "".join(out)

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise DockerfileError("unexpected end of statement while looking for matching single-quote")
        out, self._at = self._text[self._at : end], end + 1
        return out

    def _double(self) -> str:
        out: list[str] = []
        while self._at < len(self._text):
            char = self._take()
            if char == '"':
                return "".join(out)
            if char == "$":
                out.append(self._variable())
            elif char == self._escape and self._peek() and self._peek() in ('"', "$", self._escape):
                out.append(self._take())
            else:
                out.append(char)
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def _variable(self) -> str:
        if self._peek() == "{":
            self._at += 1
            return self._braced()
        name = self._name()
        return self._variables.get(name, "") if name else "$"

    def _name(self) -> str:
        start = self._at
        if self._peek().isdigit():
            self._at += 1
        else:
            while self._at < len(self._text) and self._text[self._at] in _NAME:
                self._at += 1
        return self._text[start : self._at]

    def _braced(self) -> str:
        name = self._name()
        if not name:
            raise DockerfileError("syntax error: bad substitution")
        if self._peek() == "}":
            self._at += 1
            return self._variables.get(name, "")
        colon = self._peek() == ":"
        self._at += colon
        kind = self._take() if self._at < len(self._text) else ""
        if kind not in ("-", "+", "?"):
            raise DockerfileError(f"unsupported modifier ({kind}) in substitution")
        word = self._until("}")
        if self._peek() != "}":
            raise DockerfileError("syntax error: missing '}'")
        self._at += 1
        value = self._variables.get(name)
        there = bool(value) if colon else value is not None
        if kind == "-":
            return value or "" if there else word
        if kind == "+":
            return word if there else ""
        if not there:
            raise DockerfileError(f"{name}: {word or 'not allowed to be unset'}")
        return value or ""
