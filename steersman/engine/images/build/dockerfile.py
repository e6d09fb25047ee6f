"""A Dockerfile as a list of instructions: lines, escapes, comments, heredocs, flags, JSON forms.

Owns the syntax, not the meaning. Pure. Called by `builder`. Source: the Dockerfile reference; BuildKit for the
error texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

KEYWORDS = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)
_WITH_FLAGS = frozenset({"ADD", "COPY", "FROM", "HEALTHCHECK", "RUN"})
_WITH_HEREDOCS = frozenset({"ADD", "COPY", "RUN"})
_MAX_SIZE = 4 << 20
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC = re.compile(r"<<(-?)(['\"]?)([A-Za-z0-9_.]+)\2(?=\s|$)")
_FLAG = re.compile(r"--([a-zA-Z][a-zA-Z-]*)(?:=(\S*))?(?:\s+|$)")


class DockerfileError(Exception):
    """The Dockerfile makes no sense; the text says where and why."""


@dataclass(frozen=True, slots=True)
class Heredoc:
    """An embedded file. `expand`: variables in it are replaced (its delimiter was not quoted)."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. `words` is set for a JSON array of strings; `text` is what follows the flags."""

    keyword: str
    text: str
    line: int
    words: tuple[str, ...] | None = None
    flags: tuple[tuple[str, str], ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    escape: str = "\\"

    def flag(self, name: str, default: str = "") -> str:
        """The value of a flag."""
        return dict(self.flags).get(name, default)

    def __str__(self) -> str:
        flags = "".join(f"--{name}={value} " if value else f"--{name} " for name, value in self.flags)
        return f"{self.keyword} {flags}{self.text}"


@dataclass
class _Source:
    lines: list[str]
    escape: str = "\\"
    at: int = 0
    heredocs: list[Heredoc] = field(default_factory=list)


def parse(text: str) -> list[Instruction]:
    """Read a whole Dockerfile. Raises DockerfileError."""
    if len(text) > _MAX_SIZE:
        raise DockerfileError("the Dockerfile is too large")
    source = _Source(text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n"))
    _directives(source)
    out: list[Instruction] = []
    while (found := _next(source)) is not None:
        out.append(found)
    if not out:
        raise DockerfileError("file with no instructions")
    return out


def parse_one(text: str, line: int) -> Instruction:
    """One instruction out of an ONBUILD trigger. Raises DockerfileError."""
    return _instruction(text.strip(), line, _Source([]))


def _directives(source: _Source) -> None:
    """`# escape=` at the top; other directives are read over."""
    for line in source.lines:
        found = _DIRECTIVE.fullmatch(line.strip())
        if found is None:
            return
        if found[1].lower() == "escape":
            if found[2] not in ("\\", "`"):
                raise DockerfileError(f"invalid ESCAPE '{found[2]}'. Must be ` or \\")
            source.escape = found[2]


def _next(source: _Source) -> Instruction | None:
    """The next logical line."""
    joined = ""
    first = 0
    while source.at < len(source.lines):
        line = source.lines[source.at]
        source.at += 1
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue  # also between the lines of a continued instruction
        first = first or source.at
        continued = bare.endswith(source.escape)
        piece = line.rstrip() if joined else bare
        joined += piece.rstrip()[:-1] if continued else piece
        if not continued:
            return _instruction(joined.strip(), first, source)
    return _instruction(joined.strip(), first, source) if joined.strip() else None


def _instruction(text: str, line: int, source: _Source) -> Instruction:
    keyword, _, rest = text.replace("\t", " ", 1).partition(" ") if "\t" in text.split(" ")[0] else text.partition(" ")
    name, rest = keyword.upper(), rest.strip()
    if name not in KEYWORDS:
        raise DockerfileError(f"dockerfile parse error on line {line}: unknown instruction: {keyword}")
    flags: list[tuple[str, str]] = []
    if name in _WITH_FLAGS:
        while (found := _FLAG.match(rest)) is not None:
            flags.append((found[1], found[2] or ""))
            rest = rest[found.end() :]
    if not rest and name not in ("CMD", "ENTRYPOINT"):
        raise DockerfileError(f"dockerfile parse error on line {line}: {name} requires at least one argument")
    heredocs = tuple(_heredocs(rest, line, source)) if name in _WITH_HEREDOCS else ()
    return Instruction(name, rest, line, _json(rest), tuple(flags), heredocs, source.escape)


def _json(text: str) -> tuple[str, ...] | None:
    if not text.startswith("["):
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return tuple(found) if isinstance(found, list) and all(isinstance(each, str) for each in found) else None


def _heredocs(text: str, line: int, source: _Source) -> list[Heredoc]:
    out: list[Heredoc] = []
    for strip, quote, name in _HEREDOC.findall(text):
        content: list[str] = []
        while True:
            if source.at >= len(source.lines):
                raise DockerfileError(f"dockerfile parse error on line {line}: unterminated heredoc")
            found = source.lines[source.at]
            source.at += 1
            if strip:
                found = found.lstrip("\t")
            if found == name:
                break
            content.append(found + "\n")
        out.append(Heredoc(name, "".join(content), not quote))
    return out


def without_heredocs(text: str) -> str:
    """Arguments with `<<EOF` reduced to the bare word `EOF`'s place taken out."""
    return _HEREDOC.sub("", text).strip()


def heredoc_words(words: Sequence[str]) -> list[str | None]:
    """Words of a COPY, None where an embedded file stands."""
    return [None if _HEREDOC.fullmatch(word) else word for word in words]
