"""What this machine is: its size, its kernel, its address.

Owns the reading of /proc, /etc and the system calls behind a real node's `NodeConfig`. Called once by `cluster`;
simulated nodes have no machine and do not use it.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_MAX_PODS = 110


def capacity(root: Path, max_pods: int = _MAX_PODS) -> dict[str, str]:
    """The Node's capacity; `root`: where pods' files are, for ephemeral storage."""
    return {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory_bytes() // 1024}Ki",
        "ephemeral-storage": f"{shutil.disk_usage(_existing(root)).total // 1024}Ki",
        "hugepages-2Mi": "0",
        "hugepages-1Gi": "0",
        "pods": str(max_pods),
    }


def memory_bytes() -> int:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def used() -> tuple[int, int]:
    """Nanoseconds that processors have worked since boot, and bytes of memory that are not available now."""
    first = _read("/proc/stat").partition("\n")[0].split()[1:9]
    ticks = [int(each) for each in first]
    busy = sum(ticks) - sum(ticks[3:5])  # idle and iowait
    lines = (line.split() for line in _read("/proc/meminfo").splitlines())
    memory = {words[0]: int(words[1]) * 1024 for words in lines if len(words) > 1}
    nanoseconds = busy * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    return nanoseconds, max(memory.get("MemTotal:", 0) - memory.get("MemAvailable:", 0), 0)


def node_info() -> Mapping[str, str]:
    """The parts of NodeSystemInfo that the machine knows; what can not be read is empty."""
    machine = _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id")
    return {
        "machineID": machine,
        "systemUUID": _read("/sys/class/dmi/id/product_uuid") or machine,
        "bootID": _read("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": os_image(_read("/etc/os-release")),
        "operatingSystem": "linux",
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
    }


def os_image(release: str) -> str:
    """PRETTY_NAME of an os-release file."""
    for line in release.splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip().strip("\"'")
    return "Linux"


def main_address() -> str:
    """The address that packets to elsewhere leave from; 127.0.0.1 on a machine without a way out. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: never reached, only routed
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
