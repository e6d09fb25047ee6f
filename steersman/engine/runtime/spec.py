"""A container's configuration as an OCI runtime configuration (`config.json`).

Pure: what must be looked up on the machine (devices, limits, who the user is) comes in as `Facts`. Raises ValueError
for a configuration that cannot be run. Source: OCI runtime-spec 1.0 and CRI's field documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from steersman.engine.interface import ContainerConfig, ImageConfig, Mount, Resources, SandboxConfig
from steersman.engine.runtime import capabilities
from steersman.engine.runtime.users import User

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap"),
    "/sys/firmware",
)
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_PROPAGATION = {"private": "rprivate", "rslave": "rslave", "rshared": "rshared"}


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A device node as it is on the host."""

    path: str
    kind: str  # c or b
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the machine and the sandbox say. `namespaces` maps an OCI namespace type to a path, empty for a new one."""

    rootfs: str
    cgroup: str
    hostname: str
    user: User
    namespaces: dict[str, str]
    mounts: Sequence[Mount] = ()  # of the engine: resolv.conf, hosts, /dev/shm
    devices: Sequence[HostDevice] = ()
    capabilities: frozenset[str] = frozenset(capabilities.ALL)
    nofile_limit: int = 1048576
    least_oom_score: int = -1000
    swap_limit_works: bool = True
    hugepages_work: bool = True
    seccomp: dict[str, Any] | None = None
    annotations: dict[str, str] = field(default_factory=dict)


def build(config: ContainerConfig, image: ImageConfig, facts: Facts) -> dict[str, Any]:
    """The whole configuration."""
    linux: dict[str, Any] = {
        "cgroupsPath": f"/{facts.cgroup}",
        "namespaces": _namespaces(facts.namespaces),
        "resources": _resources(config.resources, facts, privileged=config.security.privileged),
        "devices": [_device(device) for device in facts.devices],
    }
    linux |= _confinement(config, facts)
    mounts = _mounts(config, facts)
    if (propagation := _root_propagation(config.mounts)) != "":
        linux["rootfsPropagation"] = propagation
    return {
        "ociVersion": "1.0.2",
        "process": process(config, image, facts),
        "root": {"path": facts.rootfs, "readonly": config.security.readonly_rootfs},
        "mounts": mounts,
        "annotations": facts.annotations,
        "linux": linux,
    }


def command(config: ContainerConfig, image: ImageConfig) -> list[str]:
    """What to run: `command` replaces the entrypoint and drops the image's command. Raises ValueError for nothing."""
    if config.command:
        words = [*config.command, *config.args]
    else:
        words = [*image.entrypoint, *(config.args or image.cmd)]
    if not words:
        raise ValueError("no command specified")
    if any("\0" in word for word in words):
        raise ValueError("a command must not contain a zero byte")
    return words


def environment(config: ContainerConfig, image: ImageConfig, facts: Facts) -> list[str]:
    """Variables of the image, overridden by the container's; PATH, HOSTNAME, HOME and TERM where nobody says."""
    merged = {"PATH": _PATH, "HOSTNAME": facts.hostname} | dict(image.env)
    if config.tty:
        merged.setdefault("TERM", "xterm")
    merged |= dict(config.env)
    merged.setdefault("HOME", facts.user.home)
    for name, value in merged.items():
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"not a usable environment variable: {name!r}")
    return [f"{name}={value}" for name, value in merged.items()]


def process(config: ContainerConfig, image: ImageConfig, facts: Facts) -> dict[str, Any]:
    """The first process; the starting point of `exec` too."""
    security = config.security
    granted = capabilities.granted(
        security.add_capabilities,
        security.drop_capabilities,
        privileged=security.privileged,
        limit=facts.capabilities,
    )
    names = [f"CAP_{name}" for name in granted]
    cwd = config.working_dir or image.working_dir or "/"
    if not cwd.startswith("/"):
        raise ValueError(f"working directory {cwd!r} is not absolute")
    answer: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": facts.user.uid, "gid": facts.user.gid, "additionalGids": list(facts.user.groups)},
        "args": command(config, image),
        "env": environment(config, image, facts),
        "cwd": cwd,
        "capabilities": {"bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": []},
        "noNewPrivileges": security.no_new_privs and not security.privileged,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": facts.nofile_limit, "hard": facts.nofile_limit}],
    }
    if config.resources.oom_score_adj is not None:
        answer["oomScoreAdj"] = max(config.resources.oom_score_adj, facts.least_oom_score)
    return answer


def _confinement(config: ContainerConfig, facts: Facts) -> dict[str, Any]:
    security = config.security
    if security.privileged:
        return {}
    answer: dict[str, Any] = {
        "maskedPaths": list(_MASKED if security.masked_paths is None else security.masked_paths),
        "readonlyPaths": list(_READONLY if security.readonly_paths is None else security.readonly_paths),
    }
    if facts.seccomp is not None:
        answer["seccomp"] = facts.seccomp
    return answer


def _namespaces(wanted: dict[str, str]) -> list[dict[str, str]]:
    return [{"type": kind, "path": path} if path else {"type": kind} for kind, path in wanted.items()]


