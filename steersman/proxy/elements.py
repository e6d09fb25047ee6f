"""What is in the maps now, who put it there, and what changes when one Service does.

Owns the claims on map elements: two Services may ask for the same external address and port, then the one whose key
sorts first has it, and the other takes over when that goes. Pure. Called by `proxy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Contribution = Mapping[str, Mapping[str, str]]
"""Map name to element key to value ("" in a set)."""


@dataclass(slots=True)
class Change:
    """Elements to delete and then to add, by map name."""

    removed: dict[str, set[str]] = field(default_factory=dict)
    added: dict[str, dict[str, str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.removed or self.added)


class Elements:
    """All elements of all maps, by owner."""

    def __init__(self) -> None:
        self.effective: dict[str, dict[str, str]] = {}
        self._owned: dict[str, Contribution] = {}
        self._claims: dict[tuple[str, str], dict[str, str]] = {}

    def replace(self, changes: Mapping[str, Contribution]) -> Change:
        """Give owners new contributions (empty: none); returns what changed in effect."""
        touched: set[tuple[str, str]] = set()
        for owner, contribution in changes.items():
            old = self._owned.get(owner, {})
            touched |= self._withdraw(owner, old, contribution)
            touched |= self._claim(owner, old, contribution)
            if contribution:
                self._owned[owner] = contribution
            else:
                self._owned.pop(owner, None)
        return self._settle(touched)

    def _withdraw(self, owner: str, old: Contribution, new: Contribution) -> set[tuple[str, str]]:
        touched: set[tuple[str, str]] = set()
        for name, elements in old.items():
            for key in elements.keys() - new.get(name, {}).keys():
                claims = self._claims[name, key]
                del claims[owner]
                if not claims:
                    del self._claims[name, key]
                touched.add((name, key))
        return touched

    def _claim(self, owner: str, old: Contribution, new: Contribution) -> set[tuple[str, str]]:
        touched: set[tuple[str, str]] = set()
        for name, elements in new.items():
            before = old.get(name, {})
            for key, value in elements.items():
                if before.get(key) != value:
                    self._claims.setdefault((name, key), {})[owner] = value
                    touched.add((name, key))
        return touched

    def _settle(self, touched: set[tuple[str, str]]) -> Change:
        change = Change()
        for name, key in touched:
            claims = self._claims.get((name, key))
            new = claims[min(claims)] if claims else None
            here = self.effective.setdefault(name, {})
            old = here.get(key)
            if old == new:
                continue
            if old is not None:
                change.removed.setdefault(name, set()).add(key)
            if new is None:
                del here[key]
            else:
                here[key] = new
                change.added.setdefault(name, {})[key] = new
        return change
