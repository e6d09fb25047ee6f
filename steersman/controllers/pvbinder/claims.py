"""One claim: bound to the volume that suits it or that it names, told what it waits for, or lost.

Called by the binder's `reconcile`. Source: kubernetes' pv_controller.go (syncClaim); texts are the original's.
"""

from __future__ import annotations

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS, Object, Resource
from steersman.client.controller import Context, key_of
from steersman.client.metrics import Metrics
from steersman.client.migrated import DRIVERS
from steersman.client.volumematch import CLASS, class_of, is_for
from steersman.controllers.pvbinder.matching import best, mismatch
from steersman.controllers.pvbinder.writes import (
    BY_US,
    COMPLETED,
    OLD_PROVISIONER,
    PROVISIONER,
    bind,
    lose_claim,
    note_migration,
    notes,
    set_claim,
)
from steersman.lib.metrics import Value

STORAGECLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
BY_CLAIM, FREE = "bound claim", "free of class"  # indexes: of pods and volumes, of volumes
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
_DEFAULTS = "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"
_IN_TREE = ("fc", "iscsi", "nfs", "csi")  # plugins that are there and provision nothing


async def sync(context: Context, claim: Object) -> None:
    """Bring one claim forward. Raises ApiError."""
    claim = await note_migration(context, PERSISTENTVOLUMECLAIMS, claim)
    name = claim["spec"].get("volumeName")
    if COMPLETED in notes(claim):
        await _bound(context, claim, name)
    elif name:
        await _named(context, claim, name)
    else:
        await _unbound(context, claim)


async def _bound(context: Context, claim: Object, name: str | None) -> None:
    volume = context.informer(PERSISTENTVOLUMES).get("", name) if name else None
    if volume is None:
        what = "its PersistentVolume" if name else "reference to PersistentVolume"
        text = f"Bound claim has lost {what}. Data on the volume is lost!"
        await lose_claim(context, claim, "ClaimLost", text)
        return
    reference = volume["spec"].get("claimRef")
    if not reference or reference.get("uid", "") == claim["metadata"]["uid"]:
        await bind(context, claim, volume)
    else:
        text = "Two claims are bound to the same volume, this one is bound incorrectly"
        await lose_claim(context, claim, "ClaimMisbound", text)


async def _named(context: Context, claim: Object, name: str) -> None:
    """A claim that asks for one volume by name."""
    volume = context.informer(PERSISTENTVOLUMES).get("", name)
    if volume is None:
        await set_claim(context, claim, "Pending")
    elif not (reference := volume["spec"].get("claimRef")):
        if why := mismatch(volume, claim):
            text = f'Cannot bind to requested volume "{name}": {why}'
            context.recorder.event(claim, "Warning", "VolumeMismatch", text)
            await set_claim(context, claim, "Pending")
        else:
            await bind(context, claim, volume)
    elif is_for(volume, claim):
        await bind(context, claim, volume)
    else:
        text = f'volume "{name}" already bound to a different claim.'
        context.recorder.event(claim, "Warning", "FailedBinding", text)
        if BY_US in notes(claim):
            other = f"{reference.get('namespace', '')}/{reference.get('name', '')}"
            text = f'invalid binding of claim "{key_of(claim)}" to volume "{name}": volume already claimed by "{other}"'
            raise ApiError(409, "Conflict", text)
        await set_claim(context, claim, "Pending")


async def _unbound(context: Context, claim: Object) -> None:
    delayed = is_delayed(context, claim)
    volumes = context.informer(PERSISTENTVOLUMES)
    reserved = volumes.by_index(BY_CLAIM, str(key_of(claim)))
    volume = best(claim, [*reserved, *volumes.by_index(FREE, class_of(claim))], delayed=delayed)
    if volume is not None:
        await bind(context, claim, volume)
        return
    if await _give_class(context, claim):
        return
    if delayed and _SELECTED_NODE not in notes(claim):
        _say_what_for(context, claim)
    elif class_of(claim):
        await _provision(context, claim)
        return
    else:
        text = "no persistent volumes available for this claim and no storage class is set"
        context.recorder.event(claim, "Normal", "FailedBinding", text)
    await set_claim(context, claim, "Pending")


def is_delayed(context: Context, claim: Object) -> bool:
    """Whether the class leaves the choice to the scheduler."""
    found = context.informer(STORAGECLASSES).get("", class_of(claim))
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"


