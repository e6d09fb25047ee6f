"""Sets of completion indexes, and the text that stands for them: `0,2-5,7`.

Pure. Source: KEP-2214 (indexed jobs).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from steersman.api.resource import Object

INDEX = "batch.kubernetes.io/job-completion-index"


def parse(text: str | None, completions: int) -> set[int]:
    """The indexes below `completions` in a text; parts that cannot be read are left out."""
    out: set[int] = set()
    for part in (text or "").split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last.isdecimal() or not last):
            out.update(range(int(first), min(int(last or first), completions - 1) + 1))
    return {each for each in out if each < completions}


def render(indexes: Iterable[int]) -> str:
    """The text; two neighbours stay apart, more become a range."""
    return ",".join(_parts(sorted(indexes)))


def _parts(ordered: list[int]) -> Iterator[str]:
    position = 0
    while position < len(ordered):
        end = position
        while end + 1 < len(ordered) and ordered[end + 1] == ordered[end] + 1:
            end += 1
        first, last = ordered[position], ordered[end]
        if last == first:
            yield str(first)
        else:
            yield f"{first}{',' if last == first + 1 else '-'}{last}"
        position = end + 1


def index_of(pod: Object) -> int | None:
    """The pod's completion index; None when it has none that can be read."""
    text = (pod["metadata"].get("annotations") or {}).get(INDEX, "")
    return int(text) if text.isdecimal() else None
