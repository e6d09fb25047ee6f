"""What the kubelet asks of a container engine: CRI's verbs and states, as plain values.

Owns the protocols `Runtime` and `Images` and their values. Implemented by `engine.runtime` and `engine.images`; the
contract suite is `steersman.testing.suites.runtime`. Source: the Container Runtime Interface v1. Annotations and labels
are opaque here: the engine stores them and gives them back, it never reads them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from steersman.lib.http.messages import Duplex


class SandboxState(StrEnum):
    """A sandbox is ready from its creation until it is stopped."""

    READY = "ready"
    NOTREADY = "notready"


class ContainerState(StrEnum):
    """CRI's container states."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A port of the host (0: none) that leads to a port of the sandbox."""

    container_port: int
    host_port: int
    protocol: str = "TCP"
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """A pod's shared part. `cgroup_parent` is relative to the engine's cgroup root, such as `burstable/pod<uid>`."""

    name: str
    namespace: str
    uid: str
    hostname: str = ""
    attempt: int = 0
    log_directory: str = ""
    dns_servers: Sequence[str] = ()
    dns_searches: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_pid: bool = False
    user_namespace: bool = False
    sysctls: dict[str, str] = field(default_factory=dict)
    ports: Sequence[PortMapping] = ()
    cgroup_parent: str = ""
    resources: Resources | None = None  # of the whole pod
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A sandbox as it is. `ips` is empty with the host's network. Times are Unix seconds."""

    id: str
    config: SandboxConfig
    state: SandboxState
    created_at: float
    ips: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Resources:
    """Linux limits. 0 or empty means not set; memory in bytes, quota and period in microseconds."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    memory_limit: int = 0
    memory_swap_limit: int = 0
    pids_limit: int = 0
    oom_score_adj: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepage_limits: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of the host, or a sub-tree of an image, seen in the container."""

    container_path: str
    host_path: str = ""
    readonly: bool = False
    recursive_readonly: bool = False
    propagation: str = "private"  # private, rslave, rshared
    image: str = ""  # an image reference instead of a host path
    image_sub_path: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """A device node of the host; `permissions` is some of r, w and m."""

    container_path: str
    host_path: str
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class Security:
    """How a container is confined. `run_as_user` may be a number or, as `username`, a name from the image."""

    privileged: bool = False
    run_as_user: int | None = None
    run_as_group: int | None = None
    username: str = ""
    supplemental_groups: Sequence[int] = ()
    supplemental_groups_policy: str = "Merge"  # or Strict
    readonly_rootfs: bool = False
    no_new_privs: bool = False
    add_capabilities: Sequence[str] = ()
    drop_capabilities: Sequence[str] = ()
    seccomp: str = "RuntimeDefault"  # RuntimeDefault, Unconfined, or the path of a profile
    apparmor: str = ""
    masked_paths: Sequence[str] | None = None  # None: the default list
    readonly_paths: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """One container. `command` replaces the image's entrypoint and `args` its command, as in CRI.

    `log_path` is relative to the sandbox's log directory. `env` wins over the image's variables.
    """

    name: str
    image: str  # an image id or digest reference that is present
    attempt: int = 0
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    working_dir: str = ""
    env: Sequence[tuple[str, str]] = ()
    mounts: Sequence[Mount] = ()
    devices: Sequence[Device] = ()
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    stop_signal: str = ""
    target_container: str = ""  # join this container's PID namespace
    resources: Resources = field(default_factory=Resources)
    security: Security = field(default_factory=Security)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Container:
    """A container as it is. Times are Unix seconds, 0 when not reached. `reason`: Completed, Error or OOMKilled."""

    id: str
    sandbox_id: str
    config: ContainerConfig
    state: ContainerState
    image_id: str
    created_at: float
    started_at: float = 0
    finished_at: float = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    pid: int = 0
    log_path: str = ""  # absolute
    user: tuple[int, int, tuple[int, ...]] | None = None  # uid, gid, supplemental groups of its first process


@dataclass(frozen=True, slots=True)
class ContainerEvent:
    """Something happened to a container: created, started, exited, deleted. Look at the container for the rest."""

    kind: str
    container_id: str
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command inside a container printed, and its exit code."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True, slots=True)
class Stats:
    """Usage of one container or sandbox. cpu in nanoseconds since start, memory and storage in bytes."""

    timestamp: float
    cpu_ns: int
    memory_usage: int
    memory_working_set: int
    memory_rss: int
    page_faults: int
    major_page_faults: int
    pids: int
    rootfs_used: int = 0
    rootfs_inodes: int = 0
    network_rx_bytes: int = 0
    network_tx_bytes: int = 0


