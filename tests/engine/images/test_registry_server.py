"""Our registry against skopeo, our own client and odd requests; our pushes against Debian's docker-registry."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steersman.engine.images.manifest import read_manifest
from steersman.engine.images.push import PushFailed, push
from steersman.engine.images.server import Registry, wants_stream
from steersman.engine.images.store import ImageStore
from steersman.engine.interface import Credentials, PullFailed
from steersman.lib.clock import SystemClock
from steersman.lib.http.client import Address, HttpClient
from steersman.lib.http.server import Server
from tests.engine.images.conftest import BASE, Built, build_image, digest_of, run, skopeo, write_layout


@dataclass
class World:
    store: ImageStore
    client: HttpClient
    host: str

    async def ask(
        self, method: str, target: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        sent = [(name.replace("_", "-"), value) for name, value in headers.items()]
        response = await self.client.request(method, target, sent, body)
        return response.status, dict(response.headers), await response.read()

    async def upload(self, data: bytes, repository: str = "a") -> None:
        target = f"/v2/{repository}/blobs/uploads/?digest={digest_of(data)}"
        assert (await self.ask("POST", target, data))[0] == 201


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = SystemClock()
    store = ImageStore(tmp_path / "served", clock)
    registry = Registry(store.root, store.content, clock)
    async with Server(registry.handle, clock, streams=wants_stream) as server:
        port = await server.listen("127.0.0.1", 0)
        client = HttpClient(Address("127.0.0.1", port))
        yield World(store, client, f"127.0.0.1:{port}")
        await client.close()
    registry.close()
    await store.close()


def code(body: bytes) -> str:
    return str(json.loads(body)["errors"][0]["code"])


async def test_skopeo_pushes_and_pulls(tmp_path: Path, world: World, image: Built) -> None:
    layout = write_layout(tmp_path / "layout", image)
    where = f"docker://{world.host}/team/web:1"
    await run(*skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:latest", where))
    inspected = json.loads(await run(*skopeo("inspect", "--tls-verify=false", where)))
    assert inspected["Digest"] == image.digest
    assert inspected["RepoTags"] == ["1"]
    await run(*skopeo("copy", "--src-tls-verify=false", where, f"oci:{tmp_path / 'back'}:latest"))
    assert (tmp_path / "back/blobs/sha256" / image.layers[0][7:]).read_bytes() == image.blobs[image.layers[0]]
    await run(*skopeo("delete", "--tls-verify=false", where))
    assert (await world.ask("GET", "/v2/team/web/manifests/1"))[0] == 404


async def test_our_client_pushes_to_it_and_pulls_from_it(tmp_path: Path, world: World, image: Built) -> None:
    mine = ImageStore(tmp_path / "mine", SystemClock())
    await put(mine, image, f"{world.host}/web:1")
    assert await push(mine, f"{world.host}/web:1") == image.digest
    assert await push(mine, f"{world.host}/web:1") == image.digest
    assert json.loads((await world.ask("GET", "/v2/_catalog"))[2]) == {"repositories": ["web"]}
    other = ImageStore(tmp_path / "other", SystemClock())
    assert (await other.pull(f"{world.host}/web:1")).id == image.id
    await mine.close()
    await other.close()


async def put(store: ImageStore, image: Built, tag: str) -> None:
    async with store.keeping():
        for data in (*image.blobs.values(), image.manifest):
            store.content.add(data)
        await store.adopt(read_manifest(image.manifest), [image.digest], tag=tag)


async def test_debians_registry_takes_our_push(
    tmp_path: Path, image: Built, start_registry: Callable[..., Awaitable[str]]
) -> None:
    secret = tmp_path / "htpasswd"
    secret.write_text("tester:$2b$04$aIGinD1yrSa8.afw4hsa2uEfHhT89SFOwlSiIxwDSQ/TFfl6wZCcy\n")
    host = await start_registry(f'auth: {{htpasswd: {{realm: basic, path: "{secret}"}}}}')
    store = ImageStore(tmp_path / "images", SystemClock())
    await put(store, image, f"{host}/web:1")
    with pytest.raises(PushFailed, match="no basic auth credentials"):
        await push(store, f"{host}/web:1")
    await push(store, f"{host}/web:1", [Credentials("tester", "secret")])
    where = f"docker://{host}/web:1"
    inspected = await run(*skopeo("inspect", "--tls-verify=false", "--creds", "tester:secret", where))
    assert json.loads(inspected)["Digest"] == image.digest
    with pytest.raises(PushFailed, match="An image does not exist locally with the tag"):
        await push(store, f"{host}/other:1")
    with pytest.raises(PushFailed, match="must be lowercase"):
        await push(store, "Web")
    await store.close()


async def test_uploads_in_pieces(world: World) -> None:
    _, headers, _ = await world.ask("POST", "/v2/a/blobs/uploads/")
    place = headers["location"]
    status, headers, _ = await world.ask("PATCH", place, b"hello ", content_range="0-5")
    assert (status, headers["range"]) == (202, "0-5")
    assert (await world.ask("PATCH", place, b"x", content_range="9-9"))[0] == 416
    assert (await world.ask("GET", place))[1]["range"] == "0-5"
    status, headers, _ = await world.ask("PUT", f"{place}?digest={digest_of(b'hello world')}", b"world")
    assert status == 201
    where = headers["location"]
    assert (await world.ask("GET", where))[2] == b"hello world"
    status, headers, body = await world.ask("GET", where, range="bytes=6-8")
    assert (status, headers["content-range"], body) == (206, "bytes 6-8/11", b"wor")
    assert (await world.ask("GET", where, range="bytes=50-60"))[0] == 416
    assert (await world.ask("HEAD", where))[1]["content-length"] == "11"
    status, headers, _ = await world.ask("POST", f"/v2/b/blobs/uploads/?mount={digest_of(b'hello world')}&from=a")
    assert status == 201


async def test_what_is_wrong_is_refused(world: World, image: Built) -> None:
    _, headers, _ = await world.ask("POST", "/v2/a/blobs/uploads/")
    place = headers["location"]
    status, _, body = await world.ask("PUT", f"{place}?digest={digest_of(b'other')}", b"data")
    assert (status, code(body)) == (400, "DIGEST_INVALID")
    assert not list(world.store.content.blobs.iterdir())
    assert (await world.ask("PUT", f"{place}?digest={digest_of(b'data')}", b"data"))[0] == 404
    kind = "application/vnd.oci.image.manifest.v1+json"
    cases: list[tuple[str, str, bytes, int, str]] = [
        ("PUT", "/v2/a/manifests/1", image.manifest, 404, "MANIFEST_BLOB_UNKNOWN"),
        ("PUT", "/v2/a/manifests/1", b"no", 400, "MANIFEST_INVALID"),
        ("GET", "/v2/a/manifests/none", b"", 404, "MANIFEST_UNKNOWN"),
        ("GET", "/v2/a/manifests/-bad", b"", 400, "TAG_INVALID"),
        ("GET", "/v2/a/manifests/..%2F..%2Fx", b"", 400, "TAG_INVALID"),
        ("GET", f"/v2/a/blobs/{digest_of(b'none')}", b"", 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/blobs/sha256:short", b"", 400, "DIGEST_INVALID"),
        ("GET", "/v2/Upper/tags/list", b"", 404, "NAME_INVALID"),
        ("GET", "/v2/..%2F..%2Fetc/tags/list", b"", 404, "NAME_INVALID"),
        ("GET", "/v2/none/tags/list", b"", 404, "NAME_UNKNOWN"),
        ("PATCH", "/v2/a/blobs/uploads/none", b"x", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("DELETE", f"/v2/a/blobs/{digest_of(b'none')}", b"", 405, "UNSUPPORTED"),
        ("GET", "/v1/", b"", 404, "UNSUPPORTED"),
    ]
    for method, target, sent, status, word in cases:
        got, _, body = await world.ask(method, target, sent, content_type=kind)
        assert (got, code(body)) == (status, word), target
    with pytest.raises(PullFailed, match="not found"):
        await world.store.pull(f"{world.host}/none:1")


async def test_tags_come_in_pages(world: World, image: Built) -> None:
    for data in image.blobs.values():
        await world.upload(data)
    for tag in "abc":
        assert (await world.ask("PUT", f"/v2/a/manifests/{tag}", image.manifest))[0] == 201
    status, headers, body = await world.ask("GET", "/v2/a/tags/list?n=2")
    assert (status, json.loads(body)) == (200, {"name": "a", "tags": ["a", "b"]})
    assert headers["link"] == '</v2/a/tags/list?n=2&last=b>; rel="next"'
    assert json.loads((await world.ask("GET", "/v2/a/tags/list?n=2&last=b"))[2])["tags"] == ["c"]


async def test_what_it_serves_is_not_collected(world: World, monkeypatch: Any) -> None:
    image = build_image(BASE)
    for data in image.blobs.values():
        await world.upload(data)
    await world.upload(b"abandoned")
    assert (await world.ask("PUT", "/v2/a/manifests/1", image.manifest))[0] == 201
    assert world.store.collect()
    assert world.store.content.has(digest_of(b"abandoned")), "it may belong to a push under way"
    monkeypatch.setattr(world.store, "clock", Later())
    assert world.store.collect()
    assert not world.store.content.has(digest_of(b"abandoned"))
    assert all(world.store.content.has(digest) for digest in (*image.blobs, image.digest))


class Later(SystemClock):
    def now(self) -> float:
        return super().now() + 7200
