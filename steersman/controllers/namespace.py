"""Namespaces: a terminating one is emptied, pods first, and then let go.

Owns the `kubernetes` finalizer in a namespace's spec and the conditions that tell what is in its way.
It begins at once; `namespace-deletion-grace` (seconds) leaves that long to others, as the original always does.
Source: kubernetes' pkg/controller/namespace/deletion, KEP-5080 (ordered deletion); the texts are the original's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from steersman.api.errors import ApiError
from steersman.api.resource import NAMESPACES, PODS, Object, Resource
from steersman.client.client import ListPage
from steersman.client.controller import DONE, Context, Controller, For, Key, Result, Watch, key_of
from steersman.client.discovery import Served, discover
from steersman.client.workqueue import WorkQueue
from steersman.lib.clock import parse_rfc3339, rfc3339

_FINALIZER = "kubernetes"
_PATIENCE = (1.0, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between looks at what takes its time

_FINE = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


@dataclass(slots=True)
class Findings:
    """What one attempt to empty a namespace found."""

    failed_discovery: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    remaining: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)

    def note(self, resource: Resource, items: Iterable[Object]) -> None:
        """Objects that are still there."""
        for item in items:
            name = f"{resource.plural}.{resource.group}"
            self.remaining[name] = self.remaining.get(name, 0) + 1
            for finalizer in item["metadata"].get("finalizers") or ():
                self.finalizers[finalizer] = self.finalizers.get(finalizer, 0) + 1

    @property
    def empty(self) -> bool:
        """Whether nothing is left and nothing went wrong."""
        return not (self.remaining or self.errors or self.failed_discovery)


def conditions_of(findings: Findings, old: Iterable[Object], now: float) -> list[Object]:
    """All five conditions; those that did not change keep their time."""
    bad: dict[str, tuple[str, str]] = {}
    if findings.failed_discovery:
        text = f"Discovery failed for some groups, {len(findings.failed_discovery)} failing: "
        text += f"unable to retrieve the complete list of server APIs: {', '.join(sorted(findings.failed_discovery))}"
        bad["NamespaceDeletionDiscoveryFailure"] = ("DiscoveryFailed", text)
    if findings.errors:
        text = f"Failed to delete all resource types, {len(findings.errors)} remaining: "
        bad["NamespaceDeletionContentFailure"] = ("ContentDeletionFailed", text + ", ".join(sorted(findings.errors)))
    if findings.remaining:
        parts = [f"{name} has {count} resource instances" for name, count in sorted(findings.remaining.items())]
        text = "Some resources are remaining: " + ", ".join(sorted(parts))
        bad["NamespaceContentRemaining"] = ("SomeResourcesRemain", text)
    if findings.finalizers:
        parts = [f"{name} in {count} resource instances" for name, count in sorted(findings.finalizers.items())]
        text = "Some content in the namespace has finalizers remaining: " + ", ".join(sorted(parts))
        bad["NamespaceFinalizersRemaining"] = ("SomeFinalizersRemain", text)
    before = {each["type"]: each for each in old}
    out = [each for kind, each in before.items() if kind not in _FINE]
    for kind, fine in _FINE.items():
        status = "True" if kind in bad else "False"
        reason, message = bad.get(kind, fine)
        known = before.get(kind)
        same = known is not None and known["status"] == status
        since = known["lastTransitionTime"] if known is not None and same else rfc3339(now)
        out.append({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message})
    return out


async def reconcile(context: Context, key: Key) -> Result:
    """Empty one terminating namespace as far as possible; come back while something is left."""
    namespace = context.informer(NAMESPACES).get(*key)
    looks: dict[Key, int] = context.memory.setdefault("looks", {})
    if namespace is None or not namespace["metadata"].get("deletionTimestamp"):
        looks.pop(key, None)
        return DONE
    if _FINALIZER not in (namespace["spec"].get("finalizers") or ()):
        return DONE
    grace = float(context.config.get("namespace-deletion-grace", "0"))
    if (left := parse_rfc3339(namespace["metadata"]["deletionTimestamp"]) + grace - context.clock.now()) > 0 < grace:
        return Result(left)
    findings = await _empty(context, key.name)
    if not findings.empty:
        await _report(context, namespace, findings)
        seen = looks[key] = looks.get(key, -1) + 1
        return Result(_PATIENCE[min(seen, len(_PATIENCE) - 1)])
    left = [name for name in namespace["spec"]["finalizers"] if name != _FINALIZER]
    try:
        await _report(context, namespace, findings)
        fresh = await context.client.get(NAMESPACES, key.name)
        body = {**fresh, "spec": {**fresh["spec"], "finalizers": left}}
        await context.client.update(NAMESPACES, body, subresource="finalize")
    except ApiError as error:
        if error.code != 404:
            raise
    looks.pop(key, None)
    return DONE


async def _report(context: Context, namespace: Object, findings: Findings) -> None:
    status = namespace.get("status") or {}
    if findings.empty and not status.get("conditions"):
        return
    conditions = conditions_of(findings, status.get("conditions") or (), context.clock.now())
    if conditions != status.get("conditions"):
        changed = {**namespace, "status": {**status, "phase": "Terminating", "conditions": conditions}}
        await context.client.update(NAMESPACES, changed, subresource="status")


async def _empty(context: Context, name: str) -> Findings:
    """Delete everything in the namespace. While pods are left, nothing else is touched."""
    findings = Findings()
    found = await discover(context.client)
    findings.failed_discovery.extend(found.failed)
    served = [each for each in found.resources if each.resource.namespaced and {"list", "delete"} <= each.verbs]
    served.sort(key=lambda each: (each.resource.group, each.resource.plural) != ("", "pods"))
    for each in served:
        try:
            await _empty_of(context, each, name, findings)
        except ApiError as error:
            if error.code not in (404, 405):
                findings.errors.append(error.message)
        if each.resource.plural == "pods" and not each.resource.group and (findings.remaining or findings.errors):
            break
    return findings


async def _empty_of(context: Context, served: Served, namespace: str, findings: Findings) -> None:
    """Delete the objects of one resource; what is left afterwards is noted."""
    client, resource = context.client, served.resource

    async def look() -> ListPage:
        return await client.list(resource, namespace, metadata_only=True)

    page = await look()
    if not page.items:
        return
    if "deletecollection" in served.verbs:
        await client.delete_collection(resource, namespace, propagation="Background")
    else:
        for item in page.items:
            await client.delete(resource, item["metadata"]["name"], namespace, propagation="Background")
    findings.note(resource, (await look()).items)


def _of_pod(context: Context, pod: Object) -> Iterable[Key]:
    """A pod that goes makes its terminating namespace worth a look."""
    name = pod["metadata"]["namespace"]
    namespace = context.informer(NAMESPACES).get("", name)
    if namespace is not None and namespace["metadata"].get("deletionTimestamp"):
        yield Key("", name)


async def _feed(context: Context, queue: WorkQueue[Key]) -> None:
    """Whatever happens, each terminating namespace is looked at every `namespace-sync-period`."""
    period = float(context.config.get("namespace-sync-period", "300"))
    while True:
        await context.clock.sleep(period)
        for namespace in context.informer(NAMESPACES).by_index("terminating", ""):
            queue.add(key_of(namespace))


CONTROLLER = Controller(
    "namespace-controller",
    reconcile,
    (For(NAMESPACES), Watch(PODS, _of_pod)),
    workers=10,
    feed=_feed,
    indexes={NAMESPACES: {"terminating": lambda each: [""] if each["metadata"].get("deletionTimestamp") else ()}},
    retry=(0.005, 60.0),
)
