"""What becomes of a released volume: kept, scrubbed by a pod and offered again, or deleted with what it leads to.

Owns recycler pods. Only directories under /tmp are deleted here, as in the original, and only where nodes share this
machine; every other volume is its provisioner's. Source: kubernetes' pv_controller.go (reclaimVolume) and
pkg/volume/util/recyclerclient.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import EVENTS, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object, Resource
from steersman.client.client import WatchEvent
from steersman.client.controller import Context, Key
from steersman.client.events import EventType
from steersman.client.migrated import DRIVERS
from steersman.client.volumematch import capacity
from steersman.controllers.pvbinder.claims import BY_CLAIM
from steersman.controllers.pvbinder.operations import Operations
from steersman.controllers.pvbinder.writes import IN_TREE, MIGRATED_TO, PROVISIONED_BY, notes, tell_volume, unbind
from steersman.lib.tasks import Tasks

_NAMESPACE = "default"
_LEAST = {"hostpath": "60", "nfs": "300"}  # seconds a recycler pod has at the least
_INCREMENT = {"hostpath": "pv-recycler-timeout-increment-hostpath", "nfs": "pv-recycler-increment-timeout-nfs"}
_SCRUB = 'test -e /scrub && find /scrub -mindepth 1 -delete && test -z "$(ls -A /scrub)" || exit 1'
_IMAGE = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6"


class _Failed(Exception):
    """Why a volume could not be recycled or deleted."""


async def reclaim(context: Context, volume: Object) -> None:
    """Begin what the volume's policy says. Raises ApiError."""
    if notes(volume).get(MIGRATED_TO):
        return
    policy = volume["spec"].get("persistentVolumeReclaimPolicy")
    operations: Operations | None = context.memory.get(Operations)
    work = {"Recycle": _recycle, "Delete": _delete}.get(policy)
    if work is not None and operations is not None:
        meta = volume["metadata"]
        operations.start(f"{policy.lower()}-{meta['name']}[{meta['uid']}]", partial(work, context, volume))
    elif policy not in ("Recycle", "Delete", "Retain"):
        text = "Volume has unrecognized PersistentVolumeReclaimPolicy"
        await tell_volume(context, volume, "Failed", "Warning", "VolumeUnknownReclaimPolicy", text)


async def _still_released(context: Context, volume: Object) -> Object | None:
    """The volume as it is now; None when there is nothing to reclaim any more."""
    try:
        volume = await context.client.get(PERSISTENTVOLUMES, volume["metadata"]["name"])
    except ApiError:
        return None
    reference = volume["spec"].get("claimRef") or {}
    if not reference.get("uid"):
        return None
    claim = context.informer(PERSISTENTVOLUMECLAIMS).get(reference.get("namespace", ""), reference["name"])
    if claim is not None and claim["metadata"]["uid"] == reference["uid"]:
        return volume if claim["spec"].get("volumeName") not in (None, "", volume["metadata"]["name"]) else None
    return volume


async def _recycle(context: Context, seen: Object) -> None:
    if (volume := await _still_released(context, seen)) is None:
        return
    reference = volume["spec"]["claimRef"]
    key = Key(reference.get("namespace", ""), reference["name"])
    users = context.informer(PODS).by_index(BY_CLAIM, str(key))
    used = sorted(f"{key.namespace}/{each['metadata']['name']}" for each in users if not pods.is_terminal(each))
    if used and context.informer(PERSISTENTVOLUMECLAIMS).get(*key) is None:
        text = f"Volume is used by pods: {','.join(used)}"
        context.recorder.event(volume, "Normal", "VolumeFailedRecycle", text)
        return
    kind = next((kind for kind, field in (("hostpath", "hostPath"), ("nfs", "nfs")) if volume["spec"].get(field)), "")
    if not kind:
        text = "No recycler plugin found for the volume!"
        await tell_volume(context, volume, "Failed", "Warning", "VolumeFailedRecycle", text)
        return
    try:
        await _scrub(context, volume, kind)
    except _Failed as failed:
        text = f"Recycle failed: {failed}"
        await tell_volume(context, volume, "Failed", "Warning", "VolumeFailedRecycle", text)
        return
    context.recorder.event(volume, "Normal", "VolumeRecycled", "Volume recycled")
    await unbind(context, volume)


def recycler(volume: Object, kind: str, config: Mapping[str, str]) -> Object:
    """The pod that empties a volume. `kind`: hostpath or nfs; `config` holds the template itself, as JSON."""
    made = _template(config.get(f"pv-recycler-pod-template-{kind}", ""))
    least = int(config.get(f"pv-recycler-minimum-timeout-{kind}", _LEAST[kind]))
    size = capacity(volume).nanos // (10**9 << 30)
    more = size * int(config.get(_INCREMENT[kind], "30"))
    spec = volume["spec"]
    if kind == "hostpath":
        source = {"hostPath": {"path": spec["hostPath"]["path"]}}
    else:
        source = {"nfs": {"server": spec["nfs"]["server"], "path": spec["nfs"]["path"]}}
    first, *others = made["spec"]["volumes"]
    made["spec"] |= {
        "activeDeadlineSeconds": max(more, least),
        "volumes": [{"name": first["name"], **source}, *others],
    }
    meta = {key: value for key, value in (made.get("metadata") or {}).items() if key != "generateName"}
    made["metadata"] = {"namespace": _NAMESPACE, **meta, "name": f"recycler-for-{volume['metadata']['name']}"}
    return made


