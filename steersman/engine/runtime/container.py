"""Containers: bundle, root file system, creation through conmon, and what is left when one ends.

Owns a container's directory and kernel objects; `runtime.py` owns the order of things and the records in memory.
Every function blocks and runs in a worker. A container's directory holds `container.json` (the record), `config.json`
(OCI's), `upper` (what it wrote), and conmon's `pid`, `monitor.pid`, `attach` and `ctl`.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import msgspec

from steersman.engine.interface import ContainerConfig, Image, Mount, RuntimeFailure
from steersman.engine.runtime import capabilities, devices, kernel, rootfs, sandbox, spec, users
from steersman.engine.runtime.oci import OciRuntime, send_signal
from steersman.engine.runtime.profiles import Profiles
from steersman.engine.runtime.records import ContainerRecord, Layout, Process, SandboxRecord
from steersman.engine.runtime.sandbox import Machine
from steersman.engine.runtime.spec import Facts
from steersman.lib.failpoint import failpoint

UNKNOWN_EXIT = 255
_RECORD = "container.json"


class LayeredImages(Protocol):
    """What the runtime asks of the image store."""

    def find(self, reference: str) -> Image | None:
        """The image a reference, digest or id names, if it is here."""
        ...

    def hold(self, owner: str, image: Image) -> Sequence[Path]:
        """The image's unpacked layers, top first, kept for `owner` until it releases them. Raises KeyError."""
        ...

    def release(self, owner: str) -> None:
        """`owner` needs its layers no longer; idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Factory:
    """What containers are made with."""

    machine: Machine
    oci: OciRuntime
    profiles: Profiles
    images: LayeredImages
    capabilities: frozenset[str]
    oom_score: int  # of this process: no container may have less without CAP_SYS_RESOURCE


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a container ended."""

    exit_code: int
    finished_at: float
    reason: str
    message: str = ""


def record_path(machine: Machine, container_id: str) -> Path:
    """Where a container's record lies."""
    return machine.layout.container(container_id) / _RECORD


def check(config: ContainerConfig) -> None:
    """Refuse what can be seen to be wrong before anything is made. Raises RuntimeFailure."""
    for mount in config.mounts:
        if not mount.image and not mount.host_path.startswith("/"):
            raise RuntimeFailure(f"mount {mount.container_path!r}: host path {mount.host_path!r} is not absolute")
    if config.security.apparmor.startswith("localhost/"):
        raise RuntimeFailure(f"AppArmor profile {config.security.apparmor!r}: AppArmor is not supported by this engine")


def create(factory: Factory, record: ContainerRecord, pod: SandboxRecord, pid_of_target: int) -> None:
    """Prepare a container to the point where only its own program is missing; notes what was found in `record`."""
    machine, config = factory.machine, record.config
    image = _image(factory, config.image)
    record.image_id = image.id
    record.stop_signal = config.stop_signal or image.config.stop_signal
    bundle = machine.layout.container(record.id)
    share_back = any(mount.propagation == "rshared" for mount in config.mounts)
    with rootfs.private_mounts(machine.workers, factory.oci, machine.layout, bundle, share_back=share_back):
        written = machine.layout.written(record.id)
        written.mkdir(mode=0o700)
        rootfs.mount_overlay(bundle, factory.images.hold(record.id, image), "rootfs", written)
        failpoint("container.after_overlay")
        root = str(bundle / "rootfs")
        user = users.resolve(
            config.security,
            image.config.user,
            rootfs.read_file(root, "/etc/passwd"),
            rootfs.read_file(root, "/etc/group"),
        )
        record.user = (user.uid, user.gid, user.groups)
        mounts = [_source(factory, record.id, number, mount) for number, mount in enumerate(config.mounts)]
        mounts += _volumes(bundle, written, image, mounts)
        facts = _facts(factory, record, pod, user, pid_of_target)
        document = spec.build(replace(config, mounts=mounts), image.config, facts)
        (bundle / "config.json").write_bytes(msgspec.json.encode(document))
        failpoint("container.before_monitor")
        record.init, record.monitor = factory.oci.create(record.id, bundle, _options(record), machine.layout.exits)
    failpoint("container.after_monitor")


def _image(factory: Factory, reference: str) -> Image:
    image = factory.images.find(reference)
    if image is None:
        raise RuntimeFailure(f"image {reference!r} is not present", "ErrImageNeverPull")
    return image


def _facts(
    factory: Factory, record: ContainerRecord, pod: SandboxRecord, user: users.User, pid_of_target: int
) -> Facts:
    machine, security = factory.machine, record.config.security
    namespaces = sandbox.namespaces(machine, pod)
    if pid_of_target:
        namespaces["pid"] = f"/proc/{pid_of_target}/ns/pid"
    granted = capabilities.granted(
        security.add_capabilities,
        security.drop_capabilities,
        privileged=security.privileged,
        limit=factory.capabilities,
    )
    name = "Unconfined" if security.privileged else security.seccomp
    filter_, annotations = factory.profiles.filter(name, granted)
    return Facts(
        rootfs="rootfs",
        cgroup=record.cgroup,
        hostname=sandbox.hostname(pod.config),
        user=user,
        namespaces=namespaces,
        mounts=sandbox.mounts(machine, pod),
        devices=devices.wanted(record.config),
        capabilities=factory.capabilities,
        nofile_limit=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        least_oom_score=factory.oom_score,
        swap_limit_works=machine.cgroups.swap_limit_works(),
        hugepages_work="hugetlb" in machine.cgroups.controllers(),
        seccomp=filter_,
        annotations=annotations,
    )


