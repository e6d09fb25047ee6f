from __future__ import annotations

import asyncio
import base64
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from steersman.api.resource import Object, Resource
from steersman.kubelet import downward, mounts
from steersman.kubelet.volumes import atomic, hostpath, mounter, subpath
from steersman.kubelet.volumes.atomic import File
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed


class Objects:
    def __init__(self, **found: Object) -> None:
        self.found = found

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self.found.get(f"{resource.plural}_{name}")

    async def token(self, pod: Object, audience: str, seconds: int) -> str:
        return f"token for {audience or 'api'} {seconds}"


def pod(*volumes: Object, **spec: Any) -> Object:
    meta = {"name": "web", "namespace": "default", "uid": "u", "labels": {"app": "x"}}
    return {"metadata": meta, "spec": {"containers": [{"name": "main"}], "volumes": list(volumes), **spec}}


def set_up(directory: Path, objects: Objects, wanted: Object) -> dict[str, Path]:
    context = VolumeContext(objects, objects, downward.Facts(), 0.0, objects)
    places = mounter.PodDirectories(directory / "root", directory / "memory")
    return dict(asyncio.run(mounter.set_up(context, wanted, places)))


CONFIG = {"data": {"a": "1", "b": "2"}, "binaryData": {"raw": base64.b64encode(b"\xff").decode()}}
SECRET = {"data": {"key": base64.b64encode(b"word").decode()}}


def content(directory: Path) -> dict[str, bytes]:
    return {
        str(each.relative_to(directory)): each.read_bytes()
        for each in sorted(directory.rglob("*"))
        if each.is_file() and not str(each.relative_to(directory)).startswith("..")
    }


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ({"configMap": {"name": "c"}}, {"a": b"1", "b": b"2", "raw": b"\xff"}),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "deep/er/x"}]}}, {"deep/er/x": b"1"}),
        ({"configMap": {"name": "gone", "optional": True}}, {}),
        ({"secret": {"secretName": "s"}}, {"key": b"word"}),
        ({"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}, {"l": b'app="x"'}),
        (
            {
                "projected": {
                    "sources": [
                        {"configMap": {"name": "c", "items": [{"key": "a", "path": "x"}]}},
                        {"secret": {"name": "s"}},
                        {"serviceAccountToken": {"path": "token", "audience": "me", "expirationSeconds": 600}},
                        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                    ]
                }
            },
            {"x": b"1", "key": b"word", "token": b"token for me 600", "ns": b"default"},
        ),
    ],
)
def test_contents(tmp_path: Path, source: Object, wanted: dict[str, bytes]) -> None:
    objects = Objects(configmaps_c=CONFIG, secrets_s=SECRET)
    found = set_up(tmp_path, objects, pod({"name": "v", **source}))
    assert found["v"].is_relative_to(tmp_path / "memory")
    seen = content(found["v"])
    flat = {name: (found["v"] / name).read_bytes() for name in wanted}
    assert flat == wanted
    assert {name.split("/")[0] for name in seen} <= {name.split("/")[0] for name in wanted}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"configMap": {"name": "gone"}}, 'MountVolume.SetUp failed for volume "v" : configmap "gone" not found'),
        (
            {"configMap": {"name": "c", "items": [{"key": "z", "path": "z"}]}},
            "configmap references non-existent config key: z",
        ),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "../../x"}]}}, "must be relative and not contain"),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "/etc/x"}]}}, "must be relative"),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "..data"}]}}, "must not start with"),
        ({"secret": {"secretName": "gone"}}, 'secret "gone" not found'),
        ({"emptyDir": {"medium": "Gold"}}, 'unknown storage medium "Gold"'),
        (
            {"hostPath": {"path": "/nowhere/at/all", "type": "Directory"}},
            "hostPath type check failed: /nowhere/at/all is not a directory",
        ),
        ({"hostPath": {"path": "/etc/passwd", "type": "Socket"}}, "is not a socket file"),
        ({"hostPath": {"path": "/etc/../etc", "type": ""}}, "must not contain"),
        ({"hostPath": {"path": "/etc", "type": "Nonsense"}}, "Nonsense is an invalid volume type"),
        ({"flocker": {}}, "no volume plugin matched: flocker"),
    ],
)
def test_what_can_not_be_mounted(tmp_path: Path, source: Object, text: str) -> None:
    with pytest.raises(VolumeFailed, match=text.replace("(", r"\(")):
        set_up(tmp_path, Objects(configmaps_c=CONFIG), pod({"name": "v", **source}))


