"""The extended string functions and format. Source: cel-go's ext/strings (version 2) and its formatting rules."""

from __future__ import annotations

import re
from typing import Any

from steersman.api.cel.functions import Overload, define, product, scan
from steersman.api.cel.operators import text
from steersman.api.cel.syntax import CelError
from steersman.api.cel.values import Duration, Timestamp, TypeValue, number_text, type_name

_CLAUSE = re.compile(r"%(?:%|(?:\.(\d+))?([sdfebxXo]))")
_MOST_PRECISION = 1000
_SPACES = " \t\n\v\f\r\x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"


def _ascii(change: Any) -> Any:
    return lambda value: "".join(change(each) if each.isascii() else each for each in value)


def _char(value: str, at: int) -> str:
    if not 0 <= at <= len(value):
        raise CelError(f"index out of range: {at}")
    return value[at : at + 1]


def _index(value: str, wanted: str, start: int = 0) -> int:
    if start < 0:
        raise CelError(f"index out of range: {start}")
    return value.find(wanted, start)


def _last_index(value: str, wanted: str, start: int | None = None) -> int:
    if start is None:
        return value.rfind(wanted)
    if not 0 <= start <= len(value):
        raise CelError(f"index out of range: {start}")
    return value.rfind(wanted, 0, start + len(wanted))


def _replace(value: str, old: str, new: str, most: int = -1) -> str:
    return value.replace(old, new, most if most >= 0 else -1)


def _split(value: str, at: str, most: int = -1) -> list[str]:
    if most == 0:
        return []
    if not at:
        parts = list(value)
        return parts if most < 0 or len(parts) <= most else [*parts[: most - 1], "".join(parts[most - 1 :])]
    return value.split(at, most - 1 if most > 0 else -1)


def _substring(value: str, start: int, end: int | None = None) -> str:
    last = len(value) if end is None else end
    if not 0 <= start <= len(value):
        raise CelError(f"index out of range: {start}")
    if not 0 <= last <= len(value):
        raise CelError(f"index out of range: {last}")
    if start > last:
        raise CelError(f"invalid substring range. start: {start}, end: {last}")
    return value[start:last]


def _join(values: list[Any], between: str = "") -> str:
    if not all(isinstance(each, str) for each in values):
        raise CelError("no such overload")
    return between.join(values)


def _quote(value: str) -> str:
    shown = {"\a": r"\a", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v", "\\": r"\\"}
    return '"' + "".join({**shown, '"': r"\""}.get(each, each) for each in value) + '"'


def _formatted(pattern: str, args: list[Any]) -> str:
    at, last, out = 0, 0, []
    for found in _CLAUSE.finditer(pattern):
        _literal(out, pattern[last : found.start()])
        last = found.end()
        if found[0] == "%%":
            out.append("%")
            continue
        if at >= len(args):
            raise CelError(f"index {at} out of range")
        out.append(_clause(found[2], found[1], args[at]))
        at += 1
    _literal(out, pattern[last:])
    return "".join(out)


def _literal(out: list[str], part: str) -> None:
    if "%" in part:
        clause = part[part.index("%") + 1 : part.index("%") + 2]
        raise CelError(f'could not parse formatting clause: unrecognized formatting clause "{clause}"')
    out.append(part)


def _clause(verb: str, precision: str | None, value: Any) -> str:
    places = int((precision or "6")[:5])
    if places > _MOST_PRECISION:
        raise CelError(f"precision must not exceed {_MOST_PRECISION}")
    whole = isinstance(value, int) and not isinstance(value, bool)
    if verb == "s":
        return shown(value)
    if verb == "d" and (whole or isinstance(value, float)):
        return text(value)
    if verb in "fe" and (whole or isinstance(value, float)):
        return f"{value:.{places}{verb}}"
    if verb == "b" and isinstance(value, int):
        return f"{value:b}"
    if verb == "o" and whole:
        return f"{value:o}"
    if verb in "xX" and whole:
        return f"{value:{verb}}"
    if verb in "xX" and isinstance(value, str | bytes):
        found = (value.encode() if isinstance(value, str) else value).hex()
        return found.upper() if verb == "X" else found
    kinds = {"d": "integer", "f": "fixed-point", "e": "scientific notation", "b": "binary", "o": "octal"}
    raise CelError(f"error during formatting: {kinds.get(verb, 'hex')} clause cannot be used on {type_name(value)}")


def shown(value: Any) -> str:
    """What %s makes of a value."""
    if value is None:
        return "null"
    if isinstance(value, TypeValue):
        return value.name
    if isinstance(value, list):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(sorted(f"{shown(key)}: {shown(each)}" for key, each in value.items())) + "}"
    if isinstance(value, float):
        return {"+Inf": "Infinity", "-Inf": "-Infinity"}.get(number_text(value), number_text(value))
    if isinstance(value, str | bytes | bool | int | Timestamp | Duration):
        return text(value)
    raise CelError(f"error during formatting: string clause cannot be used on {type_name(value)}")


TABLE: list[Overload] = [
    *define(_char, "string.charAt(int) string"),
    *define(_index, "string.indexOf(string) int", "string.indexOf(string, int) int", price=product),
    *define(_last_index, "string.lastIndexOf(string) int", "string.lastIndexOf(string, int) int", price=product),
    *define(_ascii(str.lower), "string.lowerAscii() string", price=scan(0)),
    *define(_ascii(str.upper), "string.upperAscii() string", price=scan(0)),
    *define(
        _replace,
        "string.replace(string, string) string",
        "string.replace(string, string, int) string",
        price=scan(0, 1, 2),
    ),
    *define(_split, "string.split(string) list(string)", "string.split(string, int) list(string)", price=scan(0, 1)),
    *define(_substring, "string.substring(int) string", "string.substring(int, int) string", price=scan(0)),
    *define(lambda value: value.strip(_SPACES), "string.trim() string", price=scan(0)),
    *define(_join, "list(string).join() string", "list(string).join(string) string", price=scan(0)),
    *define(_quote, "~strings.quote(string) string", price=scan(0)),
    *define(_formatted, "string.format(list(dyn)) string", price=scan(0, 1)),
]
