"""Claims, volumes and what nodes can attach, as scheduling needs them.

Owns the copies of claims, volumes, classes, drivers and capacities with what was assumed on top, how many pods on nodes
use each claim, and per driver how much each node has attached and may. The observer tells, the volume plugins ask, the
columns count. Source: kube-scheduler's plugins volumebinding (assume cache) and nodevolumelimits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from steersman.api import quantity
from steersman.api.resource import Object
from steersman.client.volumematch import class_of
from steersman.scheduler.attached import Attached
from steersman.scheduler.listeners import Listeners
from steersman.scheduler.podinfo import PodInfo

Ints = npt.NDArray[np.int64]
Key = tuple[str, str]  # namespace and name
SELECTED_NODE = "volume.kubernetes.io/selected-node"
_COMPLETED = "pv.kubernetes.io/bind-completed"
_UNLIMITED = 2**62


class Volumes:
    """See the module. Rows are those of the columns."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self.claims: dict[Key, Object] = {}
        self.volumes: dict[str, Object] = {}
        self.classes: dict[str, Object] = {}
        self.drivers: dict[str, Object] = {}
        self.capacities: dict[Key, Object] = {}
        self.users: dict[Key, int] = {}  # pods on nodes, by the claim that they use
        self._by_class: dict[str, dict[str, None]] = {}  # names of volumes
        self._assumed: dict[tuple[str, Key], Object] = {}  # what the API server last said of what was changed here
        self._node_limits: dict[str, dict[str, int]] = {}
        self._limits: dict[str, Ints] = {}
        self._attached = Attached(rows)
        self._attachments: dict[str, Object] = {}
        self._attaching: dict[str, set[str]] = {}  # the VolumeAttachments of each volume
        self._held: dict[str, list[Key]] = {}  # what each pod on a node was counted to attach
        self._listeners = Listeners()

    def grow(self, rows: int) -> None:
        """There are more rows now."""
        more = rows - self._rows
        for name, column in self._limits.items():
            self._limits[name] = np.concatenate([column, np.full(more, _UNLIMITED, np.int64)])
        self._attached.grow(rows)
        self._rows = rows

    # What the cluster has ------------------------------------------------------------------------------------------

    def set_claim(self, key: Key, claim: Object | None) -> None:
        """A claim as the API server has it; None when it is gone."""
        _set(self.claims, key, claim)
        self._assumed.pop(("claim", key), None)
        self._listeners.tell()

    def set_volume(self, name: str, volume: Object | None) -> None:
        """A volume as the API server has it; None when it is gone."""
        self._assumed.pop(("volume", ("", name)), None)
        self._put_volume(name, volume)
        for attachment in self._attaching.get(name, ()):
            self._attach(attachment)

    def set_attachment(self, name: str, attachment: Object | None) -> None:
        """A VolumeAttachment; None when it is gone."""
        if (old := self._attachments.get(name)) is not None:
            source = _source(old)
            self._attaching[source].discard(name)
            if not self._attaching[source]:
                del self._attaching[source]
        _set(self._attachments, name, attachment)
        if attachment is not None:
            self._attaching.setdefault(_source(attachment), set()).add(name)
        self._attach(name)

    def _attach(self, name: str) -> None:
        attachment = self._attachments.get(name)
        if attachment is None:
            self._attached.name(name, "", None)
            return
        spec = attachment["spec"]
        csi = (self.volumes.get(_source(attachment)) or {"spec": {}})["spec"].get("csi")
        self._attached.name(name, spec["nodeName"], (spec["attacher"], csi["volumeHandle"]) if csi else None)

    def _put_volume(self, name: str, volume: Object | None) -> None:
        old = self.volumes.get(name)
        if old is not None:
            self._by_class.get(class_of(old), {}).pop(name, None)
        _set(self.volumes, name, volume)
        if volume is not None:
            self._by_class.setdefault(class_of(volume), {})[name] = None

    def of_class(self, name: str) -> Iterable[Object]:
        """The volumes of a storage class."""
        return [self.volumes[each] for each in self._by_class.get(name, {})]

    def set_class(self, name: str, found: Object | None) -> None:
        """A StorageClass; None when it is gone."""
        _set(self.classes, name, found)

    def set_driver(self, name: str, driver: Object | None) -> None:
        """A CSIDriver; None when it is gone."""
        _set(self.drivers, name, driver)

    def set_capacity(self, key: Key, capacity: Object | None) -> None:
        """A CSIStorageCapacity; None when it is gone."""
        _set(self.capacities, key, capacity)

    def set_limits(self, node: str, row: int | None, csinode: Object | None) -> None:
        """A CSINode: how many volumes of each driver its node takes; None when it is gone."""
        limits = {}
        for driver in ((csinode or {}).get("spec") or {}).get("drivers") or ():
            count = (driver.get("allocatable") or {}).get("count")
            if count is not None:
                limits[driver["name"]] = int(count)
        if limits:
            self._node_limits[node] = limits
        else:
            self._node_limits.pop(node, None)
        if row is not None:
            self.set_row(row, node)

    def set_row(self, row: int, node: str) -> None:
        """A row has this node now; an empty name: none."""
        mine = self._node_limits.get(node, {})
        for driver in {*self._limits, *mine}:
            column = self._limits.get(driver)
            if column is None:
                column = self._limits[driver] = np.full(self._rows, _UNLIMITED, np.int64)
            column[row] = mine.get(driver, _UNLIMITED)
        self._attached.set_row(row, node)

    # Assumptions ---------------------------------------------------------------------------------------------------

    def assume_claim(self, claim: Object) -> None:
        """Count on a change to a claim that is being written; `restore` takes it back."""
        key = (claim["metadata"]["namespace"], claim["metadata"]["name"])
        self._assumed.setdefault(("claim", key), self.claims[key])
        self.claims[key] = claim

    def assume_volume(self, volume: Object) -> None:
        """Count on a change to a volume that is being written; `restore` takes it back."""
        name = volume["metadata"]["name"]
        self._assumed.setdefault(("volume", ("", name)), self.volumes[name])
        self._put_volume(name, volume)

    def restore(self, kind: str, key: Key) -> None:
        """Back to what the API server said last, unless it has said something since."""
        before = self._assumed.pop((kind, key), None)
        if before is not None and kind == "claim":
            self.claims[key] = before
        elif before is not None:
            self._put_volume(key[1], before)

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` whenever a claim changes, until what is returned is called."""
        return self._listeners.add(listener)

    # Pods on nodes -------------------------------------------------------------------------------------------------

    def count(self, row: int, pod: PodInfo, sign: int) -> None:
        """A pod with claims came to a row (sign 1) or left it (-1)."""
        for name, _ in pod.claims:
            key = (pod.namespace, name)
            left = self.users.get(key, 0) + sign
            if left:
                self.users[key] = left
            else:
                self.users.pop(key, None)
        held = self.handles(pod) if sign > 0 else self._held.pop(pod.uid, [])
        if sign > 0 and held:
            self._held[pod.uid] = held
        for handle in held:
            self._attached.use(handle, row, sign)

    def handles(self, pod: PodInfo) -> list[Key]:
        """Driver and handle of every CSI volume that the pod attaches, each once."""
        found: dict[Key, None] = {}
        for name, _ in pod.claims:
            claim = self.claims.get((pod.namespace, name))
            if claim is None:
                continue
            volume = self.volumes.get(claim["spec"].get("volumeName") or "")
            if volume is not None:
                if csi := volume["spec"].get("csi"):
                    found[csi["driver"], csi["volumeHandle"]] = None
            elif (of := self.classes.get(class_of(claim))) is not None:
                found[of.get("provisioner") or "", f"{pod.namespace}/{name}"] = None
        return list(found)

    def crowded(self, pod: PodInfo) -> npt.NDArray[np.bool_] | None:
        """Rows that could not attach the pod's volumes as well; None where there is no limit."""
        wanted: dict[str, list[Key]] = {}
        for handle in self.handles(pod):
            if handle[0] in self._limits:
                wanted.setdefault(handle[0], []).append(handle)
        if not wanted:
            return None
        crowded = np.zeros(self._rows, np.bool_)
        for driver, handles in wanted.items():
            more = np.full(self._rows, len(handles), np.int64)
            for handle in handles:
                more[list(self._attached.rows_using(handle))] -= 1
            total = self._attached.counts(driver) + more
            crowded |= (more > 0) & (total > self._limits[driver])
        return crowded


def _source(attachment: Object) -> str:
    """The name of the volume that is attached; empty for one that is written into the VolumeAttachment."""
    return str((attachment["spec"].get("source") or {}).get("persistentVolumeName") or "")


def is_bound(claim: Object) -> bool:
    """Whether the binder is done with a claim."""
    annotations = claim["metadata"].get("annotations") or {}
    return bool(claim["spec"].get("volumeName")) and _COMPLETED in annotations


def storage(amount: Any) -> int:
    """Bytes."""
    return quantity.whole(amount)


def _set(table: dict[Any, Object], key: Any, value: Object | None) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value
