"""What differs between two values, as refusals of changes show it: a unified diff of indented JSON.

Called by the rules of kinds whose specs do not change, with values from `godump`. Pure. Source: apimachinery's
util/diff, which is difflib over `json.MarshalIndent`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from steersman.api.validation import Struct, show


def difference(old: Any, new: Any) -> str:
    """The lines that differ, with three around them; ends with a line's end where there are any."""
    import difflib  # here: only refused changes need it

    before, after = (list(_lines(value)) for value in (old, new))
    found = difflib.unified_diff(before, after, lineterm="")
    return "".join(f"{line}\n" for line in list(found)[2:])  # the two lines are of file names


def _lines(value: Any, indent: str = "", start: str = "", end: str = "") -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        items = value.items() if isinstance(value, Struct) else sorted(value.items())
        yield f"{indent}{start}{{"
        last = len(value) - 1
        for at, (key, each) in enumerate(items):
            yield from _lines(each, f"{indent} ", f"{_json(key)}: ", "," if at < last else "")
        yield f"{indent}}}{end}"
    elif isinstance(value, list) and value:
        yield f"{indent}{start}["
        for at, each in enumerate(value):
            yield from _lines(each, f"{indent} ", "", "," if at < len(value) - 1 else "")
        yield f"{indent}]{end}"
    else:
        yield f"{indent}{start}{_json(value)}{end}"


def _json(value: Any) -> str:
    return show([value])[1:-1]  # in a list, so that text is written as JSON has it
