"""The six guarantees of a watch, as checkers over a recorded history.

Owns `History` (what watchers of a store were told) and `check_watch`, which compares it with the store's own log.
Source: etcd's API guarantees for watches: ordered, unique, atomic, reliable, resumable, bookmarkable.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from steersman.store.interface import Event, Store


@dataclass
class Recording:
    """What one watcher saw, batch by batch."""

    prefix: str
    after: int
    batches: list[list[Event]] = field(default_factory=list)

    @property
    def events(self) -> list[Event]:
        """All events, flat."""
        return [event for batch in self.batches for event in batch]


class History:
    """Watches on one store that write down what they are told."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.recordings: list[Recording] = []

    async def watch(self, prefix: str, after: int) -> Recording:
        """Start one more recording."""
        recording = Recording(prefix, after)
        self.recordings.append(recording)
        await self.store.watch(prefix, after, lambda events: recording.batches.append(list(events)))
        return recording


def ordered(recording: Recording) -> list[str]:
    """Events come in the order of their revisions."""
    revisions = [event.revision for event in recording.events]
    return [f"{b} came after {a}" for a, b in itertools.pairwise(revisions) if b < a]


def unique(recording: Recording) -> list[str]:
    """No event comes twice."""
    seen = Counter((event.revision, event.key) for event in recording.events)
    return [f"{item} came {count} times" for item, count in sorted(seen.items()) if count > 1]


def atomic(recording: Recording) -> list[str]:
    """The events of one revision come together."""
    last = [batch[-1].revision for batch in recording.batches if batch]
    first = [batch[0].revision for batch in recording.batches if batch]
    return [f"revision {a} was split" for a, b in zip(last, first[1:], strict=False) if a == b]


def reliable(recording: Recording, truth: Sequence[Event]) -> list[str]:
    """Nothing that happened is left out, and nothing else is told."""
    expected = [e for e in truth if e.revision > recording.after and e.key.startswith(recording.prefix)]
    told = recording.events
    known, happened = set(told), set(expected)
    missing = [f"revision {e.revision} of {e.key} is missing" for e in expected if e not in known]
    return missing + [f"revision {e.revision} of {e.key} never happened" for e in told if e not in happened]


def resumable(recording: Recording, truth: Sequence[Event]) -> list[str]:
    """A watch resumed at its last revision continues without a gap: its first event is the next one."""
    expected = next((e for e in truth if e.revision > recording.after and e.key.startswith(recording.prefix)), None)
    told = recording.events
    if expected is None or (told and told[0] == expected):
        return []
    return [f"resumed after {recording.after} at {told[0].revision if told else None}, not at {expected.revision}"]


def bookmarkable(recording: Recording) -> list[str]:
    """A revision that was told is a promise: nothing older comes later."""
    problems: list[str] = []
    newest = recording.after
    for event in recording.events:
        if event.revision <= newest:
            problems.append(f"{event.revision} came although {newest} was promised")
        newest = max(newest, event.revision)
    return problems


async def check_watch(history: History) -> list[str]:
    """Every broken guarantee of every recording, as sentences; empty when all hold."""
    truth: list[Event] = []
    stop: Callable[[], None] = await history.store.watch("", 1, truth.extend)
    stop()
    problems: list[str] = []
    for recording in history.recordings:
        found = ordered(recording) + unique(recording) + atomic(recording) + bookmarkable(recording)
        found += reliable(recording, truth) + resumable(recording, truth)
        problems += [f"watch of {recording.prefix!r} after {recording.after}: {text}" for text in found]
    return problems
