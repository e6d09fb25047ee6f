"""`steer stop`: end the cluster's processes and containers, keep its state."""

from __future__ import annotations

import argparse

from steersman.cli.output import Failure, profile_of, step
from steersman.cluster.profile import ProfileError, home, locked, names


def arguments(parser: argparse.ArgumentParser) -> None:
    """`--all`."""
    parser.add_argument("--all", action="store_true", help="stop every profile")


def run(args: argparse.Namespace) -> int:
    """0, also when it was stopped already."""
    from steersman.cluster import launch

    for name in names() if args.all else [args.profile]:
        profile = profile_of(name)
        try:
            with locked(home(), name):
                stopped = launch.stop(profile)
        except ProfileError as error:
            raise Failure(str(error)) from error
        step(f'"{name}" stopped' if stopped else f'"{name}" was not running')
    return 0
