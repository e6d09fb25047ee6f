"""The state directory: where everything lies, and how records are written and read.

Owns the paths, the ids and the two kinds of record (`sandbox.json`, `container.json`). All truth about a container is
here: its record, conmon's pid files, its exit file. They lie in a mount of memory that outlives the agent and ends with
the containers, when the machine goes down; making a file there costs microseconds, on a disk up to a millisecond, and
a pod has thirty. What a container writes, and its log, is on disk. Records are written by rename, so that a reader sees
an old or a new one, never half of one. Never touches processes or the kernel's objects.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from steersman.engine.interface import ContainerConfig, SandboxConfig

_ID = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


def new_id() -> str:
    """A fresh id of 64 hexadecimal digits."""
    return secrets.token_hex(32)


def is_id(text: str) -> bool:
    """Whether `text` could be an id of ours; anything else must never become part of a path."""
    return _ID.fullmatch(text) is not None


@dataclass(slots=True)
class Process:
    """A process for good: pids are reused, a pid with its start time (clock ticks since boot) is not."""

    pid: int = 0
    start: int = 0


@dataclass(slots=True)
class SandboxRecord:
    """`phase` is creating, ready or stopped. Times are Unix seconds."""

    id: str
    config: SandboxConfig
    boot: str
    created_at: float
    phase: str = "creating"
    ips: list[str] = field(default_factory=list)
    pause: Process = field(default_factory=Process)


@dataclass(slots=True)
class ContainerRecord:
    """`phase` is creating, created, running or exited. `lost` is set for a record that could not be read."""

    id: str
    sandbox_id: str
    config: ContainerConfig
    boot: str
    created_at: float
    phase: str = "creating"
    image_id: str = ""
    started_at: float = 0
    finished_at: float = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    init: Process = field(default_factory=Process)
    monitor: Process = field(default_factory=Process)
    log_path: str = ""
    cgroup: str = ""
    stop_signal: str = ""
    user: tuple[int, int, tuple[int, ...]] | None = None
    lost: bool = False


class Corrupt(Exception):
    """A record that is there but cannot be read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths below the state directory `root`."""

    root: Path

    @property
    def run(self) -> Path:
        """Everything small that lives as long as the machine is up: a shared mount of memory."""
        return self.root / "run"

    @property
    def sandboxes(self) -> Path:
        """One directory per sandbox."""
        return self.run / "sandboxes"

    @property
    def containers(self) -> Path:
        """One directory per container: bundle, record, sockets."""
        return self.run / "containers"

    @property
    def pins(self) -> Path:
        """One directory per sandbox with its bind-mounted namespaces and /dev/shm."""
        return self.run / "ns"

    @property
    def exits(self) -> Path:
        """conmon's exit files: named by container, the content is the exit code."""
        return self.run / "exits"

    @property
    def oci(self) -> Path:
        """The OCI runtime's own state."""
        return self.run / "oci"

    @property
    def addresses(self) -> Path:
        """One file per address in use."""
        return self.run / "addresses"

    @property
    def tuned(self) -> Path:
        """There when this engine set the cgroup hierarchy's `favordynmods`."""
        return self.run / "favordynmods"

    @property
    def writable(self) -> Path:
        """One directory per container with what it wrote, on disk."""
        return self.root / "writable"

    def sandbox(self, sandbox_id: str) -> Path:
        """The directory of one sandbox. Raises ValueError for what is not an id."""
        return self._below(self.sandboxes, sandbox_id)

    def pin(self, sandbox_id: str) -> Path:
        """The directory with one sandbox's namespaces."""
        return self._below(self.pins, sandbox_id)

    def container(self, container_id: str) -> Path:
        """The directory of one container."""
        return self._below(self.containers, container_id)

    def written(self, container_id: str) -> Path:
        """The directory of what one container wrote: `upper`, `work`, and the image's volumes."""
        return self._below(self.writable, container_id)

    def exit(self, container_id: str) -> Path:
        """The exit file of one container."""
        return self._below(self.exits, container_id)

    def _below(self, parent: Path, name: str) -> Path:
        if not is_id(name):
            raise ValueError(f"not an id: {name!r}")
        return parent / name

    def make(self) -> None:
        """Create the directories, readable by the owner alone."""
        parts = (self.sandboxes, self.containers, self.pins, self.exits, self.oci, self.addresses, self.writable)
        for path in parts:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


def save(path: Path, record: SandboxRecord | ContainerRecord) -> None:
    """Write a record by rename."""
    write_file(path, msgspec.json.encode(record))


def write_file(path: Path, data: bytes) -> None:
    """Write a file by rename: readers see the old content or the new."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        partial.write_bytes(data)
        partial.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def load(path: Path, kind: type[T]) -> T:
    """Read a record. Raises Corrupt, also when it is missing."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise Corrupt(f"{path}: {error}") from error
