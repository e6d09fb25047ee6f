"""The machine as a cluster could leave traces on it: processes, mounts, interfaces, cgroups, rules."""

from __future__ import annotations

import subprocess
from pathlib import Path


def _lines(*command: str) -> set[str]:
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def _processes() -> set[str]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = stat.read_bytes().split(b"\0")
        except OSError:
            continue
        line = b" ".join(words).decode(errors="replace").strip()
        if any(mark in line for mark in ("conmon", "steersman", "nginx", "crun ")) and "pytest" not in line:
            found.add(line)
    return found


def traces() -> dict[str, set[str]]:
    """Everything that a cluster makes outside its own folder, by sort."""
    interfaces = {line.split()[0] for line in _lines("ip", "-brief", "link")}
    return {
        "processes": _processes(),
        "mounts": {line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
        "interfaces": {name for name in interfaces if name.startswith(("veth", "steer"))},
        "addresses": _lines("ip", "-brief", "address", "show", "dev", "lo"),
        "routes": _lines("ip", "route", "show", "table", "all"),
        "tables": _lines("nft", "list", "tables"),
        "cgroups": {str(path) for path in Path("/sys/fs/cgroup").glob("*/steer-*")},
    }
