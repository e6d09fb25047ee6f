"""What an image is made of, for people: its history and its details.

Owns the two views. Pure readings of the store. Called by the CLI and the Docker API. Source: the fields of
`docker image history` and `docker image inspect`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steersman.engine.images import reference as references
from steersman.lib.clock import parse_rfc3339

if TYPE_CHECKING:
    from steersman.engine.images.index import Record
    from steersman.engine.images.store import ImageStore


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an image's history. `id` is set on the newest only; `size` in bytes, `created` in Unix seconds."""

    id: str
    created: float
    created_by: str
    size: int
    comment: str


def history(store: ImageStore, reference: str) -> list[Step]:
    """How an image came to be, newest first. Raises KeyError when there is no such image."""
    record = _record(store, reference)
    document = json.loads(store.config(record.id))
    sizes = iter([store.layer_size(layer.diff_id) for layer in record.layers])
    out: list[Step] = []
    for entry in document.get("history") or ():
        size = 0 if entry.get("empty_layer") else next(sizes, 0)
        made_by = str(entry.get("created_by") or "")
        out.append(Step("<missing>", _time(entry.get("created")), made_by, size, str(entry.get("comment") or "")))
    out += [Step("<missing>", 0.0, "", size, "") for size in sizes]  # layers that nobody wrote a history of
    out.reverse()
    if out:
        first = out[0]
        out[0] = Step(record.id, first.created, first.created_by, first.size, first.comment)
    return out


def inspect(store: ImageStore, reference: str) -> dict[str, Any]:
    """Everything about an image, under Docker's names. Raises KeyError when there is no such image."""
    record = _record(store, reference)
    document = json.loads(store.config(record.id))
    return {
        "Id": record.id,
        "RepoTags": _familiar(record.tags),
        "RepoDigests": _familiar(record.digests),
        "Created": document.get("created") or "",
        "Author": document.get("author") or "",
        "Config": document.get("config") or {},
        "Architecture": document.get("architecture") or "",
        "Variant": document.get("variant") or "",
        "Os": document.get("os") or "",
        "Size": record.size,
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in record.layers]},
    }


def _record(store: ImageStore, reference: str) -> Record:
    record = store.record(reference)
    if record is None:
        raise KeyError(reference)
    return record


def _familiar(names: Sequence[str]) -> list[str]:
    return [references.parse(name).familiar() for name in names]


def _time(text: object) -> float:
    try:
        return parse_rfc3339(str(text)) if text else 0.0
    except (ValueError, OverflowError):
        return 0.0