class Session(Protocol):
    """An exec or attach session in progress. Output ends when `read` gives empty bytes for both streams."""

    def write(self, data: bytes) -> None:
        """Send to standard input."""
        ...

    async def drain(self) -> None:
        """Wait until standard input has taken what was written."""
        ...

    def close_stdin(self) -> None:
        """End of standard input."""
        ...

    async def read_stdout(self) -> bytes:
        """Some output; empty at the end."""
        ...

    async def read_stderr(self) -> bytes:
        """Some error output; empty at the end, and always with a terminal."""
        ...

    def resize(self, width: int, height: int) -> None:
        """Change the terminal's size, in characters."""
        ...

    async def wait(self) -> int:
        """The exit code (attach: 0 when the container's output ends)."""
        ...

    async def close(self) -> None:
        """End it; an exec's process is killed, an attached container goes on."""
        ...


class RuntimeFailure(Exception):
    """The engine could not do it; the text is fit for an event. `reason` is CRI's word where it has one."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class NoSuchContainer(RuntimeFailure):
    """No container or sandbox has that id."""


class Runtime(Protocol):
    """Sandboxes and containers. Every verb is idempotent and survives the caller's death: all truth is on disk."""

    async def start(self) -> None:
        """Find again what was left running; call once before anything else."""
        ...

    async def close(self) -> None:
        """Let go without touching any container."""
        ...

    def version(self) -> tuple[str, str]:
        """Runtime name and version, such as ("steersman", "0.1.0")."""
        ...

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        """Create namespaces, network and cgroup. Raises RuntimeFailure and leaves nothing behind."""
        ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what runs in it and take its network down; idempotent."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop and forget it with its containers; idempotent."""
        ...

    def sandboxes(self) -> Sequence[Sandbox]:
        """Every sandbox, stopped ones too."""
        ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> Container:
        """Prepare a container. Raises RuntimeFailure (reason such as CreateContainerError)."""
        ...

    async def start_container(self, container_id: str) -> None:
        """Start it. Raises RuntimeFailure (reason RunContainerError or StartError)."""
        ...

    async def stop_container(self, container_id: str, timeout: float, signal: str = "") -> None:
        """Send `signal` (default: its stop signal), then KILL after `timeout` seconds; returns when it has ended."""
        ...

    async def remove_container(self, container_id: str) -> None:
        """Kill and forget it, with its log; idempotent."""
        ...

    def containers(self) -> Sequence[Container]:
        """Every container, ended ones too."""
        ...

    def container(self, container_id: str) -> Container:
        """One container. Raises NoSuchContainer."""
        ...

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        """Change the limits of a running container; what is 0 or empty stays as it is."""
        ...

    async def update_sandbox(self, sandbox_id: str, resources: Resources) -> None:
        """Change the limits of the sandbox's own cgroup; a cpu or memory limit of 0 is taken away."""
        ...

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        """Run a command to its end. Raises TimeoutError, having killed it, after `timeout` seconds (0: none)."""
        ...

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Session:
        """Start a command with live streams."""
        ...

    async def attach(self, container_id: str, *, stdin: bool) -> Session:
        """Join the live streams of the container's first process."""
        ...

    async def port_forward(self, sandbox_id: str, port: int) -> Duplex:
        """Connect to localhost:port inside the sandbox's network. Raises RuntimeFailure when nothing listens."""
        ...

    async def stats(self, container_id: str) -> Stats:
        """Usage now."""
        ...

    async def reopen_log(self, container_id: str) -> None:
        """Start a new log file at the same path (after rotation)."""
        ...

    def events(self) -> AsyncIterator[ContainerEvent]:
        """Events from now on; every caller gets all of them."""
        ...


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says about running it (OCI image config)."""

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Sequence[tuple[str, str]] = ()
    working_dir: str = ""
    user: str = ""
    exposed_ports: Sequence[str] = ()
    volumes: Sequence[str] = ()
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image in the store. `id` is the config's digest (`sha256:...`); size in bytes, unpacked."""

    id: str
    tags: Sequence[str]
    digests: Sequence[str]
    size: int
    config: ImageConfig
    pinned: bool = False
    created_at: float = 0


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login for a registry."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""


class PullFailed(Exception):
    """A pull failed. `reason` is the kubelet's word: ErrImagePull, InvalidImageName, RegistryUnavailable, ..."""

    def __init__(self, message: str, reason: str = "ErrImagePull") -> None:
        super().__init__(message)
        self.reason = reason


class Images(Protocol):
    """Images by reference, digest or id. A reference means what it does to Docker: `nginx` is
    docker.io/library/nginx:latest."""

    async def pull(self, reference: str, credentials: Sequence[Credentials] = ()) -> Image:
        """Fetch what is missing; returns the image. Raises PullFailed with the registry's reason."""
        ...

    def find(self, reference: str) -> Image | None:
        """The image a reference, digest or id names, if it is here."""
        ...

    def list(self) -> Sequence[Image]:
        """Every image."""
        ...

    async def remove(self, reference: str) -> None:
        """Remove the image and what only it used; idempotent."""
        ...

    def used_bytes(self) -> tuple[int, int]:
        """Bytes and inodes that images take on disk."""
        ...
