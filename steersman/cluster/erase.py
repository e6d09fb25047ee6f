"""Remove a cluster from the machine, leaving nothing.

Owns the order: processes, containers, network, files. Called by `steer delete`. Safe to run again.
"""

from __future__ import annotations

from steersman.cluster import launch
from steersman.cluster import profile as profiles
from steersman.cluster.profile import Profile, ProfileError


def profile(of: Profile) -> None:
    """Stop and remove everything that belongs to a profile. Raises ProfileError when something stays."""
    launch.stop(of)
    launch.kill_leftovers(of)
    for number in range(max(of.nodes, len(list((of.directory / "nodes").glob("*"))))):
        _node(of, number)
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
