"""What a change of the API server gains: this tree against another one, in turns, on a machine that is not quiet.

python -m bench.against TREE [--only create-pod,update-pod] [--rounds 24] [--seconds 0.06] [--clients 32]

TREE is another working tree of this repository (`git worktree add /tmp/before main`). Both servers run all the time and
are asked in turns, a moment each, so that neighbours disturb both alike; of each the moment counts that a fifth of the
others are below. Printed are microseconds of CPU for one request, and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import uvloop

from bench import apitarget
from bench.apiload import Load
from bench.apitarget import Target

_OPERATIONS = "get-pod,create-configmap,create-pod,update-pod,merge-patch-pod,status-patch-pod,apply-pod"


def _quiet(found: list[float]) -> float:
    return sorted(found)[len(found) // 5]


async def _measure(targets: list[Target], names: list[str], rounds: int, seconds: float, clients: int) -> None:
    loads = [Load(target, clients) for target in targets]
    await asyncio.gather(*(load.prepare() for load in loads))
    print(f"{'operation':18} {'this us':>8} {'that us':>8} {'ratio':>6}")
    for name in names:
        found: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            for load, into in zip(loads, found, strict=True):
                into.append((await load.run(name, seconds)).cpu)
        this, that = map(_quiet, found)
        print(f"{name:18} {this:8.0f} {that:8.0f} {this / that:6.2f}", flush=True)
    for load in loads:
        await load.close()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tree", type=Path)
    parser.add_argument("--only", default=_OPERATIONS)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=0.06)
    parser.add_argument("--clients", type=int, default=32)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        targets = [apitarget.ours(Path(name) / "this"), apitarget.ours(Path(name) / "that", given.tree.resolve())]
        try:
            uvloop.run(_measure(targets, given.only.split(","), given.rounds, given.seconds, given.clients))
        finally:
            for target in targets:
                target.stop()


if __name__ == "__main__":
    main()
