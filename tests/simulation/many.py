"""Plays many seeds over the scenarios in turn and prints those that fail.

Run as `python -m tests.simulation.many COUNT [FIRST] [--scenario NAME]`, or one seed with COUNT 1; exit status 1 when
one failed.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor

from steersman.testing.faults import Odds
from steersman.testing.simulation import simulate

from .every import EVERY


def odds_of(seed: int) -> Odds:
    """What goes wrong, and how often: in every third seed much happens that watches do not tell."""
    return Odds() if seed % 3 else Odds.gaps()


def play(seed: int, name: str = "") -> str:
    """The failure of one seed; empty when there is none."""
    logging.getLogger("steersman").propagate = False  # its errors are failures, which the simulation tells
    scenario = next((each for each in EVERY if each.__name__ == name), None) or EVERY[seed % len(EVERY)]
    try:
        simulate(seed, scenario, odds=odds_of(seed))
    except Exception as error:
        return f"{scenario.__name__} {seed}: {''.join(traceback.format_exception_only(error))}"
    return ""


def main() -> int:
    """Play; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("--scenario", default="", choices=["", *(each.__name__ for each in EVERY)])
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    seeds = range(chosen.first, chosen.first + chosen.count)
    began, failed = time.perf_counter(), 0
    with ProcessPoolExecutor(chosen.processes) as pool:
        for why in pool.map(play, seeds, [chosen.scenario] * len(seeds), chunksize=4):
            if why:
                failed += 1
                print(why, flush=True)
    print(f"{chosen.count} seeds, {failed} failed, {time.perf_counter() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
