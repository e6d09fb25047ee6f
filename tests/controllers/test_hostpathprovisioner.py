"""Volumes on demand: made for a claim, gone with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, Object
from steersman.controllers.hostpathprovisioner import PROVISIONER
from steersman.controllers.pvbinder.claims import STORAGECLASSES

from .conftest import World


def wanted(**spec: Any) -> Object:
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"metadata": {"name": "data"}, "spec": {**asked, "storageClassName": "standard", **spec}}


async def begin(world: World, root: Path, **of_class: Any) -> None:

    world.start("persistentvolume-binder-controller", "hostpath-provisioner-controller", volumes=str(root))
    found = {"metadata": {"name": "standard"}, "provisioner": PROVISIONER, "reclaimPolicy": "Delete", **of_class}
    await world.client.create(STORAGECLASSES, found)


async def test_a_claim_gets_a_directory_of_its_own(world: World, tmp_path: Path) -> None:
    await begin(world, tmp_path)
    await world.client.create(PERSISTENTVOLUMECLAIMS, wanted(), "default")
    await world.settle()
    claim = await world.get(PERSISTENTVOLUMECLAIMS, "data")
    assert claim["status"]["phase"] == "Bound"
    (volume,) = await world.list(PERSISTENTVOLUMES)
    directory = Path(volume["spec"]["hostPath"]["path"])
    assert volume["metadata"]["name"] == f"pvc-{claim['metadata']['uid']}" == directory.name
    assert directory.stat().st_mode & 0o777 == 0o777
    assert volume["spec"]["capacity"] == {"storage": "1Gi"}
    (directory / "file").write_text("x")
    await world.client.delete(PERSISTENTVOLUMECLAIMS, "data", "default")
    await world.settle()
    assert not directory.exists()
    assert [each for each in await world.list(PERSISTENTVOLUMES) if not each["metadata"].get("deletionTimestamp")] == []


async def test_what_is_to_be_kept_is_kept(world: World, tmp_path: Path) -> None:
    await begin(world, tmp_path, reclaimPolicy="Retain")
    await world.client.create(PERSISTENTVOLUMECLAIMS, wanted(), "default")
    await world.settle()
    await world.client.delete(PERSISTENTVOLUMECLAIMS, "data", "default")
    await world.settle()
    (volume,) = await world.list(PERSISTENTVOLUMES)
    assert volume["status"]["phase"] == "Released"
    assert Path(volume["spec"]["hostPath"]["path"]).is_dir()


@pytest.mark.parametrize("more", [{"volumeMode": "Block"}, {"storageClassName": "other"}])
async def test_what_it_cannot_make_it_leaves(world: World, tmp_path: Path, more: Object) -> None:
    await begin(world, tmp_path)
    await world.client.create(PERSISTENTVOLUMECLAIMS, wanted(**more), "default")
    await world.settle()
    assert await world.list(PERSISTENTVOLUMES) == []
    assert list(tmp_path.iterdir()) == []


async def test_it_removes_no_directory_that_it_did_not_make(world: World, tmp_path: Path) -> None:
    root, kept = tmp_path / "root", tmp_path / "kept"
    kept.mkdir()
    await begin(world, root)
    await world.client.create(PERSISTENTVOLUMECLAIMS, wanted(), "default")
    await world.settle()
    (volume,) = await world.list(PERSISTENTVOLUMES)
    name = "pvc-stranger"
    meta = {"name": name, "annotations": volume["metadata"]["annotations"]}
    reference = {"kind": "PersistentVolumeClaim", "namespace": "default", "name": "gone", "uid": "gone"}
    spec = {**volume["spec"], "hostPath": {"path": str(kept)}, "claimRef": reference}
    await world.client.create(PERSISTENTVOLUMES, {"metadata": meta, "spec": spec})
    await world.settle()
    assert kept.is_dir()
