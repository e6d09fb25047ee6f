"""cgroups of both versions behind one class: limits, usage, OOM kills, processes, removal.

Owns everything below the engine's cgroup directory that the OCI runtime does not write itself. Paths are relative to
the hierarchy's root, such as `steersman/burstable/pod1/<container id>`. Sources: the kernel's cgroup-v1 documents and
cgroup-v2.rst; shares become weights as in KEP-2254.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from steersman.engine.interface import Resources

_V1_CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb")
_V1_OTHERS = ("systemd", "unified")  # without limits of ours, but OCI runtimes put processes there
_V2_CONTROLLERS = ("cpu", "cpuset", "memory", "pids", "io", "hugetlb")
_KILL_ROUNDS = 20
_KILL_PATIENCE_MS = 1000


@dataclass(frozen=True, slots=True)
class Usage:
    """What a cgroup used: nanoseconds of cpu, bytes of memory."""

    cpu_ns: int
    memory_usage: int
    memory_working_set: int
    memory_rss: int
    page_faults: int
    major_page_faults: int
    pids: int


class Cgroups:
    """One machine's cgroup hierarchies."""

    def __init__(self, mount: Path = Path("/sys/fs/cgroup")) -> None:
        """Look at what is mounted below `mount`. Raises OSError when nothing is."""
        self.unified = (mount / "cgroup.controllers").exists()
        self.hybrid = not self.unified and bool(_read(mount / "unified/cgroup.controllers").strip())
        self._mount = mount
        if self.unified:
            self._roots = {"": mount}
        else:
            self._roots = {
                name: mount / name
                for name in (*_V1_CONTROLLERS, *_V1_OTHERS)
                if (mount / name / "cgroup.procs").exists()
            }
        if not self._roots or (not self.unified and "memory" not in self._roots):
            raise FileNotFoundError(f"no usable cgroup hierarchy below {mount}")

    def controllers(self) -> frozenset[str]:
        """The controllers that limits can be set with."""
        if self.unified:
            return frozenset(_read(self._mount / "cgroup.controllers").split())
        return frozenset(name for name in self._roots if name not in _V1_OTHERS)

    def is_writable(self) -> bool:
        """Whether cgroups can be made here."""
        return all(os.access(root, os.W_OK) for root in self._roots.values())

    def _directory(self, controller: str, path: str) -> Path:
        return self._roots["" if self.unified else controller] / path

    def _directories(self, path: str) -> list[Path]:
        return [root / path for root in self._roots.values()]

    def create(self, path: str, resources: Resources) -> None:
        """Make a cgroup with limits (a pod's). Raises OSError."""
        for name, root in self._roots.items():
            if name in _V1_OTHERS:
                continue
            directory = root
            for part in path.split("/"):
                if self.unified:
                    self._delegate(directory)
                parent, directory = directory, directory / part
                directory.mkdir(exist_ok=True)
                if name == "cpuset":
                    _inherit_cpuset(parent, directory)
        self.update(path, resources)

    def _delegate(self, directory: Path) -> None:
        available = _read(directory / "cgroup.controllers").split()
        enabled = _read(directory / "cgroup.subtree_control").split()
        for name in _V2_CONTROLLERS:
            if name in available and name not in enabled:
                _write(directory / "cgroup.subtree_control", f"+{name}")

    def update(self, path: str, resources: Resources) -> None:
        """Change limits; what is 0 or empty stays as it is. Raises OSError (EBUSY: more memory is in use)."""
        there = self.controllers()
        for controller, file, value in _v2_limits(resources) if self.unified else _v1_limits(resources):
            target = self._directory(controller, path) / file if controller in there else None
            if target is not None and target.exists():
                _write(target, value)

    def remove(self, path: str) -> None:
        """Kill what runs in a cgroup and remove it with what is below; idempotent."""
        self.kill(path)
        for directory in self._directories(path):
            for parent, _, _ in os.walk(directory, topdown=False):
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(parent)

    def prune(self, path: str) -> None:
        """Remove empty parents of a cgroup that is gone, up to but without the first part of its path."""
        parts = path.split("/")
        for count in range(len(parts) - 1, 1, -1):
            for directory in self._directories("/".join(parts[:count])):
                with contextlib.suppress(OSError):
                    directory.rmdir()

    def processes(self, path: str) -> set[int]:
        """Pids in a cgroup and below, of any hierarchy."""
        return {pid for directory in self._directories(path) for pid in _processes_below(directory)}

    def kill(self, path: str) -> None:
        """Send KILL to every process in a cgroup and below, and wait until they are gone (at most some seconds)."""
        for _ in range(_KILL_ROUNDS):
            pids = self.processes(path)
            if not pids:
                return
            _kill_and_wait(pids)

    def oom_kills(self, path: str) -> int:
        """How many processes of a cgroup the kernel killed for memory."""
        file = "memory.events" if self.unified else "memory.oom_control"
        return _table(self._directory("memory", path) / file).get("oom_kill", 0)

    def usage(self, path: str) -> Usage:
        """Usage now. Raises FileNotFoundError when the cgroup is gone."""
        memory = self._directory("memory", path)
        stat = _table(memory / "memory.stat")
        if not stat:
            raise FileNotFoundError(memory)
        pids = len(_processes_below(memory))
        if self.unified:
            used = _integer(memory / "memory.current")
            cpu = _table(memory / "cpu.stat").get("usage_usec", 0) * 1000
            inactive, rss = stat.get("inactive_file", 0), stat.get("anon", 0)
            faults, major = stat.get("pgfault", 0), stat.get("pgmajfault", 0)
        else:
            used = _integer(memory / "memory.usage_in_bytes")
            cpu = _integer(self._directory("cpuacct", path) / "cpuacct.usage")
            inactive, rss = stat.get("total_inactive_file", 0), stat.get("total_rss", 0)
            faults, major = stat.get("total_pgfault", 0), stat.get("total_pgmajfault", 0)
        return Usage(cpu, used, max(used - inactive, 0), rss, faults, major, pids)

    def swap_limit_works(self) -> bool:
        """Whether swap can be limited here (v1 needs swap accounting)."""
        return self.unified or (self._roots["memory"] / "memory.memsw.limit_in_bytes").exists()


