"""A container engine without containers: the engine of simulated nodes, and of tests in virtual time.

Owns `FakeRuntime` and `FakeImages`, which keep `engine.interface`'s promises in memory. What a container does follows a
script: how long it runs, how it ends, what it prints, what its commands answer. Nothing waits but by the clock that is
handed over, so a thousand nodes can live a day in a second. It outlives a kubelet, as a real engine does.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steersman.engine.interface import (
    Container,
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    Credentials,
    ExecResult,
    Image,
    ImageConfig,
    NoSuchContainer,
    PullFailed,
    Resources,
    RuntimeFailure,
    Sandbox,
    SandboxConfig,
    SandboxState,
    Stats,
)
from steersman.lib.clock import rfc3339_micro
from steersman.lib.tasks import Tasks

if TYPE_CHECKING:
    from steersman.lib.clock import Clock
    from steersman.lib.http.messages import Duplex

Command = Callable[[Sequence[str]], ExecResult | None]
"""What a command answers; None: it never ends, and echoes its input where it has one."""
_KILLED = 137


def _does_nothing(command: Sequence[str]) -> ExecResult:
    return ExecResult(0, b"", b"")


@dataclass(frozen=True, slots=True)
class Script:
    """What one run of a container does. Times in seconds."""

    runs_for: float | None = None  # None: until it is stopped
    exit_code: int = 0  # at its own end
    reason: str = ""  # such as OOMKilled; by default Completed or Error
    stops_in: float = 0.0  # after the stop signal; more than the notice: it is killed
    stop_exit_code: int = 0  # when the signal ended it
    output: Sequence[str] = ()  # lines of its log
    message: str = ""  # what it writes to its termination message file
    answers: Command = _does_nothing  # to exec
    answer_in: float = 0.0  # how long a command takes
    start_failure: str = ""
    create_failure: str = ""
    cpu_cores: float = 0.01  # usage that stats show
    memory: int = 8 << 20


Scripts = Callable[[ContainerConfig], Script]


def scripted_by_environment(config: ContainerConfig) -> Script:
    """The default of simulated nodes: variables in the pod's spec say what a container does.

    SIMULATED_RUN_SECONDS, SIMULATED_EXIT_CODE, SIMULATED_STOP_SECONDS and SIMULATED_MEMORY_BYTES; without them it runs
    until it is stopped.
    """
    known = dict(config.env)
    seconds = known.get("SIMULATED_RUN_SECONDS")
    return Script(
        runs_for=float(seconds) if seconds else None,
        exit_code=int(known.get("SIMULATED_EXIT_CODE", "0")),
        stops_in=float(known.get("SIMULATED_STOP_SECONDS", "0")),
        memory=int(known.get("SIMULATED_MEMORY_BYTES", str(8 << 20))),
    )


@dataclass(slots=True)
class _Live:
    """A container and its script."""

    container: Container
    script: Script
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    life: asyncio.Task[None] | None = None


class FakeRuntime:
    """`engine.interface.Runtime` in memory."""

    def __init__(
        self,
        clock: Clock,
        *,
        scripts: Scripts = scripted_by_environment,
        images: FakeImages | None = None,
        pod_cidr: str = "10.244.0.0/16",
        sandbox_seconds: float = 0.0,
        start_seconds: float = 0.0,
    ) -> None:
        """`sandbox_seconds`, `start_seconds`: how long these take. `images`: only these can be started, if given."""
        self._clock = clock
        self.scripts = scripts
        self._images = images
        self._addresses = ipaddress.ip_network(pod_cidr).hosts()
        self._free: list[str] = []
        self._sandbox_seconds = sandbox_seconds
        self._start_seconds = start_seconds
        self._sandboxes: dict[str, Sandbox] = {}
        self._live: dict[str, _Live] = {}
        self._queues: set[asyncio.Queue[ContainerEvent]] = set()
        self._tasks = Tasks()
        self._count = 0
        self.calls: list[tuple[str, str]] = []  # (verb, name or id), in order, for tests
        self.sandbox_failures: list[str] = []  # the next attempts at a sandbox fail with these
        self.listeners: Mapping[int, Callable[[], Duplex]] = {}  # port to what answers port_forward

    async def start(self) -> None:
        """Nothing to find: memory never went away."""

    async def close(self) -> None:
        """Stop every script."""
        await self._tasks.close()

    def version(self) -> tuple[str, str]:
        """("simulated", "1")."""
        return "simulated", "1"

    # Sandboxes.

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        """A sandbox with an address of its own, unless it uses the host's network."""
        self.calls.append(("run_sandbox", config.name))
        if self._sandbox_seconds:
            await self._clock.sleep(self._sandbox_seconds)
        if self.sandbox_failures:
            raise RuntimeFailure(self.sandbox_failures.pop(0))
        ips = () if config.host_network else (self._free.pop() if self._free else str(next(self._addresses)),)
        made = Sandbox(self._id("s"), config, SandboxState.READY, self._clock.now(), ips)
        self._sandboxes[made.id] = made
        return made

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """Kill what runs in it; its address can be used again."""
        self.calls.append(("stop_sandbox", sandbox_id))
        found = self._sandboxes.get(sandbox_id)
        if found is None:
            return
        for live in self._of(sandbox_id):
            self._end(live, _KILLED, "Error")
        if found.state is SandboxState.READY:
            self._free.extend(found.ips)
            self._sandboxes[sandbox_id] = replace(found, state=SandboxState.NOTREADY, ips=())

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Forget it and its containers."""
        await self.stop_sandbox(sandbox_id)
        for live in list(self._of(sandbox_id)):
            await self.remove_container(live.container.id)
        self._sandboxes.pop(sandbox_id, None)

    def sandboxes(self) -> Sequence[Sandbox]:
        """Every sandbox."""
        return list(self._sandboxes.values())

    def lose_sandbox(self, sandbox_id: str) -> None:
        """For tests: the sandbox dies with everything in it, as after a reboot."""
        for live in self._of(sandbox_id):
            self._end(live, _KILLED, "Error")
        found = self._sandboxes[sandbox_id]
        self._sandboxes[sandbox_id] = replace(found, state=SandboxState.NOTREADY, ips=())

    # Containers.

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> Container:
        """Raises RuntimeFailure for a sandbox that is not ready, and when the script says so."""
        self.calls.append(("create_container", config.name))
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.state is not SandboxState.READY:
            raise RuntimeFailure(f"sandbox {sandbox_id} is not ready")
        if self._images is not None and self._images.find(config.image) is None:
            raise RuntimeFailure(f"no image {config.image}", "CreateContainerError")
        script = self.scripts(config)
        if script.create_failure:
            raise RuntimeFailure(script.create_failure, "CreateContainerError")
        log_path = str(Path(sandbox.config.log_directory) / config.log_path) if config.log_path else ""
        made = Container(
            self._id("c"),
            sandbox_id,
            config,
            ContainerState.CREATED,
            config.image,
            self._clock.now(),
            log_path=log_path,
            user=(config.security.run_as_user or 0, config.security.run_as_group or 0, ()),
        )
        self._live[made.id] = _Live(made, script)
        self._tell("created", made)
        return made

    async def start_container(self, container_id: str) -> None:
        """Begin its script."""
        live = self._found(container_id)
        self.calls.append(("start_container", live.container.config.name))
        if live.container.state is ContainerState.EXITED:
            raise RuntimeFailure(f"container {container_id} has ended", "RunContainerError")
        if live.container.state is not ContainerState.CREATED:
            return
        if self._start_seconds:
            await self._clock.sleep(self._start_seconds)
        now = self._clock.now()
        if live.script.start_failure:
            live.container = replace(
                live.container,
                state=ContainerState.EXITED,
                exit_code=128,
                reason="StartError",
                message=live.script.start_failure,
                finished_at=now,
            )
            live.ended.set()
            self._tell("exited", live.container)
            raise RuntimeFailure(live.script.start_failure, "RunContainerError")
        self._count += 1
        live.container = replace(live.container, state=ContainerState.RUNNING, started_at=now, pid=self._count)
        self._print(live)
        self._tell("started", live.container)
        if live.script.runs_for is not None:
            live.life = self._tasks.spawn(self._live_out(live, live.script.runs_for), f"script of {container_id}")

    async def _live_out(self, live: _Live, seconds: float) -> None:
        await self._clock.sleep(seconds)
        live.life = None
        self._end(live, live.script.exit_code, live.script.reason)

    def _print(self, live: _Live) -> None:
        path = live.container.log_path
        if path and live.script.output:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            stamp = rfc3339_micro(self._clock.now())
            with Path(path).open("a", encoding="utf-8") as file:
                file.writelines(f"{stamp} stdout F {line}\n" for line in live.script.output)

    def _end(self, live: _Live, exit_code: int, reason: str) -> None:
        if live.container.state is not ContainerState.RUNNING:
            return
        if live.life is not None:
            live.life.cancel()
        if live.script.message:
            for name, value in live.container.config.annotations.items():
                if name.endswith("termination-log"):
                    Path(value).write_text(live.script.message, encoding="utf-8")
        live.container = replace(
            live.container,
            state=ContainerState.EXITED,
            exit_code=exit_code,
            reason=reason or ("Completed" if exit_code == 0 else "Error"),
            finished_at=self._clock.now(),
            pid=0,
        )
        live.ended.set()
        self._tell("exited", live.container)

    def end(self, container_id: str, exit_code: int, reason: str = "") -> None:
        """For tests: its process ends now."""
        self._end(self._found(container_id), exit_code, reason)

    async def stop_container(self, container_id: str, timeout: float, signal: str = "") -> None:
        """The signal, then KILL; the script says which of them it hears."""
        live = self._found(container_id)
        self.calls.append(("stop_container", live.container.config.name))
        if live.container.state is not ContainerState.RUNNING:
            return
        heard = live.script.stops_in <= timeout
        wait = min(live.script.stops_in, timeout)
        if wait:
            await self._clock.sleep(wait)
        self._end(live, live.script.stop_exit_code if heard else _KILLED, "")

    async def remove_container(self, container_id: str) -> None:
        """Kill and forget it."""
        live = self._live.get(container_id)
        if live is None:
            return
        self.calls.append(("remove_container", live.container.config.name))
        self._end(live, _KILLED, "Error")
        del self._live[container_id]
        self._tell("deleted", live.container)

    def containers(self) -> Sequence[Container]:
        """Every container."""
        return [live.container for live in self._live.values()]

    def container(self, container_id: str) -> Container:
        """Raises NoSuchContainer."""
        return self._found(container_id).container

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        """Remember the new limits."""
        live = self._found(container_id)
        live.container = replace(live.container, config=replace(live.container.config, resources=resources))

    async def update_sandbox(self, sandbox_id: str, resources: Resources) -> None:
        """Note the new limits."""
        self.calls.append(("update_sandbox", f"{resources.cpu_quota} {resources.memory_limit}"))

    # Commands and streams.

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout: float) -> ExecResult:
        """What the script answers."""
        live = self._running(container_id)
        answer = live.script.answers(command)
        takes = float("inf") if answer is None else live.script.answer_in
        if timeout and takes > timeout:
            await self._clock.sleep(timeout)
            raise TimeoutError
        if answer is None:
            await live.ended.wait()
            return ExecResult(_KILLED, b"", b"")
        if takes:
            await self._clock.sleep(takes)
        return answer

    def _running(self, container_id: str) -> _Live:
        live = self._found(container_id)
        self.calls.append(("exec", live.container.config.name))
        if live.container.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f"container {container_id} is not running")
        return live

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> FakeSession:
        """A session that prints what the script answers, or echoes."""
        live = self._running(container_id)
        answer = live.script.answers(command)
        if answer is None:
            return FakeSession(ExecResult(0, b"", b""), live.ended, echo=True)
        return FakeSession(answer)

    async def attach(self, container_id: str, *, stdin: bool) -> FakeSession:
        """A session that prints the script's lines, echoes input where there is one, and ends with the container."""
        live = self._found(container_id)
        text = "".join(f"{line}\n" for line in live.script.output)
        return FakeSession(ExecResult(0, text.encode(), b""), live.ended, echo=live.container.config.stdin and stdin)

    async def port_forward(self, sandbox_id: str, port: int) -> Duplex:
        """What `listeners` has for the port."""
        listener = self.listeners.get(port)
        if sandbox_id not in self._sandboxes or listener is None:
            raise RuntimeFailure(f"connection refused: nothing listens on port {port}")
        return listener()

    async def stats(self, container_id: str) -> Stats:
        """Usage as the script says, growing with time."""
        live = self._found(container_id)
        now = self._clock.now()
        alive = now - live.container.started_at if live.container.started_at else 0.0
        used = live.script.memory if live.container.state is ContainerState.RUNNING else 0
        return Stats(now, int(alive * live.script.cpu_cores * 1e9), used, used, used, 0, 0, 1)

    async def reopen_log(self, container_id: str) -> None:
        """Nothing is held open."""
        self._found(container_id)

    def events(self) -> AsyncIterator[ContainerEvent]:
        """Events from this call on."""
        queue: asyncio.Queue[ContainerEvent] = asyncio.Queue()
        self._queues.add(queue)

        async def each() -> AsyncIterator[ContainerEvent]:
            try:
                while True:
                    yield await queue.get()
            finally:
                self._queues.discard(queue)

        return each()

    def _tell(self, kind: str, container: Container) -> None:
        for queue in self._queues:
            queue.put_nowait(ContainerEvent(kind, container.id, container.sandbox_id))

    def _found(self, container_id: str) -> _Live:
        live = self._live.get(container_id)
        if live is None:
            raise NoSuchContainer(f"no container {container_id}")
        return live

    def _of(self, sandbox_id: str) -> Iterable[_Live]:
        return [live for live in self._live.values() if live.container.sandbox_id == sandbox_id]

    def _id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count:063x}"


