"""The machine's own logs, as files and listings: what `/logs/` of a kubelet shows.

Owns the way from a path to a file below one directory, which no link leads out of. Called by `server.py`; never writes.
Source: pkg/kubelet's log handler, which is Go's http.FileServer over /var/log.
"""

from __future__ import annotations

import asyncio
import html
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from steersman.lib.http.messages import Answer, Response, Stream, Writer

_BLOCK = 65536  # bytes
_MISSING = Response(404, [("content-type", "text/plain; charset=utf-8")], b"404 page not found\n")


def answer(root: Path, names: Sequence[str], *, slash: bool) -> Answer:
    """The file or the listing at `names` below `root`; `slash` says whether the path ended in one. Raises OSError."""
    if any(name in ("", ".", "..") or "/" in name or "\0" in name for name in names):
        return _MISSING
    path = root.joinpath(*names)
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return _MISSING
    if not real.is_relative_to(root.resolve()) or not (real.is_dir() or real.is_file()):
        return _MISSING
    if real.is_dir() != slash:
        name = quote(names[-1]) if names else "logs"
        return Response(301, [("location", f"../{name}" if slash else f"{name}/")])
    return _listing(real) if slash else _file(real)


def _listing(directory: Path) -> Response:
    lines = []
    for entry in sorted(directory.iterdir()):
        name = entry.name + ("/" if entry.is_dir() else "")
        lines.append(f'<a href="{quote(name)}">{html.escape(name)}</a>\n')
    page = f"<!doctype html>\n<pre>\n{''.join(lines)}</pre>\n"
    return Response(200, [("content-type", "text/html; charset=utf-8")], page.encode("utf-8", "surrogateescape"))


def _file(path: Path) -> Stream:
    kind = mimetypes.guess_type(path.name, strict=False)[0] or "text/plain; charset=utf-8"
    opened = path.open("rb")

    async def run(writer: Writer) -> None:
        with opened:
            while block := await asyncio.to_thread(opened.read, _BLOCK):
                writer.write(block)
                await writer.drain()

    return Stream(200, [("content-type", kind)], run)
