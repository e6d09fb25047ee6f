"""Lists that are too long for one turn of the loop.

Owns the answer in parts: everybody else is served between two of them, and a client that reads slowly holds one part in
memory, not the whole. Called by `read.py` for lists of more than a few thousand objects; watches pace themselves alike.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from steersman.api.resource import Object
from steersman.apiserver import compress
from steersman.apiserver.cache import Item
from steersman.apiserver.call import Call
from steersman.apiserver.conversion import remote
from steersman.apiserver.encode import Encoder
from steersman.lib.http.messages import Stream, Writer
from steersman.lib.tasks import turn

TURN = 500  # objects looked at, encoded or sent at a time: a few milliseconds
_DECODED = 50  # the same where each is decoded and encoded anew
_WHOLE = 4_000  # objects of the longest list that is answered at once
_DECODED_WHOLE = 500  # as many as kubectl asks for at a time


def wanted(call: Call, encoder: Encoder, items: Sequence[Item]) -> bool:
    """Whether a list is long enough; one whose objects a webhook converts is made at once, since that may fail."""
    if len(items) <= (_WHOLE if encoder.raw else _DECODED_WHOLE):
        return False
    return encoder.parted and not remote(call.kind)


async def answer(call: Call, encoder: Encoder, items: Sequence[Item], meta: Object) -> Stream:
    """The list, in parts. What may be refused is refused before the first byte."""
    headers = call.respond(200, b"").headers
    if gzip := compress.accepted(call.request):
        headers = [*headers, *compress.HEADERS]
    if encoder.raw:
        size, parts = 0, (encoder.part(batch) for batch in _batches(items, TURN))
    else:  # how long they are is said first, in protobuf; and what cannot be encoded is an error, not half an answer
        made: list[bytes] = []
        for batch in _batches(items, _DECODED):
            made.append(encoder.part(batch))
            await turn()
        size, parts = sum(map(len, made)), iter(made)
    head, tail = encoder.around(meta, size)

    async def run(writer: Writer) -> None:
        with contextlib.suppress(ConnectionError):
            await _send(writer, _joined(head, encoder.between, parts, tail), gzip=gzip)

    return Stream(200, headers, run)


def _batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _joined(head: bytes, between: bytes, parts: Iterator[bytes], tail: bytes) -> Iterator[bytes]:
    before = head
    for part in parts:
        yield before + part
        before = between
    yield tail


async def _send(writer: Writer, pieces: Iterator[bytes], *, gzip: bool) -> None:
    compressor = compress.compressor() if gzip else None
    for piece in pieces:
        writer.write(piece if compressor is None else compressor.compress(piece))
        await writer.drain()
        await turn()
    if compressor is not None:
        writer.write(compressor.flush())
