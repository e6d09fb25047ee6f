"""All nodes as columns: one array per resource, per label key, per fact.

Owns what the scheduler knows of nodes and of the pods on them, updated in place as single nodes and pods change;
nothing here is proportional to the cluster when one object changes. Called by the loop; plugins read it. NumPy is
imported with this module, so the module is imported only by a running scheduler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from steersman.api.resource import Object
from steersman.lib.clock import Clock
from steersman.scheduler.devices import Devices
from steersman.scheduler.owners import Owners
from steersman.scheduler.peers import PodIndex
from steersman.scheduler.podinfo import HostPort, PodInfo, Taint, amount_of
from steersman.scheduler.tally import Tally
from steersman.scheduler.volumes import Volumes

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
T = TypeVar("T", bound=np.generic)

ABSENT = -1  # the code of a node that lacks a label
_FIRST_ROWS = 16
_TOUCHED = 4096  # how many comings and goings of pods are remembered
_NAME = "metadata.name"  # node names are kept as one more label key


@dataclass(slots=True)
class LabelColumn:
    """One label key: each node's value as a code, and the codes by value."""

    codes: Codes
    values: dict[str, int] = field(default_factory=dict)
    _present: Mask | None = None
    _populated: Mask | None = None
    _index: npt.NDArray[np.intp] | None = None  # the codes as NumPy wants them: half the time
    _own: bool = False  # each row has the value of its own number

    def code(self, value: str) -> int:
        """The code of a value, new or known."""
        return self.values.setdefault(value, len(self.values))

    def present(self) -> Mask:
        """Rows that have the label; not to be changed."""
        if self._present is None:
            self._present = self.codes != ABSENT
        return self._present

    def populated(self, live: Mask) -> Mask:
        """Which values a live node has, and one False more for those without the label; not to be changed."""
        if self._populated is None:
            seen = np.bincount(self.codes[live] + 1, minlength=len(self.values) + 1)[1:] > 0
            self._populated = np.append(seen, False)
        return self._populated

    def to_rows(self, of: npt.NDArray[T]) -> npt.NDArray[T]:
        """What each row's value has of `of`, by code; the last of it for rows without the label."""
        index = self._indexed()
        if not self._own:
            return of.take(index)
        found = np.full(len(self.codes), of[-1])
        found[: len(of) - 1] = of[:-1]
        return found

    def at(self, rows: npt.NDArray[np.intp], of: npt.NDArray[T]) -> npt.NDArray[T]:
        """The same of some rows."""
        return of.take(self._indexed().take(rows))

    def _indexed(self) -> npt.NDArray[np.intp]:
        if self._index is None:
            count = len(self.values)
            self._index = self.codes.astype(np.intp)
            self._own = np.array_equal(self.codes[:count], np.arange(count)) and bool((self.codes[count:] < 0).all())
        return self._index

    def changed(self) -> None:
        """A node came, went, or has another value."""
        self._present = self._populated = self._index = None


