"""The OCI runtime (crun, else runc) and conmon: their command lines, and how they are started.

Owns the spawning of these two programs and the reading of their answers. Every function blocks and runs in a worker.
conmon keeps a container's stdio, log and exit code when the agent dies. In cgroup hybrid mode crun refuses to work
while it sees controllers in `unified`, so it is started in a mount namespace where that tree is not there.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import kernel
from steersman.engine.runtime.records import Process
from steersman.engine.runtime.workers import Workers

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_UNIFIED = "/sys/fs/cgroup/unified"
_PATIENCE = 120.0  # seconds for the OCI runtime to create a container


@dataclass(frozen=True, slots=True)
class Programs:
    """Absolute paths of the OCI runtime and of conmon."""

    runtime: str
    conmon: str

    @property
    def is_crun(self) -> bool:
        """Whether the runtime takes crun's annotations and console socket."""
        return os.path.basename(self.runtime).startswith("crun")


def find_programs(runtime: str = "") -> Programs:
    """Look the programs up on PATH and in sbin. Raises RuntimeFailure saying what to install."""
    path = f"{os.environ.get('PATH', '')}:{_ENVIRONMENT['PATH']}"
    found = next(
        (where for name in ([runtime] if runtime else ["crun", "runc"]) if (where := shutil.which(name, path=path))),
        None,
    )
    conmon = shutil.which("conmon", path=path)
    if found is None or conmon is None:
        wanted = (runtime or "crun") if found is None else "conmon"
        raise RuntimeFailure(f"{wanted} is not installed: install the package {os.path.basename(wanted)}")
    return Programs(found, conmon)


def spawn(
    words: Sequence[str], stdio: Sequence[int], extra: Sequence[tuple[int, int]] = (), env: dict[str, str] | None = None
) -> int:
    """Start a program in its own session; `stdio` are its 0, 1 and 2, `extra` pairs (ours, theirs). Returns the pid."""
    pairs = [*((fd, number) for number, fd in enumerate(stdio)), *extra]
    # lift ours above theirs first, so that no copy overwrites one still to be copied
    above = 1 + max(max(pair) for pair in pairs)
    lifted = [(fd, above + position, number) for position, (fd, number) in enumerate(pairs)]
    actions = [(os.POSIX_SPAWN_DUP2, fd, high) for fd, high, _ in lifted]
    actions += [(os.POSIX_SPAWN_DUP2, high, number) for _, high, number in lifted]
    actions += [(os.POSIX_SPAWN_CLOSE, high) for _, high, _ in lifted]
    return os.posix_spawn(words[0], list(words), _ENVIRONMENT | (env or {}), file_actions=actions, setsid=True)


def spawn_on_terminal(words: Sequence[str], terminal: str) -> int:
    """Start a program in its own session with `terminal` (a path) as its controlling terminal. Returns the pid."""
    # a session's leader gets the terminal that it opens
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, terminal, os.O_RDWR, 0),
        (os.POSIX_SPAWN_DUP2, 0, 1),
        (os.POSIX_SPAWN_DUP2, 0, 2),
    ]
    return os.posix_spawn(words[0], list(words), _ENVIRONMENT, file_actions=actions, setsid=True)


