"""Sandboxes: pinned network, IPC and UTS namespaces, /dev/shm, the files that a pod's containers share.

Owns a sandbox's kernel objects from creation to removal; `runtime.py` owns its record and the order of things. Every
function blocks and runs in a worker. There is no pause process, except where containers share a PID namespace, which
lives as long as its first process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from steersman.engine.interface import Mount, RuntimeFailure, SandboxConfig
from steersman.engine.runtime import kernel, network, spec
from steersman.engine.runtime.cgroups import Cgroups
from steersman.engine.runtime.ipam import AddressPool
from steersman.engine.runtime.network import NetworkConfig
from steersman.engine.runtime.oci import send_signal, spawn
from steersman.engine.runtime.records import Layout, Process, SandboxRecord, write_file
from steersman.engine.runtime.workers import Workers
from steersman.lib.failpoint import failpoint

_SHM_SIZE = "64m"
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")
_POD_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}


@dataclass(frozen=True, slots=True)
class Machine:
    """What sandboxes are made with."""

    layout: Layout
    workers: Workers
    cgroups: Cgroups
    cgroup_root: str
    network: NetworkConfig
    addresses: AddressPool
    mtu: int


def check(config: SandboxConfig) -> None:
    """Refuse what cannot be run. Raises RuntimeFailure."""
    if config.user_namespace:
        raise RuntimeFailure("user namespaces for pods are not supported by this engine")
    if len(config.hostname) > 64 or "/" in config.hostname or "\0" in config.hostname:
        raise RuntimeFailure(f"not a host name: {config.hostname!r}")
    for name in config.sysctls:
        of_network, of_ipc = name.startswith("net."), name.startswith(_IPC_SYSCTLS)
        if not (of_network or of_ipc) or ".." in name or "/" in name:
            raise RuntimeFailure(f"sysctl {name!r} is not namespaced: it would change the whole node")
        if (of_network and config.host_network) or (of_ipc and config.host_ipc):
            raise RuntimeFailure(f"sysctl {name!r} cannot be set in the host's namespace")
    for text in (*config.dns_servers, *config.dns_searches, *config.dns_options):
        if any(character.isspace() for character in text):
            raise RuntimeFailure(f"not usable in resolv.conf: {text!r}")


def set_up(machine: Machine, record: SandboxRecord) -> None:
    """Make everything a new sandbox needs and note its address and pause process in `record`."""
    config = record.config
    _write_files(machine, record)
    failpoint("sandbox.after_files")
    parent = spec.cgroup_parent(machine.cgroup_root, record.id, config)
    if config.resources is not None:
        machine.cgroups.create(parent, config.resources)
    if not config.host_network:
        record.ips = [machine.addresses.allocate(record.id)]
    failpoint("sandbox.after_address")
    pin = machine.layout.pin(record.id)
    pin.mkdir(mode=0o700)
    _make_namespaces(machine, record, pin)
    failpoint("sandbox.after_namespaces")
    if record.ips:
        network.connect_node(record.id, record.ips[0], machine.network.node_ip)
    if config.share_pid and not config.host_pid:
        record.pause = _start_pause(machine)


def _write_files(machine: Machine, record: SandboxRecord) -> None:
    directory = machine.layout.sandbox(record.id)
    name = hostname(record.config)
    write_file(directory / "hostname", f"{name}\n".encode())
    write_file(directory / "resolv.conf", resolv_conf(record.config).encode())
    local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    write_file(directory / "hosts", local.encode())
    for path in ("hostname", "resolv.conf", "hosts"):
        (directory / path).chmod(0o644)


def hostname(config: SandboxConfig) -> str:
    """The host name that containers see."""
    return os.uname().nodename if config.host_network or not config.hostname else config.hostname


def resolv_conf(config: SandboxConfig) -> str:
    """The resolver's configuration; the host's own when the sandbox says nothing."""
    if not (config.dns_servers or config.dns_searches or config.dns_options):
        try:
            return Path("/etc/resolv.conf").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
    lines = [f"search {' '.join(config.dns_searches)}"] if config.dns_searches else []
    lines += [f"nameserver {server}" for server in config.dns_servers]
    lines += [f"options {' '.join(config.dns_options)}"] if config.dns_options else []
    return "\n".join(lines) + "\n"


def _make_namespaces(machine: Machine, record: SandboxRecord, pin: Path) -> None:
    config = record.config
    wanted: dict[str, int] = {}
    if not config.host_network:
        wanted |= {"net": kernel.CLONE_NEWNET, "uts": kernel.CLONE_NEWUTS}
    if not config.host_ipc:
        wanted["ipc"] = kernel.CLONE_NEWIPC
        shm = pin / "shm"
        shm.mkdir()
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("shm", str(shm), "tmpfs", flags, f"mode=1777,size={_SHM_SIZE}")
    with machine.workers.away("net", "ipc", "uts"):
        flags = 0
        for flag in wanted.values():
            flags |= flag
        if flags:
            kernel.unshare(flags)
        for kind in wanted:
            (pin / kind).touch()
            kernel.mount(f"/proc/thread-self/ns/{kind}", str(pin / kind), flags=kernel.MS_BIND)
        if "uts" in wanted:
            kernel.sethostname(hostname(config))
        if "net" in wanted:
            ip = record.ips[0] if record.ips else ""
            network.connect_inside(record.id, machine.workers.home_fd("net"), ip, machine.mtu)
        _set_sysctls((_POD_SYSCTLS if "net" in wanted else {}) | config.sysctls)


def _set_sysctls(wanted: dict[str, str]) -> None:
    for name, value in wanted.items():
        path = Path("/proc/sys") / name.replace(".", "/")
        try:
            path.write_text(value, encoding="utf-8")
        except OSError as error:
            if name not in _POD_SYSCTLS:
                raise RuntimeFailure(f"cannot set sysctl {name}={value}: {error.strerror}") from error


def _start_pause(machine: Machine) -> Process:
    # SIGCHLD stays ignored across exec, so the kernel reaps what is re-parented to this first process
    words = ["/bin/sh", "-c", 'trap "" CHLD; exec sleep infinity']
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        with machine.workers.away("pid"):
            kernel.unshare(kernel.CLONE_NEWPID)
            pid = spawn(words, (null, null, null))
    finally:
        os.close(null)
    return Process(pid, kernel.process_start(pid))


def _stop_pause(process: Process) -> None:
    if process.pid and send_signal(process, signal.SIGKILL):
        with contextlib.suppress(ChildProcessError):  # started by an earlier life of the agent
            os.waitpid(process.pid, 0)


def tear_down(machine: Machine, record: SandboxRecord) -> None:
    """Take a sandbox's kernel objects away; idempotent, and right for one that was never finished."""
    _stop_pause(record.pause)
    network.disconnect(record.id)
    pin = machine.layout.pin(record.id)
    for name in ("net", "uts", "ipc", "shm"):
        kernel.unmount(str(pin / name))
    shutil.rmtree(pin, ignore_errors=True)
    failpoint("sandbox.before_release")
    for ip in record.ips:
        machine.addresses.release(ip)