class FakeSession:
    """A session whose output is known beforehand, or is its input; it ends with `until`, or at once."""

    def __init__(self, result: ExecResult, until: asyncio.Event | None = None, *, echo: bool = False) -> None:
        self._result = result
        self._output: asyncio.Queue[bytes] = asyncio.Queue()
        self._stderr = result.stderr
        self._until = until
        self._echo = echo
        self._ended = False
        self._closed = asyncio.Event()
        self.received = b""
        self.size: tuple[int, int] | None = None
        if result.stdout:
            self._output.put_nowait(result.stdout)
        if until is None:
            self._closed.set()

    def write(self, data: bytes) -> None:
        """Keep what came, and echo it if that is what it does."""
        self.received += data
        if self._echo:
            self._output.put_nowait(data)

    async def drain(self) -> None:
        """Never full."""

    def close_stdin(self) -> None:
        """End of input: an echo ends."""
        if self._echo:
            self._closed.set()

    async def read_stdout(self) -> bytes:
        """Output as it comes, then empty."""
        if self._output.empty():
            await self._over(self._output)
        return b"" if self._output.empty() else self._output.get_nowait()

    async def _over(self, output: asyncio.Queue[bytes] | None) -> None:
        """Wait for the end, or for output."""
        if self._closed.is_set() or (self._until is not None and self._until.is_set()):
            return
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._closed.wait())]
        if self._until is not None:
            waits.append(asyncio.ensure_future(self._until.wait()))
        more = asyncio.ensure_future(output.get()) if output is not None else None
        await asyncio.wait({*waits, more} if more is not None else set(waits), return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        if more is not None and output is not None:
            if more.done():
                output.put_nowait(more.result())
            else:
                more.cancel()

    async def read_stderr(self) -> bytes:
        """The error output once, then empty at the end."""
        data, self._stderr = self._stderr, b""
        if not data:
            await self._over(None)
        return data

    def resize(self, width: int, height: int) -> None:
        """Note the size."""
        self.size = (width, height)

    async def wait(self) -> int:
        """The exit code."""
        await self._over(None)
        return self._result.exit_code

    async def close(self) -> None:
        """End it."""
        self._closed.set()


class FakeImages:
    """`engine.interface.Images` in memory: every reference can be pulled, unless it is said that it can not."""

    def __init__(self, clock: Clock, *, present: Iterable[str] = (), pull_seconds: float = 0.0) -> None:
        """`present`: references that are there from the start."""
        self._clock = clock
        self._images: dict[str, Image] = {}
        self._pull_seconds = pull_seconds
        self.failures: dict[str, PullFailed] = {}  # reference to what a pull of it raises
        self.configs: dict[str, ImageConfig] = {}  # reference to config, for what is pulled from now on
        self.credentials: list[Sequence[Credentials]] = []  # of each pull, for tests
        for reference in present:
            self._add(reference)

    def _add(self, reference: str) -> Image:
        name = _normal(reference)
        digest = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
        tags = () if "@" in name else (name,)
        repository = name.split("@")[0].rsplit(":", 1)[0]
        config = self.configs.get(reference, ImageConfig())
        image = Image(digest, tags, (f"{repository}@{digest}",), 1 << 20, config, created_at=self._clock.now())
        self._images[name] = image
        return image

    async def pull(self, reference: str, credentials: Sequence[Credentials] = ()) -> Image:
        """The image, after `pull_seconds`. Raises what `failures` says."""
        self.credentials.append(credentials)
        if self._pull_seconds:
            await self._clock.sleep(self._pull_seconds)
        if reference in self.failures:
            raise self.failures[reference]
        return self._add(reference)

    def find(self, reference: str) -> Image | None:
        """By reference, digest or id."""
        found = self._images.get(_normal(reference))
        if found is None:
            found = next((each for each in self._images.values() if reference in (each.id, *each.digests)), None)
        return found

    def list(self) -> Sequence[Image]:
        """Every image."""
        return list(self._images.values())

    async def remove(self, reference: str) -> None:
        """Forget it."""
        found = self.find(reference)
        self._images = {name: each for name, each in self._images.items() if each is not found}

    def used_bytes(self) -> tuple[int, int]:
        """Bytes and inodes."""
        return sum(each.size for each in self._images.values()), len(self._images)


def _normal(reference: str) -> str:
    first, slash, _ = reference.partition("/")
    if not slash:
        reference = f"docker.io/library/{reference}"
    elif "." not in first and ":" not in first and first != "localhost":
        reference = f"docker.io/{reference}"
    if "@" in reference or ":" in reference.rsplit("/", 1)[-1]:
        return reference
    return f"{reference}:latest"
