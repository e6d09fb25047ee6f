"""Remove a cluster from the machine, leaving nothing.

Owns the order: processes, containers, network, files. Called by `steer delete`. Safe to run again.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from steersman.cluster import launch
from steersman.cluster import profile as profiles
from steersman.cluster.profile import Profile, ProfileError


def profile(of: Profile) -> None:
    """Stop and remove everything that belongs to a profile. Raises ProfileError when something stays."""
    if of.run.is_dir():
        of.erased.touch()
    launch.stop(of)
    launch.kill_leftovers(of)
    from steersman.cluster import nodenet
    from steersman.proxy.agent import remove as remove_rules

    for number in range(max(of.nodes, len(list((of.directory / "nodes").glob("*"))))):
        _node(of, number)
    remove_rules(nodenet.table(of), str(of.service_network), nodenet.policy_table(of))
    try:
        profiles.remove(of)
    except OSError as error:
        raise ProfileError(f"cannot remove {of.directory}: {error}; run the same command again") from error


def _node(of: Profile, number: int) -> None:
    from steersman.cluster import nodenet
    from steersman.engine.interface import RuntimeFailure
    from steersman.engine.runtime import purge

    try:
        purge(of.node_directory(number) / "engine", cgroup_root=nodenet.cgroup_root(of, number))
    except (RuntimeFailure, OSError) as error:
        raise ProfileError(f"cannot remove the containers of {of.node_name(number)}: {error}") from error
    nodenet.remove(of, number)
    _unmount_below(of.node_directory(number))


def _unmount_below(directory: Path) -> None:
    """Volumes and the tmpfs of secrets, deepest first."""
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [point for point in points if Path(point).is_relative_to(directory.resolve())]
    for point in sorted(inside, key=len, reverse=True):
        subprocess.run(["umount", "-l", point], capture_output=True, check=False)
