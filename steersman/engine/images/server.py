"""A registry over the image store's content: what other machines pull from and push to.

Owns the server side of the distribution protocol as one HTTP handler. Repositories are names over the shared blobs;
which manifest a tag means is kept under `registry/`, and blobs are not collected while a manifest there names them.
Give it to `lib.http.server.Server` with `streams=wants_stream`, so that uploads are not held in memory. It knows no
users: whoever reaches its address may push. Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote

from steersman.engine.images import manifest as formats
from steersman.engine.images.content import Content, ContentError, Ingest
from steersman.engine.images.manifest import BadManifest
from steersman.engine.images.reference import is_digest
from steersman.engine.images.registry import MAX_MANIFEST
from steersman.lib.http.messages import Answer, Request, Response, Stream, Writer

if TYPE_CHECKING:
    from steersman.lib.clock import Clock

_NAME = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
_ROUTE = re.compile(rf"/v2/({_NAME})/(manifests|blobs|tags)/(.+?)/?")
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIRECTORY = "registry"
_PIECE = 1 << 18
_MAX_UPLOADS = 100
_ABANDONED = 3600.0  # seconds after which an upload nobody continues is dropped
_VERSION = ("docker-distribution-api-version", "registry/2.0")


class _Refused(Exception):
    """An error of the protocol."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.answer = _failure(status, code, message)


def _failure(status: int, code: str, message: str) -> Response:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Response(status, [("content-type", "application/json"), _VERSION], body)


def served(root: Path, content: Content) -> Iterator[str]:
    """Digests that must stay for the registry under `root`: its manifests, and what they name."""
    for path in (root / _DIRECTORY).rglob("_manifests/*"):
        digest = f"sha256:{path.name}"
        yield digest
        try:
            body = content.read(digest)
            if formats.media_type(body, path.read_text()) in formats.INDEXES:
                yield from (each.digest for each in formats.read_index(body).manifests)
            else:
                found = formats.read_manifest(body)
                yield from (each.digest for each in (found.config, *found.layers))
        except (OSError, BadManifest, ContentError):
            continue


def wants_stream(request: Request) -> bool:
    """Whether a request's body is to be streamed: blob uploads are."""
    return request.method in ("PATCH", "PUT", "POST") and "/blobs/uploads/" in request.path


@dataclass(slots=True)
class _Upload:
    repository: str
    writer: Ingest
    touched: float
    lock: asyncio.Lock


