"""Values encrypted at rest: a store around another one, which sees only what was sealed.

Owns which transformer a key's values go through, and which of them are stale: sealed otherwise than a write would seal
them now. Made by `cluster/encryption.py`, and only where encryption is configured. It never decodes a value and never
fails for one that no key opens: that one is handed on as `Unopened`. Source: apiserver's pkg/storage/value.

Some keys have to be asked for (`Locked`). Reads wait for that, and so do events: those that cannot be opened yet are
held, with all that come after them, and meanwhile `revision` is the last that was told, and writers wait too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Protocol

from steersman.lib.tasks import Tasks
from steersman.store.interface import (
    Entry,
    Event,
    Guard,
    GuardFailed,
    Page,
    RevisionConflict,
    Sink,
    Store,
    StoreUnavailable,
)

ENCRYPTED = b"k8s:enc:"  # what every sealed value begins with
NOT_HERE = "identity transformer tried to read encrypted data"


class CannotOpen(Exception):
    """A value is not what a transformer sealed, in the original's words."""


class CannotSeal(StoreUnavailable):
    """A value cannot be sealed now, so it is not written."""


class Locked(CannotOpen):
    """A key has to be asked for: after `await unlock()` the value opens, or the text says why it does not."""

    def __init__(self, why: str, key: bytes, unlock: Callable[[], Awaitable[None]]) -> None:
        """`key` tells keys apart."""
        super().__init__(why)
        self.key = key
        self.unlock = unlock


