"""Resource quotas: what each namespace uses of what it may.

Owns a ResourceQuota's status; refusing what goes over is admission's work. Only collections that some quota names are
followed. Source: kubernetes' pkg/controller/resourcequota.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PODS, SERVICES, Object, Resource
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of
from steersman.client.deviceclaims import CLAIMS
from steersman.client.discovery import discover
from steersman.client.informer import Informer
from steersman.client.quota import DEVICES, concerns, total, usage
from steersman.client.workqueue import WorkQueue

RESOURCEQUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")

_WHOLE = (PODS, SERVICES, PERSISTENTVOLUMECLAIMS)
_DEVICES = (CLAIMS.group, CLAIMS.plural)  # counted whole too; of the others, metadata is enough
_BARE = ("configmaps", "replicationcontrollers", "resourcequotas", "secrets")


def collections_of(names: Iterable[str]) -> set[tuple[str, str]]:
    """The collections, as (group, plural), that must be counted for these names of a quota."""
    out: set[tuple[str, str]] = set()
    for name in names:
        if name.startswith("count/"):
            plural, _, group = name.removeprefix("count/").partition(".")
            out.add((group, plural))
        elif name == "services" or name.startswith("services."):
            out.add(("", "services"))
        elif "storageclass.storage.k8s.io/" in name or name in ("persistentvolumeclaims", "requests.storage"):
            out.add(("", "persistentvolumeclaims"))
        elif name.endswith(DEVICES):
            out.add(_DEVICES)
        elif name in _BARE:
            out.add(("", name))
        else:
            out.add(("", "pods"))
    return out


async def feed(context: Context, queue: WorkQueue[Key]) -> None:
    """Give `reconcile` the queue, for it follows further collections as quotas name them; count all now and then."""
    context.memory["queue"] = queue
    period = float(context.config.get("resource-quota-sync-period", "300"))
    while True:
        await context.clock.sleep(period)
        for quota in context.informer(RESOURCEQUOTAS).list():
            queue.add(key_of(quota))


async def reconcile(context: Context, key: Key) -> Result:
    """Count what one quota limits."""
    quota = await _newest(context, key)
    if quota is None or quota["metadata"].get("deletionTimestamp"):
        return DONE
    hard = quota["spec"].get("hard") or {}
    parts = []
    now = context.clock.now()
    for group, plural in sorted(collections_of(hard)):
        found = await _follow(context, group, plural)
        if found is not None:
            objects = found.list(key.namespace)
            parts += [usage(found.resource, obj, now) for obj in objects if concerns(quota, found.resource, obj)]
    status = {"hard": hard, "used": total(parts, hard)} if hard else {}
    if status != (quota.get("status") or {}):
        written: dict[Key, Object | None] = context.memory["written"]
        written[key] = None
        changed = {**quota, "status": status}
        written[key] = await context.client.update(RESOURCEQUOTAS, changed, subresource="status")
    return DONE


async def _newest(context: Context, key: Key) -> Object | None:
    """The quota as we wrote it, as long as the informer shows an older one; as the server has it after a failure.

    A change of status brings no other look: whoever took an old status for true would be wrong for ever.
    """
    written: dict[Key, Object | None] = context.memory.setdefault("written", {})
    seen = context.informer(RESOURCEQUOTAS).get(*key)
    if seen is None or key not in written:
        written.pop(key, None)
        return seen
    if (ours := written[key]) is None:
        asked = f"metadata.name={key.name}"  # its role lets it list quotas, not get one
        found = (await context.client.list(RESOURCEQUOTAS, key.namespace, fields=asked)).items
        if not found:
            return None
        ours = written[key] = found[0]
    if int(ours["metadata"]["resourceVersion"]) > int(seen["metadata"]["resourceVersion"]):
        return ours
    del written[key]
    return seen


async def _follow(context: Context, group: str, plural: str) -> Informer | None:
    """The informer of a collection, whose changes count all quotas of a namespace anew; None when it is not served."""
    followed: dict[tuple[str, str], Informer | None] = context.memory.setdefault("followed", {})
    if (group, plural) not in followed:
        resource = next((each for each in _WHOLE if (each.group, each.plural) == (group, plural)), None)
        whole = resource is not None or (group, plural) == _DEVICES
        if resource is None:
            served = (each.resource for each in (await discover(context.client)).resources)
            resource = next((each for each in served if (each.group, each.plural) == (group, plural)), None)
        if resource is None:
            return None
        informer = context.informers.informer(resource, metadata_only=not whole)
        await informer.synced()
        followed[group, plural] = informer

        def changed(old: Object | None, new: Object | None) -> None:
            obj = new if new is not None else old
            assert obj is not None
            if old is not None and new is not None and resource is not PODS and not whole:
                return
            for quota in context.informer(RESOURCEQUOTAS).list(obj["metadata"].get("namespace") or ""):
                context.memory["queue"].add(key_of(quota))

        def missed() -> None:
            for quota in context.informer(RESOURCEQUOTAS).list():
                context.memory["queue"].add(key_of(quota))

        informer.add_handler(changed)
        informer.on_relist(missed)  # what came and went was charged by admission
    return followed[group, plural]


def _to_count(context: Context, quota: Object) -> tuple[Key, ...]:
    """A quota that is new here, or whose limits have changed; not one that admission has just charged.

    The object that it was charged for is not written yet: to count now would give the charge back.
    """
    known: set[str] = context.memory.setdefault("counted", set())
    uid, status = quota["metadata"]["uid"], quota.get("status") or {}
    if uid in known and (status.get("hard") or {}) == (quota["spec"].get("hard") or {}):
        return ()
    known.add(uid)
    return (key_of(quota),)


CONTROLLER = Controller("resourcequota-controller", reconcile, (Watch(RESOURCEQUOTAS, _to_count),), feed=feed)