class Columns:
    """Rows are nodes; a row is reused when its node is gone. `live` says which rows count."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.names: list[str] = []
        self.rows: dict[str, int] = {}
        self.live: Mask = np.zeros(_FIRST_ROWS, np.bool_)
        self.unschedulable: Mask = np.zeros(_FIRST_ROWS, np.bool_)
        self.allocatable: dict[str, Ints] = {}
        self.requested: dict[str, Ints] = {}
        self.nonzero: dict[str, Ints] = {}
        self.taints: Codes = np.zeros(_FIRST_ROWS, np.int32)  # index into taint_sets
        self.taint_sets: list[tuple[Taint, ...]] = [()]
        self.labels: dict[str, LabelColumn] = {}
        self.ports: dict[HostPort, dict[int, int]] = {}  # row -> how many pods use it
        self.pods: list[dict[str, PodInfo]] = []  # by row, then by uid
        self.peers = PodIndex(_FIRST_ROWS)
        self.owners = Owners()
        self.volumes = Volumes(_FIRST_ROWS)
        self.devices = Devices(clock)
        self.images: dict[str, Ints] = {}  # bytes by row, zero where the image is not
        self._nodes: dict[str, Object] = {}
        self.comings = 0  # how often a node came or went: rows mean the same nodes while it stands
        self.changes = 0  # how often a node came, went or changed
        self.touched: list[int] = []  # rows on which a pod came or went, from `touched_upto` backwards
        self.touched_upto = 0
        self.nominated: set[str] = set()  # pods that are not there yet: room is being made for them
        self._labelled: dict[frozenset[str], Mask] = {}
        self._where: dict[str, str] = {}  # pod uid -> node name
        self._homeless: dict[str, dict[str, PodInfo]] = {}  # pods on nodes that are not known (yet)
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def placed(self) -> int:
        """How many pods are on nodes, those assumed included."""
        return len(self._where) - len(self.nominated)

    def resource(self, table: dict[str, Ints], name: str) -> Ints:
        """One resource's column, zero where nobody said anything."""
        column = table.get(name)
        if column is None:
            column = table[name] = np.zeros(len(self.live), np.int64)
        return column

    def label(self, key: str) -> LabelColumn:
        """One label's column."""
        column = self.labels.get(key)
        if column is None:
            column = self.labels[key] = LabelColumn(np.full(len(self.live), ABSENT, np.int32))
        return column

    def names_column(self) -> LabelColumn:
        """Node names, as a label column."""
        return self.label(_NAME)

    def node(self, name: str) -> Object | None:
        """The node as last seen."""
        return self._nodes.get(name)

    # Nodes -----------------------------------------------------------------------------------------------------

    def set_node(self, node: Object) -> None:
        """Add a node or replace what is known of it; the pods counted on it stay."""
        name = node["metadata"]["name"]
        row = self.rows.get(name)
        if row is None:
            row = self._new_row(name)
        self._nodes[name] = node
        spec, status = node.get("spec", {}), node.get("status", {})
        self.live[row] = True
        self.unschedulable[row] = bool(spec.get("unschedulable"))
        self.taints[row] = self._taint_set(spec.get("taints") or ())
        for column in self.allocatable.values():
            column[row] = 0
        for resource, amount in (status.get("allocatable") or {}).items():
            self.resource(self.allocatable, resource)[row] = amount_of(resource, amount)
        self._set_labels(row, name, node["metadata"].get("labels") or {})
        self._set_images(row, status.get("images") or ())
        self._relabelled()
        for info in self._homeless.pop(name, {}).values():
            self._count(row, info, 1)

    def _new_row(self, name: str) -> int:
        if self._free:
            row = self._free.pop()
            self.names[row] = name
        else:
            row = len(self.names)
            self.names.append(name)
            self.pods.append({})
            if row >= len(self.live):
                self._grow()
        self.rows[name] = row
        self.comings += 1
        self.volumes.set_row(row, name)
        return row

    def _grow(self) -> None:
        more = max(_FIRST_ROWS, len(self.live) // 4)
        self.live = np.concatenate([self.live, np.zeros(more, np.bool_)])
        self.unschedulable = np.concatenate([self.unschedulable, np.zeros(more, np.bool_)])
        self.taints = np.concatenate([self.taints, np.zeros(more, np.int32)])
        self.peers.grow(len(self.live))
        self.volumes.grow(len(self.live))
        for table in (self.allocatable, self.requested, self.nonzero, self.images):
            for name, column in table.items():
                table[name] = np.concatenate([column, np.zeros(more, np.int64)])
        for label in self.labels.values():
            label.codes = np.concatenate([label.codes, np.full(more, ABSENT, np.int32)])

    def _taint_set(self, taints: Iterable[dict[str, Any]]) -> int:
        wanted = tuple(sorted(Taint(taint["key"], taint.get("value", ""), taint.get("effect", "")) for taint in taints))
        if wanted not in self.taint_sets:
            self.taint_sets.append(wanted)
        return self.taint_sets.index(wanted)

    def _set_labels(self, row: int, name: str, labels: dict[str, str]) -> None:
        for column in self.labels.values():
            column.codes[row] = ABSENT
        names = self.names_column()
        names.codes[row] = names.code(name)
        for key, value in labels.items():
            column = self.label(key)
            column.codes[row] = column.code(value)

    def _set_images(self, row: int, images: Iterable[dict[str, Any]]) -> None:
        for column in self.images.values():
            column[row] = 0
        for image in images:
            for name in image.get("names") or ():
                self.resource(self.images, name)[row] = image.get("sizeBytes", 0)

    def domains(self, key: str, tally: Tally) -> Ints:
        """The sum of a tally over each value of a label, by code, and 0 for nodes without it; not to be changed."""
        column = self.label(key)
        return tally.by_domain(key, column.codes, len(column.values))

    def in_domain(self, key: str, tally: Tally) -> Ints:
        """Each row's sum of a tally over all rows that have the same value of a label; 0 where it is absent."""
        return self.label(key).to_rows(self.domains(key, tally))

    def somebody(self, key: str, tally: Tally) -> Mask:
        """Rows in whose domain anything is counted."""
        return self.label(key).to_rows(self.domains(key, tally) > 0)

    def has_label(self, key: str) -> Mask:
        """Rows whose node has the label; not to be changed."""
        return self.label(key).present()

    def labelled(self, keys: Iterable[str]) -> Mask:
        """Live rows that have all these labels; not to be changed."""
        key = frozenset(keys)
        if (found := self._labelled.get(key)) is None:
            found = self._labelled[key] = np.logical_and.reduce([self.live, *map(self.has_label, key)])
        return found

    def _relabelled(self) -> None:
        """Nodes are not what they were: nothing holds that was worked out from their labels."""
        self.changes += 1
        self.peers.era.number += 1
        self._labelled.clear()
        for column in self.labels.values():
            column.changed()

    def remove_node(self, name: str) -> None:
        """Forget a node; pods that are still assigned to it wait for its return."""
        row = self.rows.pop(name, None)
        if row is None:
            return
        self.comings += 1
        left = dict(self.pods[row])
        for info in left.values():
            self._count(row, info, -1)
        if left:
            self._homeless[name] = left
        self.live[row] = False
        self._set_images(row, ())
        del self._nodes[name]
        self.devices.forget_node(name)
        self._free.append(row)
        self._relabelled()

    # Pods ------------------------------------------------------------------------------------------------------

    def add_pod(self, info: PodInfo, node: str) -> None:
        """Count a pod on a node, assumed or bound; again is harmless."""
        self.remove_pod(info.uid)
        self._where[info.uid] = node
        row = self.rows.get(node)
        if row is None:
            self._homeless.setdefault(node, {})[info.uid] = info
        else:
            self._count(row, info, 1)

    def pod(self, uid: str, node: str) -> PodInfo | None:
        """A pod as it is counted on a node."""
        row = self.rows.get(node)
        return (self._homeless.get(node, {}) if row is None else self.pods[row]).get(uid)

    def awaited(self, node: str) -> set[str]:
        """Uids of the pods for which room is being made on a node."""
        row = self.rows.get(node)
        if row is None or not self.nominated:
            return set()
        return {uid for uid in self.pods[row] if uid in self.nominated}

    def refresh(self, info: PodInfo, node: str) -> None:
        """Keep a pod's newer object, of which nothing counts anew."""
        row = self.rows.get(node)
        (self._homeless.setdefault(node, {}) if row is None else self.pods[row])[info.uid] = info

    def remove_pod(self, uid: str) -> None:
        """Take a pod out of the count; unknown is harmless."""
        node = self._where.pop(uid, None)
        if node is None:
            return
        row = self.rows.get(node)
        if row is None:
            waiting = self._homeless.get(node, {})
            waiting.pop(uid, None)
            if not waiting:
                self._homeless.pop(node, None)
        elif (info := self.pods[row].get(uid)) is not None:
            self._count(row, info, -1)

    def touched_since(self, count: int) -> set[int] | None:
        """Rows on which a pod came or went since `touched_upto` was that; None when it is no longer known."""
        back = self.touched_upto - count
        return None if back > len(self.touched) else set(self.touched[len(self.touched) - back :])

    def _count(self, row: int, info: PodInfo, sign: int) -> None:
        self.touched_upto += 1
        self.touched.append(row)
        if len(self.touched) > 2 * _TOUCHED:
            del self.touched[:_TOUCHED]
        for resource, amount in info.requests.items():
            self.resource(self.requested, resource)[row] += sign * amount
        for resource, amount in info.nonzero.items():
            self.resource(self.nonzero, resource)[row] += sign * amount
        for port in info.ports:
            users = self.ports.setdefault(port, {})
            users[row] = users.get(row, 0) + sign
            if not users[row]:
                del users[row]
            if not users:
                del self.ports[port]
        self.peers.count(row, info, sign)
        if info.claims:
            self.volumes.count(row, info, sign)
        if sign > 0:
            self.pods[row][info.uid] = info
        else:
            self.pods[row].pop(info.uid, None)