def _template(text: str) -> Object:
    """The pod that a file told of, or the one that everybody gets."""
    if text:
        given: Object = json.loads(text)
        return given
    mount = {"name": "vol", "mountPath": "/scrub"}
    container: Object = {"name": "pv-recycler", "image": _IMAGE, "command": ["/bin/sh"], "args": ["-c", _SCRUB]}
    container["volumeMounts"] = [mount]
    return {"spec": {"restartPolicy": "Never", "volumes": [{"name": "vol"}], "containers": [container]}}


async def _scrub(context: Context, volume: Object, kind: str) -> None:
    """Run the pod that empties the volume to its end. Raises _Failed and ApiError."""
    pod = recycler(volume, kind, context.config)
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    try:
        made = await context.client.create(PODS, pod, namespace)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise _Failed(f"unexpected error creating recycler pod:  {error.message}") from error
        try:
            await context.client.delete(PODS, name, namespace)
        except ApiError as why:
            text = f"failed to delete old recycler pod {namespace}/{name}: {why.message}"
            raise _Failed(text) from why
        raise _Failed("old recycler pod found, will retry later") from error
    try:
        async with Tasks() as tasks:
            tasks.spawn(_retell(context, volume, made), f"events of {name}")
            why = await _outcome(context, made)
    finally:
        failed = ""
        try:
            await context.client.delete(PODS, name, namespace)
        except ApiError as error:
            failed = error.message
    if why:
        raise _Failed(f"failed to recycle volume: {why}")
    if failed:
        raise _Failed(f"failed to delete recycler pod: {failed}")


def _since(context: Context, pod: Object, kind: Resource, field: str) -> AsyncGenerator[WatchEvent]:
    """What happened since the pod was made to objects of a kind that have its name in `field`."""
    meta = pod["metadata"]
    version, fields = meta["resourceVersion"], f"{field}={meta['name']}"
    return context.client.watch(kind, meta["namespace"], resource_version=version, fields=fields)


async def _outcome(context: Context, pod: Object) -> str:
    """Wait for the pod's end: empty when it went well, else why not."""
    async with aclosing(_since(context, pod, PODS, "metadata.name")) as events:
        async for event in events:
            status = event.object.get("status") or {}
            if event.type == "DELETED":
                return "recycler pod was deleted"
            if status.get("phase") == "Succeeded":
                return ""
            if status.get("phase") == "Failed":
                return str(status.get("message") or "pod failed, pod.Status.Message unknown")
    return f'recycler pod "{pod["metadata"]["name"]}" watch channel had been closed'


async def _retell(context: Context, volume: Object, pod: Object) -> None:
    """What happens to the pod is told of the volume."""
    async with aclosing(_since(context, pod, EVENTS, "involvedObject.name")) as events:
        async for event in events:
            if event.type == "ADDED":
                type: EventType = "Warning" if event.object.get("type") == "Warning" else "Normal"
                text = f"Recycler pod: {event.object.get('message', '')}"
                context.recorder.event(volume, type, "RecyclerPod", text)


def deletable(volume: Object) -> str | None:
    """Whose the deletion is: a directory's path when it is ours, None when somebody else's. Raises _Failed."""
    provisioner = notes(volume).get(PROVISIONED_BY, "")
    spec = volume["spec"]
    if provisioner and provisioner != "kubernetes.io/host-path":
        if not provisioner.startswith("kubernetes.io/") or provisioner in DRIVERS:
            return None
        if provisioner.removeprefix("kubernetes.io/") in ("fc", "iscsi", "nfs", "csi"):
            raise _Failed("no deletable volume plugin matched")
        raise _Failed(f"no volume plugin matched name: {provisioner}")
    if spec.get("csi") is not None:
        return None
    if spec.get("hostPath") is None:
        known = any(spec.get(source) is not None for source in ("nfs", "fc", "iscsi"))
        why = "no deletable volume plugin matched" if known else "no volume plugin matched"
        raise _Failed(f'error getting deleter volume plugin for volume "{volume["metadata"]["name"]}": {why}')
    return str(spec["hostPath"]["path"])


async def _delete(context: Context, seen: Object) -> None:
    try:
        path = deletable(seen)
    except _Failed as failed:
        await tell_volume(context, seen, "Failed", "Warning", "VolumeFailedDelete", str(failed))
        return
    if path is None or (volume := await _still_released(context, seen)) is None:
        return
    if not re.search("/tmp/.+", path):
        text = f"host_path deleter only supports /tmp/.+ but received provided {path}"
        await tell_volume(context, volume, "Failed", "Warning", "VolumeFailedDelete", text)
        raise OSError(text)
    if context.config.get("volumes"):  # nodes see this machine's directories
        await asyncio.to_thread(_remove, path)
    meta = volume["metadata"]
    if IN_TREE in (finalizers := meta.get("finalizers") or []):
        left = {**meta, "finalizers": [each for each in finalizers if each != IN_TREE]}
        await context.client.update(PERSISTENTVOLUMES, {**volume, "metadata": left})
    try:
        await context.client.delete(PERSISTENTVOLUMES, meta["name"], uid=meta["uid"])
    except ApiError as error:
        if error.code not in (404, 409):
            raise


def _remove(path: str) -> None:
    """Delete a directory that is really under /tmp; links and detours lead nowhere."""
    found = Path(path).resolve()
    if found.parts[:2] == ("/", "tmp") and len(found.parts) > 2:
        shutil.rmtree(found, ignore_errors=True)
