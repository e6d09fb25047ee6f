"""What happens to images after they are here: names, removal, crashes, other processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from steersman.engine.images.content import Content, ContentError
from steersman.engine.images.index import IndexDamaged
from steersman.engine.images.manifest import Descriptor, read_manifest
from steersman.engine.images.store import ImageStore
from steersman.engine.interface import Image
from steersman.lib.clock import SystemClock
from steersman.lib.failpoint import arm
from tests.engine.images.conftest import BASE, Built, build_image, digest_of, layer_tar


async def put(store: ImageStore, image: Built, tag: str) -> Image:
    """Have an image without a registry."""
    async with store.keeping():
        for data in image.blobs.values():
            store.content.add(data)
        manifest = store.content.add(image.manifest)
        repository = tag.rsplit(":", 1)[0]
        return await store.adopt(read_manifest(image.manifest), [manifest], tag=tag, by=f"{repository}@{manifest}")


def on_disk(store: ImageStore) -> tuple[int, int]:
    layers = [path for path in (store.root / "layers").iterdir() if path.is_dir()]
    return len(list(store.content.blobs.iterdir())), len(layers)


async def test_layers_are_shared_and_removed_with_their_last_image(store: ImageStore) -> None:
    extra = layer_tar(("file", "more", "x"))
    first = await put(store, build_image(BASE), "docker.io/library/a:1")
    second = await put(store, build_image([*BASE, extra]), "docker.io/library/b:1")
    assert store.layers(second)[1:] == store.layers(first)
    assert on_disk(store) == (7, 3)
    used, inodes = store.used_bytes()
    assert used > first.size and inodes >= 7
    await store.remove("b:1")
    assert on_disk(store) == (4, 2)
    assert store.find("b:1") is None
    await store.remove("b:1")
    await store.remove(first.id)
    assert on_disk(store) == (0, 0)
    assert not store.list()


async def test_one_name_of_several_is_removed_alone(store: ImageStore, image: Built) -> None:
    made = await put(store, image, "docker.io/library/a:1")
    await store.tag("a:1", "gcr.io/x/b")
    assert store.find("gcr.io/x/b") is not None
    await store.remove("a:1")
    left = store.find(made.id)
    assert left is not None and left.tags == ("gcr.io/x/b:latest",)
    with pytest.raises(KeyError):
        await store.tag("nothing", "b")


async def test_a_tag_moves_to_the_newer_image(store: ImageStore, image: Built) -> None:
    old = await put(store, image, "docker.io/library/a:1")
    new = await put(store, build_image(BASE[:1]), "docker.io/library/a:1")
    found = store.find("a:1")
    assert found is not None and found.id == new.id
    still = store.find(old.id)
    assert still is not None and still.tags == ()


async def test_held_layers_outlive_their_image(store: ImageStore, image: Built) -> None:
    made = await put(store, image, "docker.io/library/a:1")
    layers = store.hold("container-1", made)
    await store.remove("a:1")
    assert all(path.is_dir() for path in layers)
    store.release("container-1")
    store.release("container-1")
    assert store.collect()
    assert on_disk(store) == (0, 0)


async def test_nothing_is_collected_while_somebody_pulls(store: ImageStore) -> None:
    async with store.keeping():
        store.content.add(b"not referenced yet")
        assert not store.collect()
        assert on_disk(store)[0] == 1
    assert store.collect()
    assert on_disk(store)[0] == 0


async def test_another_process_sees_the_change(store: ImageStore, image: Built) -> None:
    other = ImageStore(store.root, SystemClock())
    assert other.find("a:1") is None
    made = await put(store, image, "docker.io/library/a:1")
    assert other.find("a:1") == made
    await store.remove("a:1")
    assert other.find("a:1") is None
    await other.close()


def test_two_processes_that_change_the_index_lose_nothing(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from steersman.engine.images.index import Index, Record
for number in range(50):
    with Index(Path(sys.argv[1])).change() as records:
        name = f"{sys.argv[2]}{number}"
        records[name] = Record(name, "", [], [])
"""
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert len(json.loads((tmp_path / "index.json").read_bytes())) == 100


@pytest.mark.parametrize("where", ["images.before_blob_rename", "images.before_layer_rename", "images.before_record"])
async def test_a_crash_leaves_nothing_that_a_second_try_minds(store: ImageStore, image: Built, where: str) -> None:
    def crash() -> None:
        raise KeyError("crash")

    disarm: Callable[[], None] = arm(where, crash)
    with pytest.raises(KeyError):
        await put(store, image, "docker.io/library/a:1")
    disarm()
    assert not store.list()
    made = await put(store, image, "docker.io/library/a:1")
    assert all(path.is_dir() for path in store.layers(made))


def test_what_a_dead_process_left_half_written_is_swept(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from steersman.engine.images.content import Content
writer = Content(Path(sys.argv[1])).writer()
writer.write(b"half")
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert [path for path in (tmp_path / "ingest").iterdir() if path.is_dir()]
    living = Content(tmp_path)
    second = Content(tmp_path)
    assert len([path for path in (tmp_path / "ingest").iterdir() if path.is_dir()]) == 2
    living.close()
    second.close()


async def test_an_image_whose_layer_was_deleted_by_hand_is_not_found(store: ImageStore, image: Built) -> None:
    made = await put(store, image, "docker.io/library/a:1")
    os.rename(store.layers(made)[0], store.root / "elsewhere")
    assert store.find("a:1") is None
    assert store.list() == []
    await put(store, image, "docker.io/library/a:1")
    assert store.find("a:1") == made


async def test_a_damaged_index_is_said_and_not_overwritten(store: ImageStore, image: Built) -> None:
    (store.root / "index.json").write_text('{"broken')
    with pytest.raises(IndexDamaged, match=r"index\.json"):
        store.find("a")
    with pytest.raises(IndexDamaged):
        await put(store, image, "docker.io/library/a:1")
    assert (store.root / "index.json").read_text() == '{"broken'


def test_a_blob_is_what_its_digest_says_or_is_not_there(tmp_path: Path) -> None:
    content = Content(tmp_path)
    writer = content.writer()
    writer.write(b"hello")
    with pytest.raises(ContentError, match="unexpected commit digest"):
        writer.commit(digest_of(b"other"))
    writer = content.writer()
    writer.write(b"hello")
    with pytest.raises(ContentError, match="size validation failed"):
        writer.commit(digest_of(b"hello"), 6)
    assert not list(content.blobs.iterdir())
    for wrong in ("sha256:../../../etc/passwd", "md5:x", "", f"{digest_of(b'')}\n"):
        with pytest.raises(ContentError, match="invalid digest"):
            content.path(wrong)
    content.close()


async def test_the_same_layer_asked_for_at_once_is_unpacked_once(store: ImageStore, image: Built) -> None:
    made = await asyncio.gather(*(put(store, image, f"docker.io/library/a:{n}") for n in range(5)))
    assert len({each.id for each in made}) == 1
    found = store.find(made[0].id)
    assert found is not None and len(found.tags) == 5


async def test_a_missing_layer_fails_without_a_trace(store: ImageStore, image: Built) -> None:
    async def nowhere(layer: Descriptor) -> None:
        raise ContentError(f"{layer.digest} is not here")

    async with store.keeping():
        store.content.add(image.config)
        with pytest.raises(ContentError, match="is not here"):
            await store.adopt(read_manifest(image.manifest), [store.content.add(image.manifest)], obtain=nowhere)
    assert not store.list()
