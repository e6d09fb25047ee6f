"""The crowd: a few operations in the fast tests, a thousand in the slow ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from .crowd import Crowd

SLOW_TO_START = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


def play(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Crowd,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=SLOW_TO_START,
            database=None,
            derandomize=True,
        ),
    )


def test_a_few_operations() -> None:
    play(2, 20)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_operations() -> None:
    """In a process of its own: what Hypothesis draws depends on what ran before it."""
    asked = "from tests.simulation.test_crowd import play; play(20, 50)"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", asked], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]