def test_an_update_is_seen_all_at_once(tmp_path: Path) -> None:
    assert atomic.write(tmp_path, {"a": File(b"1"), "b": File(b"2"), "d/e": File(b"5")})
    first = os.readlink(tmp_path / "..data")
    assert not atomic.write(tmp_path, {"a": File(b"1"), "b": File(b"2"), "d/e": File(b"5")})
    assert os.readlink(tmp_path / "..data") == first
    assert atomic.write(tmp_path, {"a": File(b"9", 0o400)})
    assert sorted(os.listdir(tmp_path)) == sorted([os.readlink(tmp_path / "..data"), "..data", "a"])
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert (tmp_path / "a").read_bytes() == b"9"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o400


def test_groups_and_owners(tmp_path: Path) -> None:
    wanted = pod(
        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        {"name": "e", "emptyDir": {}},
        securityContext={"fsGroup": 1234, "runAsUser": 7},
    )
    found = set_up(tmp_path, Objects(), wanted)
    token = (found["v"] / "token").stat()
    assert (token.st_uid, token.st_gid, stat.S_IMODE(token.st_mode)) == (7, 1234, 0o640)
    empty = found["e"].stat()
    assert (empty.st_gid, stat.S_IMODE(empty.st_mode)) == (1234, 0o2777)


def test_host_paths_are_made_where_asked(tmp_path: Path) -> None:
    context = VolumeContext(Objects(), Objects(), downward.Facts(), 0.0, Objects())
    for kind, check in (("DirectoryOrCreate", Path.is_dir), ("FileOrCreate", Path.is_file), ("", Path.is_dir)):
        path = tmp_path / (kind or "plain")
        assert hostpath.place(context, {}, {"path": str(path), "type": kind}, tmp_path) == path
        assert check(path)


@pytest.mark.parametrize("bad", ["/etc", "../x", "a/../../x"])
def test_sub_paths_that_step_out_are_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(VolumeFailed):
        subpath.bind(tmp_path, bad, tmp_path / "t")


def test_a_link_out_of_the_volume_is_refused(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "out").symlink_to("/etc")
    with pytest.raises(VolumeFailed, match="leaves the volume"):
        subpath.bind(volume, "out/passwd", tmp_path / "t")


@pytest.mark.node
def test_sub_paths_are_bound_and_taken_away(tmp_path: Path) -> None:
    places = mounter.PodDirectories(tmp_path / "root", tmp_path / "memory")
    volume = places.volume("emptyDir", "v")
    volume.mkdir(parents=True)
    target = subpath.bind(volume, "made/here", places.sub_path("v", "main", 0))
    (target / "file").write_text("x")
    assert (volume / "made/here/file").read_text() == "x"
    assert mounts.mounted_under(str(tmp_path)) == [str(target)]
    again = subpath.bind(volume, "made/here", target)
    assert again == target and len(mounts.mounted_under(str(tmp_path))) == 1
    mounter.take_down(places, everything=True)
    assert mounts.mounted_under(str(tmp_path)) == []
    assert not places.root.exists()


@pytest.mark.node
def test_memory_volumes_are_tmpfs(tmp_path: Path) -> None:
    wanted = pod({"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    found = set_up(tmp_path, Objects(), wanted)["m"]
    places = mounter.PodDirectories(tmp_path / "root", tmp_path / "memory")
    try:
        assert mounts.is_mount(found)
        assert os.statvfs(found).f_blocks * os.statvfs(found).f_frsize == 1 << 20
        assert set_up(tmp_path, Objects(), wanted)["m"] == found
        assert len(mounts.mounted_under(str(tmp_path))) == 1
    finally:
        mounter.take_down(places, everything=False)
    assert mounts.mounted_under(str(tmp_path)) == []