def remove(machine: Machine, record: SandboxRecord) -> None:
    """Forget a torn-down sandbox: its cgroup and its directory."""
    parent = spec.cgroup_parent(machine.cgroup_root, record.id, record.config)
    machine.cgroups.remove(parent)
    machine.cgroups.prune(parent)
    shutil.rmtree(machine.layout.sandbox(record.id), ignore_errors=True)


def is_intact(machine: Machine, record: SandboxRecord) -> bool:
    """Whether a ready sandbox's namespaces are still pinned (they are not after a reboot)."""
    config, pin = record.config, machine.layout.pin(record.id)
    names = ([] if config.host_network else ["net", "uts"]) + ([] if config.host_ipc else ["ipc"])
    return all(_is_pinned(pin / name) for name in names)


def _is_pinned(path: Path) -> bool:
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False


def namespaces(machine: Machine, record: SandboxRecord) -> dict[str, str]:
    """The namespaces that a container of the sandbox has: a path to join, or empty for its own."""
    config, pin = record.config, machine.layout.pin(record.id)
    answer = {"mount": "", "cgroup": ""}
    if not config.host_network:
        answer |= {"network": str(pin / "net"), "uts": str(pin / "uts")}
    if not config.host_ipc:
        answer["ipc"] = str(pin / "ipc")
    if not config.host_pid:
        answer["pid"] = f"/proc/{record.pause.pid}/ns/pid" if config.share_pid else ""
    return answer


def mounts(machine: Machine, record: SandboxRecord) -> list[Mount]:
    """What the engine mounts into every container of the sandbox, unless the container mounts something else there."""
    directory, pin = machine.layout.sandbox(record.id), machine.layout.pin(record.id)
    shm = "/dev/shm" if record.config.host_ipc else str(pin / "shm")
    files = [Mount(f"/etc/{name}", str(directory / name)) for name in ("hostname", "hosts", "resolv.conf")]
    return [*files, Mount("/dev/shm", shm)]