class Unopened(bytes):
    """A value as stored, which nothing opens; `why` says so."""

    why: str = NOT_HERE
    locked: Locked | None = None


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
            except Locked:
                raise
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
        """`of` may give other answers later: then call `reopen`."""
        self._inner = inner
        self._of = of
        self._shut: set[str] = set()  # keys whose value, as last read, nothing opened
        self._held: dict[int, deque[Sequence[Event]]] = {}  # by watch: events that wait for a key
        self._told = asyncio.Event()  # replaced when something held was told
        self._watches = 0
        self._tasks = Tasks()
        self.on_reopen: list[Callable[[Entry], None]] = []

    # Values --------------------------------------------------------------------------------------------------------

    def _seal(self, key: str, value: bytes) -> bytes:
        found = self._of(key)
        return value if found is None else found.seal(value, key.encode())

    def _open(self, key: str, sealed: bytes) -> bytes:
        """The value; of what cannot be opened, the sealed bytes."""
        found = self._of(key)
        if found is None:
            return sealed
        try:
            return found.open(sealed, key.encode())[0]
        except CannotOpen as error:
            unopened = Unopened(sealed)
            unopened.why = str(error)
            unopened.locked = error if isinstance(error, Locked) else None
            return unopened

    async def _opened(self, values: Sequence[tuple[str, bytes]]) -> list[bytes]:
        """Values, opened; keys that they need are asked for."""
        found = [self._open(key, sealed) for key, sealed in values]
        if await _unlock(found):
            found = [self._open(*values[at]) if _locked(value) else value for at, value in enumerate(found)]
        return found

    async def _entries(self, entries: Sequence[Entry]) -> list[Entry]:
        values = await self._opened([(entry.key, entry.value) for entry in entries])
        for entry, value in zip(entries, values, strict=True):
            if isinstance(value, Unopened):
                self._shut.add(entry.key)
        return [replace(entry, value=value) for entry, value in zip(entries, values, strict=True)]

    async def stale(self, key: str, revision: int) -> bool:
        """Whether a write would seal the key's value otherwise than it is sealed, if it still is of that revision."""
        found, entry = self._of(key), await self._inner.get(key)
        if found is None or entry is None or entry.revision != revision:
            return False
        try:
            return found.open(entry.value, key.encode())[1]
        except CannotOpen:
            return False

    async def reopen(self) -> None:
        """Try again what nothing opened, and tell `on_reopen` of what opens now."""
        for key in tuple(self._shut):
            try:
                entry = await self.get(key)
            except StoreUnavailable:
                return
            if entry is None or not isinstance(entry.value, Unopened):
                self._shut.discard(key)
            if entry is not None and not isinstance(entry.value, Unopened):
                for told in self.on_reopen:
                    told(entry)

    # Events --------------------------------------------------------------------------------------------------------

    def _event(self, event: Event) -> Event:
        value = None if event.value is None else self._open(event.key, event.value)
        previous = None if event.previous is None else self._open(event.key, event.previous)
        if isinstance(value, Unopened):
            self._shut.add(event.key)
        return Event(event.key, event.revision, value, previous)

    def _relay(self, number: int, sink: Sink) -> Sink:
        """What feeds `sink` events, opened and in their order, as soon as their keys are there."""
        held: deque[Sequence[Event]] = deque()

        def relay(events: Sequence[Event]) -> None:
            if not held:
                told = [self._event(event) for event in events]
                if not any(_locked(event.value) or _locked(event.previous) for event in told):
                    sink(told)
                    return
                self._held[number] = held
                self._tasks.spawn(self._release(number, held, sink), "held events")
            held.append(events)

        return relay

    async def _release(self, number: int, held: deque[Sequence[Event]], sink: Sink) -> None:
        while held:
            told = [self._event(event) for event in held[0]]
            await _unlock([value for event in told for value in (event.value, event.previous)])
            if held:  # else the watch was stopped meanwhile
                sink([self._event(event) for event in held[0]])
                held.popleft()
            if not held:
                self._held.pop(number, None)
            self._tell()

    async def _caught_up(self, revision: int) -> None:
        """Wait until everything up to a revision was told."""
        while self._held and self.revision < revision:
            await self._told.wait()

    async def watch(self, prefix: str, after: int, sink: Sink) -> Callable[[], None]:
        """Feed `sink` events, opened."""
        self._watches += 1
        number = self._watches
        inner_stop = await self._inner.watch(prefix, after, self._relay(number, sink))
        while number in self._held:  # of the past
            await self._told.wait()

        def stop() -> None:
            inner_stop()
            if (held := self._held.pop(number, None)) is not None:
                held.clear()
                self._tell()

        return stop

    def _tell(self) -> None:
        """Wake whoever waits for held events."""
        self._told.set()
        self._told = asyncio.Event()

    @property
    def revision(self) -> int:
        """The newest revision that was told of."""
        if self._held:
            return min((held[0][0].revision - 1 for held in self._held.values() if held), default=self._inner.revision)
        return self._inner.revision

    @property
    def shared(self) -> bool:
        """As the store inside."""
        return self._inner.shared

    async def fresh(self) -> None:
        """As the store inside."""
        await self._inner.fresh()
        await self._caught_up(self._inner.revision)

    # Reading and writing -------------------------------------------------------------------------------------------

    async def get(self, key: str, *, revision: int = 0) -> Entry | None:
        """The entry, opened."""
        found = await self._inner.get(key, revision=revision)
        return None if found is None else (await self._entries([found]))[0]

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Entries, opened."""
        page = await self._inner.list(prefix, after=after, limit=limit, revision=revision)
        return replace(page, entries=await self._entries(page.entries))

    async def create(self, key: str, value: bytes, *, guard: Guard | None = None) -> int:
        """Write a new key, sealed."""
        return await self._written(self._inner.create(key, self._seal(key, value), guard=guard))

    async def update(self, key: str, value: bytes, expected: int, *, guard: Guard | None = None) -> int:
        """Replace a value, sealed."""
        return await self._written(self._inner.update(key, self._seal(key, value), expected, guard=guard))

    async def delete(self, key: str, expected: int, *, guard: Guard | None = None) -> int:
        """Remove the key."""
        return await self._written(self._inner.delete(key, expected, guard=guard))

    async def _written(self, write: Awaitable[int]) -> int:
        try:
            revision = await write
        except RevisionConflict as error:
            current = None if error.current is None else (await self._entries([error.current]))[0]
            raise RevisionConflict(str(error), current) from error
        except GuardFailed:
            await self._caught_up(self._inner.revision)
            raise
        await self._caught_up(revision)
        return revision

    async def compact(self, revision: int) -> None:
        """As the store inside."""
        await self._inner.compact(revision)

    async def close(self) -> None:
        """As the store inside."""
        await self._tasks.close()
        await self._inner.close()


def _locked(value: bytes | None) -> bool:
    return isinstance(value, Unopened) and value.locked is not None


async def _unlock(values: Iterable[bytes | None]) -> bool:
    """Ask for the keys that these values need, each once and all at a time; whether there were such."""
    needed: dict[bytes, Locked] = {}
    for value in values:
        if isinstance(value, Unopened) and value.locked is not None:
            needed[value.locked.key] = value.locked
    await asyncio.gather(*(locked.unlock() for locked in needed.values()))
    return bool(needed)
