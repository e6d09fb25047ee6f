"""VolumeBinding: claims are bound to volumes that the pod's node can reach, or provisioned for it (KEP-490).

Bound claims say where the pod can go; claims of classes that wait for their first consumer are bound once the node is
chosen. Capacity is looked at where the driver publishes it (KEP-1472). Source: plugins/volumebinding/binder.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from steersman.api import labels
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, Object
from steersman.client.client import Client
from steersman.client.volumematch import capacity, class_of, is_for, suits, wanted
from steersman.scheduler.columns import Columns, Mask
from steersman.scheduler.framework import Hint, Kind, Plugin, Rejection, Reservation, Reserved, always
from steersman.scheduler.plugins import node_affinity
from steersman.scheduler.plugins.volume_restrictions import own_claim
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.volumes import SELECTED_NODE, Volumes, is_bound, storage

_BIND_CONFLICT = "node(s) didn't find available persistent volumes to bind"
_NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
_NO_SPACE = "node(s) did not have enough free storage"
_NO_VOLUME = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
_UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
_NO_PROVISIONER = "kubernetes.io/no-provisioner"
_BY_US = "pv.kubernetes.io/bound-by-controller"
_HINTS: Mapping[Kind, Hint] = {
    "claim": own_claim,
    "volume": always,
    "class": always,
    "capacity": always,
    "node limits": always,
    "node added": always,
    "node labels": always,
}


def make(args: Mapping[str, Any]) -> Plugin:
    """With how long a binding may take."""
    patience = float(args["bindTimeoutSeconds"])
    return Plugin(
        "VolumeBinding",
        admit=admit,
        filter=filter,
        hints=_HINTS,
        reserve=lambda columns, pod, node: reserve(columns, pod, node, patience),
    )


def admit(columns: Columns, pod: PodInfo) -> str | None:
    """Every claim must be there, not lost, not going, and bound or waiting for this very pod."""
    for name, ephemeral in pod.claims:
        claim = columns.volumes.claims.get((pod.namespace, name))
        if claim is None:
            if ephemeral:
                return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
            return f'persistentvolumeclaim "{name}" not found'
        if (claim.get("status") or {}).get("phase") == "Lost":
            lost = claim["spec"].get("volumeName", "")
            return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{lost}"'
        if "deletionTimestamp" in claim["metadata"]:
            return f'persistentvolumeclaim "{name}" is being deleted'
        if ephemeral and not _belongs(claim, pod):
            where = f"{pod.namespace}/{name}"
            return f"PVC {where} was not created for pod {pod.key} (pod is not owner)"
    bound, waiting = _sorted_out(columns.volumes, pod)
    return _UNBOUND if len(bound) + len(waiting) < len(dict(pod.claims)) else None


def _belongs(claim: Object, pod: PodInfo) -> bool:
    owners = claim["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner.get("uid") == pod.uid for owner in owners)


def _sorted_out(volumes: Volumes, pod: PodInfo) -> tuple[list[Object], list[Object]]:
    """The pod's claims that are bound, and those that wait for their first consumer, the smallest first."""
    bound, waiting = [], []
    for name in dict(pod.claims):
        claim = volumes.claims.get((pod.namespace, name))
        if claim is None:
            continue
        if is_bound(claim):
            bound.append(claim)
            continue
        found = volumes.classes.get(class_of(claim)) or {}
        if found.get("volumeBindingMode") == "WaitForFirstConsumer" and not claim["spec"].get("volumeName"):
            waiting.append(claim)
    waiting.sort(key=lambda claim: wanted(claim).nanos)
    return bound, waiting


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes that cannot reach what is bound, or that nothing could be bound or made for."""
    if not pod.claims:
        return ()
    volumes, found = columns.volumes, []
    bound, waiting = _sorted_out(volumes, pod)
    missing = False
    reached = np.ones(len(columns.live), np.bool_)
    for claim in bound:
        volume = volumes.volumes.get(claim["spec"]["volumeName"])
        missing |= volume is None
        if volume is not None and (within := _reach(columns, volume)) is not None:
            reached &= within
    found.append(Rejection(~reached, _NODE_CONFLICT, resolvable=False))
    plan = _Plan(columns, waiting)
    found.append(Rejection(plan.conflict, _BIND_CONFLICT, resolvable=False))
    found.append(Rejection(plan.full, _NO_SPACE, resolvable=False))
    if missing:
        found.append(Rejection(columns.live, _NO_VOLUME, resolvable=False))
    return found


def _reach(columns: Columns, volume: Object) -> Mask | None:
    """Nodes that can reach a volume; None: all of them."""
    required = (volume["spec"].get("nodeAffinity") or {}).get("required")
    return None if not required else node_affinity.any_of(columns, required.get("nodeSelectorTerms") or ())


class _Plan:
    """For every node at once: which volume each claim that waits would get there, or whether one could be made."""

    def __init__(self, columns: Columns, waiting: Sequence[Object]) -> None:
        size = len(columns.live)
        self._columns = columns
        self.conflict = np.zeros(size, np.bool_)
        self.full = np.zeros(size, np.bool_)
        self.matches: list[tuple[Object, Object, Mask]] = []  # claim, volume, the nodes where it is the choice
        self.makes: list[tuple[Object, Mask]] = []
        self._taken: dict[str, Mask] = {}  # volumes that an earlier claim has, by node
        for claim in waiting:
            self._add(claim)

    def _add(self, claim: Object) -> None:
        columns, size = self._columns, len(self._columns.live)
        selected = (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE)
        found = np.zeros(size, np.bool_)
        if selected is not None:
            names = columns.names_column()
            elsewhere = names.codes != names.values.get(selected, len(names.values))
            self.conflict |= elsewhere
        else:
            for volume in _candidates(columns.volumes, claim):
                within = _reach(columns, volume)
                name = volume["metadata"]["name"]
                here = ~found if within is None else within & ~found
                if name in self._taken:
                    here &= ~self._taken[name]
                self._taken[name] = self._taken.get(name, np.zeros(size, np.bool_)) | here
                self.matches.append((claim, volume, here))
                found |= here
                if is_for(volume, claim) or found.all():
                    break
        self._provide(claim, ~found)

    def _provide(self, claim: Object, needed: Mask) -> None:
        """Where nothing matches, one must be made, if the class can do that there."""
        storage_class = self._columns.volumes.classes.get(class_of(claim)) or {}
        if storage_class.get("provisioner", "") in ("", _NO_PROVISIONER):
            self.conflict |= needed
            return
        if terms := storage_class.get("allowedTopologies"):
            self.conflict |= needed & ~_allowed(self._columns, terms)
        roomy = _roomy(self._columns, claim, storage_class)
        if roomy is not None:
            self.full |= needed & ~roomy
        self.makes.append((claim, needed))


def _candidates(volumes: Volumes, claim: Object) -> list[Object]:
    """Free volumes that suit the claim, the smallest first; one that is its own goes before all others."""
    chosen = claim["spec"].get("selector")
    selector = labels.from_object(chosen) if chosen is not None else labels.EVERYTHING
    free = []
    for volume in volumes.of_class(class_of(claim)):
        if not suits(volume, claim):
            continue
        if is_for(volume, claim):
            return [volume]
        available = (volume.get("status") or {}).get("phase") == "Available"
        if available and not volume["spec"].get("claimRef") and selector.matches(volume["metadata"].get("labels")):
            free.append(volume)
    return sorted(free, key=lambda each: (capacity(each).nanos, each["metadata"]["name"]))


def _allowed(columns: Columns, terms: Sequence[Mapping[str, Any]]) -> Mask:
    """Nodes in one of the class's topologies."""
    mask = np.zeros(len(columns.live), np.bool_)
    for term in terms:
        within = np.ones(len(mask), np.bool_)
        for each in term.get("matchLabelExpressions") or ():
            within &= node_affinity.expression(columns, {**each, "operator": "In"})
        mask |= within
    return mask


