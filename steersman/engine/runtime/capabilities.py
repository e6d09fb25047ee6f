"""Linux capabilities by name: the default set, what a container asks for, and what this process may give.

Pure except `bounding`. Names come without the CAP_ prefix, in any case; `ALL` stands for every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ALL = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
"""Every capability; the index is the kernel's bit number."""

DEFAULT = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
"""What a container has unless it says otherwise: Docker's set."""


def bounding() -> frozenset[str]:
    """The capabilities that this process can hand to a child."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapBnd:"):
            bits = int(line.split()[1], 16)
            return frozenset(name for bit, name in enumerate(ALL) if bits >> bit & 1)
    return frozenset(ALL)


def granted(add: Sequence[str], drop: Sequence[str], *, privileged: bool, limit: frozenset[str]) -> list[str]:
    """The capabilities of a container, within `limit`. Raises ValueError for a name that is none.

    A capability both added and dropped by name is dropped; `ALL` in one list gives way to names in the other.
    """
    adds, drops = {_name(name) for name in add}, {_name(name) for name in drop}
    if privileged:
        wanted = set(ALL)
    else:
        wanted = set(ALL) if "ALL" in adds else set() if "ALL" in drops else set(DEFAULT)
        wanted = (wanted | adds) - drops
    return [name for name in ALL if name in wanted and name in limit]


def _name(text: str) -> str:
    name = text.upper().removeprefix("CAP_")
    if name != "ALL" and name not in ALL:
        raise ValueError(f"unknown capability {text!r}")
    return name
