"""`steer scheduler`: one more scheduler for a cluster, in this process, until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from steersman.cli.output import Failure, profile_of, step


def arguments(parser: argparse.ArgumentParser) -> None:
    """kube-scheduler's flag."""
    text = "a KubeSchedulerConfiguration; its profiles should have names that no other scheduler has"
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help=text)


def run(args: argparse.Namespace) -> int:
    """0 after a SIGTERM."""
    from steersman.cluster import process, scheduling
    from steersman.cluster.profile import ProfileError
    from steersman.lib.tasks import Tasks

    profile = profile_of(args.profile)
    try:
        found = scheduling.read(args.config)
        scheduling.check(found)
    except ProfileError as error:
        raise Failure(str(error)) from error
    names = ", ".join(each.name for each in found.profiles)

    async def serve(stop: asyncio.Event) -> None:
        async with Tasks() as tasks:
            tasks.spawn(scheduling.run(profile, found, profile.run / f"scheduler-{found.profiles[0].name}.sock"), names)
            step(f"scheduling for {names}")
            await stop.wait()

    process.serve(serve)
    return 0