def _device(device: HostDevice) -> dict[str, Any]:
    return {
        "path": device.path,
        "type": device.kind,
        "major": device.major,
        "minor": device.minor,
        "fileMode": device.mode & 0o777,
        "uid": device.uid,
        "gid": device.gid,
    }


def _resources(resources: Resources, facts: Facts, *, privileged: bool) -> dict[str, Any]:
    cpu = {
        "shares": resources.cpu_shares,
        "quota": resources.cpu_quota,
        "period": resources.cpu_period,
        "cpus": resources.cpuset_cpus,
        "mems": resources.cpuset_mems,
    }
    memory = {
        "limit": resources.memory_limit,
        "swap": resources.memory_swap_limit if facts.swap_limit_works else 0,
    }
    answer: dict[str, Any] = {
        "cpu": {name: value for name, value in cpu.items() if value},
        "memory": {name: value for name, value in memory.items() if value},
        "devices": [{"allow": True, "access": "rwm"}] if privileged else _device_rules(facts.devices),
    }
    if resources.pids_limit:
        answer["pids"] = {"limit": resources.pids_limit}
    if resources.hugepage_limits and facts.hugepages_work:
        limits = resources.hugepage_limits.items()
        answer["hugepageLimits"] = [{"pageSize": size, "limit": limit} for size, limit in limits]
    return answer


def _device_rules(devices: Sequence[HostDevice]) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [
        {"allow": True, "type": one.kind, "major": one.major, "minor": one.minor, "access": one.permissions}
        for one in devices
    ]
    return rules


def _mounts(config: ContainerConfig, facts: Facts) -> list[dict[str, Any]]:
    own = {_destination(mount.container_path) for mount in config.mounts}
    bound = [mount for mount in facts.mounts if mount.container_path not in own]
    bound += config.mounts
    system = _system_mounts(writable=config.security.privileged)
    plain = [mount for mount in system if mount["destination"] not in own]
    # a mount must come after the one that holds its mount point
    ordered = sorted(bound, key=lambda mount: len(PurePosixPath(mount.container_path).parts))
    return plain + [_bind(mount) for mount in ordered]


def _destination(path: str) -> str:
    if not path.startswith("/") or "\0" in path or ".." in PurePosixPath(path).parts:
        raise ValueError(f"mount path {path!r} must be absolute and free of '..'")
    return str(PurePosixPath(path))


def _bind(mount: Mount) -> dict[str, Any]:
    if mount.propagation not in _PROPAGATION:
        raise ValueError(f"unknown mount propagation {mount.propagation!r}")
    options = ["rbind", _PROPAGATION[mount.propagation]]
    options += ["ro"] if mount.readonly else ["rw"]
    if mount.recursive_readonly:
        options.append("rro")
    path = _destination(mount.container_path)
    return {"destination": path, "type": "bind", "source": mount.host_path, "options": options}


def _root_propagation(mounts: Sequence[Mount]) -> str:
    kinds = {mount.propagation for mount in mounts}
    return "rshared" if "rshared" in kinds else "rslave" if "rslave" in kinds else ""


def _system_mounts(*, writable: bool) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    access = "rw" if writable else "ro"
    rows: list[tuple[str, str, str, list[str]]] = [
        ("/proc", "proc", "proc", safe),
        ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/dev/mqueue", "mqueue", "mqueue", safe),
        ("/sys", "sysfs", "sysfs", [*safe, access]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", access]),
    ]
    return [{"destination": path, "type": kind, "source": source, "options": opts} for path, kind, source, opts in rows]


def exec_process(first: dict[str, Any], words: Sequence[str], *, tty: bool) -> dict[str, Any]:
    """The process of an `exec` in a container whose first process is `first`. Raises ValueError for no command."""
    if not words or any("\0" in word for word in words):
        raise ValueError("no command specified" if not words else "a command must not contain a zero byte")
    env = list(first["env"])
    if tty and not any(entry.startswith("TERM=") for entry in env):
        env.append("TERM=xterm")
    return first | {"args": list(words), "terminal": tty, "env": env}


def log_path(sandbox: SandboxConfig, config: ContainerConfig) -> str:
    """The absolute path of a container's log, empty for none. Raises ValueError when it would leave the directory."""
    if not sandbox.log_directory or not config.log_path:
        return ""
    relative = PurePosixPath(config.log_path)
    if relative.is_absolute() or ".." in relative.parts or "\0" in config.log_path or not relative.parts:
        raise ValueError(f"log path {config.log_path!r} must be relative and free of '..'")
    if not sandbox.log_directory.startswith("/"):
        raise ValueError(f"log directory {sandbox.log_directory!r} is not absolute")
    return str(PurePosixPath(sandbox.log_directory) / relative)


def cgroup_parent(root: str, sandbox_id: str, config: SandboxConfig) -> str:
    """A sandbox's cgroup, relative to the hierarchy. Raises ValueError when it would leave the engine's."""
    parent = PurePosixPath(config.cgroup_parent.strip("/") or f"sandbox/{sandbox_id}")
    if ".." in parent.parts or "\0" in config.cgroup_parent or not parent.parts:
        raise ValueError(f"cgroup parent {config.cgroup_parent!r} must stay below the engine's cgroup")
    return f"{root}/{parent}"
