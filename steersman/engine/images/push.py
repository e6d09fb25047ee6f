"""Sending an image to its registry: blobs that it lacks, then the manifest.

Owns the order of a push. Called by `steer image push`. Source: OCI distribution specification 1.1, "Pushing".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING

from steersman.engine.images import manifest as formats
from steersman.engine.images import reference as references
from steersman.engine.images.reference import InvalidReference, Reference
from steersman.engine.images.registry import RegistryError, Repository
from steersman.engine.interface import Credentials, PullFailed

if TYPE_CHECKING:
    from steersman.engine.images.content import Content
    from steersman.engine.images.index import Record
    from steersman.engine.images.store import ImageStore

_PIECE = 1 << 18
_AT_ONCE = 3


class PushFailed(PullFailed):
    """A push failed; the text is the registry's reason."""


async def push(store: ImageStore, reference: str, credentials: Sequence[Credentials] = ()) -> str:
    """Send an image under a tag; returns the manifest's digest. Raises PushFailed."""
    try:
        name = references.parse(reference)
    except InvalidReference as error:
        raise PushFailed(f'failed to parse reference "{reference}": {error}', "InvalidImageName") from error
    record = store.record(reference)
    if record is None or not name.tag:
        raise PushFailed(f"An image does not exist locally with the tag: {name.familiar().rpartition(':')[0]}")
    repository = store.registries.repository(name, credentials)
    repository.pushes = True
    async with store.keeping():
        try:
            await _send(store.content, record, repository, name)
        except RegistryError as error:
            raise PushFailed(f'failed to push "{name}": {error}') from error
        except OSError as error:
            raise PushFailed(f'failed to push "{name}": {error.strerror or error}') from error
    return record.manifest


async def _send(content: Content, record: Record, repository: Repository, name: Reference) -> None:
    body = content.read(record.manifest)
    found = formats.read_manifest(body)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def blob(digest: str, size: int) -> None:
        async with slots:
            if not await repository.has_blob(digest):
                await repository.put_blob(digest, size, _reader(content, digest))

    await blob(found.config.digest, found.config.size)  # alone first: it logs in
    try:
        async with asyncio.TaskGroup() as group:
            for digest, size in {layer.digest: layer.size for layer in found.layers}.items():
                group.create_task(blob(digest, size))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    await repository.put_manifest(name.tag, body, formats.media_type(body, found.media_type))


def _reader(content: Content, digest: str) -> Callable[[], AsyncIterator[bytes]]:
    async def pieces() -> AsyncIterator[bytes]:
        with content.path(digest).open("rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                yield piece

    return pieces
