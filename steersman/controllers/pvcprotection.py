"""Claims in use are kept until no pod uses them.

Owns the finalizer kubernetes.io/pvc-protection. Source: kubernetes' pkg/controller/volume/pvcprotection.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PODS, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch

_FINALIZER = "kubernetes.io/pvc-protection"
_BY_CLAIM = "claim"


def claims_of(pod: Object) -> Iterable[str]:
    """The names of the claims that a pod uses; an ephemeral volume's is the pod's and the volume's name."""
    for volume in pod["spec"].get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield claim["claimName"]
        elif volume.get("ephemeral"):
            yield f"{pod['metadata']['name']}-{volume['name']}"


async def reconcile(context: Context, key: Key) -> Result:
    """Put the finalizer on one claim, or take it off one that is being deleted and not used."""
    claim = context.informer(PERSISTENTVOLUMECLAIMS).get(*key)
    if claim is None:
        return DONE
    have = claim["metadata"].get("finalizers") or []
    if not claim["metadata"].get("deletionTimestamp"):
        if _FINALIZER not in have:
            await _write(context, claim, [*have, _FINALIZER])
    elif _FINALIZER in have and not await _is_used(context, key):
        await _write(context, claim, [each for each in have if each != _FINALIZER])
    return DONE


async def _is_used(context: Context, key: Key) -> bool:
    """By what is known first; before letting go, by asking the API server."""
    users = context.informer(PODS).by_index(_BY_CLAIM, str(key))
    if any(map(_holds, users)):
        return True
    fresh = (await context.client.list(PODS, key.namespace)).items
    return any(_holds(pod) and key.name in set(claims_of(pod)) for pod in fresh)


def _holds(pod: Object) -> bool:
    """Pods that have ended, or were never bound to a node, hold nothing."""
    return bool(pod["spec"].get("nodeName")) and not pods.is_terminal(pod)


async def _write(context: Context, claim: Object, finalizers: list[str]) -> None:
    changed = {**claim, "metadata": {**claim["metadata"], "finalizers": finalizers}}
    try:
        await context.client.update(PERSISTENTVOLUMECLAIMS, changed)
    except ApiError as error:
        if error.code != 404:
            raise


def _of_pod(_: Context, pod: Object) -> Iterable[Key]:
    return (Key(pod["metadata"]["namespace"], name) for name in claims_of(pod))


CONTROLLER = Controller(
    "persistentvolumeclaim-protection-controller",
    reconcile,
    (For(PERSISTENTVOLUMECLAIMS), Watch(PODS, _of_pod)),
    indexes={PODS: {_BY_CLAIM: lambda pod: [f"{pod['metadata']['namespace']}/{name}" for name in claims_of(pod)]}},
)
