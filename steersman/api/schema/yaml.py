"""YAML bodies as JSON values, the way Kubernetes reads them.

Owns the resolver (what a plain scalar means) and the guard against documents that grow when aliases are followed.
Booleans are true/false, yes/no, on/off and y/n; dates stay text; keys become text. Called by `body.py`. Source of
the rules: sigs.k8s.io/yaml (go-yaml v2's resolve.go).
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.scanner import ScannerError

from steersman.api.schema.decode import YamlError

__all__ = ["YamlError", "load"]

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WORDS: dict[str, Any] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]*|[1-9]\d*)")
_FLOAT = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_STANDARD = "tag:yaml.org,2002:"
_PLAIN = ("", f"{_STANDARD}bool", f"{_STANDARD}int", f"{_STANDARD}float", f"{_STANDARD}null")
_TWICE = "yaml: unmarshal errors:\n"
MOST_BYTES = 32 * 1024 * 1024
DEEPEST = 500


def load(body: bytes, duplicates: list[str] | None = None) -> Any:
    """The first document as JSON values. Repeated keys: the last one counts, and each is noted in `duplicates`.

    Raises YamlError: bad syntax, nesting deeper than `DEEPEST`, aliases that make it grow beyond `MOST_BYTES`.
    Values that an alias stands for are shared, not copied.
    """
    reader = _Reader(duplicates if duplicates is not None else [])
    try:
        parser = _Parser(body)
        while not reader.done and parser.check_event():
            reader.event(parser.get_event())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise YamlError(f"error converting YAML to JSON: {_first_line(error)}") from None
    return reader.root


def _refuse(why: str) -> YamlError:
    return YamlError(f"error converting YAML to JSON: yaml: {why}")


class _Open:
    """A list or map that is not finished. `size` is that of the document when it began."""

    def __init__(self, event: Any, size: int) -> None:
        self.value: Any = list[Any]() if isinstance(event, SequenceStartEvent) else dict[str, Any]()
        self.anchor: str | None = event.anchor
        self.size = size
        self.key: str | None = None
        self.merging = False
        self.merged: dict[str, Any] = {}


class _Reader:
    """Builds values from parser events, without recursion."""

    def __init__(self, duplicates: list[str]) -> None:
        self.root: Any = None
        self.done = False
        self._stack: list[_Open] = []
        self._size = 0
        self._anchors: dict[str, tuple[Any, int] | None] = {}
        self._duplicates = duplicates

    def event(self, event: Any) -> None:
        if isinstance(event, ScalarEvent):
            self._grow(len(event.value) + 1)
            value = scalar(event)
            if event.anchor:
                self._anchors[event.anchor] = (value, len(event.value) + 1)
            self._put(value, event)
        elif isinstance(event, (MappingStartEvent, SequenceStartEvent)):
            if len(self._stack) >= DEEPEST:
                raise _refuse("exceeded max depth")
            self._grow(2)
            self._stack.append(_Open(event, self._size))
            if event.anchor:
                self._anchors[event.anchor] = None
        elif isinstance(event, (MappingEndEvent, SequenceEndEvent)):
            self._close(event)
        elif isinstance(event, AliasEvent):
            self._alias(event)
        elif isinstance(event, DocumentEndEvent):
            self.done = True

    def _close(self, event: Any) -> None:
        frame = self._stack.pop()
        value = {**frame.merged, **frame.value} if frame.merged else frame.value
        if frame.anchor:
            self._anchors[frame.anchor] = (value, self._size - frame.size + 2)
        self._put(value, event)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            raise _refuse(f"unknown anchor '{event.anchor}' referenced")
        known = self._anchors[event.anchor]
        if known is None:
            raise _refuse(f"anchor '{event.anchor}' value contains itself")
        self._grow(known[1])
        self._put(known[0], event)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > MOST_BYTES:
            raise _refuse("document contains excessive aliasing")

    def _put(self, value: Any, event: Any) -> None:
        if not self._stack:
            self.root = value
            return
        frame = self._stack[-1]
        if isinstance(frame.value, list):
            frame.value.append(value)
        elif frame.merging:
            self._merge(frame, value)
        elif frame.key is None:
            self._key(frame, value, event)
        else:
            frame.value[frame.key] = value
            frame.key = None

    def _key(self, frame: _Open, value: Any, event: Any) -> None:
        if isinstance(value, (dict, list)):
            raise _refuse("invalid map key")
        if isinstance(event, ScalarEvent) and not event.style and value == "<<":
            frame.merging = True
            return
        frame.key = _key_text(value)
        if frame.key in frame.value:
            line = event.start_mark.line + 1
            self._duplicates.append(f'{_TWICE}  line {line}: key "{frame.key}" already set in map')

    def _merge(self, frame: _Open, value: Any) -> None:
        frame.merging = False
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                raise _refuse("map merge requires map or sequence of maps as the value")
            self._grow(sum(map(len, source)))
            for key, item in source.items():
                frame.merged.setdefault(key, item)


def scalar(event: ScalarEvent) -> Any:
    """What a scalar stands for."""
    text: str = event.value
    if event.style or (event.tag or "") not in _PLAIN:
        return text
    if text in _WORDS:
        return _WORDS[text]
    return _number(text) if text[0] in "0123456789+-." else text


def _number(text: str) -> Any:
    plain = text.replace("_", "") if text[0] != "." else text
    if _INTEGER.fullmatch(plain):
        sign, digits = (-1, plain[1:]) if plain[0] == "-" else (1, plain.lstrip("+"))
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        number = sign * (int(digits, 8) if octal else int(digits, 0))
        return number if -(2**63) <= number < 2**64 else float(number)
    if _FLOAT.fullmatch(plain):
        number = float(plain)
        return text if math.isinf(number) else number
    if _NOT_FINITE.fullmatch(text):
        raise YamlError(f"error converting YAML to JSON: json: unsupported value: {text.lstrip('.')}")
    return text


def _key_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)


def _first_line(error: Exception) -> str:
    """Go's parser counts from where the scanner stands, and leaves the first line out."""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0].rpartition("#x")[2].partition(": ")[2]
    problem = problem or str(error).splitlines()[0]
    line = getattr(getattr(error, "problem_mark", None), "line", 0)
    if line:
        line += isinstance(error, ScannerError)
    else:
        line = getattr(getattr(error, "context_mark", None), "line", 0)
    return f"yaml: line {line}: {problem}" if line else f"yaml: {problem}"


def repeated(lines: list[str]) -> str:
    """What a strict reader says about keys that are there twice, given what each of them was noted as."""
    return _TWICE + "\n".join(line.removeprefix(_TWICE) for line in lines)


def warnings(problem: str) -> list[str]:
    """A strict reader's problem as warnings. Source: parseYAMLWarnings in apiserver's handlers."""
    if not problem.startswith(_TWICE):
        return [problem]
    return [line.strip() for line in problem.removeprefix(_TWICE).split("\n")]
