r"""JSONPath as Kubernetes has it: `.status.conditions[?(@.type=="Ready")].status`.

Owns `compile`: a path becomes a function from an object to the values found. Covers what printer columns and
selectable fields use: names, escaped dots (`\.`), indexes, slices, `*`, `..`, quoted names, unions and filters. Called
by `table.py`. Pure. Source: client-go's util/jsonpath.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Step = Callable[[Any], Iterable[Any]]
Path = Callable[[Any], list[Any]]

_TOKEN = re.compile(
    r"""
    \.\.(?P<deep>)
  | \.?\[\?\((?P<filter>(?:[^\]"']|"[^"]*"|'[^']*')*?)\)\]
  | \.?\[(?P<inside>(?:"[^"]*"|'[^']*'|[^\]"'])*)\]
  | \.?(?P<name>(?:\\.|[^.\[\]\\])+)
    """,
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
_FILTER = re.compile(r"\s*@(?P<left>\S*?)\s*(?:(?P<op>==|!=|<=|>=|<|>)\s*(?P<right>.+?))?\s*")


def compile(text: str) -> Path:
    """The function for a path, with or without braces. Raises ValueError."""
    inner = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    steps = list(_steps(inner.removeprefix("$")))

    def find(obj: Any) -> list[Any]:
        found: list[Any] = [obj]
        for step in steps:
            found = [inner for value in found for inner in step(value)]
        return found

    return find


def text(value: Any) -> str:
    """A value found, as text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _steps(path: str) -> Iterator[Step]:
    position = 0
    while position < len(path):
        match = _TOKEN.match(path, position)
        if match is None:
            raise ValueError(f"invalid path {path!r} at {position}")
        position = match.end()
        if match["deep"] is not None:
            yield _descend
        elif match["filter"] is not None:
            yield _filter(match["filter"])
        elif match["inside"] is not None:
            yield _inside(match["inside"].strip())
        elif name := _plain(match["name"]):
            yield _every if name == "*" else _key(name)


def _plain(name: str) -> str:
    """Without the backslashes that protect its dots."""
    return re.sub(r"\\(.)", r"\1", name)


def _key(name: str) -> Step:
    return lambda value: [value[name]] if isinstance(value, dict) and name in value else []


def _every(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _descend(value: Any) -> Iterator[Any]:
    yield value
    for inner in _every(value):
        yield from _descend(inner)


def _inside(content: str) -> Step:
    if content == "*":
        return _every
    parts = [part.strip() for part in content.split(",")]
    steps = [_one(part) for part in parts]
    return lambda value: [found for step in steps for found in step(value)]


def _one(part: str) -> Step:
    if part[:1] in ("'", '"') and part[-1:] == part[:1]:
        return _key(_plain(part[1:-1]))
    if re.fullmatch(r"-?\d+", part):
        index = int(part)
        return lambda value: [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if re.fullmatch(r"(-?\d*)(:-?\d*){1,2}", part):
        cut = slice(*(int(bound) if bound else None for bound in part.split(":")))
        if cut.step == 0:
            raise ValueError("step must be > 0")
        return lambda value: value[cut] if isinstance(value, list) else []
    raise ValueError(f"invalid array index {part}")


def _filter(content: str) -> Step:
    match = _FILTER.fullmatch(content)
    if match is None:
        raise ValueError(f"unrecognized filter {content!r}")
    left = compile(match["left"])
    if match["op"] is None:
        return lambda value: [item for item in _every(value) if left(item)]
    compare, wanted = _COMPARE[match["op"]], _literal(match["right"])

    def keep(value: Any) -> Iterator[Any]:
        for item in _every(value):
            found = left(item)
            if found and isinstance(found[0], type(wanted)) and compare(found[0], wanted):
                yield item

    return keep


def _literal(text: str) -> Any:
    if text[:1] == "'" and text[-1:] == "'":
        return text[1:-1]
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError(f"unrecognized value {text!r} in a filter") from None