def _roomy(columns: Columns, claim: Object, storage_class: Object) -> Mask | None:
    """Nodes where the driver has published enough capacity; None where it publishes none."""
    driver = columns.volumes.drivers.get(storage_class["provisioner"])
    size = ((claim["spec"].get("resources") or {}).get("requests") or {}).get("storage")
    if size is None or driver is None or not (driver.get("spec") or {}).get("storageCapacity"):
        return None
    mask = np.zeros(len(columns.live), np.bool_)
    for each in columns.volumes.capacities.values():
        limit = each.get("maximumVolumeSize") or each.get("capacity")
        if each.get("storageClassName") != storage_class["metadata"]["name"] or limit is None:
            continue
        if storage(limit) >= storage(size) and each.get("nodeTopology") is not None:
            mask |= node_affinity.term(columns, _as_term(each["nodeTopology"])) if each["nodeTopology"] else True
    return mask


def _as_term(selector: Mapping[str, Any]) -> Mapping[str, Any]:
    """A label selector as a term of a node selector."""
    pairs = [
        {"key": key, "operator": "In", "values": [value]} for key, value in (selector.get("matchLabels") or {}).items()
    ]
    return {"matchExpressions": [*pairs, *(selector.get("matchExpressions") or ())]}


def reserve(columns: Columns, pod: PodInfo, node: str, patience: float) -> Reservation | None:
    """Take the volumes that were found for the node, and note what is to be made."""
    _, waiting = _sorted_out(columns.volumes, pod) if pod.claims else ([], [])
    if not waiting:
        return None
    row = columns.rows[node]
    plan = _Plan(columns, waiting)
    taken = _Taken(columns.volumes, pod, node, patience)
    for claim, volume, here in plan.matches:
        if here[row]:
            taken.bind(claim, volume)
    for claim, here in plan.makes:
        if here[row]:
            taken.provide(claim)
    return taken


