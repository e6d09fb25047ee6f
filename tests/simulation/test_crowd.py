"""The crowd: a few operations in the fast tests, a thousand in the slow ones."""

from __future__ import annotations

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
def test_a_thousand_operations() -> None:
    play(20, 50)
