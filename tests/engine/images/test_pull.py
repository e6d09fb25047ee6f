"""Pulling from Debian's docker-registry, and from hand-made registries that misbehave."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from steersman.engine.images.store import ImageStore
from steersman.engine.interface import Credentials, PullFailed
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Request, Response
from steersman.lib.http.server import Server
from tests.engine.images.conftest import (
    BASE,
    Built,
    build_image,
    digest_of,
    free_port,
    layer_tar,
    run,
    skopeo,
    write_layout,
)

Start = Callable[..., Awaitable[str]]


@asynccontextmanager
async def mirrored(root: Path, *urls: str, host: str = "docker.io") -> AsyncIterator[ImageStore]:
    store = ImageStore(root / "mirrored", SystemClock(), mirrors={host: urls})
    try:
        yield store
    finally:
        await store.close()


async def failure(store: ImageStore, reference: str, credentials: tuple[Credentials, ...] = ()) -> str:
    """The text of a failed pull, of which nothing may be left but whole layers, until they are collected."""
    with pytest.raises(PullFailed) as raised:
        await store.pull(reference, credentials)
    assert raised.value.reason == "ErrImagePull"
    assert not store.list()
    assert await asyncio.to_thread(store.collect)
    assert not list((store.root / "layers").iterdir())
    return str(raised.value)


async def test_a_docker_hub_name_comes_from_a_real_registry(
    tmp_path: Path, start_registry: Start, image: Built
) -> None:
    registry = await start_registry()
    layout = write_layout(tmp_path / "layout", image)
    target = f"docker://{registry}/library/nginx:1.7.9"
    await run(*skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:latest", target))
    async with mirrored(tmp_path, f"http://{registry}") as store:
        pulled = await store.pull("nginx:1.7.9")
        assert pulled.id == image.id
        assert pulled.tags == ("docker.io/library/nginx:1.7.9",)
        assert pulled.digests == (f"docker.io/library/nginx@{image.digest}",)
        assert pulled.config.env == (("PATH", "/bin"), ("A", "b=c"))
        assert pulled.config.cmd == ("sh",)
        assert pulled.size == len("hello\nx" + "again\n")
        top, bottom = store.layers(pulled)
        assert (top / "etc/motd").read_text() == "again\n"
        assert (bottom / "etc/motd").read_text() == "hello\n"
        for name in ("nginx:1.7.9", "docker.io/library/nginx:1.7.9", pulled.id, pulled.id[7:19], pulled.digests[0]):
            assert store.find(name) == pulled
        assert store.find("nginx") is None
        by_digest = await store.pull(f"nginx@{image.digest}")
        assert by_digest.id == pulled.id
        with pytest.raises(PullFailed) as raised:
            await store.pull("nope")
        assert str(raised.value) == (
            'failed to pull and unpack image "docker.io/library/nope:latest": failed to resolve reference '
            '"docker.io/library/nope:latest": docker.io/library/nope:latest: not found'
        )


async def test_docker_schema2_is_read_too(tmp_path: Path, start_registry: Start, image: Built) -> None:
    registry = await start_registry()
    layout = write_layout(tmp_path / "layout", image)
    target = f"docker://{registry}/app/web:1"
    await run(*skopeo("copy", "--dest-tls-verify=false", "--format", "v2s2", f"oci:{layout}:latest", target))
    async with mirrored(tmp_path, f"http://{registry}", host="registry.local:5000") as store:
        pulled = await store.pull("registry.local:5000/app/web:1")
        assert pulled.tags == ("registry.local:5000/app/web:1",)
        assert len(store.layers(pulled)) == 2


async def test_a_registry_with_passwords(tmp_path: Path, start_registry: Start, image: Built) -> None:
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(_SECRET)
    registry = await start_registry(f'auth: {{htpasswd: {{realm: basic, path: "{htpasswd}"}}}}')
    layout = write_layout(tmp_path / "layout", image)
    where = f"docker://{registry}/private:1"
    await run(
        *skopeo("copy", "--dest-tls-verify=false", "--dest-creds", "tester:secret", f"oci:{layout}:latest", where)
    )
    name = f"{registry}/private:1"
    store = ImageStore(tmp_path / "images", SystemClock())
    try:
        text = await failure(store, name)
        assert text.endswith(
            f'failed to resolve reference "{name}": pull access denied, repository does not exist or may require '
            "authorization: authorization failed: no basic auth credentials"
        )
        text = await failure(store, name, (Credentials("tester", "wrong"),))
        assert "401 Unauthorized" in text
        logins = (Credentials("tester", "wrong"), Credentials("tester", "secret"))
        assert (await store.pull(name, logins)).id == image.id
    finally:
        await store.close()


_SECRET = "tester:$2b$04$aIGinD1yrSa8.afw4hsa2uEfHhT89SFOwlSiIxwDSQ/TFfl6wZCcy\n"  # bcrypt of "secret"


async def test_no_registry_there(tmp_path: Path) -> None:
    port = free_port()
    async with mirrored(tmp_path, f"http://127.0.0.1:{port}") as store:
        text = await failure(store, "nginx")
        assert text == (
            'failed to pull and unpack image "docker.io/library/nginx:latest": failed to resolve reference '
            f'"docker.io/library/nginx:latest": failed to do request: Get '
            f'"http://127.0.0.1:{port}/v2/library/nginx/manifests/latest": dial tcp 127.0.0.1:{port}: '
            "connect: connection refused"
        )


async def test_an_invalid_name_is_said_at_once(store: ImageStore) -> None:
    with pytest.raises(PullFailed) as raised:
        await store.pull("Alpine")
    assert raised.value.reason == "InvalidImageName"
    assert str(raised.value).endswith("invalid reference format: repository name must be lowercase")


class Odd:
    """A registry whose answers a test chooses. Paths are looked up below /v2/."""

    def __init__(self, image: Built, name: str = "library/odd") -> None:
        self.answers: dict[str, Response] = {}
        self.seen: list[Request] = []
        self.hook: Callable[[Request], Response | None] = lambda _: None
        self.gate: asyncio.Event | None = None
        for digest, data in image.blobs.items():
            self.answers[f"/v2/{name}/blobs/{digest}"] = Response(200, (), data)
        kind = json.loads(image.manifest)["mediaType"]
        for target in ("latest", image.digest):
            self.answers[f"/v2/{name}/manifests/{target}"] = Response(200, [("content-type", kind)], image.manifest)

    async def __call__(self, request: Request) -> Response:
        self.seen.append(request)
        if self.gate is not None and "/blobs/" in request.path:
            await self.gate.wait()
        return self.hook(request) or self.answers.get(request.path) or Response(404)


@asynccontextmanager
async def served(tmp_path: Path, odd: Odd) -> AsyncIterator[tuple[ImageStore, str]]:
    async with Server(odd, SystemClock()) as server:
        url = f"http://127.0.0.1:{await server.listen('127.0.0.1', 0)}"
        async with mirrored(tmp_path, url) as store:
            yield store, url


async def test_the_platforms_own_manifest_is_chosen(tmp_path: Path, image: Built) -> None:
    other = build_image([layer_tar(("file", "arm", "x"))])
    odd = Odd(image)
    kind = "application/vnd.oci.image.manifest.v1+json"
    entries: list[dict[str, Any]] = [
        {"mediaType": kind, "digest": other.digest, "size": len(other.manifest), "platform": platform}
        for platform in ({"os": "linux", "architecture": "s390x"}, {"os": "windows", "architecture": "amd64"})
    ]
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    entries.insert(
        1,
        {
            "mediaType": kind,
            "digest": image.digest,
            "size": len(image.manifest),
            "platform": {"os": "linux", "architecture": machine},
        },
    )
    index_kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": index_kind, "manifests": entries}).encode()
    path = "/v2/library/odd/manifests/latest"
    odd.answers[path] = Response(200, [("content-type", index_kind)], index)
    async with served(tmp_path, odd) as (store, _):
        pulled = await store.pull("odd")
        assert pulled.id == image.id
        assert pulled.digests == (f"docker.io/library/odd@{digest_of(index)}",)
        await store.remove("odd")
        foreign = json.dumps({"schemaVersion": 2, "mediaType": index_kind, "manifests": entries[::2]}).encode()
        odd.answers[path] = Response(200, [("content-type", index_kind)], foreign)
        assert (await failure(store, "odd")).endswith(
            "no match for platform in manifest " + digest_of(foreign) + ": not found"
        )


async def test_bearer_tokens_are_fetched_with_and_without_a_login(tmp_path: Path, image: Built) -> None:
    odd = Odd(image)

    def guard(request: Request) -> Response | None:
        if request.path == "/token":
            login = request.header("authorization")
            if login == "Basic " + base64.b64encode(b"me:good").decode():
                assert "scope=repository%3Alibrary%2Fodd%3Apull" in request.query
                return Response(200, (), b'{"token":"sesame"}')
            return Response(401) if login else Response(200, (), b'{"access_token":"anybody"}')
        if request.header("authorization") == "Bearer sesame":
            return None
        host = request.header("host")
        error = ',error="insufficient_scope"' if request.header("authorization") else ""
        challenge = f'Bearer realm="http://{host}/token",service="hub",scope="repository:library/odd:pull"{error}'
        return Response(401, [("www-authenticate", challenge)])

    odd.hook = guard
    async with served(tmp_path, odd) as (store, url):
        denied = "pull access denied, repository does not exist or may require authorization: "
        assert (await failure(store, "odd")).endswith(
            f"{denied}server message: insufficient_scope: authorization failed"
        )
        text = await failure(store, "odd", (Credentials("me", "bad"),))
        assert (
            f"failed to authorize: failed to fetch oauth token: unexpected status from GET request to {url}/t" in text
        )
        await store.pull("odd", (Credentials("me", "good"),))


async def test_blobs_may_be_elsewhere_and_the_login_is_not_sent_there(tmp_path: Path, image: Built) -> None:
    store_of_blobs = Odd(image)
    odd = Odd(image)
    async with Server(store_of_blobs, SystemClock()) as server:
        elsewhere = f"http://127.0.0.1:{await server.listen('127.0.0.1', 0)}"

        def away(request: Request) -> Response | None:
            if not request.header("authorization"):
                return Response(401, [("www-authenticate", 'Basic realm="x"')])
            if "/blobs/" in request.path:
                return Response(307, [("location", elsewhere + request.path)])
            return None

        odd.hook = away
        async with served(tmp_path, odd) as (store, _):
            await store.pull("odd", (Credentials("a", "b"),))
    assert store_of_blobs.seen
    assert not any(request.header("authorization") for request in store_of_blobs.seen)


def _break(image: Built, odd: Odd, what: str) -> None:
    layer = f"/v2/library/odd/blobs/{image.layers[0]}"
    config = f"/v2/library/odd/blobs/{image.id}"
    manifest = odd.answers["/v2/library/odd/manifests/latest"]
    good = odd.answers[layer].body
    assert isinstance(good, bytes)
    changes: dict[str, Callable[[], None]] = {
        "wrong bytes": lambda: odd.answers.update({layer: Response(200, (), good[:-1] + b"!")}),
        "short": lambda: odd.answers.update({layer: Response(200, (), good[:-9])}),
        "long": lambda: odd.answers.update({layer: Response(200, (), good + b"more")}),
        "missing layer": lambda: odd.answers.pop(layer) and None,
        "missing config": lambda: odd.answers.pop(config) and None,
        "server error": lambda: odd.answers.update({layer: Response(500)}),
        "lying digest": lambda: setattr(manifest, "headers", [("docker-content-digest", digest_of(b""))]),
        "not JSON": lambda: setattr(manifest, "body", b"<html>"),
        "JSON of another kind": lambda: setattr(manifest, "body", b"[1]"),
        "schema 1": lambda: setattr(manifest, "body", b'{"schemaVersion":1}'),
        "huge manifest": lambda: setattr(manifest, "body", b" " * (5 << 20)),
        "traversal": lambda: setattr(manifest, "body", image.manifest.replace(image.id.encode(), b"sha256:../../x")),
    }
    changes[what]()


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("wrong bytes", "unexpected commit digest"),
        ("short", "size validation failed"),
        ("long", "size validation failed"),
        ("missing layer", "not found"),
        ("missing config", "not found"),
        ("server error", "unexpected status from GET request"),
        ("lying digest", "unexpected digest"),
        ("not JSON", "invalid manifest"),
        ("JSON of another kind", "invalid manifest"),
        ("schema 1", "is no longer supported"),
        ("huge manifest", "rejecting an answer of more than"),
        ("traversal", "invalid descriptor"),
    ],
)
async def test_a_lying_registry_is_caught_and_nothing_stays(tmp_path: Path, image: Built, what: str, why: str) -> None:
    odd = Odd(image)
    _break(image, odd, what)
    async with served(tmp_path, odd) as (store, _):
        assert why in await failure(store, "odd")
        assert not [path for path in (store.root / "ingest").rglob("*") if path.is_file() and path.name != "lock"]


async def test_hostile_layers_and_wrong_diff_ids_fail_the_pull(tmp_path: Path) -> None:
    evil = build_image([layer_tar(("file", "ok", "x")), layer_tar(("file", "../evil", "x"))])
    wrong = build_image(BASE, diff_ids=[digest_of(b"1"), digest_of(b"2")])
    async with served(tmp_path, Odd(evil)) as (store, _):
        with pytest.raises(PullFailed, match=r"failed to extract layer sha256:\w+: invalid path '../evil'"):
            await store.pull("odd")
        assert not store.list()
    async with served(tmp_path, Odd(wrong)) as (store, _):
        with pytest.raises(PullFailed, match="wrong diff id calculated on extraction"):
            await store.pull("odd")


async def test_each_digest_is_fetched_once_however_many_ask(tmp_path: Path, image: Built) -> None:
    odd = Odd(image)
    odd.gate = asyncio.Event()
    async with served(tmp_path, odd) as (store, _):
        pulls = [asyncio.ensure_future(store.pull("odd")) for _ in range(8)]
        while sum("/manifests/" in request.path for request in odd.seen) < 8:
            await asyncio.wait(pulls, timeout=0.01)
        pulls[0].cancel()
        odd.gate.set()
        results = await asyncio.gather(*pulls, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert {each.id for each in results[1:] if not isinstance(each, BaseException)} == {image.id}
        fetched = [request.path for request in odd.seen if "/blobs/" in request.path]
        assert sorted(fetched) == sorted(set(fetched))


async def test_the_next_mirror_is_asked_when_one_fails(tmp_path: Path, image: Built) -> None:
    async with Server(Odd(image), SystemClock()) as server:
        good = f"http://127.0.0.1:{await server.listen('127.0.0.1', 0)}"
        async with mirrored(tmp_path, f"http://127.0.0.1:{free_port()}", good) as store:
            assert (await store.pull("odd")).id == image.id
