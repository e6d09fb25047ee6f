"""Unmodified kubectl of eight releases, told what the original was told, answers as it did with the original."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.clients.kubectl.transcript import Teller, complaint, stories
from tests.e2e.kubectl import EVERY_RELEASE, binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERVED = "1.36"  # the release of the original that the stories were told to
_AT_ONCE = 3
_NEWEST, _OTHERS = EVERY_RELEASE[-1], EVERY_RELEASE[:-1]


def releases_for(name: str) -> list[str]:
    """Whom a story is told to: the newest kubectl, and two of the others in turn, as all would take minutes."""
    at = sorted(stories()).index(name)
    return [_NEWEST, _OTHERS[at % len(_OTHERS)], _OTHERS[(at + 3) % len(_OTHERS)]]


@pytest.fixture(scope="module")
def cluster_of(make_cluster: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A cluster for each release of kubectl, and a folder for its cache: names do not meet."""

    @cache
    def make(release: str) -> tuple[Path, Path]:
        return make_cluster(release=SERVED).kubeconfig, tmp_path_factory.mktemp(release)

    return make


@pytest.mark.parametrize("name", stories())
def test_kubectl_answers_as_with_the_original(name: str, cluster_of: Callable[[str], tuple[Path, Path]]) -> None:
    story = stories()[name]

    def told(word: str) -> list[str]:
        release = f"1.{word[1:]}"
        kubeconfig, home = cluster_of(word)
        teller = Teller(binary(word), binary(EVERY_RELEASE[-1]), kubeconfig, home, name)
        return [text for step, answer in teller.tell(story, release) if (text := complaint(step, release, answer))]

    chosen = releases_for(name)
    for word in chosen:
        cluster_of(word)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = [text for texts in pool.map(told, chosen) for text in texts]
    assert not found, "\n".join(found)
