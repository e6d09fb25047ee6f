"""The engine's Runtime: the order of things, over state that is all on disk.

Owns the records in memory, and one lock per sandbox and container. `sandbox.py` and `container.py` do the
work, in worker threads. Built by `cluster`, used by the kubelet and the CLI. Never pulls an image, never restarts
a container, never decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from steersman import __version__
from steersman.engine.interface import (
    Container,
    ContainerConfig,
    ContainerEvent,
    ExecResult,
    NoSuchContainer,
    PortMapping,
    Resources,
    RuntimeFailure,
    Sandbox,
    SandboxConfig,
    Session,
    Stats,
)
from steersman.engine.runtime import (
    attach,
    container,
    execution,
    kernel,
    portforward,
    recovery,
    sandbox,
    spec,
    usage,
)
from steersman.engine.runtime.container import Factory, LayeredImages
from steersman.engine.runtime.network import NetworkConfig
from steersman.engine.runtime.oci import send_signal
from steersman.engine.runtime.prepare import prepare
from steersman.engine.runtime.records import ContainerRecord, Layout, SandboxRecord, new_id, save
from steersman.engine.runtime.sandbox import Machine
from steersman.engine.runtime.views import container_view, sandbox_view
from steersman.engine.runtime.watch import Events, Watches
from steersman.engine.runtime.workers import Workers
from steersman.lib.clock import Clock
from steersman.lib.failpoint import failpoint
from steersman.lib.http.messages import Duplex
from steersman.lib.tasks import Tasks

log = logging.getLogger(__name__)

_LOG_PATIENCE = 5.0  # seconds for conmon to reopen a log


@dataclass(slots=True)
class _Pod:
    record: SandboxRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True)
class _Entry:
    record: ContainerRecord
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)  # so that nobody hears of an end before the start
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class LocalRuntime:
    """Containers of this machine, through crun or runc. Implements `engine.interface.Runtime`."""

    def __init__(
        self,
        root: Path,
        images: LayeredImages,
        *,
        clock: Clock,
        pod_cidr: str,
        cgroup_root: str = "steersman",
        node_ip: str = "",
        mtu: int = 0,
        runtime: str = "",
    ) -> None:
        """`root` (state directory) and `cgroup_root`: one per profile. `runtime`: crun, runc, a path, or empty."""
        if not cgroup_root or "/" in cgroup_root or cgroup_root.startswith("."):
            raise ValueError(f"cgroup root {cgroup_root!r} must be one plain name")
        self._layout = Layout(root.resolve())
        self._images = images
        self._clock = clock
        self._cgroup_root = cgroup_root
        self._network = NetworkConfig(pod_cidr, node_ip, mtu)
        self._runtime = runtime
        self._pods: dict[str, _Pod] = {}
        self._entries: dict[str, _Entry] = {}
        self._watches = Watches()
        self._events = Events()
        self._tasks = Tasks()
        self._lock_fd = -1
        self._factory: Factory | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find again what was left running. Raises RuntimeFailure when this machine cannot run containers, or another
        process owns the state directory."""
        self._layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_ownership()
        workers = Workers()
        try:
            self._factory = await workers.run(
                prepare, self._layout, workers, self._images, self._network, self._cgroup_root, self._runtime
            )
            await self._recover()
        except BaseException:
            workers.close()
            self._factory = None
            os.close(self._lock_fd)
            raise

    def _take_ownership(self) -> None:
        self._lock_fd = os.open(self._layout.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            raise RuntimeFailure(f"another process is using {self._layout.root}") from None

    async def close(self) -> None:
        """Let go without touching any container."""
        await self._tasks.close()
        self._watches.close()
        self._events.close()
        if self._factory is not None:
            self._factory.oci.close()
            self._factory.machine.workers.close()
            self._factory = None
            os.close(self._lock_fd)

    def version(self) -> tuple[str, str]:
        """Runtime name and version."""
        return "steersman", __version__

    @property
    def _made(self) -> Factory:
        if self._factory is None:
            raise RuntimeFailure("the runtime is not started")
        return self._factory

    @property
    def _machine(self) -> Machine:
        return self._made.machine

    @property
    def _workers(self) -> Workers:
        return self._made.machine.workers

    # --- recovery ---------------------------------------------------------------------------------------------------

    async def _recover(self) -> None:
        for pod in await self._workers.run(recovery.sandboxes, self._machine, self._clock.now()):
            self._pods[pod.id] = _Pod(pod)
        for record in await self._workers.run(recovery.containers, self._made, self._clock.now()):
            self._entries[record.id] = entry = _Entry(record)
            if record.phase == "exited":
                entry.ended.set()
            elif not record.lost:
                self._watch(record)

    def _watch(self, record: ContainerRecord) -> None:
        if not self._watches.add(record.id, record.monitor, self._ended):
            self._ended(record.id)

    def _ended(self, container_id: str) -> None:
        self._tasks.spawn(self._conclude(container_id), f"end of container {container_id[:12]}")

    async def _conclude(self, container_id: str) -> None:
        entry = self._entries.get(container_id)
        if entry is None or entry.record.phase == "exited":
            return
        record = entry.record
        outcome = await self._workers.run(container.outcome, self._machine, record, self._clock.now())
        async with entry.starting:
            record.phase, record.exit_code, record.finished_at = "exited", outcome.exit_code, outcome.finished_at
            record.reason, record.message = outcome.reason, outcome.message
            self._save(record)
            entry.ended.set()
            self._tell("exited", record)
        await self._workers.run(container.clean, self._made, record)

    def _save(self, record: ContainerRecord) -> None:
        try:
            save(container.record_path(self._machine, record.id), record)
        except OSError as error:  # a full disk: recovery finds the truth in the exit file again
            log.error("cannot write the record of container %s: %s", record.id, error)

    def _tell(self, kind: str, record: ContainerRecord) -> None:
        self._events.send(ContainerEvent(kind, record.id, record.sandbox_id))

    # --- sandboxes --------------------------------------------------------------------------------------------------

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        """Create namespaces, network and cgroup. Raises RuntimeFailure and leaves nothing behind."""
        with _failures("RunPodSandboxError"):
            sandbox.check(config)
            record = SandboxRecord(new_id(), config, kernel.boot_id(), self._clock.now())
            spec.cgroup_parent(self._cgroup_root, record.id, config)
            try:
                await self._workers.run(self._make_sandbox, record)
            finally:  # a cancelled caller finds what was made in the list
                if record.phase == "ready":
                    self._pods[record.id] = _Pod(record)
        return sandbox_view(record)

    def _make_sandbox(self, record: SandboxRecord) -> None:
        directory = self._layout.sandbox(record.id)
        directory.mkdir(mode=0o700)
        try:
            save(directory / "sandbox.json", record)
            failpoint("sandbox.after_record")
            sandbox.set_up(self._machine, record)
            record.phase = "ready"
            save(directory / "sandbox.json", record)
        except BaseException:
            sandbox.tear_down(self._machine, record)
            sandbox.remove(self._machine, record)
            raise

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what runs in it and take its network down; idempotent."""
        pod = self._pods.get(sandbox_id)
        if pod is None:
            return
        async with pod.lock:
            for entry in self._entries_of(sandbox_id):
                await self.stop_container(entry.record.id, 0)
            if pod.record.phase == "ready":
                await self._workers.run(sandbox.tear_down, self._machine, pod.record)
                pod.record.phase = "stopped"
                save(self._layout.sandbox(sandbox_id) / "sandbox.json", pod.record)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop and forget it with its containers; idempotent."""
        await self.stop_sandbox(sandbox_id)
        pod = self._pods.get(sandbox_id)
        if pod is None:
            return
        async with pod.lock:
            for entry in self._entries_of(sandbox_id):
                await self.remove_container(entry.record.id)
            await self._workers.run(sandbox.remove, self._machine, pod.record)
            self._pods.pop(sandbox_id, None)

    def _entries_of(self, sandbox_id: str) -> list[_Entry]:
        return [entry for entry in self._entries.values() if entry.record.sandbox_id == sandbox_id]

    def sandboxes(self) -> Sequence[Sandbox]:
        """Every sandbox, stopped ones too."""
        return [sandbox_view(pod.record) for pod in self._pods.values()]

    def port_mappings(self) -> Sequence[tuple[str, str, PortMapping]]:
        """Sandbox id, address and mapping of every host port of a ready sandbox, for whoever owns the node's rules."""
        return [
            (pod.record.id, pod.record.ips[0], mapping)
            for pod in self._pods.values()
            if pod.record.phase == "ready" and pod.record.ips
            for mapping in pod.record.config.ports
            if mapping.host_port
        ]

    # --- containers -------------------------------------------------------------------------------------------------

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> Container:
        """Prepare a container. Raises RuntimeFailure (reason such as CreateContainerError)."""
        pod = self._pods.get(sandbox_id)
        if pod is None:
            raise NoSuchContainer(f"no sandbox {sandbox_id!r}", "CreateContainerError")
        if pod.record.phase != "ready":
            raise RuntimeFailure("the sandbox is stopped", "CreateContainerError")
        with _failures("CreateContainerError"):
            container.check(config)
            record = ContainerRecord(new_id(), sandbox_id, config, kernel.boot_id(), self._clock.now())
            record.log_path = spec.log_path(pod.record.config, config)
            parent = spec.cgroup_parent(self._cgroup_root, sandbox_id, pod.record.config)
            record.cgroup = f"{parent}/{record.id}"
            target = self._running(config.target_container).record.init.pid if config.target_container else 0
            try:
                await self._workers.run(self._make_container, record, pod.record, target)
            finally:
                if record.phase == "created":
                    self._entries[record.id] = _Entry(record)
                    self._watch(record)
                    self._tell("created", record)
        return container_view(record)

    def _make_container(self, record: ContainerRecord, pod: SandboxRecord, target: int) -> None:
        directory = self._layout.container(record.id)
        directory.mkdir(mode=0o700)
        try:
            save(container.record_path(self._machine, record.id), record)
            failpoint("container.after_record")
            if record.log_path:
                os.makedirs(os.path.dirname(record.log_path), mode=0o755, exist_ok=True)
            container.create(self._made, record, pod, target)
            record.phase = "created"
            save(container.record_path(self._machine, record.id), record)
        except BaseException:
            record.phase = "creating"
            container.clean(self._made, record)
            container.forget(self._made, record)
            raise

    async def start_container(self, container_id: str) -> None:
        """Start it. Raises RuntimeFailure (reason RunContainerError or StartError)."""
        entry = self._entry(container_id)
        record = entry.record
        async with entry.lock, entry.starting:
            if record.phase == "running":
                return
            if record.phase != "created":
                raise RuntimeFailure("the container has already ended", "StartError")
            started: list[str] = []
            with _failures("StartError"):
                try:
                    await self._workers.run(self._start, record.id, started)
                finally:
                    if started:
                        failpoint("container.after_start")
                        record.phase, record.started_at = "running", self._clock.now()
                        self._save(record)
                        self._tell("started", record)

    def _start(self, container_id: str, started: list[str]) -> None:
        self._made.oci.start(container_id)
        started.append(container_id)

    async def stop_container(self, container_id: str, timeout: float, signal: str = "") -> None:
        """Send `signal` (default: its stop signal), then KILL after `timeout` seconds; returns when it has ended."""
        entry = self._entry(container_id)
        record = entry.record
        if record.phase == "exited" or record.lost:
            return
        if timeout > 0 and record.phase == "running":
            send_signal(record.init, _signal(signal or record.stop_signal))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await entry.ended.wait()
        if not entry.ended.is_set():
            send_signal(record.init, _signal("KILL"))
            await entry.ended.wait()

    async def remove_container(self, container_id: str) -> None:
        """Kill and forget it, with its log; idempotent."""
        entry = self._entries.get(container_id)
        if entry is None:
            return
        async with entry.lock:
            if container_id not in self._entries:
                return
            await self.stop_container(container_id, 0)
            try:
                await self._workers.run(self._unmake_container, entry.record)
            finally:
                if not self._layout.container(container_id).exists():
                    self._watches.drop(container_id)
                    del self._entries[container_id]
                    self._tell("deleted", entry.record)

    def _unmake_container(self, record: ContainerRecord) -> None:
        container.clean(self._made, record)
        container.forget(self._made, record)

    def containers(self) -> Sequence[Container]:
        """Every container, ended ones too."""
        return [container_view(entry.record) for entry in self._entries.values()]

    def container(self, container_id: str) -> Container:
        """One container. Raises NoSuchContainer."""
        return container_view(self._entry(container_id).record)

    def _entry(self, container_id: str) -> _Entry:
        entry = self._entries.get(container_id)
        if entry is None:
            raise NoSuchContainer(f"no container {container_id!r}")
        return entry

    def _running(self, container_id: str) -> _Entry:
        entry = self._entry(container_id)
        if entry.record.phase != "running":
            raise RuntimeFailure(f"container {container_id} is not running")
        return entry

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        """Change the limits of a running container."""
        record = self._running(container_id).record
        with _failures(""):
            await self._workers.run(self._machine.cgroups.update, record.cgroup, resources)

    async def update_sandbox(self, sandbox_id: str, resources: Resources) -> None:
        """Change the limits of the sandbox's own cgroup; a cpu or memory limit of 0 is taken away."""
        pod = self._pods.get(sandbox_id)
        if pod is None:
            raise NoSuchContainer(f"no sandbox {sandbox_id!r}")
        path = spec.cgroup_parent(self._cgroup_root, sandbox_id, pod.record.config)
        limits = replace(resources, cpu_quota=resources.cpu_quota or -1, memory_limit=resources.memory_limit or -1)
        with _failures(""):
            await self._workers.run(self._machine.cgroups.update, path, limits)

    async def stats(self, container_id: str) -> Stats:
        """Usage now."""
        record = self._running(container_id).record
        with _failures(""):
            return await self._workers.run(usage.stats, self._machine, record, self._clock.now())

    # --- sessions ---------------------------------------------------------------------------------------------------

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        """Run a command to its end. Raises TimeoutError, having killed it, after `timeout` seconds (0: none)."""
        session = await self._exec(container_id, command, tty=False, stdin=False)
        return await execution.run(session, timeout)

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Session:
        """Start a command with live streams."""
        return await self._exec(container_id, command, tty=tty, stdin=stdin)

    async def _exec(self, container_id: str, words: Sequence[str], *, tty: bool, stdin: bool) -> execution.ExecSession:
        record = self._running(container_id).record
        bundle = self._layout.container(container_id)
        with _failures("ExecError"):
            return await execution.open_session(
                self._made.oci, self._workers, record.id, bundle, words, tty=tty, stdin=stdin
            )

    async def attach(self, container_id: str, *, stdin: bool) -> Session:
        """Join the live streams of the container's first process."""
        record = self._entry(container_id).record
        if record.phase not in ("created", "running"):
            raise RuntimeFailure(f"container {container_id} is not running")
        bundle = self._layout.container(container_id)
        connection = attach.connect(bundle)
        config = record.config
        return attach.AttachSession(
            connection, bundle, stdin=stdin and config.stdin, tty=config.tty, once=config.stdin_once
        )

    async def port_forward(self, sandbox_id: str, port: int) -> Duplex:
        """Connect to localhost:port inside the sandbox's network. Raises RuntimeFailure when nothing listens."""
        pod = self._pods.get(sandbox_id)
        if pod is None:
            raise NoSuchContainer(f"no sandbox {sandbox_id!r}")
        if pod.record.phase != "ready":
            raise RuntimeFailure("the sandbox is stopped")
        namespace = None if pod.record.config.host_network else self._layout.pin(sandbox_id) / "net"
        return await portforward.connect(self._workers, namespace, port)

    async def reopen_log(self, container_id: str) -> None:
        """Start a new log file at the same path (after rotation)."""
        record = self._running(container_id).record
        if not record.log_path:
            return
        before = _inode(record.log_path)
        with _failures(""):
            attach.control(self._layout.container(container_id), 2)
        deadline = self._clock.monotonic() + _LOG_PATIENCE
        while _inode(record.log_path) in (0, before):
            if self._clock.monotonic() > deadline:
                raise RuntimeFailure(f"the monitor of container {container_id} did not reopen its log")
            await self._clock.sleep(0.002)

    def events(self) -> AsyncIterator[ContainerEvent]:
        """Events from now on; every caller gets all of them."""
        return self._events.subscribe()


@contextlib.contextmanager
def _failures(reason: str) -> Iterator[None]:
    """Turn what goes wrong in here into a RuntimeFailure with `reason`."""
    try:
        yield
    except RuntimeFailure as error:
        error.reason = error.reason or reason
        raise
    except (OSError, ValueError, LookupError) as error:
        raise RuntimeFailure(str(error), reason) from error


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def _signal(name: str) -> int:
    if name.isdigit():
        return int(name)
    text = name.upper().removeprefix("SIG")
    if text.startswith("RTMIN"):
        return signal.SIGRTMIN + int(text[5:] or 0)
    return getattr(signal, f"SIG{text}", signal.SIGTERM)
