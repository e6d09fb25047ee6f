"""The index of a local store against a model that keeps every state whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.store.index import FIRST_REVISION, Index
from steersman.store.interface import Compacted, FutureRevision

KEYS = ["/a/x", "/a/y", "/b/x", "/b/y/z", "/c"]
WRITES = st.lists(st.tuples(st.sampled_from(KEYS), st.booleans()), max_size=30)


def written(writes: list[tuple[str, bool]]) -> tuple[Index, dict[int, dict[str, int]]]:
    """An index after `writes` (a key, and whether it is deleted), and every state that it went through."""
    index = Index()
    states: dict[int, dict[str, int]] = {FIRST_REVISION: {}}
    state: dict[str, int] = {}
    for revision, (key, deleted) in enumerate(writes, FIRST_REVISION + 1):
        state = {k: at for k, at in state.items() if k != key} | ({} if deleted else {key: revision})
        index.apply(revision, key, deleted=deleted)
        states[revision] = state
    return index, states


@given(WRITES, st.sampled_from(["", "/", "/a/", "/b/", "/c", "/d/"]), st.sampled_from(["", *KEYS]), st.integers(0, 3))
def test_every_past_state_is_read_in_pages(writes: list[tuple[str, bool]], prefix: str, after: str, limit: int) -> None:
    index, states = written(writes)
    for revision, state in [*states.items(), (0, states[index.revision])]:
        wanted = sorted((k, at) for k, at in state.items() if k.startswith(prefix) and k > after)
        size = limit or len(wanted)
        assert index.page(prefix, after, limit, revision) == (wanted[:size], len(wanted[size:]))
        for key in KEYS:
            assert not revision or index.at(key, revision) == state.get(key, 0)


def test_a_page_costs_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = written([(f"/a/{number:04}", False) for number in range(2_000)])
    index.apply(index.revision + 1, "/a/0000", deleted=True)
    read: list[str] = []

    class Counted(dict[str, int]):
        def __getitem__(self, key: str) -> int:
            read.append(key)
            return super().__getitem__(key)

    monkeypatch.setattr(index, "_live", Counted(index._live))
    chosen, left = index.page("/a/", "", 10, index.revision - 1)
    assert ([key for key, _ in chosen], left) == ([f"/a/{number:04}" for number in range(10)], 1_990)
    assert len(read) <= 11


def test_revisions_that_cannot_be_read() -> None:
    index, _ = written([("/a/x", False), ("/a/y", False)])
    index.compact(2)
    with pytest.raises(Compacted):
        index.page("/", revision=1)
    with pytest.raises(FutureRevision):
        index.at("/a/x", 9)
