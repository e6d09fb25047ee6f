"""Generic ephemeral volumes: a claim for each, owned by its pod and gone with it.

Owns the making of the claims; the garbage collector takes them away. Source: KEP-1698, kubernetes'
pkg/controller/volume/ephemeral; texts are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PODS, Object
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch
from steersman.client.metrics import Metrics
from steersman.lib.metrics import Value


async def reconcile(context: Context, key: Key) -> Result:
    """Every claim that the pod's ephemeral volumes need."""
    pod = context.informer(PODS).get(*key)
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        return DONE
    for volume in pod["spec"].get("volumes") or ():
        if "ephemeral" in volume:
            await _claim(context, pod, volume)
    return DONE


async def _claim(context: Context, pod: Object, volume: Object) -> None:
    meta, name = pod["metadata"], f"{pod['metadata']['name']}-{volume['name']}"
    found = context.informer(PERSISTENTVOLUMECLAIMS).get(meta["namespace"], name)
    if found is None:
        tries, failures = _counts(context.metrics)
        tries.inc()
        try:
            await context.client.create(PERSISTENTVOLUMECLAIMS, _made(pod, volume, name), meta["namespace"])
        except ApiError as error:
            if error.reason != "AlreadyExists":
                failures.inc()
                context.recorder.event(pod, "Warning", "FailedBinding", f"ephemeral volume {volume['name']}: {error}")
            raise
    elif not _owned(found, pod):
        text = f"PVC {meta['namespace']}/{name} was not created for pod {meta['namespace']}/{meta['name']}"
        text = f"ephemeral volume {volume['name']}: {text} (pod is not owner)"
        context.recorder.event(pod, "Warning", "FailedBinding", text)


def _counts(metrics: Metrics) -> tuple[Value, Value]:
    name = "ephemeral_volume_controller_create"
    tries = metrics.counter(f"{name}_total", "Claims to be made.").labels()
    return tries, metrics.counter(f"{name}_failures_total", "Claims that could not be made.").labels()


def _made(pod: Object, volume: Object, name: str) -> Object:
    template = volume["ephemeral"].get("volumeClaimTemplate") or {}
    given = template.get("metadata") or {}
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    meta = {
        "name": name,
        "labels": given.get("labels") or {},
        "annotations": given.get("annotations") or {},
        "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
    }
    return {"metadata": meta, "spec": template.get("spec") or {}}


def _owned(claim: Object, pod: Object) -> bool:
    references = claim["metadata"].get("ownerReferences") or ()
    return any(each.get("controller") and each.get("uid") == pod["metadata"]["uid"] for each in references)


def _pod_of(_: Context, claim: Object) -> Iterable[Key]:
    """The pod whose claim this is: one that was deleted is made again."""
    for each in claim["metadata"].get("ownerReferences") or ():
        if each.get("controller") and each.get("kind") == "Pod":
            yield Key(claim["metadata"]["namespace"], each["name"])


CONTROLLER = Controller(
    "ephemeral-volume-controller",
    reconcile,
    (For(PODS), Watch(PERSISTENTVOLUMECLAIMS, _pod_of)),
    workers=1,
    component="ephemeral_volume",
    counts=_counts,
)