@dataclass(slots=True)
class _Taken:
    """What one pod took. Written before the pod is bound, given back when that fails."""

    volumes: Volumes
    pod: PodInfo
    node: str
    patience: float
    bound: list[Object] = field(default_factory=list)
    provided: list[Object] = field(default_factory=list)

    def bind(self, claim: Object, volume: Object) -> None:
        meta = claim["metadata"]
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": meta["namespace"]}
        reference |= {"name": meta["name"], "uid": meta["uid"], "resourceVersion": meta.get("resourceVersion", "")}
        annotations = {**(volume["metadata"].get("annotations") or {})}
        if not volume["spec"].get("claimRef"):
            annotations[_BY_US] = "yes"
        changed = {**volume, "spec": {**volume["spec"], "claimRef": reference}}
        changed["metadata"] = {**volume["metadata"], "annotations": annotations}
        self.volumes.assume_volume(changed)
        self.bound.append(changed)

    def provide(self, claim: Object) -> None:
        annotations = {**(claim["metadata"].get("annotations") or {}), SELECTED_NODE: self.node}
        changed = {**claim, "metadata": {**claim["metadata"], "annotations": annotations}}
        self.volumes.assume_claim(changed)
        self.provided.append(changed)

    def undo(self) -> None:
        for volume in self.bound:
            self.volumes.restore("volume", ("", volume["metadata"]["name"]))
        for claim in self.provided:
            self.volumes.restore("claim", (claim["metadata"]["namespace"], claim["metadata"]["name"]))

    async def release(self, client: Client) -> None:
        """What is bound stays bound."""

    async def settle(self, client: Client, tell: Callable[[str, str], None]) -> None:
        """Write what was taken, then wait until every claim is bound. Raises ApiError, OSError, Reserved."""
        changed = asyncio.Event()
        stop = self.volumes.listen(changed.set)
        try:
            async with asyncio.timeout(self.patience or None):
                for volume in self.bound:
                    await client.update(PERSISTENTVOLUMES, volume)
                for claim in self.provided:
                    if not self._selected(claim):
                        await client.update(PERSISTENTVOLUMECLAIMS, claim)
                while not self._all_bound():
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            raise Reserved("binding volumes: context deadline exceeded") from None
        finally:
            stop()

    def _selected(self, claim: Object) -> bool:
        """Whether an earlier attempt has written the node already."""
        return claim is not self._now(claim) and SELECTED_NODE in (
            (self._now(claim) or {"metadata": {}})["metadata"].get("annotations") or {}
        )

    def _now(self, claim: Object) -> Object | None:
        return self.volumes.claims.get((claim["metadata"]["namespace"], claim["metadata"]["name"]))

    def _all_bound(self) -> bool:
        for claim in self.provided:
            now = self._now(claim)
            name = f"{claim['metadata']['namespace']}/{claim['metadata']['name']}"
            if now is None:
                raise Reserved(f'binding volumes: pvc "{name}" is being deleted')
            if SELECTED_NODE not in (now["metadata"].get("annotations") or {}):
                raise Reserved(f'binding volumes: selectedNode annotation reset for PVC "{claim["metadata"]["name"]}"')
        claims = [self.volumes.claims.get((self.pod.namespace, name)) for name, _ in self.pod.claims]
        return all(claim is not None and is_bound(claim) for claim in claims)
