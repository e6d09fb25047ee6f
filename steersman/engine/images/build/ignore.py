"""`.dockerignore`: which files of the context a build does not see.

Owns the pattern language: `*`, `?`, `[...]` within a path component, `**` across components, `!` for exceptions, the
last match wins. Pure. Called by `context`. Source: the documentation of .dockerignore; Go's filepath.Match.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable


class IgnorePatternError(Exception):
    """A pattern makes no sense."""


def pattern(text: str) -> re.Pattern[str]:
    """A path pattern as a regular expression over whole paths. Raises IgnorePatternError."""
    out: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if text.startswith("**", at):
            at += 2
            if text.startswith("/", at):
                at += 1
                out.append("(?:.*/)?")
            else:
                out.append(".*")
            continue
        at += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            end = text.find("]", at + 1)
            if end < 0:
                raise IgnorePatternError(f"syntax error in pattern {text!r}")
            body = text[at:end].replace("\\", "\\\\")
            out.append(f"[{body}]" if not body.startswith("!") else f"[^{body[1:]}]")
            at = end + 1
        elif char == "\\" and at < len(text):
            out.append(re.escape(text[at]))
            at += 1
        else:
            out.append(re.escape(char))
    try:
        return re.compile("".join(out), re.DOTALL)
    except re.error as error:
        raise IgnorePatternError(f"syntax error in pattern {text!r}") from error


class Ignore:
    """The rules of one file."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Raises IgnorePatternError."""
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for line in lines:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            keep = text.startswith("!")
            cleaned = posixpath.normpath(text.removeprefix("!").strip()).lstrip("/")
            if cleaned != ".":
                self._rules.append((keep, pattern(cleaned)))

    @property
    def has_exceptions(self) -> bool:
        """Whether something below an ignored directory may be wanted."""
        return any(keep for keep, _ in self._rules)

    def ignores(self, path: str) -> bool:
        """Whether a path (relative, no leading slash) is left out; what lies below an ignored directory is too."""
        parents = [path]
        while parents[-1].count("/"):
            parents.append(parents[-1].rpartition("/")[0])
        out = False
        for keep, rule in self._rules:
            if out == keep and any(rule.fullmatch(each) for each in parents):
                out = not keep
        return out
