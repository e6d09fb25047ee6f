"""How many volumes of each CSI driver every row has: those that its pods use, and those that VolumeAttachments name.

Owns the counts, each volume of a row once. A volume may be attached longer than a pod uses it, and by somebody whose
pods are not seen. Called by `volumes`. Source: kube-scheduler's plugin nodevolumelimits.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Handle = tuple[str, str]  # driver, and what it calls the volume


class Attached:
    """See the module. Rows are those of the columns."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._counts: dict[str, Ints] = {}
        self._used: dict[Handle, dict[int, int]] = {}  # on which rows, by how many pods
        self._named: dict[str, tuple[str, Handle]] = {}  # node and volume of each VolumeAttachment
        self._on: dict[str, dict[Handle, int]] = {}  # by node, how many VolumeAttachments name the volume
        self._row_of: dict[str, int] = {}
        self._node_of: dict[int, str] = {}

    def grow(self, rows: int) -> None:
        """There are more rows now."""
        more = np.zeros(rows - self._rows, np.int64)
        self._counts = {driver: np.concatenate([column, more]) for driver, column in self._counts.items()}
        self._rows = rows

    def counts(self, driver: str) -> Ints | int:
        """How many volumes of a driver each row has."""
        return self._counts.get(driver, 0)

    def rows_using(self, handle: Handle) -> Collection[int]:
        """The rows whose pods use a volume."""
        return self._used.get(handle, ())

    def use(self, handle: Handle, row: int, sign: int) -> None:
        """A pod that uses the volume came to a row (sign 1) or left it (-1)."""
        before = self._has(handle, row)
        rows = self._used.setdefault(handle, {})
        rows[row] = rows.get(row, 0) + sign
        if not rows[row]:
            del rows[row]
        if not rows:
            del self._used[handle]
        self._add(handle, row, self._has(handle, row) - before)

    def name(self, attachment: str, node: str, handle: Handle | None) -> None:
        """What a VolumeAttachment says; None when it is gone, or its volume is not known."""
        old = self._named.pop(attachment, None)
        if old is not None:
            self._name(*old, -1)
        if handle is not None:
            self._named[attachment] = (node, handle)
            self._name(node, handle, 1)

    def _name(self, node: str, handle: Handle, sign: int) -> None:
        row = self._row_of.get(node)
        before = row is not None and self._has(handle, row)
        there = self._on.setdefault(node, {})
        there[handle] = there.get(handle, 0) + sign
        if not there[handle]:
            del there[handle]
        if not there:
            del self._on[node]
        if row is not None:
            self._add(handle, row, self._has(handle, row) - before)

    def set_row(self, row: int, node: str) -> None:
        """A row has this node now."""
        old = self._node_of.get(row, "")
        if old == node:
            return
        for name, sign in ((old, -1), (node, 1)):
            for handle in self._on.get(name, ()):
                if row not in self.rows_using(handle):
                    self._add(handle, row, sign)
        if self._row_of.get(old) == row:
            del self._row_of[old]
        self._row_of[node], self._node_of[row] = row, node

    def _has(self, handle: Handle, row: int) -> bool:
        return row in self.rows_using(handle) or handle in self._on.get(self._node_of.get(row, ""), ())

    def _add(self, handle: Handle, row: int, more: int) -> None:
        if more:
            if handle[0] not in self._counts:
                self._counts[handle[0]] = np.zeros(self._rows, np.int64)
            self._counts[handle[0]][row] += more
