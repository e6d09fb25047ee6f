"""Volumes on demand: a directory of this machine for each claim of a class that names this provisioner.

Owns the directories below `config["volumes"]` and the PersistentVolumes that lead to them; `pvbinder` binds them. A
released volume whose policy is Delete goes with its directory. Every node of a machine sees the same directories.
The behaviour is that of minikube's hostpath provisioner.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from pathlib import Path

from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, Object, Resource
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of

PROVISIONER = "steersman/hostpath"
_WAITING = "class of a waiting claim"
_STORAGECLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
_ASKED, _MADE = "volume.kubernetes.io/storage-provisioner", "pv.kubernetes.io/provisioned-by"


async def reconcile(context: Context, key: Key) -> Result:
    """A key with a namespace is a claim's, one without is a volume's."""
    root = context.config.get("volumes", "")
    if not root:
        return DONE
    if key.namespace:
        claim = context.informer(PERSISTENTVOLUMECLAIMS).get(*key)
        if claim is not None:
            await _provision(context, claim, Path(root))
    else:
        volume = context.informer(PERSISTENTVOLUMES).get(*key)
        if volume is not None:
            await _keep(context, volume, Path(root))
    return DONE


async def _provision(context: Context, claim: Object, root: Path) -> None:
    meta, spec = claim["metadata"], claim["spec"]
    asked = (meta.get("annotations") or {}).get(_ASKED)
    if asked != PROVISIONER or spec.get("volumeName") or meta.get("deletionTimestamp"):
        return
    found = context.informer(_STORAGECLASSES).get("", spec.get("storageClassName") or "")
    if found is None or found.get("provisioner") != PROVISIONER:
        return
    if spec.get("volumeMode") == "Block" or spec.get("dataSourceRef") or spec.get("dataSource"):
        text = "failed to provision volume: directories are neither block devices nor copies"
        context.recorder.event(claim, "Warning", "ProvisioningFailed", text)
        return
    name = f"pvc-{meta['uid']}"
    if context.informer(PERSISTENTVOLUMES).get("", name) is not None:
        return
    directory = root / name
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "uid": meta["uid"]}
    volume: Object = {
        "metadata": {"name": name, "annotations": {_MADE: PROVISIONER}},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": found.get("reclaimPolicy") or "Delete",
            "storageClassName": spec["storageClassName"],
            "hostPath": {"path": str(directory), "type": ""},
            "claimRef": {**reference, "namespace": meta["namespace"], "name": meta["name"]},
        },
    }
    try:
        await context.client.create(PERSISTENTVOLUMES, volume)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        return
    await asyncio.to_thread(_make, directory)  # after the volume, which says that there is something to take away
    text = f"Successfully provisioned volume {name}"
    context.recorder.event(claim, "Normal", "ProvisioningSucceeded", text)


async def _keep(context: Context, volume: Object, root: Path) -> None:
    """A volume has its directory, and takes it along when it is released or deleted, unless it is to be retained."""
    meta, spec = volume["metadata"], volume["spec"]
    if (meta.get("annotations") or {}).get(_MADE) != PROVISIONER:
        return
    directory = root / meta["name"]
    ours = (spec.get("hostPath") or {}).get("path") == str(directory) and meta["name"].startswith("pvc-")
    phase, made = (volume.get("status") or {}).get("phase"), context.memory.setdefault("made", set())
    if phase != "Released" and not meta.get("deletionTimestamp"):
        if ours and meta["uid"] not in made:
            if not await asyncio.to_thread(directory.is_dir) and await _lasts(context, volume):
                await asyncio.to_thread(_make, directory)  # whoever made the volume ended before he made this
            made.add(meta["uid"])
        return
    made.discard(meta["uid"])
    if spec.get("persistentVolumeReclaimPolicy") != "Delete" or phase == "Bound":
        return
    if ours:
        await asyncio.to_thread(shutil.rmtree, directory, True)
    try:
        await context.client.delete(PERSISTENTVOLUMES, meta["name"], uid=meta["uid"])
    except ApiError as error:
        if error.code != 404:
            raise


async def _lasts(context: Context, volume: Object) -> bool:
    """Whether the volume is there and still somebody's, by the API server's word: our copy may be behind."""
    try:
        found = await context.client.get(PERSISTENTVOLUMES, volume["metadata"]["name"])
    except ApiError as error:
        if error.code != 404:
            raise
        return False
    gone = found["metadata"].get("deletionTimestamp") or (found.get("status") or {}).get("phase") == "Released"
    return not gone and found["metadata"]["uid"] == volume["metadata"]["uid"]


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o777)  # whoever the pod's user is


def _of_class(context: Context, storage_class: Object) -> Iterable[Key]:
    yield from map(
        key_of, context.informer(PERSISTENTVOLUMECLAIMS).by_index(_WAITING, storage_class["metadata"]["name"])
    )


def _file_waiting(claim: Object) -> Iterable[str]:
    if not claim["spec"].get("volumeName"):
        yield claim["spec"].get("storageClassName") or ""


CONTROLLER = Controller(
    "hostpath-provisioner-controller",
    reconcile,
    (For(PERSISTENTVOLUMECLAIMS), For(PERSISTENTVOLUMES), Watch(_STORAGECLASSES, _of_class)),
    workers=1,
    indexes={PERSISTENTVOLUMECLAIMS: {_WAITING: _file_waiting}},
    component="steersman/hostpath",
)
