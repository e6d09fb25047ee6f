"""How many of something each row has, and with them each domain of a label.

Owns `Tally`: a row's number is changed in place, and so are the sums of the domains that somebody has asked for: one
pod more costs one addition a label and not a pass over all nodes. Called by `peers`; plugins read it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]


@dataclass(slots=True)
class Era:
    """How often nodes came, went or changed: domains are what they were while it stands."""

    number: int = 0


class Tally:
    """Numbers by row; `rows` may be read, and is changed by `add` alone."""

    __slots__ = ("_at", "_era", "_sums", "rows")

    def __init__(self, size: int, era: Era) -> None:
        self.rows: Ints = np.zeros(size, np.int64)
        self._era = era
        self._at = era.number
        self._sums: dict[str, tuple[Codes, Ints]] = {}

    def add(self, row: int, number: int) -> None:
        """So many more on a row."""
        self.rows[row] += number
        if not self._sums:
            return
        if self._at != self._era.number:
            self._sums.clear()
            return
        for codes, sums in self._sums.values():
            code = codes.item(row)
            if code >= 0:
                sums[code] += number

    def grow(self, more: int) -> None:
        """There are more rows now."""
        self.rows = np.concatenate([self.rows, np.zeros(more, np.int64)])
        self._sums.clear()

    def by_domain(self, key: str, codes: Codes, size: int) -> Ints:
        """The sums of a label's `size` domains; `codes` says which of them rows are in, below 0 in none.

        The last number is 0, so that rows that are in none find it with their code. The array is not to be changed.
        """
        if self._at != self._era.number:
            self._sums.clear()
            self._at = self._era.number
        known = self._sums.get(key)
        if known is None:
            sums = np.zeros(size + 1, np.int64)
            sums[:size] = np.bincount(codes + 1, weights=self.rows, minlength=size + 1)[1:]
            known = self._sums[key] = codes, sums
        return known[1]
