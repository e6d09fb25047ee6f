"""Text to tokens. Source: cel-spec's langdef (syntax) and cel-go's grammar."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from steersman.api.cel.syntax import Issue
from steersman.api.cel.values import Uint

RESERVED = frozenset(
    {"as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package"}
    | {"namespace", "return", "var", "void", "while"}
)
WORDS = frozenset(("in", "true", "false", "null"))
"""Names that are tokens of their own."""
_TOKEN = re.compile(
    r"""(?P<skip>[ \t\r\n\f]+|//[^\n]*)
    |(?P<string>(?:[rR][bB]?|[bB][rR]?)?(?:\"{3}|'{3}|["']))
    |(?P<float>\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?)
    |(?P<int>(?:0[xX][0-9a-fA-F]+|\d+)[uU]?)
    |(?P<ident>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<quoted>`[a-zA-Z0-9_.\-/ ]+`)
    |(?P<op>==|!=|<=|>=|&&|\|\||[-+*/%<>!?:.,()\[\]{}])""",
    re.X,
)
_ESCAPE = re.compile(r"\\(?:x[0-9a-fA-F]{2}|X[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|.)", re.S)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "'": 39, '"': 34, "`": 96, "?": 63}


@dataclass(frozen=True, slots=True)
class Token:
    """`kind`: ident, quoted, literal, op or end."""

    kind: str
    text: str
    at: int
    value: Any = None


def tokens(source: str, issues: list[Issue]) -> list[Token]:
    """All tokens and an `end`; what is no token becomes an issue and is left out."""
    found: list[Token] = []
    at = 0
    while at < len(source):
        match = _TOKEN.match(source, at)
        if match is None:
            wrong = source[at : at + 2] if source[at] in "=&|" else source[at]
            issues.append(Issue(at, f"Syntax error: token recognition error at: '{wrong}'"))
            at += len(wrong)
            continue
        kind, text = str(match.lastgroup), match.group()
        if kind == "string":
            at, token = _string(source, at, text, issues)
            if token is not None:
                found.append(token)
            continue
        if kind == "int":
            found.append(Token("literal", text, at, _integer(text, at, issues)))
        elif kind == "float":
            value = float(text)
            if math.isinf(value):
                issues.append(Issue(at, "invalid double literal"))
            found.append(Token("literal", text, at, value))
        elif kind == "quoted":
            found.append(Token(kind, text, at, text[1:-1]))
        elif kind != "skip":
            found.append(Token(kind, text, at))
        at = match.end()
    found.append(Token("end", "<EOF>", len(source)))
    return found


def _integer(text: str, at: int, issues: list[Issue]) -> int:
    unsigned = text[-1] in "uU"
    digits = text[:-1] if unsigned else text
    hexadecimal = digits[:2] in ("0x", "0X")
    if len(digits) > 40:
        issues.append(Issue(at, "invalid int literal"))
        return 0
    value = int(digits, 16 if hexadecimal else 10)
    if unsigned:
        if value > 2**64 - 1:
            issues.append(Issue(at, "invalid uint literal"))
        return Uint(value)
    if value > 2**63:  # 2**63 itself is good behind a minus; the parser looks
        issues.append(Issue(at, "invalid int literal"))
    return value


def _string(source: str, at: int, opening: str, issues: list[Issue]) -> tuple[int, Token | None]:
    """A string from `at` on, and where it ends. One that does not end is none, but it may begin with one."""
    quote = opening.lstrip("rRbB")
    prefix = opening[: -len(quote)].lower()
    start = here = at + len(opening)
    while not source.startswith(quote, here):
        step = 1
        if here < len(source) and source[here] == "\\" and "r" not in prefix:
            escape = _ESCAPE.match(source, here)
            step = len(escape[0]) if escape and _known(escape[0]) else 0
        if here >= len(source) or (len(quote) == 1 and source[here] in "\r\n") or not step:
            return _unended(source, at, opening, here + (0 if here >= len(source) else 1 + (not step)), issues)
        here += step
    body, end = source[start:here], here + len(quote)
    value: str | bytes = body
    if "b" in prefix:
        value = body.encode() if "r" in prefix else _unescape_bytes(body, at, issues)
    elif "r" not in prefix and "\\" in body:
        value = _ESCAPE.sub(lambda found: _character(found.group(), at, issues), body)
    return end, Token("literal", source[at:end], at, value)


def _unended(source: str, at: int, opening: str, stop: int, issues: list[Issue]) -> tuple[int, Token | None]:
    quote = opening.lstrip("rRbB")
    prefix = opening[: -len(quote)]
    if len(quote) == 3:  # an empty string, and one that does not end
        value: str | bytes = b"" if "b" in prefix.lower() else ""
        return at + len(prefix) + 2, Token("literal", source[at : at + len(prefix) + 2], at, value)
    if prefix:
        return at + len(prefix), Token("ident", prefix, at)
    issues.append(Issue(at, f"Syntax error: token recognition error at: '{_plain(source[at:stop])}'"))
    return stop, None


def _plain(text: str) -> str:
    return text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")


def _known(escape: str) -> bool:
    return len(escape) > 2 or escape[1] in _SIMPLE


def _code(text: str, at: int, issues: list[Issue]) -> int:
    if len(text) == 2 and text[1] in _SIMPLE:
        return _SIMPLE[text[1]]
    if len(text) > 2:
        return int(text[1:], 8) if text[1].isdigit() else int(text[2:], 16)
    issues.append(Issue(at, "Syntax error: unable to unescape string"))
    return 0


def _character(text: str, at: int, issues: list[Issue]) -> str:
    code = _code(text, at, issues)
    if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        issues.append(Issue(at, "Syntax error: invalid unicode code point"))
        return ""
    return chr(code)


def _unescape_bytes(body: str, at: int, issues: list[Issue]) -> bytes:
    out, last = bytearray(), 0
    for found in _ESCAPE.finditer(body):
        out += body[last : found.start()].encode()
        code = _code(found.group(), at, issues)
        out += chr(code).encode() if found.group()[1] in "uU" and code < 0xD800 else bytes([code & 255])
        last = found.end()
    return bytes(out + body[last:].encode())
