"""Images on this machine: pulled, found, tagged, removed, and their layers unpacked ready to mount.

Owns `ImageStore`, the implementation of `engine.interface.Images`, and the layout under its root: `blobs/` (content),
`layers/<diff id>` (unpacked once, shared by every image that has it), `index.json` (which images), `holds/` (layers in
use). Called by the kubelet, the runtime (`find`, `layers`) and the CLI, from several processes at once. It mounts
nothing.
"""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from steersman.engine.images import manifest as formats
from steersman.engine.images import reference as references
from steersman.engine.images.content import Content, ContentError
from steersman.engine.images.index import Index, Layer, Record, locked
from steersman.engine.images.manifest import BadManifest, Descriptor, Manifest
from steersman.engine.images.reference import InvalidReference, Reference
from steersman.engine.images.registry import Connect, Registries, RegistryError, Repository, connect
from steersman.engine.images.tar import BadArchive
from steersman.engine.images.unpack import discard, unpack
from steersman.engine.interface import Credentials, Image, ImageConfig, PullFailed
from steersman.lib.clock import Clock
from steersman.lib.failpoint import failpoint
from steersman.lib.tasks import Tasks

_AT_ONCE = 3  # layers fetched at the same time, as Docker does
_PART = ".part"
_KEEP = "keep.lock"
_PUSH_SECONDS = 3600.0

Progress = Callable[[str, int, int], None]
"""(digest of a layer, bytes received, bytes in all); told while a pull goes on."""


class _Shared:
    """Work that several pulls wait for; it ends with an error as its value."""

    def __init__(self, task: asyncio.Task[Exception | None]) -> None:
        self.task = task
        self.waiters = 0


async def _caught(work: Callable[[], Awaitable[None]]) -> Exception | None:
    try:
        await work()
    except Exception as error:
        return error
    return None


