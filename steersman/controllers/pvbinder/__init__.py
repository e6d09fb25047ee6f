"""Binding: claims get volumes, and volumes know whose they are.

Owns the phases of PersistentVolumes and PersistentVolumeClaims, and the two references between them. It provisions
and deletes nothing: that is the work of provisioners, which it names in an annotation.
Source: kubernetes' pkg/controller/volume/persistentvolume; texts are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object, Resource
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.volumematch import best, class_of, is_for

STORAGECLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)

_COMPLETED, _BY_US = "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"
_PROVISIONER = "volume.kubernetes.io/storage-provisioner"
_OLD_PROVISIONER = "volume.beta.kubernetes.io/storage-provisioner"
_NO_PROVISIONER = "kubernetes.io/no-provisioner"
_BY_CLAIM = "bound claim"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"


async def reconcile(context: Context, key: Key) -> Result:
    """A key with a namespace is a claim's, one without is a volume's."""
    if key.namespace:
        claim = context.informer(PERSISTENTVOLUMECLAIMS).get(*key)
        if claim is not None:
            await _claim(context, claim)
    else:
        volume = context.informer(PERSISTENTVOLUMES).get(*key)
        if volume is not None:
            await _volume(context, volume)
    return DONE


async def _claim(context: Context, claim: Object) -> None:
    volumes = context.informer(PERSISTENTVOLUMES)
    name = claim["spec"].get("volumeName")
    annotations = claim["metadata"].get("annotations") or {}
    if not name:
        if claim["metadata"].get("deletionTimestamp"):
            return
        volume = best(claim, volumes.list())
        if volume is not None and (is_for(volume, claim) or not _must_wait(context, claim)):
            await _bind(context, claim, volume)
        else:
            await _pending(context, claim)
        return
    volume = volumes.get("", name)
    if volume is None:
        phase = "Lost" if _COMPLETED in annotations else "Pending"
        if phase == "Lost" and (claim.get("status") or {}).get("phase") != "Lost":
            text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            context.recorder.event(claim, "Warning", "ClaimLost", text)
        await _set_claim(context, claim, {"phase": phase})
    elif is_for(volume, claim) or not volume["spec"].get("claimRef"):
        await _bind(context, claim, volume)
    elif _COMPLETED in annotations:
        if (claim.get("status") or {}).get("phase") != "Lost":
            text = "Two claims are bound to the same volume, this one is bound incorrectly"
            context.recorder.event(claim, "Warning", "ClaimMisbound", text)
        await _set_claim(context, claim, {"phase": "Lost"})
    else:
        await _set_claim(context, claim, {"phase": "Pending"})


def _must_wait(context: Context, claim: Object) -> bool:
    """Whether the class wants the scheduler to choose first: a node, noted on the claim, or a volume for it."""
    found = context.informer(STORAGECLASSES).get("", class_of(claim))
    if found is None or found.get("volumeBindingMode") != "WaitForFirstConsumer":
        return False
    return _SELECTED_NODE not in (claim["metadata"].get("annotations") or {})


def _say_what_for(context: Context, claim: Object) -> None:
    """Whom the claim waits for."""
    pods = context.informer(PODS).by_index(_BY_CLAIM, str(key_of(claim)))
    names = sorted(pod["metadata"]["name"] for pod in pods if not pod["spec"].get("nodeName"))
    if names:
        text = f"waiting for pod {','.join(names)} to be scheduled"
        context.recorder.event(claim, "Normal", "WaitForPodScheduled", text)
    else:
        text = "waiting for first consumer to be created before binding"
        context.recorder.event(claim, "Normal", "WaitForFirstConsumer", text)


async def _pending(context: Context, claim: Object) -> None:
    """Say what the claim waits for, and name the provisioner that is to help."""
    found = context.informer(STORAGECLASSES).get("", class_of(claim)) if class_of(claim) else None
    provisioner = found["provisioner"] if found is not None else ""
    if _must_wait(context, claim):
        _say_what_for(context, claim)
    elif provisioner and provisioner != _NO_PROVISIONER:
        annotations = {**(claim["metadata"].get("annotations") or {})}
        if annotations.get(_PROVISIONER) != provisioner:
            annotations |= {_PROVISIONER: provisioner, _OLD_PROVISIONER: provisioner}
            meta = {**claim["metadata"], "annotations": annotations}
            claim = await context.client.update(PERSISTENTVOLUMECLAIMS, {**claim, "metadata": meta})
        text = (
            f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
            "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
            "correctly registered."
        )
        context.recorder.event(claim, "Normal", "ExternalProvisioning", text)
    elif not class_of(claim):
        text = "no persistent volumes available for this claim and no storage class is set"
        context.recorder.event(claim, "Normal", "FailedBinding", text)
    elif found is None:
        text = f'storageclass.storage.k8s.io "{class_of(claim)}" not found'
        context.recorder.event(claim, "Warning", "ProvisioningFailed", text)
    await _set_claim(context, claim, {"phase": "Pending"})


async def _bind(context: Context, claim: Object, volume: Object) -> None:
    """The four steps of a binding, each only where it is missing: a failure in between is taken up again."""
    meta, spec = claim["metadata"], volume["spec"]
    reference = spec.get("claimRef") or {}
    if reference.get("uid") != meta["uid"]:
        annotations = {**(volume["metadata"].get("annotations") or {})}
        if not reference:
            annotations[_BY_US] = "yes"
        ours = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": meta["namespace"]}
        ours |= {"name": meta["name"], "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        changed = {**volume, "spec": {**spec, "claimRef": {**reference, **ours}}}
        changed["metadata"] = {**volume["metadata"], "annotations": annotations}
        volume = await context.client.update(PERSISTENTVOLUMES, changed)
    volume = await _set_volume(context, volume, "Bound")
    annotations = {**(meta.get("annotations") or {})}
    name = volume["metadata"]["name"]
    if claim["spec"].get("volumeName") != name or _COMPLETED not in annotations:
        if not claim["spec"].get("volumeName"):
            annotations[_BY_US] = "yes"
        annotations[_COMPLETED] = "yes"
        changed = {**claim, "spec": {**claim["spec"], "volumeName": name}}
        changed["metadata"] = {**meta, "annotations": annotations}
        claim = await context.client.update(PERSISTENTVOLUMECLAIMS, changed)
    old = claim.get("status") or {}
    status = {"phase": "Bound", "accessModes": spec.get("accessModes")}
    if old.get("phase") != "Bound":
        status["capacity"] = spec.get("capacity")
    await _set_claim(context, claim, status)


async def _volume(context: Context, volume: Object) -> None:
    reference = volume["spec"].get("claimRef")
    if not reference or not reference.get("uid"):
        await _set_volume(context, volume, "Available")
        return
    key = Key(reference.get("namespace", ""), reference["name"])
    claim = context.informer(PERSISTENTVOLUMECLAIMS).get(*key)
    if claim is None or claim["metadata"]["uid"] != reference["uid"]:
        claim = await _fresh(context, key)
    if claim is not None and claim["metadata"]["uid"] == reference["uid"]:
        if claim["spec"].get("volumeName") == volume["metadata"]["name"]:
            await _set_volume(context, volume, "Bound")
        return
    if (volume.get("status") or {}).get("phase") not in ("Released", "Failed"):
        await _set_volume(context, volume, "Released")


async def _fresh(context: Context, key: Key) -> Object | None:
    """The claim as the API server knows it: a volume must not be released because our copy is behind."""
    try:
        return await context.client.get(PERSISTENTVOLUMECLAIMS, key.name, key.namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        return None


async def _set_claim(context: Context, claim: Object, fields: Object) -> None:
    old = claim.get("status") or {}
    status = {**old, **{key: value for key, value in fields.items() if value}}
    if status != old:
        changed = {**claim, "status": status}
        await context.client.update(PERSISTENTVOLUMECLAIMS, changed, subresource="status")


async def _set_volume(context: Context, volume: Object, phase: str) -> Object:
    old = volume.get("status") or {}
    if old.get("phase") == phase:
        return volume
    status = {key: value for key, value in old.items() if key not in ("message", "reason")} | {"phase": phase}
    return await context.client.update(PERSISTENTVOLUMES, {**volume, "status": status}, subresource="status")


def _claims_for(context: Context, volume: Object) -> Iterable[Key]:
    """The claim that the volume names, and every claim that has none yet."""
    reference = volume["spec"].get("claimRef")
    if reference:
        yield Key(reference.get("namespace", ""), reference["name"])
        return
    for claim in context.informer(PERSISTENTVOLUMECLAIMS).list():
        if claim["spec"].get("volumeName", "") in ("", volume["metadata"]["name"]):
            yield key_of(claim)


def _volume_of(_: Context, claim: Object) -> Iterable[Key]:
    if name := claim["spec"].get("volumeName"):
        yield Key("", name)


def _claims_of(pod: Object) -> Iterable[str]:
    for each in pod["spec"].get("volumes") or ():
        if claim := each.get("persistentVolumeClaim"):
            yield f"{pod['metadata']['namespace']}/{claim['claimName']}"


def _waiting(context: Context, pod: Object) -> Iterable[Key]:
    """Claims of the pod that may wait for their first consumer."""
    for name in _claims_of(pod):
        key = Key(*name.split("/", 1))
        claim = context.informer(PERSISTENTVOLUMECLAIMS).get(*key)
        if claim is not None and not claim["spec"].get("volumeName"):
            yield key


def _of_class(context: Context, storage_class: Object) -> Iterable[Key]:
    """Claims of the class that wait."""
    for claim in context.informer(PERSISTENTVOLUMECLAIMS).list():
        if not claim["spec"].get("volumeName") and class_of(claim) == storage_class["metadata"]["name"]:
            yield key_of(claim)


CONTROLLER = Controller(
    "persistentvolume-binder-controller",
    reconcile,
    (
        For(PERSISTENTVOLUMES),
        For(PERSISTENTVOLUMECLAIMS),
        Watch(PERSISTENTVOLUMES, _claims_for),
        Watch(PERSISTENTVOLUMECLAIMS, _volume_of),
        Watch(PODS, _waiting),
        Watch(STORAGECLASSES, _of_class),
    ),
    workers=1,
    indexes={PODS: {_BY_CLAIM: _claims_of}},
    component="persistentvolume-controller",
)