class OciRuntime:
    """crun or runc with a state directory."""

    def __init__(self, programs: Programs, state: Path, workers: Workers, *, hide_unified: bool) -> None:
        self.programs = programs
        self._state = state
        self._workers = workers
        self._hide = hide_unified and programs.is_crun
        self._quiet = -1  # a mount namespace for commands other than create, made at first use
        self._making = threading.Lock()

    def base(self, log: str = "") -> list[str]:
        """The command line up to the subcommand."""
        words = [self.programs.runtime, "--root", str(self._state)]
        return [*words, "--log", log, "--log-format", "json"] if log else words

    def hide_unified(self) -> None:
        """Take the unified hierarchy away from the calling thread's (private) mount namespace."""
        if self._hide:
            kernel.unmount(_UNIFIED)

    @contextlib.contextmanager
    def quarters(self) -> Iterator[None]:
        """Where every command but create is started: a mount namespace without the unified hierarchy."""
        if not self._hide:
            yield
            return
        with self._workers.away("mnt"):
            with self._making:
                if self._quiet < 0:
                    kernel.unshare(kernel.CLONE_NEWNS)
                    kernel.mount("", "/", flags=kernel.MS_REC | kernel.MS_SLAVE)
                    self.hide_unified()
                    self._quiet = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            kernel.setns(self._quiet, kernel.CLONE_NEWNS)
            yield

    def create(self, container_id: str, bundle: Path, options: Sequence[str], exits: Path) -> tuple[Process, Process]:
        """Run conmon, which runs create, in the calling thread's namespaces. Returns the first process and conmon."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        words = [self.programs.conmon, "-c", container_id, "-u", container_id, "-n", container_id]
        words += ["-r", self.programs.runtime, "-b", str(bundle), "--exit-dir", str(exits), "--full-attach"]
        words += ["-p", str(bundle / "pid"), "-P", str(bundle / "monitor.pid"), "--no-sync-log"]
        words += [f"--runtime-arg={word}" for word in ("--root", str(self._state))]
        try:
            env = {"_OCI_SYNCPIPE": "3", "TMPDIR": "/tmp"}
            parent = spawn([*words, *options], (null, null, null), ((write_end, 3),), env)
            os.close(write_end)
            write_end = -1
            os.waitpid(parent, 0)
            pid = _read_pid(read_end)
        finally:
            for fd in (read_end, write_end, null):
                if fd >= 0:
                    os.close(fd)
        monitor = int((bundle / "monitor.pid").read_text(encoding="ascii"))
        return Process(pid, kernel.process_start(pid)), Process(monitor, kernel.process_start(monitor))

    def command(self, *words: str) -> str:
        """Run a subcommand to its end; returns its output. Raises RuntimeFailure with its error."""
        output = os.memfd_create("out")
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            with self.quarters():
                pid = spawn([*self.base(), *words], (null, output, output))
            _, status = os.waitpid(pid, 0)
            text = os.pread(output, 65536, 0).decode(errors="replace").strip()
        finally:
            os.close(output)
            os.close(null)
        if status != 0:
            raise RuntimeFailure(f"{os.path.basename(self.programs.runtime)} {words[0]}: {text or 'failed'}")
        return text

    def start(self, container_id: str) -> None:
        """Let a created container go on. Raises RuntimeFailure or OSError when its first process is gone."""
        fifo = self._state / container_id / "exec.fifo"
        if not self.programs.is_crun or not fifo.exists():
            self.command("start", container_id)
            return
        # all that `crun start` does here, without its 4 ms
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fifo.unlink()
            os.write(fd, b"\0")
        finally:
            os.close(fd)

    def delete(self, container_id: str) -> None:
        """Kill and forget a container; idempotent."""
        if (self._state / container_id).exists():
            with contextlib.suppress(RuntimeFailure):
                self.command("delete", "--force", container_id)
        shutil.rmtree(self._state / container_id, ignore_errors=True)

    def was_started(self, container_id: str) -> bool:
        """Whether a created container was told to go on."""
        try:
            return json.loads(self.command("state", container_id)).get("status") != "created"
        except (RuntimeFailure, ValueError):
            return False

    def close(self) -> None:
        """Let go of the mount namespace."""
        if self._quiet >= 0:
            os.close(self._quiet)
            self._quiet = -1


def _read_pid(fd: int) -> int:
    data = b""
    while not data.endswith(b"\n"):
        if not select.select([fd], [], [], _PATIENCE)[0]:
            raise RuntimeFailure("the container runtime did not answer")
        if not (chunk := os.read(fd, 65536)):
            break
        data += chunk
    try:
        answer = json.loads(data.splitlines()[0])
        pid = int(answer.get("pid", answer.get("data", -1)))
    except (IndexError, ValueError, AttributeError):
        raise RuntimeFailure(f"the container monitor gave no answer: {data[:200]!r}") from None
    if pid <= 0:
        raise RuntimeFailure(str(answer.get("message") or "the container runtime failed").strip())
    return pid


def send_signal(process: Process, number: int) -> bool:
    """Signal a process unless it is gone or its pid belongs to another by now; returns whether it was there."""
    if process.pid <= 0:
        return False
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if kernel.process_start(process.pid) != process.start:
            return False
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True