class ImageStore:
    """The images under `root`. `mirrors`: registry host to base URLs that are asked instead of it."""

    def __init__(
        self,
        root: Path,
        clock: Clock,
        *,
        mirrors: Mapping[str, Sequence[str]] | None = None,
        connect: Connect = connect,
    ) -> None:
        self.root = root
        self.content = Content(root)
        self.index = Index(root)
        self.registries = Registries(mirrors, connect)
        self.clock = clock
        self._layers = root / "layers"
        self._holds = root / "holds"
        for directory in (self._layers, self._holds):
            directory.mkdir(exist_ok=True)
        self._tasks = Tasks()
        self._under_way: dict[str, _Shared] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._configs: dict[str, ImageConfig] = {}

    async def close(self) -> None:
        """Stop what is under way and close connections."""
        await self._tasks.close()
        await self.registries.close()
        self.content.close()

    # reading

    def find(self, reference: str) -> Image | None:
        """The image that a reference, a digest or an id (or the start of one) names, if it is here."""
        record = self.record(reference)
        return self._image(record) if record is not None and self._whole(record) else None

    def record(self, reference: str) -> Record | None:
        """As `find`, with what the store knows beyond the interface."""
        records = self.index.read()
        if (found := records.get(reference) or records.get(f"sha256:{reference}")) is not None:
            return found
        try:
            name = references.parse(reference)
        except InvalidReference:
            return None
        wanted = f"{name.repository}@{name.digest}" if name.digest else name.tagged
        for record in records.values():
            if wanted in (record.digests if name.digest else record.tags):
                return record
        return _by_prefix(records, reference)

    def list(self) -> Sequence[Image]:
        """Every image."""
        return [self._image(record) for record in self.index.read().values() if self._whole(record)]

    def _whole(self, record: Record) -> bool:
        """Whether all of it is still on disk: what somebody deleted by hand is to be pulled again."""
        have = self.content.has(record.id)
        return have and all(self.layer_path(layer.diff_id).exists() for layer in record.layers)

    def layers(self, image: Image) -> Sequence[Path]:
        """The image's unpacked layers, top first, as overlayfs wants its lower directories. Raises KeyError."""
        record = self.index.read()[image.id]
        unique = dict.fromkeys(layer.diff_id for layer in reversed(record.layers))
        return [self.layer_path(diff_id) for diff_id in unique]

    def layer_path(self, diff_id: str) -> Path:
        """Where a layer is, or will be, unpacked."""
        return self._layers / diff_id.removeprefix("sha256:")

    def layer_size(self, diff_id: str) -> int:
        """Bytes of an unpacked layer's files; 0 when it is not here."""
        return _unpacked_size(self.layer_path(diff_id))

    def config(self, image_id: str) -> bytes:
        """The image's config document. Raises FileNotFoundError."""
        return self.content.read(image_id)

    def used_bytes(self) -> tuple[int, int]:
        """Bytes and inodes below the root: layers as recorded, blobs as they lie there."""
        seen: dict[str, None] = {}
        unpacked = 0
        for record in self.index.read().values():
            if any(layer.diff_id not in seen for layer in record.layers):
                unpacked += record.size
            seen.update(dict.fromkeys(layer.diff_id for layer in record.layers))
        blobs = [entry.stat().st_size for entry in os.scandir(self.content.blobs)]
        return unpacked + sum(blobs), len(blobs) + len(seen)

    def _image(self, record: Record) -> Image:
        config = self._configs.get(record.id)
        if config is None:
            config = self._configs[record.id] = formats.read_config(self.content.read(record.id))[0]
        return Image(
            id=record.id,
            tags=tuple(record.tags),
            digests=tuple(record.digests),
            size=record.size,
            config=config,
            pinned=record.pinned,
            created_at=record.created_at,
        )

    # pulling

    async def pull(
        self, reference: str, credentials: Sequence[Credentials] = (), progress: Progress | None = None
    ) -> Image:
        """Fetch what is missing; returns the image. Raises PullFailed with the registry's reason."""
        try:
            name = references.parse(reference)
        except InvalidReference as error:
            raise PullFailed(f'failed to parse reference "{reference}": {error}', "InvalidImageName") from error
        repository = self.registries.repository(name, credentials)
        failed = f'failed to pull and unpack image "{name}": '
        async with self.keeping():
            try:
                body, digest, said = await repository.manifest(name.target)
            except RegistryError as error:
                raise PullFailed(f'{failed}failed to resolve reference "{name}": {error}') from error
            try:
                return await self._take(name, repository, body, digest, said, progress)
            except (RegistryError, BadManifest, ContentError, BadArchive) as error:
                raise PullFailed(f"{failed}{error}") from error
            except OSError as error:
                raise PullFailed(f"{failed}{error.strerror or error}") from error

    async def _take(
        self, name: Reference, repository: Repository, body: bytes, digest: str, said: str, progress: Progress | None
    ) -> Image:
        manifests = [self.content.add(body)]
        kind = formats.media_type(body, said)
        if kind in formats.INDEXES:
            wanted = formats.this_platform()
            chosen = formats.choose(formats.read_index(body).manifests, wanted)
            if chosen is None:
                raise BadManifest(f"no match for platform in manifest {digest}: not found")
            body = await self._manifest(repository, chosen.digest)
            if formats.media_type(body, chosen.media_type) in formats.INDEXES:
                raise BadManifest("an index within an index is not an image")
            manifests.append(chosen.digest)
        found = formats.read_manifest(body)
        await self._fetch(repository, found.config, None)

        async def obtain(layer: Descriptor) -> None:
            await self._fetch(repository, layer, progress)

        return await self.adopt(found, manifests, tag=name.tagged, by=f"{name.repository}@{digest}", obtain=obtain)

    async def adopt(
        self,
        found: Manifest,
        manifests: Sequence[str],
        *,
        tag: str = "",
        by: str = "",
        obtain: Callable[[Descriptor], Awaitable[None]] | None = None,
    ) -> Image:
        """Unpack a manifest's layers and record the image under `tag` and the digest name `by`.

        `obtain` brings a layer's blob when it is missing. The caller holds `keeping`. Raises BadManifest, BadArchive,
        ContentError, OSError.
        """
        config, diff_ids, created = formats.read_config(self.content.read(found.config.digest))
        if len(diff_ids) != len(found.layers):
            raise BadManifest(f"number of layers ({len(found.layers)}) and diff ids ({len(diff_ids)}) do not match")
        pairs = list(zip(found.layers, diff_ids, strict=True))
        try:
            async with asyncio.TaskGroup() as group:
                for layer, diff_id in pairs:
                    group.create_task(self.ready(layer, diff_id, obtain))
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        layers = [Layer(each.digest, diff_id, each.media_type, each.size) for each, diff_id in pairs]
        size = sum(self.layer_size(diff_id) for diff_id in dict.fromkeys(diff_ids))
        record = Record(
            found.config.digest,
            manifests[-1],
            list(manifests),
            layers,
            size=size,
            created_at=created or self.clock.now(),
        )
        self._configs[record.id] = config
        return self._image(await asyncio.to_thread(self._put, record, tag, by))

    def _put(self, record: Record, tag: str, by: str) -> Record:
        failpoint("images.before_record")
        with self.index.change() as records:
            known = records.get(record.id)
            if known is not None:
                more = [each for each in record.manifests if each not in known.manifests]
                known.manifests.extend(more)
                known.manifest, known.layers, known.size = record.manifest, record.layers, record.size
                record = known
            records[record.id] = record
            if tag:
                _move_tag(records, record, tag)
            if by and by not in record.digests:
                record.digests.append(by)
        return record

    async def _manifest(self, repository: Repository, digest: str) -> bytes:
        if not self.content.has(digest):
            body, _, _ = await repository.manifest(digest)
            self.content.add(body)
        return self.content.read(digest)

    async def ready(
        self, layer: Descriptor, diff_id: str, obtain: Callable[[Descriptor], Awaitable[None]] | None = None
    ) -> None:
        """Have a layer unpacked; once, however many ask. The caller holds `keeping`. Raises BadArchive, OSError."""

        async def work() -> None:
            async with self._slots:
                if not self.content.has(layer.digest) and obtain is not None:
                    await obtain(layer)
                if not self.layer_path(diff_id).exists():
                    await asyncio.to_thread(self._unpack, layer.digest, diff_id)

        await self._once(f"layer {diff_id} {layer.digest}", work)

    def _unpack(self, digest: str, diff_id: str) -> None:
        part = self.content.temporary(_PART)
        try:
            size = unpack(self.content.path(digest), part, diff_id)
        except BadArchive as error:
            raise BadArchive(f"failed to extract layer {diff_id}: {error}") from error
        target = self.layer_path(diff_id)
        target.with_suffix(".size").write_text(f"{size}\n")
        failpoint("images.before_layer_rename")
        try:
            os.rename(part, target)
        except OSError:
            discard(part)  # another process was first
            if not target.exists():
                raise

    async def _fetch(self, repository: Repository, blob: Descriptor, progress: Progress | None) -> None:
        async def work() -> None:
            if self.content.has(blob.digest):
                return
            writer = self.content.writer()

            def start() -> None:
                nonlocal writer
                if writer.size:
                    writer.abort()
                    writer = self.content.writer()

            def write(data: bytes) -> None:
                if writer.size + len(data) > blob.size:
                    raise ContentError(f"size validation failed: more than the expected {blob.size} bytes received")
                writer.write(data)
                if progress is not None:
                    progress(blob.digest, writer.size, blob.size)

            try:
                await repository.blob(blob.digest, write, start)
                await asyncio.to_thread(writer.commit, blob.digest, blob.size)
            except ContentError as error:
                raise ContentError(f'failed commit on ref "layer-{blob.digest}": {error}') from error
            finally:
                writer.abort()

        await self._once(f"blob {blob.digest}", work)

    async def _once(self, key: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` unless it runs already. It stops when the last that waits for it gives up."""
        shared = self._under_way.get(key)
        if shared is None:
            shared = self._under_way[key] = _Shared(self._tasks.spawn(_caught(work), key))
        shared.waiters += 1
        try:
            error = await asyncio.shield(shared.task)
        finally:
            shared.waiters -= 1
            if not shared.waiters:
                if self._under_way.get(key) is shared:
                    del self._under_way[key]
                if not shared.task.done():
                    shared.task.cancel()
                    await asyncio.wait([shared.task])
        if error is not None:
            raise error

    # names and removal

    async def tag(self, reference: str, new: str) -> None:
        """Give an image another name. Raises KeyError when there is no such image, InvalidReference."""
        name = references.parse(new)
        record = self.record(reference)
        if record is None:
            raise KeyError(reference)
        with self.index.change() as records:
            _move_tag(records, records[record.id], name.tagged)

    async def remove(self, reference: str) -> None:
        """Remove the image that a reference or id names, and what only it used; idempotent.

        A reference to an image with other names removes that name alone, as Docker does.
        """
        record = self.record(reference)
        if record is None:
            return
        with self.index.change() as records:
            found = records.get(record.id)
            if found is None:
                return
            by_id = reference in (found.id, found.id.removeprefix("sha256:")) or found.id[7:].startswith(reference)
            tag = "" if by_id else references.parse(reference).tagged
            if tag in found.tags and len(found.tags) > 1:
                found.tags.remove(tag)
                return
            del records[found.id]
        self._configs.pop(record.id, None)
        await asyncio.to_thread(self.collect)

    def collect(self) -> bool:
        """Delete blobs and layers that nothing needs. False when somebody is pulling: then nothing is deleted."""
        fd = os.open(self.root / _KEEP, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            records = self.index.read().values()
            blobs = {digest for record in records for digest in (record.id, *record.manifests)}
            blobs |= {layer.digest for record in records for layer in record.layers}
            self.content.sweep(blobs | self._served(), newer_than=self._newest_to_collect())
            needed = {layer.diff_id[7:] for record in records for layer in record.layers} | self._held()
            for path in self._layers.iterdir():
                if path.name.removesuffix(".size") not in needed:
                    trash = self.content.temporary()
                    os.rename(path, trash)
                    trash.unlink() if trash.is_file() else discard(trash)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def _served(self) -> set[str]:
        """What our own registry offers."""
        if not (self.root / "registry").is_dir():
            return set()
        from steersman.engine.images.server import served

        return set(served(self.root, self.content))

    def _newest_to_collect(self) -> float:
        """With a registry here, blobs of the last hour may belong to a push whose manifest is still to come."""
        return self.clock.now() - _PUSH_SECONDS if (self.root / "registry").is_dir() else math.inf

    @asynccontextmanager
    async def keeping(self) -> AsyncIterator[None]:
        """While open, nothing is garbage collected: for pulls, loads, pushes and builds."""
        fd = os.open(self.root / _KEEP, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await asyncio.to_thread(fcntl.flock, fd, fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    def hold(self, owner: str, image: Image) -> Sequence[Path]:
        """Keep an image's layers for `owner` (a container's id) even if the image is removed; gives `layers`."""
        with locked(self.root / _KEEP, shared=True):  # nothing is collected between the look and the hold
            record = self.index.read()[image.id]
            fresh = self._holds / f".{owner}"
            fresh.write_text("\n".join(layer.diff_id[7:] for layer in record.layers))
            fresh.rename(self._holds / owner)
            return self.layers(image)

    def release(self, owner: str) -> None:
        """`owner` no longer needs its layers; idempotent."""
        (self._holds / owner).unlink(missing_ok=True)

    def _held(self) -> set[str]:
        return {line for path in self._holds.iterdir() for line in path.read_text().split()}


def _move_tag(records: dict[str, Record], to: Record, tag: str) -> None:
    for record in records.values():
        if tag in record.tags:
            record.tags.remove(tag)
    to.tags.append(tag)


def _by_prefix(records: Mapping[str, Record], text: str) -> Record | None:
    """An image by the start of its id, if only one begins so and no name was meant."""
    if len(text) < 4 or any(c not in "0123456789abcdef" for c in text):
        return None
    found = [record for record in records.values() if record.id[7:].startswith(text)]
    return found[0] if len(found) == 1 else None


def _unpacked_size(layer: Path) -> int:
    try:
        return int(layer.with_suffix(".size").read_text())
    except (OSError, ValueError):
        return 0