class Registry:
    """The handler. `root`: the image store's directory; `content`: its blobs."""

    def __init__(self, root: Path, content: Content, clock: Clock) -> None:
        self._content = content
        self._clock = clock
        self._repositories = root / _DIRECTORY
        self._repositories.mkdir(exist_ok=True)
        self._uploads: dict[str, _Upload] = {}

    def close(self) -> None:
        """Drop unfinished uploads."""
        for upload in self._uploads.values():
            upload.writer.abort()
        self._uploads.clear()

    async def handle(self, request: Request) -> Answer:
        """Answer one request."""
        try:
            return await self._route(request)
        except _Refused as refused:
            return refused.answer
        except ContentError as error:
            return _failure(400, "DIGEST_INVALID", str(error))
        except OSError as error:
            return _failure(500, "UNKNOWN", f"cannot store: {error.strerror or error}")

    async def _route(self, request: Request) -> Answer:
        path = unquote(request.path)
        if path.rstrip("/") == "/v2":
            return Response(200, [("content-type", "application/json"), _VERSION], b"{}")
        if path == "/v2/_catalog" and request.method == "GET":
            return self._catalog()
        found = _ROUTE.fullmatch(path) or re.fullmatch(rf"/v2/({_NAME})/(blobs)/(uploads)/", path)
        if found is None:
            raise _Refused(404, "NAME_INVALID" if path.startswith("/v2/") else "UNSUPPORTED", "no such resource")
        repository, kind, rest = found.groups()
        if kind == "tags" and rest == "list":
            return self._tags(repository, request)
        if kind == "manifests":
            return await self._manifest(repository, rest, request)
        if kind == "blobs" and rest.partition("/")[0] == "uploads":
            return await self._upload(repository, rest.partition("/")[2], request)
        if kind == "blobs":
            return self._blob(repository, rest, request)
        raise _Refused(404, "UNSUPPORTED", "no such resource")

    # manifests and tags

    def _directory(self, repository: str, kind: str) -> Path:
        return self._repositories / repository / kind

    def _catalog(self) -> Response:
        found = sorted(
            str(path.parent.relative_to(self._repositories)) for path in self._repositories.rglob("_manifests")
        )
        return Response(200, [("content-type", "application/json")], json.dumps({"repositories": found}).encode())

    def _tags(self, repository: str, request: Request) -> Response:
        if not self._directory(repository, "_manifests").is_dir():
            raise _Refused(404, "NAME_UNKNOWN", "repository name not known to registry")
        query = parse_qs(request.query)
        directory = self._directory(repository, "_tags")
        tags = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
        last = query.get("last", [""])[0]
        tags = [tag for tag in tags if tag > last]
        headers: list[tuple[str, str]] = [("content-type", "application/json"), _VERSION]
        count = query.get("n", [""])[0]
        if count.isdecimal() and len(tags) > int(count):
            tags = tags[: int(count)]
            if tags:
                headers.append(("link", f'</v2/{repository}/tags/list?n={count}&last={quote(tags[-1])}>; rel="next"'))
        return Response(200, headers, json.dumps({"name": repository, "tags": tags}).encode())

    def _resolve(self, repository: str, target: str) -> tuple[str, str]:
        """(digest, media type) of a tag or digest. Raises _Refused."""
        if is_digest(target):
            digest = target
        elif _TAG.fullmatch(target):
            try:
                digest = (self._directory(repository, "_tags") / target).read_text()
            except FileNotFoundError:
                raise _Refused(404, "MANIFEST_UNKNOWN", "manifest unknown") from None
        else:
            raise _Refused(400, "TAG_INVALID", "manifest tag did not match URI")
        try:
            return digest, (self._directory(repository, "_manifests") / digest[7:]).read_text()
        except FileNotFoundError:
            raise _Refused(404, "MANIFEST_UNKNOWN", "manifest unknown") from None

    async def _manifest(self, repository: str, target: str, request: Request) -> Response:
        if request.method in ("GET", "HEAD"):
            digest, kind = self._resolve(repository, target)
            body = self._content.read(digest)
            headers = [("content-type", kind), ("docker-content-digest", digest), ("etag", f'"{digest}"'), _VERSION]
            return Response(200, headers, body)
        if request.method == "PUT":
            return self._put_manifest(repository, target, request)
        if request.method == "DELETE":
            self._delete_manifest(repository, target)
            return Response(202, [_VERSION])
        raise _Refused(405, "UNSUPPORTED", "the operation is unsupported")

    def _put_manifest(self, repository: str, target: str, request: Request) -> Response:
        if len(request.body) > MAX_MANIFEST:
            raise _Refused(413, "MANIFEST_INVALID", "manifest is too large")
        try:
            kind = formats.media_type(request.body, (request.header("content-type") or "").split(";")[0])
            if kind in formats.INDEXES:
                needed = [each.digest for each in formats.read_index(request.body).manifests]
            else:
                found = formats.read_manifest(request.body)
                needed = [each.digest for each in (found.config, *found.layers) if not each.urls]
        except BadManifest as error:
            raise _Refused(400, "MANIFEST_INVALID", str(error)) from error
        for digest in needed:
            if not is_digest(digest) or not self._content.has(digest):
                raise _Refused(404, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {digest}")
        digest = self._content.add(request.body)
        if is_digest(target) and target != digest:
            raise _Refused(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        if not is_digest(target) and not _TAG.fullmatch(target):
            raise _Refused(400, "TAG_INVALID", "manifest tag did not match URI")
        _write(self._directory(repository, "_manifests") / digest[7:], kind)
        if not is_digest(target):
            _write(self._directory(repository, "_tags") / target, digest)
        location = f"/v2/{repository}/manifests/{digest}"
        return Response(201, [("location", location), ("docker-content-digest", digest), _VERSION])

    def _delete_manifest(self, repository: str, target: str) -> None:
        digest, _ = self._resolve(repository, target)
        tags = self._directory(repository, "_tags")
        if not is_digest(target):
            (tags / target).unlink(missing_ok=True)
            return
        for tag in tags.iterdir() if tags.is_dir() else ():
            if tag.read_text() == digest:
                tag.unlink(missing_ok=True)
        (self._directory(repository, "_manifests") / digest[7:]).unlink(missing_ok=True)

    # blobs

    def _blob(self, repository: str, digest: str, request: Request) -> Answer:
        if not is_digest(digest):
            raise _Refused(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        if request.method not in ("GET", "HEAD"):
            raise _Refused(405, "UNSUPPORTED", "blobs are removed when no image needs them")
        try:
            size = self._content.size(digest)
        except FileNotFoundError:
            raise _Refused(404, "BLOB_UNKNOWN", "blob unknown to registry") from None
        headers = [("content-type", "application/octet-stream"), ("docker-content-digest", digest), _VERSION]
        if request.method == "HEAD":
            return Response(200, headers, [_mapped(self._content.path(digest))])
        first, last, partial = _range(request.header("range") or "", size)
        if partial:
            headers.append(("content-range", f"bytes {first}-{last}/{size}"))
        return Stream(206 if partial else 200, headers, _Sender(self._content.path(digest), first, last + 1).run)

    async def _upload(self, repository: str, id_: str, request: Request) -> Answer:
        if not id_:
            if request.method != "POST":
                raise _Refused(405, "UNSUPPORTED", "the operation is unsupported")
            return await self._begin(repository, request)
        upload = self._uploads.get(id_)
        if upload is None or upload.repository != repository:
            raise _Refused(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
        if request.method == "GET":
            return self._progress(204, id_, upload)
        if request.method == "DELETE":
            self._drop(id_)
            return Response(204, [_VERSION])
        if request.method not in ("PATCH", "PUT"):
            raise _Refused(405, "UNSUPPORTED", "the operation is unsupported")
        async with upload.lock:
            await self._receive(id_, upload, request)
            if request.method == "PATCH":
                return self._progress(202, id_, upload)
            return await self._finish(id_, upload, request)

    async def _begin(self, repository: str, request: Request) -> Answer:
        query = {name: values[0] for name, values in parse_qs(request.query).items()}
        mount = query.get("mount", "")
        if is_digest(mount) and self._content.has(mount):
            return self._created(repository, mount)
        self._drop_abandoned()
        id_ = secrets.token_hex(16)
        upload = _Upload(repository, self._content.writer(), self._clock.monotonic(), asyncio.Lock())
        self._uploads[id_] = upload
        if "digest" not in query:
            return self._progress(202, id_, upload)
        async with upload.lock:
            await self._receive(id_, upload, request)
            return await self._finish(id_, upload, request)

    async def _receive(self, id_: str, upload: _Upload, request: Request) -> None:
        ranged = request.header("content-range") or ""
        start = ranged.removeprefix("bytes ").partition("-")[0]
        if ranged and (not start.isdecimal() or int(start) != upload.writer.size):
            raise _Refused(416, "BLOB_UPLOAD_INVALID", "blob upload out of order")
        try:
            if request.stream is None:
                upload.writer.write(request.body)
            else:
                async for piece in request.stream:
                    upload.writer.write(piece)
        except BaseException:
            self._drop(id_)
            raise
        upload.touched = self._clock.monotonic()

    async def _finish(self, id_: str, upload: _Upload, request: Request) -> Response:
        digest = parse_qs(request.query).get("digest", [""])[0]
        if not is_digest(digest):
            raise _Refused(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self._uploads.pop(id_, None)
        await asyncio.to_thread(upload.writer.commit, digest)
        return self._created(upload.repository, digest)

    def _created(self, repository: str, digest: str) -> Response:
        location = f"/v2/{repository}/blobs/{digest}"
        return Response(201, [("location", location), ("docker-content-digest", digest), _VERSION])

    def _progress(self, status: int, id_: str, upload: _Upload) -> Response:
        place = f"/v2/{upload.repository}/blobs/uploads/{id_}"
        end = max(upload.writer.size - 1, 0)
        return Response(status, [("location", place), ("range", f"0-{end}"), ("docker-upload-uuid", id_), _VERSION])

    def _drop(self, id_: str) -> None:
        upload = self._uploads.pop(id_, None)
        if upload is not None:
            upload.writer.abort()

    def _drop_abandoned(self) -> None:
        now = self._clock.monotonic()
        for id_ in [id_ for id_, each in self._uploads.items() if now - each.touched > _ABANDONED]:
            self._drop(id_)
        if len(self._uploads) >= _MAX_UPLOADS:
            raise _Refused(429, "TOOMANYREQUESTS", "too many uploads are under way")


class _Sender:
    """Sends a part of a file."""

    def __init__(self, path: Path, first: int, end: int) -> None:
        self._path, self._first, self._end = path, first, end

    async def run(self, writer: Writer) -> None:
        """Piece by piece, at the reader's pace."""
        with self._path.open("rb", buffering=0) as file:
            file.seek(self._first)
            left = self._end - self._first
            while left > 0 and (piece := file.read(min(left, _PIECE))):
                left -= len(piece)
                writer.write(piece)
                await writer.drain()


def _mapped(path: Path) -> bytes:
    """A file as something that has its length without being read: an answer to HEAD needs no more."""
    with path.open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # type: ignore[return-value]


def _range(header: str, size: int) -> tuple[int, int, bool]:
    """(first, last, whether it is a part) of a Range header; what is not understood means everything."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if found is None or not any(found.groups()):
        return 0, size - 1, False
    if not found[1]:
        return max(size - int(found[2]), 0), size - 1, True
    first, last = int(found[1]), min(int(found[2] or size - 1), size - 1)
    if first > last:
        raise _Refused(416, "RANGE_INVALID", "invalid content range")
    return first, last, True


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{secrets.token_hex(4)}")
    fresh.write_text(text)
    os.rename(fresh, path)
