"""Volumes behind claims, and whose their files are."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from steersman.api.resource import Object
from steersman.kubelet.volumes import ownership
from steersman.kubelet.volumes.context import VolumeFailed

from .test_volumes import Objects, pod, set_up

CLAIMED = {"name": "data", "persistentVolumeClaim": {"claimName": "c"}}
GENERIC = {"name": "data", "ephemeral": {"volumeClaimTemplate": {}}}


def claim(name: str = "c", phase: str = "Bound", volume: str = "v", **meta: Any) -> Object:
    return {
        "metadata": {"name": name, "uid": "claim-uid", **meta},
        "spec": {"volumeName": volume},
        "status": {"phase": phase},
    }


def volume(uid: str = "claim-uid", **spec: Any) -> Object:
    return {"metadata": {"name": "v"}, "spec": {"claimRef": {"uid": uid}, **spec}}


def objects(claimed: Object | None = None, behind: Object | None = None) -> Objects:
    found = {}
    if claimed is not None:
        found[f"persistentvolumeclaims_{claimed['metadata']['name']}"] = claimed
    if behind is not None:
        found["persistentvolumes_v"] = behind
    return Objects(**found)


@pytest.mark.parametrize("kind", ["local", "hostPath"])
def test_a_claim_leads_to_a_directory_of_the_node(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    found = objects(claim(), volume(**{kind: {"path": str(place)}}))
    assert set_up(tmp_path / "pod", found, pod(CLAIMED)) == {"data": place}


def test_a_generic_ephemeral_volume_is_its_pods_own(tmp_path: Path) -> None:
    mine = [{"controller": True, "uid": "u"}]
    behind = volume(hostPath={"path": str(tmp_path)})
    found = objects(claim("web-data", ownerReferences=mine), behind)
    assert set_up(tmp_path / "pod", found, pod(GENERIC)) == {"data": tmp_path}
    with pytest.raises(VolumeFailed, match="PVC default/web-data was not created for pod default/web"):
        set_up(tmp_path / "pod", objects(claim("web-data"), behind), pod(GENERIC))


@pytest.mark.parametrize(
    ("claimed", "behind", "message"),
    [
        (None, None, 'persistentvolumeclaim "c" not found'),
        (claim(phase="Pending", volume=""), None, 'PVC "c" is not bound'),
        (claim(deletionTimestamp="2026-01-01T00:00:00Z"), None, "PVC c is being deleted"),
        (claim(), None, 'persistentvolume "v" not found'),
        (claim(), volume("other", hostPath={"path": "/tmp"}), "does not match pvc.UID claim-uid"),
        (claim(), volume(photonPersistentDisk={}), 'no volume plugin matched persistentvolume "v"'),
        (claim(), volume(csi={"driver": "d"}), "no volume plugin matched: csi"),
        (claim(), volume(local={"path": "/nowhere/at/all"}), 'path "/nowhere/at/all" does not exist'),
        (claim(), volume(local={"path": "/tmp/../etc"}), "must not contain '..'"),
        (claim(), volume(local={"path": "/tmp"}, volumeMode="Block"), "/tmp is not a block device"),
    ],
)
def test_what_cannot_be_mounted_is_said(
    tmp_path: Path, claimed: Object | None, behind: Object | None, message: str
) -> None:
    with pytest.raises(VolumeFailed, match=message.replace(".", r"\.")):
        set_up(tmp_path, objects(claimed, behind), pod(CLAIMED))


def grouped(policy: str) -> Object:
    return pod(CLAIMED, securityContext={"fsGroup": 4242, "fsGroupChangePolicy": policy})


def test_files_are_given_to_the_group(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_text("x")
    outside = tmp_path.parent / "outside"
    outside.write_text("x")
    (tmp_path / "link").symlink_to(outside)
    ownership.apply(tmp_path, grouped("Always"))
    for path in (tmp_path, tmp_path / "deep", tmp_path / "deep/file"):
        assert path.stat().st_gid == 4242
    assert stat.S_IMODE((tmp_path / "deep/file").stat().st_mode) & 0o060 == 0o060
    assert (tmp_path / "deep").stat().st_mode & stat.S_ISGID
    assert outside.stat().st_gid != 4242


@pytest.mark.parametrize(("policy", "group"), [("Always", 4242), ("OnRootMismatch", 0)])
def test_the_walk_may_be_spared(tmp_path: Path, policy: str, group: int) -> None:
    ownership.apply(tmp_path, grouped("Always"))
    (tmp_path / "file").write_text("x")
    os.chown(tmp_path / "file", 0, 0)
    ownership.apply(tmp_path, grouped(policy))
    assert (tmp_path / "file").stat().st_gid == group
