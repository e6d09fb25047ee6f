"""Controllers under faults. `python -m tests.simulation.many 1000` plays as many seeds as one has time for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from steersman.api.term import Term
from steersman.controllers import ALL
from steersman.testing.faults import Odds
from steersman.testing.simulation import Simulation, Violated, simulate

from .every import EVERY
from .scenarios import Deployments
from .wider import ReplicationControllers


def test_every_controller_is_played() -> None:
    """A controller that comes needs a scenario: what its user does, what must hold meanwhile, what must come of it."""
    assert {name for scenario in EVERY for name in scenario.controllers} == set(ALL)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("scenario", EVERY, ids=lambda each: each.__name__)
def test_it_holds_its_limits_and_ends_as_asked(scenario: type, seed: int) -> None:
    assert len(simulate(seed, scenario)) == 16


@pytest.mark.parametrize(("name", "seed"), [("DaemonSets", 1059), ("Quotas", 131), ("Authorities", 60350)])
def test_seeds_that_failed_once(name: str, seed: int) -> None:
    (scenario,) = (each for each in EVERY if each.__name__ == name)
    assert len(simulate(seed, scenario)) == 16


@pytest.mark.parametrize("scenario", EVERY, ids=lambda each: each.__name__)
def test_so_it_does_when_much_comes_and_goes_untold(scenario: type) -> None:
    assert len(simulate(2, scenario, odds=Odds.gaps())) == 16


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("Budgets", 5),
        ("StatefulSets", 8),
        ("Provisioned", 137),
        ("Balanced", 9),
        ("DeviceClaims", 13),
        ("DeviceClaims", 1629),
    ],
)
def test_seeds_that_failed_once_when_much_came_and_went_untold(name: str, seed: int) -> None:
    (scenario,) = (each for each in EVERY if each.__name__ == name)
    assert len(simulate(seed, scenario, odds=Odds.gaps())) == 16


@pytest.mark.parametrize("scenario", EVERY, ids=lambda each: each.__name__)
def test_so_it_does_with_a_leader_that_does_not_know_that_it_leads_no_more(scenario: type) -> None:
    assert len(simulate(1, scenario, usurped=True)) == 16


def test_without_terms_such_a_leader_passes_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Term, "lasts", lambda _, lease: True)
    with pytest.raises(Violated, match="at most"):
        for seed in range(100):
            simulate(seed, ReplicationControllers, usurped=True)


class Impossible(Deployments):
    """Its limit is below what it asks for."""

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.most = -100

    def _limits(self) -> None:
        pass

    def complaint(self, world: Simulation) -> str:
        return ""


def test_a_limit_that_is_exceeded_is_told_with_the_seed() -> None:
    with pytest.raises(Violated, match="at most -100 may be") as failure:
        simulate(7, Impossible)
    assert any(note.startswith("seed 7; the last requests:") for note in failure.value.__notes__)


@pytest.mark.slow
def test_a_seed_replays_exactly_in_another_process() -> None:
    asked = (
        "import sys; from tests.simulation.scenarios import Jobs; from steersman.testing.simulation import simulate;"
    )
    asked += "print(simulate(5, Jobs))"
    root = Path(__file__).parents[2]
    found = {
        subprocess.run(
            [sys.executable, "-c", asked],
            env={**os.environ, "PYTHONHASHSEED": salt},
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(found) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_seeds() -> None:
    """Always the same ones, on as many processes as there are cores; another FIRST looks for others that fail."""
    asked = [sys.executable, "-m", "tests.simulation.many", "1000", "1000"]
    root = Path(__file__).parents[2]
    done = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
