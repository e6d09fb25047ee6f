"""Makes a machine ready for sandboxes and containers, once, when the runtime starts.

Owns the choice of programs, the node's settings and the shared mounts. Blocks; runs in a worker. Raises RuntimeFailure
saying what is missing.
"""

from __future__ import annotations

import os
from pathlib import Path

from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import capabilities, cgrouptuning, kernel, network
from steersman.engine.runtime.cgroups import Cgroups
from steersman.engine.runtime.container import Factory, LayeredImages
from steersman.engine.runtime.ipam import AddressPool
from steersman.engine.runtime.network import NetworkConfig
from steersman.engine.runtime.oci import OciRuntime, find_programs
from steersman.engine.runtime.profiles import Profiles
from steersman.engine.runtime.records import Layout
from steersman.engine.runtime.sandbox import Machine
from steersman.engine.runtime.workers import Workers

_LEAST_OOM_SCORE = -1000


def prepare(
    layout: Layout, workers: Workers, images: LayeredImages, config: NetworkConfig, cgroup_root: str, runtime: str
) -> Factory:
    """Check the machine, set what the node needs, and return what sandboxes and containers are made with."""
    if os.geteuid() != 0:
        raise RuntimeFailure("containers need root rights on this machine")
    programs = find_programs(runtime)
    try:
        cgroups = Cgroups()
    except OSError as error:
        raise RuntimeFailure(f"this machine has no usable cgroups: {error}") from error
    network.prepare_node()
    mount_run(layout)
    cgrouptuning.favor(layout.tuned)
    addresses = AddressPool(layout.addresses, config.pod_cidr)
    machine = Machine(layout, workers, cgroups, cgroup_root, config, addresses, config.mtu or network.default_mtu())
    oci = OciRuntime(programs, layout.oci, workers, hide_unified=cgroups.hybrid)
    profiles = Profiles(compile_here=programs.is_crun)
    profiles.filter("RuntimeDefault", capabilities.DEFAULT)  # 15 ms now, not at the first container
    held = capabilities.bounding()
    own_score = int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii"))
    least = _LEAST_OOM_SCORE if "SYS_RESOURCE" in held else own_score
    return Factory(machine, oci, profiles, images, held, least)


def mount_run(layout: Layout) -> None:
    """Mount memory for the small state, unless an earlier life of the agent left it, and make the directories."""
    layout.run.mkdir(mode=0o700, exist_ok=True)
    if str(layout.run) not in kernel.mount_points():
        kernel.mount("steersman", str(layout.run), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=0700")
    kernel.mount("", str(layout.run), flags=kernel.MS_SHARED)
    layout.make()


def share_mounts(directory: Path) -> None:
    """Make a directory a shared mount of its own; idempotent. Needs root.

    Monitors keep a copy of the node's mounts. Only below shared mounts does an unmount on the node reach the copies, so
    this belongs under every directory in which mounts for containers come and go (volumes, for example).
    """
    path = str(directory.resolve())
    if path not in kernel.mount_points():
        kernel.mount(path, path, flags=kernel.MS_BIND)
    kernel.mount("", path, flags=kernel.MS_SHARED)
