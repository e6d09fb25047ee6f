"""Values encrypted at rest: a store around another one, which sees only what was sealed.

Owns which transformer a key's values go through, and which of them are stale: sealed otherwise than a write would seal
them now. Made by `cluster/encryption.py`, and only where encryption is configured. It never decodes a value and never
fails for one that no key opens: that one is handed on as `Unopened`. Source: apiserver's pkg/storage/value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from steersman.store.interface import Entry, Event, Page, RevisionConflict, Sink, Store

ENCRYPTED = b"k8s:enc:"  # what every sealed value begins with
NOT_HERE = "identity transformer tried to read encrypted data"


class CannotOpen(Exception):
    """A value is not what a transformer sealed, in the original's words."""


class Unopened(bytes):
    """A value as stored, which nothing opens; `why` says so."""

    why: str = NOT_HERE


class Transformer(Protocol):
    """Seals and opens values; `context` (the key) must be the same for both."""

    def seal(self, value: bytes, context: bytes) -> bytes:
        """The bytes to store."""
        ...

    def open(self, sealed: bytes, context: bytes) -> tuple[bytes, bool]:
        """The value, and whether a write would seal it otherwise. Raises CannotOpen."""
        ...


class Identity:
    """Values as they are; sealed ones are not."""

    def seal(self, value: bytes, context: bytes) -> bytes:
        """The same."""
        return value

    def open(self, sealed: bytes, context: bytes) -> tuple[bytes, bool]:
        """The same. Raises CannotOpen for what is encrypted."""
        if sealed.startswith(ENCRYPTED):
            raise CannotOpen(NOT_HERE)
        return sealed, False


class Prefixed:
    """Several transformers, told apart by a prefix. The first seals; all that fit try to open."""

    def __init__(self, choices: Sequence[tuple[bytes, Transformer]], unmatched: str) -> None:
        """`unmatched` is what to say of a value that has none of the prefixes."""
        self._choices = tuple(choices)
        self._unmatched = unmatched

    def seal(self, value: bytes, context: bytes) -> bytes:
        """By the first."""
        prefix, first = self._choices[0]
        return prefix + first.seal(value, context)

    def open(self, sealed: bytes, context: bytes) -> tuple[bytes, bool]:
        """By the first that can. Raises CannotOpen with what each of them said."""
        said: dict[str, None] = {}
        for at, (prefix, choice) in enumerate(self._choices):
            if not sealed.startswith(prefix):
                continue
            try:
                value, stale = choice.open(sealed[len(prefix) :], context)
            except CannotOpen as error:
                if prefix:
                    said[str(error)] = None
            else:
                return value, stale or at > 0
        reasons = list(said)
        text = reasons[0] if len(reasons) == 1 else f"[{', '.join(reasons)}]"
        raise CannotOpen(text if reasons else self._unmatched)


class SealedStore:
    """Implements `Store` on another one: every value goes through the transformer that `of` names for its key."""

    def __init__(self, inner: Store, of: Callable[[str], Transformer | None]) -> None:
        self._inner = inner
        self._of = of
        self.stale: dict[str, int] = {}  # keys whose value at this revision ought to be written anew

    def _seal(self, key: str, value: bytes) -> bytes:
        found = self._of(key)
        return value if found is None else found.seal(value, key.encode())

    def _open(self, key: str, sealed: bytes, revision: int) -> bytes:
        """The value; of what cannot be opened, the sealed bytes. Revision 0 is of the past: whether it is stale does
        not matter."""
        found = self._of(key)
        if found is None:
            return sealed
        try:
            value, stale = found.open(sealed, key.encode())
        except CannotOpen as error:
            unopened = Unopened(sealed)
            unopened.why = str(error)
            return unopened
        if stale and revision:
            self.stale[key] = revision
        return value

    def _entry(self, entry: Entry) -> Entry:
        return replace(entry, value=self._open(entry.key, entry.value, entry.revision))

    def _event(self, event: Event) -> Event:
        if self.stale.get(event.key, event.revision) < event.revision:
            del self.stale[event.key]
        value = None if event.value is None else self._open(event.key, event.value, event.revision)
        previous = None if event.previous is None else self._open(event.key, event.previous, 0)
        return replace(event, value=value, previous=previous)

    @property
    def revision(self) -> int:
        """The newest committed revision."""
        return self._inner.revision

    @property
    def shared(self) -> bool:
        """As the store inside."""
        return self._inner.shared

    async def fresh(self) -> None:
        """As the store inside."""
        await self._inner.fresh()

    async def get(self, key: str, *, revision: int = 0) -> Entry | None:
        """The entry, opened."""
        found = await self._inner.get(key, revision=revision)
        return None if found is None else self._entry(found)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Entries, opened."""
        page = await self._inner.list(prefix, after=after, limit=limit, revision=revision)
        return replace(page, entries=[self._entry(entry) for entry in page.entries])

    async def create(self, key: str, value: bytes) -> int:
        """Write a new key, sealed."""
        return await self._inner.create(key, self._seal(key, value))

    async def update(self, key: str, value: bytes, expected: int) -> int:
        """Replace a value, sealed."""
        try:
            return await self._inner.update(key, self._seal(key, value), expected)
        except RevisionConflict as error:
            raise self._conflict(error) from error

    async def delete(self, key: str, expected: int) -> int:
        """Remove the key."""
        try:
            return await self._inner.delete(key, expected)
        except RevisionConflict as error:
            raise self._conflict(error) from error

    def _conflict(self, error: RevisionConflict) -> RevisionConflict:
        return RevisionConflict(str(error), None if error.current is None else self._entry(error.current))

    async def watch(self, prefix: str, after: int, sink: Sink) -> Callable[[], None]:
        """Feed `sink` events, opened."""
        return await self._inner.watch(prefix, after, lambda events: sink([self._event(event) for event in events]))

    async def compact(self, revision: int) -> None:
        """As the store inside."""
        await self._inner.compact(revision)

    async def close(self) -> None:
        """As the store inside."""
        await self._inner.close()
