"""Looks once at this machine and says what it can run, and what is missing.

Owns the list of checks behind `steer doctor`. Every check tries the thing itself where that leaves no trace
(namespaces, an overlay mount and a veth pair are made in a thread's own namespaces, which end with it). Changes
nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import capabilities, kernel, libseccomp, rtnetlink
from steersman.engine.runtime.cgroups import Cgroups
from steersman.engine.runtime.oci import find_programs
from steersman.engine.runtime.workers import Workers

_LEAST_KERNEL = (5, 10)  # overlay's `volatile`; openat2 and pidfd are older
_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "KILL",
    "MKNOD",
    "NET_ADMIN",
    "SETGID",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_PTRACE",
)
_CONTROLLERS = ("cpu", "memory", "pids")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `why` says what was seen; `remedy` what to do, empty when all is well. `needed`: no node without."""

    name: str
    ok: bool
    why: str
    remedy: str = ""
    needed: bool = True


class _Bad(Exception):
    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.remedy = remedy


def probe() -> list[Check]:
    """Every check, in the order a reader should see them. Blocks for some tens of milliseconds."""
    return [_run(name, look, needed) for name, look, needed in _CHECKS]


def is_fit(checks: list[Check]) -> bool:
    """Whether this machine can run containers."""
    return all(check.ok for check in checks if check.needed)


def _run(name: str, look: Callable[[], str], needed: bool) -> Check:
    try:
        return Check(name, True, look(), needed=needed)
    except _Bad as bad:
        return Check(name, False, bad.why, bad.remedy, needed)
    except (OSError, RuntimeFailure, ValueError, subprocess.SubprocessError) as error:
        return Check(name, False, str(error), needed=needed)


def _root() -> str:
    if os.geteuid() != 0:
        raise _Bad(f"running as user {os.geteuid()}", "run as root, for example with sudo")
    return "running as root"


def _kernel() -> str:
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < _LEAST_KERNEL:
        raise _Bad(f"Linux {release}", "Linux 5.10 or newer is needed")
    return f"Linux {release}"


def _capabilities() -> str:
    held = capabilities.bounding()
    missing = [name for name in _CAPABILITIES if name not in held]
    if missing:
        raise _Bad(f"missing {', '.join(missing)}", "this looks like a container: give it these capabilities")
    return (
        "all that is needed"
        if "SYS_RESOURCE" in held
        else "all that is needed; limits cannot be raised (no SYS_RESOURCE)"
    )


def _cgroups() -> str:
    cgroups = Cgroups()
    missing = [name for name in _CONTROLLERS if name not in cgroups.controllers()]
    if missing:
        raise _Bad(f"no controller {', '.join(missing)}", "enable it on the kernel's command line")
    if not cgroups.is_writable():
        raise _Bad("/sys/fs/cgroup is read-only", "remount it writable")
    return (
        "version 2"
        if cgroups.unified
        else "hybrid (version 1 with a version 2 tree)"
        if cgroups.hybrid
        else "version 1"
    )


def _version(program: str, package: str) -> str:
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if path is None:
        raise _Bad(f"{program} is not installed", f"install the package {package}")
    told = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    return (told.stdout or told.stderr).partition("\n")[0] or path


def _runtime() -> str:
    try:
        return _version("crun", "crun")
    except _Bad:
        return f"{_version('runc', 'crun')} (crun starts containers faster)"


def _conmon() -> str:
    find_programs()
    return _version("conmon", "conmon")


def _nftables() -> str:
    version = _version("nft", "nftables")
    path = shutil.which("nft", path=_PATH) or "nft"
    told = subprocess.run([path, "list", "tables"], capture_output=True, text=True, timeout=10, check=False)
    if told.returncode:
        raise _Bad(told.stderr.strip() or "nft does not work", "a kernel with nf_tables and root rights are needed")
    return version


def _in_worker(job: Callable[[], str], *namespaces: str) -> str:
    """Run a job in a thread with namespaces of its own."""
    flags = {
        "mnt": kernel.CLONE_NEWNS,
        "net": kernel.CLONE_NEWNET,
        "ipc": kernel.CLONE_NEWIPC,
        "uts": kernel.CLONE_NEWUTS,
    }
    workers = Workers(1)

    def away() -> str:
        with workers.away(*namespaces):
            for name in namespaces:
                kernel.unshare(flags[name])
            return job()

    try:
        return workers.run_blocking(away)
    finally:
        workers.close()


def _namespaces() -> str:
    return _in_worker(lambda: "net, ipc, uts and mount namespaces can be made", "net", "ipc", "uts", "mnt")


def _veth() -> str:
    def job() -> str:
        here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with rtnetlink.Netlink() as netlink:
                netlink.send([rtnetlink.veth("doctor0", "doctor1", here, 1500)])
        finally:
            os.close(here)
        return "veth pairs can be made"

    return _in_worker(job, "net")


def _overlay() -> str:
    def job() -> str:
        kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
        with tempfile.TemporaryDirectory() as directory:
            kernel.mount("doctor", directory, "tmpfs")
            try:
                for name in ("lower", "upper", "work", "merged"):
                    os.mkdir(f"{directory}/{name}")
                options = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work,volatile"
                kernel.mount("overlay", f"{directory}/merged", "overlay", 0, options)
            finally:
                kernel.unmount(f"{directory}/merged")
                kernel.unmount(directory)
        return "overlay mounts work"

    return _in_worker(job, "mnt")


def _seccomp() -> str:
    if "Seccomp:" not in Path("/proc/self/status").read_text(encoding="ascii"):
        raise _Bad("the kernel has no seccomp", "use a kernel with CONFIG_SECCOMP_FILTER")
    if not libseccomp.available():
        raise _Bad("libseccomp.so.2 is missing: containers start more slowly", "install the package libseccomp2")
    return "filters are compiled here"


def _forwarding() -> str:
    path = Path("/proc/sys/net/ipv4/ip_forward")
    if path.read_text(encoding="ascii").strip() != "1" and not os.access(path, os.W_OK):
        raise _Bad("net.ipv4.ip_forward is off and cannot be set", "set it to 1")
    return "IPv4 forwarding is on or can be turned on"


def _user_namespaces() -> str:
    limit = int(Path("/proc/sys/user/max_user_namespaces").read_text(encoding="ascii"))
    if limit == 0:
        raise _Bad("user namespaces are turned off", "set user.max_user_namespaces")
    return "user namespaces are allowed"


_CHECKS: tuple[tuple[str, Callable[[], str], bool], ...] = (
    ("root", _root, True),
    ("kernel", _kernel, True),
    ("capabilities", _capabilities, True),
    ("cgroups", _cgroups, True),
    ("container runtime", _runtime, True),
    ("container monitor", _conmon, True),
    ("namespaces", _namespaces, True),
    ("overlay", _overlay, True),
    ("pod network", _veth, True),
    ("forwarding", _forwarding, True),
    ("nftables", _nftables, True),
    ("seccomp", _seccomp, False),
    ("user namespaces", _user_namespaces, False),
)
