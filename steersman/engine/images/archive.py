"""Images as files: `docker save`'s archive and OCI layouts in a tar.

Owns reading and writing of both. What is written is both at once, as Docker does, so that every tool finds its own. An
archive is not trusted: blobs count by the digest of their bytes, names in it are only keys. Called by the CLI. Source:
OCI image layout specification; Docker's image archive version 1.2.
"""

from __future__ import annotations

import asyncio
import io
import json
import posixpath
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from steersman.engine.images import manifest as formats
from steersman.engine.images import reference as references
from steersman.engine.images.content import Content, ContentError
from steersman.engine.images.manifest import BadManifest, Descriptor, Manifest
from steersman.engine.images.reference import InvalidReference, is_digest
from steersman.engine.images.tar import BadArchive, Reader
from steersman.engine.images.unpack import GZIP_MAGIC, ZSTD_MAGIC, decompressed

if TYPE_CHECKING:
    from steersman.engine.images.store import ImageStore
    from steersman.engine.interface import Image

_MAX_MEMBERS = 20_000
_MAX_LINKS = 10
_NAME_NOTES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class ArchiveFailed(Exception):
    """The archive could not be read or written; the text says why."""


class _DockerImage(msgspec.Struct, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


async def load(store: ImageStore, path: Path) -> list[Image]:
    """Take in every image of an archive, compressed or not; returns them. Raises ArchiveFailed."""
    async with store.keeping():
        try:
            files = await asyncio.to_thread(_read, store.content, path)
            if "manifest.json" in files:
                return await _load_docker(store, files)
            if "index.json" in files:
                return await _load_layout(store, files)
        except (BadArchive, BadManifest, ContentError, InvalidReference, msgspec.MsgspecError) as error:
            raise ArchiveFailed(f"invalid archive: {error}") from error
        except OSError as error:
            raise ArchiveFailed(f"cannot read {path}: {error.strerror or error}") from error
    raise ArchiveFailed("invalid archive: it has neither manifest.json nor index.json")


def _read(content: Content, path: Path) -> dict[str, str]:
    """Store every file of the archive as a blob; name to digest, links followed."""
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    with path.open("rb", buffering=0) as file:
        reader = Reader(decompressed(file))
        for count, entry in enumerate(reader):
            if count >= _MAX_MEMBERS:
                raise BadArchive("too many files")
            name = posixpath.normpath("/" + entry.name)[1:]
            if entry.kind in "12":
                base = "" if entry.kind == "1" else posixpath.dirname(name)
                links[name] = posixpath.normpath(f"/{base}/{entry.link}")[1:]
            if entry.kind != "0":
                continue
            writer = content.writer()
            try:
                for piece in reader.data(entry):
                    writer.write(piece)
                files[name] = writer.commit()
            finally:
                writer.abort()
    for name in links:
        target = name
        for _ in range(_MAX_LINKS):
            target = links.get(target, target)
        if target in files:
            files.setdefault(name, files[target])
    return files


async def _load_docker(store: ImageStore, files: dict[str, str]) -> list[Image]:
    described = msgspec.json.decode(store.content.read(files["manifest.json"]), type=list[_DockerImage])
    out: list[Image] = []
    for each in described:
        config = _named(files, each.config)
        layers = [_layer(store.content, _named(files, name)) for name in each.layers]
        found = Manifest(Descriptor(formats.OCI_CONFIG, store.content.size(config), config), layers)
        out.append(await _adopt(store, found, each.repo_tags or []))
    return out


def _named(files: dict[str, str], name: str) -> str:
    try:
        return files[posixpath.normpath("/" + name)[1:]]
    except KeyError:
        raise BadArchive(f"{name!r} is missing") from None


def _layer(content: Content, digest: str) -> Descriptor:
    with content.path(digest).open("rb") as file:
        magic = file.read(4)
    suffix = "+gzip" if magic.startswith(GZIP_MAGIC) else "+zstd" if magic == ZSTD_MAGIC else ""
    return Descriptor(f"{formats.OCI_LAYER}{suffix}", content.size(digest), digest)


async def _adopt(store: ImageStore, found: Manifest, tags: Sequence[str]) -> Image:
    """Record an image whose manifest is made here, under its tags."""
    body = {
        "schemaVersion": 2,
        "mediaType": formats.OCI_MANIFEST,
        "config": msgspec.to_builtins(found.config),
        "layers": [msgspec.to_builtins(layer) for layer in found.layers],
    }
    digest = await asyncio.to_thread(store.content.add, json.dumps(body).encode())
    return await _tagged(store, found, [digest], tags)


async def _tagged(store: ImageStore, found: Manifest, manifests: list[str], tags: Sequence[str]) -> Image:
    names = [references.parse(tag).tagged for tag in tags]
    image = await store.adopt(found, manifests, tag=names[0] if names else "")
    for name in names[1:]:
        await store.tag(image.id, name)
    return store.find(image.id) or image


async def _load_layout(store: ImageStore, files: dict[str, str]) -> list[Image]:
    index = formats.read_index(store.content.read(files["index.json"]))
    out: list[Image] = []
    for each in index.manifests:
        manifests = [each.digest]
        body = _blob(store.content, each.digest)
        if formats.media_type(body, each.media_type) in formats.INDEXES:
            chosen = formats.choose(formats.read_index(body).manifests, formats.this_platform())
            if chosen is None:
                raise BadManifest(f"no match for platform in manifest {each.digest}: not found")
            manifests.append(chosen.digest)
            body = _blob(store.content, chosen.digest)
        notes = each.annotations or {}
        tags = [notes[note] for note in _NAME_NOTES if _is_name(notes.get(note, ""))][:1]
        out.append(await _tagged(store, formats.read_manifest(body), manifests, tags))
    return out


def _blob(content: Content, digest: str) -> bytes:
    if not is_digest(digest) or not content.has(digest):
        raise BadArchive(f"blob {digest!r} is missing")
    return content.read(digest)


def _is_name(text: str) -> bool:
    """A whole name; a bare tag, which OCI layouts may have too, names no repository."""
    try:
        return bool(text) and ("/" in text or ":" in text) and bool(references.parse(text).tag)
    except InvalidReference:
        return False


async def save(store: ImageStore, names: Sequence[str], path: Path) -> None:
    """Write images to a tar that Docker and OCI tools read. Raises ArchiveFailed; then the file is not there."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        async with store.keeping():
            await asyncio.to_thread(_write, store, names, fresh)
        fresh.rename(path)
    except OSError as error:
        raise ArchiveFailed(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        fresh.unlink(missing_ok=True)


def _write(store: ImageStore, names: Sequence[str], path: Path) -> None:
    index: list[dict[str, Any]] = []
    described: dict[str, dict[str, Any]] = {}
    blobs: dict[str, None] = {}
    for name in names:
        record = store.record(name)
        if record is None:
            raise ArchiveFailed(f"No such image: {name}")
        tag = _saved_tag(name, record.tags)
        body = store.content.read(record.manifest)
        found = formats.read_manifest(body)
        blobs |= dict.fromkeys([record.manifest, record.id, *(layer.digest for layer in found.layers)])
        entry = described.setdefault(
            record.id, {"Config": _path(record.id), "RepoTags": [], "Layers": [_path(x.digest) for x in found.layers]}
        )
        kind = formats.media_type(body, found.media_type)
        descriptor: dict[str, Any] = {"mediaType": kind, "digest": record.manifest, "size": len(body)}
        if tag:
            entry["RepoTags"].append(references.parse(tag).familiar())
            descriptor["annotations"] = {_NAME_NOTES[0]: tag, _NAME_NOTES[1]: tag.rpartition(":")[2]}
        index.append(descriptor)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for digest in blobs:
            tar.add(store.content.path(digest), _path(digest), filter=_plain)
        layout = {"schemaVersion": 2, "mediaType": formats.OCI_INDEX, "manifests": index}
        documents: dict[str, Any] = {
            "index.json": layout,
            "manifest.json": list(described.values()),
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
        }
        for name, document in documents.items():
            raw = json.dumps(document).encode()
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))


def _saved_tag(name: str, tags: Sequence[str]) -> str:
    """The tag that was asked for; none when the image was named by id or digest."""
    try:
        wanted = references.parse(name).tagged
    except InvalidReference:
        return ""
    return wanted if wanted in tags else ""


def _path(digest: str) -> str:
    return f"blobs/sha256/{digest[7:]}"


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without whose file it is here."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o644
    return info
