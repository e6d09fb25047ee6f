"""Archives: ours read by skopeo, skopeo's read by us, and hostile ones."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from steersman.engine.images.archive import ArchiveFailed, load, save
from steersman.engine.images.describe import history, inspect
from steersman.engine.images.manifest import read_manifest
from steersman.engine.images.store import ImageStore
from steersman.lib.clock import SystemClock
from tests.engine.images.conftest import BASE, Built, build_image, layer_tar, run, skopeo, write_layout

NAME = "docker.io/library/web:1"


async def put(store: ImageStore, image: Built) -> None:
    async with store.keeping():
        for data in (*image.blobs.values(), image.manifest):
            store.content.add(data)
        await store.adopt(read_manifest(image.manifest), [image.digest], tag=NAME)


def tar_of(path: Path, files: dict[str, Any]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = tarfile.SYMTYPE, content[0]
                tar.addfile(info)
                continue
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


async def test_what_is_saved_can_be_loaded_and_read_by_skopeo(store: ImageStore, image: Built, tmp_path: Path) -> None:
    await put(store, image)
    saved = tmp_path / "web.tar"
    await save(store, ["web:1"], saved)
    other = ImageStore(tmp_path / "other", SystemClock())
    loaded = await load(other, saved)
    assert [(each.id, each.tags) for each in loaded] == [(image.id, (NAME,))]
    for kind in ("docker-archive", "oci-archive"):
        inspected = json.loads(await run(*skopeo("inspect", f"{kind}:{saved}")))
        assert len(inspected["Layers"]) == 2
    await other.close()


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive"])
async def test_skopeos_archives_are_loaded(store: ImageStore, image: Built, tmp_path: Path, kind: str) -> None:
    layout = write_layout(tmp_path / "layout", image)
    saved = tmp_path / "saved.tar"
    await run(*skopeo("copy", f"oci:{layout}:latest", f"{kind}:{saved}:docker.io/library/web:1"))
    packed = tmp_path / "saved.tar.gz"
    packed.write_bytes(gzip.compress(saved.read_bytes()))
    (loaded,) = await load(store, packed)
    assert loaded.id == image.id
    assert loaded.tags == (NAME,)
    assert (store.layers(loaded)[0] / "etc/motd").read_text() == "again\n"


async def test_the_old_docker_archive_with_links(store: ImageStore, tmp_path: Path) -> None:
    image = build_image(BASE, compress=bytes)
    old = tar_of(
        tmp_path / "old.tar",
        {
            "a/layer.tar": BASE[0],
            "b/layer.tar": ("../a/layer.tar",),
            "c/layer.tar": BASE[1],
            "x.json": build_image([BASE[0], BASE[0], BASE[1]], compress=bytes).config,
            "manifest.json": [
                {"Config": "x.json", "RepoTags": None, "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"]}
            ],
        },
    )
    (loaded,) = await load(store, old)
    assert loaded.tags == () and loaded.config.cmd == ("sh",)
    assert len(store.layers(loaded)) == 2
    assert image.id != loaded.id


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "neither manifest.json nor index.json"),
        ({"manifest.json": b"{"}, "invalid archive"),
        ({"manifest.json": [{"Config": "../../etc/passwd", "Layers": []}]}, "'../../etc/passwd' is missing"),
        ({"index.json": {"manifests": [{"mediaType": "x", "digest": "sha256:x", "size": 1}]}}, "is missing"),
        ({"a": ("b",), "b": ("a",), "manifest.json": [{"Config": "a", "Layers": []}]}, "'a' is missing"),
        (
            {
                "c": build_image([layer_tar(("file", "../x", ""))], compress=bytes).config,
                "l": layer_tar(("file", "../x", "")),
                "manifest.json": [{"Config": "c", "Layers": ["l"]}],
            },
            "leads out of the layer",
        ),
        (
            {
                "c": build_image(BASE).config,
                "manifest.json": [{"Config": "c", "Layers": []}],
            },
            "do not match",
        ),
        (
            {
                "c": build_image(BASE[:1]).config,
                "l": BASE[0],
                "manifest.json": [{"Config": "c", "RepoTags": ["Bad"], "Layers": ["l"]}],
            },
            "must be lowercase",
        ),
    ],
)
async def test_bad_archives_are_refused(store: ImageStore, tmp_path: Path, files: dict[str, Any], why: str) -> None:
    with pytest.raises(ArchiveFailed, match=why):
        await load(store, tar_of(tmp_path / "bad.tar", files))
    assert not store.list()
    assert store.collect()
    assert not list(store.content.blobs.iterdir())


async def test_noise_and_absence_are_said(store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"\x1f\x8b" + b"x" * 1000)
    with pytest.raises(ArchiveFailed, match="invalid archive"):
        await load(store, tmp_path / "noise")
    with pytest.raises(ArchiveFailed, match="No such file"):
        await load(store, tmp_path / "none")
    with pytest.raises(ArchiveFailed, match="No such image: none"):
        await save(store, ["none"], tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


async def test_history_and_details(store: ImageStore, image: Built) -> None:
    await put(store, image)
    steps = history(store, "web:1")
    assert [(step.id, step.created_by, step.size) for step in steps] == [
        (image.id, "test", len("again\n")),
        ("<missing>", "test", len("hello\nx")),
    ]
    found = inspect(store, "web:1")
    assert found["Id"] == image.id and found["RepoTags"] == ["web:1"]
    assert found["Config"]["Cmd"] == ["sh"] and len(found["RootFS"]["Layers"]) == 2
    with pytest.raises(KeyError):
        inspect(store, "none")