def _source(factory: Factory, container_id: str, number: int, mount: Mount) -> Mount:
    """A mount with its source made ready: an image's tree mounted, a missing directory of the node created."""
    if mount.image:
        target, bundle = f"image{number}", factory.machine.layout.container(container_id)
        (factory.machine.layout.written(container_id) / target).mkdir()  # for `release`
        layers = factory.images.hold(f"{container_id}-{target}", _image(factory, mount.image))
        rootfs.mount_overlay(bundle, layers, target)
        where = rootfs.inside(str(bundle / target), mount.image_sub_path)
        return replace(mount, host_path=where, readonly=True)
    path = os.path.realpath(mount.host_path)
    if not os.path.lexists(path):
        os.makedirs(path, exist_ok=True)
    return replace(mount, host_path=path)


def _volumes(bundle: Path, written: Path, image: Image, mounts: Sequence[Mount]) -> list[Mount]:
    """The image's own volumes that nothing else is mounted on: a directory of the container's with the same content."""
    taken = {os.path.normpath(mount.container_path) for mount in mounts}
    answer: list[Mount] = []
    for number, volume in enumerate(image.config.volumes):
        path = os.path.normpath(volume)
        if path in taken or not path.startswith("/") or path == "/":
            continue
        own = written / f"volume{number}"
        try:
            origin = rootfs.inside(str(bundle / "rootfs"), path)
        except RuntimeFailure:
            own.mkdir()
        else:
            shutil.copytree(origin, own, symlinks=True)
            info = os.stat(origin)
            os.chown(own, info.st_uid, info.st_gid)
        answer.append(Mount(path, str(own)))
    return answer


def _options(record: ContainerRecord) -> list[str]:
    config = record.config
    # conmon insists on a log; /dev/null costs nothing
    options = ["-l", f"k8s-file:{record.log_path or '/dev/null'}"]
    if config.tty:
        options.append("-t")
    if config.stdin:
        options.append("-i")
        if not config.stdin_once:
            options.append("--leave-stdin-open")
    return options


def exit_code(machine: Machine, container_id: str) -> tuple[int, float] | None:
    """Exit code and time from conmon's exit file, if it is there."""
    path = machine.layout.exit(container_id)
    try:
        return int(path.read_text(encoding="ascii")), path.stat().st_mtime
    except FileNotFoundError:
        return None
    except ValueError:
        return UNKNOWN_EXIT, path.stat().st_mtime


def outcome(machine: Machine, record: ContainerRecord, now: float) -> Outcome:
    """How an ended container ended. `now` (Unix seconds) is for one whose monitor could not tell; it is killed."""
    found = exit_code(machine, record.id)
    if found is None:
        send_signal(record.init, signal.SIGKILL)
        return Outcome(UNKNOWN_EXIT, now, "Error", "its monitor ended before it could tell the exit code")
    code, when = found
    oom = code != 0 and machine.cgroups.oom_kills(record.cgroup) > 0
    return Outcome(code, when, "OOMKilled" if oom else "Error" if code else "Completed")


def clean(factory: Factory, record: ContainerRecord) -> None:
    """Take away what an ended or half-made container left in the kernel; idempotent. Its directory and log stay."""
    machine = factory.machine
    half_made = named(record.id) if record.phase == "creating" else []
    for process in (record.monitor, record.init, *half_made):
        send_signal(process, signal.SIGKILL)
    factory.oci.delete(record.id)
    if record.cgroup:
        machine.cgroups.remove(record.cgroup)


def named(container_id: str) -> list[Process]:
    """Processes whose command line names a container: its monitor, and an OCI runtime at work on it."""
    found: list[Process] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if container_id.encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                    found.append(Process(int(entry), kernel.process_start(int(entry))))
    return found


def release(images: LayeredImages, layout: Layout, container_id: str) -> None:
    """Remove what a container wrote, and let go of its images; idempotent."""
    written = layout.written(container_id)
    for target in written.glob("image*"):
        images.release(f"{container_id}-{target.name}")
    images.release(container_id)
    shutil.rmtree(written, ignore_errors=True)


def forget(factory: Factory, record: ContainerRecord) -> None:
    """Remove a cleaned container's files: its log, its exit file, its directories."""
    layout = factory.machine.layout
    if record.log_path:
        with contextlib.suppress(OSError):
            os.unlink(record.log_path)
    layout.exit(record.id).unlink(missing_ok=True)
    failpoint("container.before_forget")
    release(factory.images, layout, record.id)
    shutil.rmtree(layout.container(record.id), ignore_errors=True)