async def _give_class(context: Context, claim: Object) -> bool:
    """A claim made before there was a default class gets it; whether it did. Raises ApiError."""
    if CLASS in notes(claim) or claim["spec"].get("storageClassName") is not None:
        return False
    classes = [
        each
        for each in context.informer(STORAGECLASSES).list()
        if any(notes(each).get(name) == "true" for name in _DEFAULTS)
    ]
    if not classes:
        return False
    classes.sort(key=lambda each: str(each["metadata"]["name"]))
    newest = max(classes, key=lambda each: str(each["metadata"]["creationTimestamp"]))
    changed = {**claim, "spec": {**claim["spec"], "storageClassName": newest["metadata"]["name"]}}
    given, failed = given_later(context.metrics)
    try:
        await context.client.update(PERSISTENTVOLUMECLAIMS, changed)
    except ApiError:
        failed.inc()
        given.inc()
        raise
    given.inc()
    return True


def given_later(metrics: Metrics) -> tuple[Value, Value]:
    """How many claims were to be given the default class later, and how many could not be."""
    given = metrics.counter("retroactive_storageclass_total", "Claims that were given the default class later.")
    failed = metrics.counter("retroactive_storageclass_errors_total", "Claims that could not be given it.")
    return given.labels(), failed.labels()


def _say_what_for(context: Context, claim: Object) -> None:
    """Whom the claim waits for."""
    users = context.informer(PODS).by_index(BY_CLAIM, str(key_of(claim)))
    names = [each["metadata"]["name"] for each in users if not each["spec"].get("nodeName") and pods.is_active(each)]
    if names:
        text = f"waiting for pod{'s' if len(names) > 1 else ''} {','.join(names)} to be scheduled"
        context.recorder.event(claim, "Normal", "WaitForPodScheduled", text)
    else:
        text = "waiting for first consumer to be created before binding"
        context.recorder.event(claim, "Normal", "WaitForFirstConsumer", text)


async def _provision(context: Context, claim: Object) -> None:
    """Name who is to make a volume, or say why nobody will. Raises ApiError."""
    if context.config.get("enable-dynamic-provisioning") == "false":
        return
    found = context.informer(STORAGECLASSES).get("", class_of(claim))
    asked = found["provisioner"] if found is not None else ""
    provisioner = DRIVERS.get(asked, asked)
    if found is None:
        why = f'storageclass.storage.k8s.io "{class_of(claim)}" not found'
    else:
        why = _cannot(claim, found) if provisioner.startswith("kubernetes.io/") else ""
    own = provisioner == "kubernetes.io/host-path"
    if why and not (own and not claim["spec"].get("dataSource")):
        context.recorder.event(claim, "Warning", "ProvisioningFailed", why)
        return
    await _name_provisioner(context, claim, provisioner)
    if own:
        context.recorder.event(claim, "Warning", "ProvisioningFailed", why)
        return
    text = (
        f"Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the "
        "system administrator. If volume creation is delayed, please verify that the provisioner is running and "
        "correctly registered."
    )
    context.recorder.event(claim, "Normal", "ExternalProvisioning", text)


def _cannot(claim: Object, storage_class: Object) -> str:
    """Why the plugin in the controller itself makes no volume: none does."""
    name = storage_class["provisioner"]
    if name.removeprefix("kubernetes.io/") in _IN_TREE:
        return "no provisionable volume plugin matched"
    if name != "kubernetes.io/host-path":
        return f"no volume plugin matched name: {name}"
    if claim["spec"].get("dataSource"):
        return f'plugin "{name}" is not a CSI plugin. Only CSI plugin can provision a claim with a datasource'
    if options := storage_class.get("mountOptions"):
        what = f'StorageClass "{storage_class["metadata"]["name"]}" has mount options [{" ".join(options)}]'
        return f"Mount options are not supported by the provisioner but {what}"
    return f'Failed to create provisioner: provisioning in volume plugin "{name}" is disabled'


async def _name_provisioner(context: Context, claim: Object, provisioner: str) -> None:
    noted = notes(claim)
    if noted.get(PROVISIONER) == provisioner:
        return
    noted |= {PROVISIONER: provisioner, OLD_PROVISIONER: provisioner}
    meta = {**claim["metadata"], "annotations": noted}
    try:
        await context.client.update(PERSISTENTVOLUMECLAIMS, {**claim, "metadata": meta})
    except ApiError as error:
        if error.code != 409:  # our copy is behind
            text = f"Error saving claim: {error.message}"
            context.recorder.event(claim, "Warning", "ProvisioningFailed", text)
        raise