def _kill_and_wait(pids: set[int]) -> None:
    fds: list[int] = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            fds.append(os.pidfd_open(pid))
            signal.pidfd_send_signal(fds[-1], signal.SIGKILL)
    for fd in fds:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.poll(_KILL_PATIENCE_MS)
        os.close(fd)


def _v1_limits(resources: Resources) -> Iterator[tuple[str, str, str]]:
    if resources.cpu_shares:
        yield "cpu", "cpu.shares", str(resources.cpu_shares)
    if resources.cpu_period:
        yield "cpu", "cpu.cfs_period_us", str(resources.cpu_period)
    if resources.cpu_quota:
        yield "cpu", "cpu.cfs_quota_us", str(resources.cpu_quota)
    if resources.memory_limit:
        yield "memory", "memory.limit_in_bytes", str(resources.memory_limit)
    if resources.memory_swap_limit:
        yield "memory", "memory.memsw.limit_in_bytes", str(resources.memory_swap_limit)
    if resources.pids_limit:
        yield "pids", "pids.max", _or_max(resources.pids_limit)
    yield from _cpuset(resources)
    for size, limit in resources.hugepage_limits.items():
        yield "hugetlb", f"hugetlb.{size}.limit_in_bytes", str(limit)


def _v2_limits(resources: Resources) -> Iterator[tuple[str, str, str]]:
    if resources.cpu_shares:
        yield "cpu", "cpu.weight", str(1 + (min(max(resources.cpu_shares, 2), 262144) - 2) * 9999 // 262142)
    if resources.cpu_quota:
        yield "cpu", "cpu.max", f"{_or_max(resources.cpu_quota)} {resources.cpu_period or 100000}"
    if resources.memory_limit:
        yield "memory", "memory.max", _or_max(resources.memory_limit)
    if resources.memory_swap_limit:
        swap = resources.memory_swap_limit
        yield "memory", "memory.swap.max", _or_max(max(swap - resources.memory_limit, 0) if swap > 0 else -1)
    if resources.pids_limit:
        yield "pids", "pids.max", _or_max(resources.pids_limit)
    yield from _cpuset(resources)
    for size, limit in resources.hugepage_limits.items():
        yield "hugetlb", f"hugetlb.{size}.max", str(limit)


def _cpuset(resources: Resources) -> Iterator[tuple[str, str, str]]:
    if resources.cpuset_cpus:
        yield "cpuset", "cpuset.cpus", resources.cpuset_cpus
    if resources.cpuset_mems:
        yield "cpuset", "cpuset.mems", resources.cpuset_mems


def _inherit_cpuset(parent: Path, child: Path) -> None:
    # a new v1 cpuset is empty, and no process can enter an empty one
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not _read(child / name).strip():
            _write(child / name, _read(parent / name).strip())


def _or_max(value: int) -> str:
    return "max" if value < 0 else str(value)


def _processes_below(directory: Path) -> list[int]:
    pids: list[int] = []
    for parent, _, _ in os.walk(directory):
        pids += [int(pid) for pid in _read(Path(parent) / "cgroup.procs").split()]
    return pids


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return ""
    except OSError as error:
        if error.errno in (19, 95):  # ENODEV, EOPNOTSUPP: the cgroup is being removed, or is threaded
            return ""
        raise


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value, encoding="ascii")
    except OSError as error:
        raise OSError(error.errno, f"cannot write {value!r} to {path.name}: {error.strerror}") from error


def _integer(path: Path) -> int:
    return int(_read(path).strip() or 0)


def _table(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
