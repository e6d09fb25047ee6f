"""Claims on elements, against a dictionary that is computed anew each time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.proxy.elements import Contribution, Elements

contribution = st.dictionaries(st.sampled_from("mn"), st.dictionaries(st.sampled_from("abc"), st.sampled_from("12")))
steps = st.lists(st.dictionaries(st.sampled_from(["s1", "s2", "s3"]), contribution, min_size=1), max_size=12)


def expected(owned: dict[str, Contribution]) -> dict[str, dict[str, str]]:
    out: dict[str, dict[str, str]] = {}
    for owner in sorted(owned, reverse=True):
        for name, elements in owned[owner].items():
            out.setdefault(name, {}).update(elements)
    return {name: elements for name, elements in out.items() if elements}


@pytest.mark.slow
@given(steps)
def test_what_is_in_effect_is_what_the_first_owners_claim(history: list[dict[str, Contribution]]) -> None:
    elements = Elements()
    owned: dict[str, Contribution] = {}
    kernel: dict[str, dict[str, str]] = {}
    for step in history:
        owned.update(step)
        change = elements.replace(step)
        for name, keys in change.removed.items():
            for key in keys:
                del kernel[name][key]
        for name, added in change.added.items():
            assert not kernel.get(name, {}).keys() & added.keys(), "an element is added over another"
            kernel.setdefault(name, {}).update(added)
        assert {name: content for name, content in kernel.items() if content} == expected(owned)
        assert {name: content for name, content in elements.effective.items() if content} == expected(owned)


def test_no_change_is_nothing() -> None:
    elements = Elements()
    assert elements.replace({"a": {"m": {"k": "v"}}})
    assert not elements.replace({"a": {"m": {"k": "v"}}})
    assert not elements.replace({"b": {"m": {"k": "other"}}})
    assert elements.replace({"a": {}}).added == {"m": {"k": "other"}}
