"""Running a further command inside a container.

Owns `exec` sessions: the OCI runtime's exec as a child process, its streams, its exit code, its end. With a terminal
the runtime hands the master of a pseudo-terminal made inside the container to a socket of ours (crun).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import signal
import socket
import struct
import termios
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from steersman.engine.interface import ExecResult, RuntimeFailure
from steersman.engine.runtime import spec
from steersman.engine.runtime.oci import OciRuntime, spawn, spawn_on_terminal
from steersman.engine.runtime.streams import Reader, Writer
from steersman.engine.runtime.workers import Workers

_MOST_OUTPUT = 16 << 20  # bytes that exec_sync keeps of each stream (CRI's limit)
_PATIENCE_MS = 60_000  # for the runtime to hand over the terminal


@dataclass(slots=True)
class _Started:
    pid: int
    directory: Path
    stdin: int = -1
    stdout: int = -1
    stderr: int = -1


def _start(
    oci: OciRuntime, container_id: str, bundle: Path, words: Sequence[str], *, tty: bool, stdin: bool
) -> _Started:
    """Start the OCI runtime's exec, in a worker."""
    first = json.loads((bundle / "config.json").read_bytes())["process"]
    document = msgspec.json.encode(spec.exec_process(first, words, tty=tty))
    directory = bundle / "execs" / secrets.token_hex(4)
    directory.mkdir(mode=0o700, parents=True)
    (directory / "process.json").write_bytes(document)
    command = [*oci.base(str(directory / "log")), "exec", "--process", str(directory / "process.json")]
    command += ["--pid-file", str(directory / "pid")]
    try:
        if tty and oci.programs.is_crun:
            return _start_with_terminal(oci, command, container_id, directory)
        if tty:
            return _start_behind_terminal(oci, [*command, "--tty", container_id], directory)
        return _start_with_pipes(oci, [*command, container_id], directory, stdin=stdin)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _start_with_pipes(oci: OciRuntime, command: list[str], directory: Path, *, stdin: bool) -> _Started:
    theirs: list[int] = []
    ours: list[int] = []
    try:
        for number in range(3):
            if number == 0 and not stdin:
                theirs.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
                ours.append(-1)
            else:
                pair = os.pipe2(os.O_CLOEXEC)
                theirs.append(pair[number != 0])
                ours.append(pair[number == 0])
        with oci.quarters():
            pid = spawn(command, theirs)
    except BaseException:
        for fd in filter(lambda fd: fd >= 0, ours):
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    return _Started(pid, directory, *ours)


def _start_with_terminal(oci: OciRuntime, command: list[str], container_id: str, directory: Path) -> _Started:
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    # socket addresses are short and state directories may be deep: name the socket by an open directory
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{handle}/console")
        listener.listen(1)
        where = f"/proc/{os.getpid()}/fd/{handle}/console"
        with oci.quarters():
            pid = spawn([*command, "--tty", "--console-socket", where, container_id], (null, null, null))
        master = _receive_terminal(listener, pid)
        return _Started(pid, directory, os.dup(master) if master >= 0 else -1, master)
    finally:
        listener.close()
        os.close(handle)
        os.close(null)


def _start_behind_terminal(oci: OciRuntime, command: list[str], directory: Path) -> _Started:
    """For runc, which gives its console away only when it does not wait: a terminal of ours around runc's own."""
    master, slave = os.openpty()
    try:
        name = os.ttyname(slave)
        with oci.quarters():
            pid = spawn_on_terminal(command, name)
        return _Started(pid, directory, os.dup(master), master)
    except BaseException:
        os.close(master)
        raise
    finally:
        os.close(slave)


def _receive_terminal(listener: socket.socket, pid: int) -> int:
    """The descriptor that the runtime sends, or -1 when it ends without (its log says why)."""
    process = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(process, select.POLLIN)
        if listener.fileno() not in dict(poll.poll(_PATIENCE_MS)):
            return -1
        connection, _ = listener.accept()
        with connection:
            fds = socket.recv_fds(connection, 4096, 1)[1]
    finally:
        os.close(process)
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds[0] if fds else -1


class ExecSession:
    """A command running in a container. Implements `engine.interface.Session`."""

    def __init__(self, started: _Started, workers: Workers, *, tty: bool) -> None:
        self._directory = started.directory
        self._pid = started.pid
        self._workers = workers
        self._tty = tty
        self._terminal = started.stdout if tty else -1
        self._stdin = Writer(started.stdin) if started.stdin >= 0 else None
        self._stdout = Reader(started.stdout) if started.stdout >= 0 else None
        self._stderr = Reader(started.stderr) if started.stderr >= 0 else None
        loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = loop.create_future()
        self._pidfd = os.pidfd_open(self._pid)
        loop.add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        for reader in (self._stdout, self._stderr):
            if reader is not None:
                reader.end()
        if not self._exit.done():
            self._exit.set_result(os.waitstatus_to_exitcode(status))

    def write(self, data: bytes) -> None:
        """Send to standard input."""
        if self._stdin is not None:
            self._stdin.write(data)

    async def drain(self) -> None:
        """Wait until standard input has taken what was written."""
        if self._stdin is not None:
            await self._stdin.drain()

    def close_stdin(self) -> None:
        """End of standard input; with a terminal, its end-of-file character."""
        if self._stdin is not None:
            if self._tty:
                self._stdin.write(b"\x04")
            else:
                self._stdin.finish()

    async def read_stdout(self) -> bytes:
        """Some output; empty at the end."""
        return await self._stdout.read() if self._stdout is not None else b""

    async def read_stderr(self) -> bytes:
        """Some error output; empty at the end, and always with a terminal."""
        return await self._stderr.read() if self._stderr is not None else b""

    def resize(self, width: int, height: int) -> None:
        """Change the terminal's size, in characters."""
        if self._terminal >= 0 and 0 <= width < 65536 and 0 <= height < 65536:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def wait(self) -> int:
        """The exit code. Raises RuntimeFailure when the command could not be started."""
        code = await asyncio.shield(self._exit)
        error = _logged_error(self._directory)
        if error and code != 0:
            raise RuntimeFailure(error)
        return 128 - code if code < 0 else code

    def kill(self) -> None:
        """Kill the command, with its process group if it leads one."""
        if not self._pid:
            return
        try:
            # not the runtime's exec: an orphan of another PID namespace would hold up the container's end
            pid = int((self._directory / "pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            self._kill_starting()
            return
        _kill_with_group(pid)

    def _kill_starting(self) -> None:
        """Kill a command that may run although the runtime has not yet told its pid, and the runtime's exec."""
        os.kill(self._pid, signal.SIGSTOP)  # it starts nothing while its children are looked up
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text(encoding="ascii").split():
                _kill_with_group(int(child))
        os.kill(self._pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill what runs and free everything; safe to call twice."""
        if self._pid:
            self.kill()
            await asyncio.shield(self._exit)
        self._terminal = -1
        for stream in (self._stdin, self._stdout, self._stderr):
            if stream is not None:
                stream.close()
        await self._workers.run(shutil.rmtree, self._directory, ignore_errors=True)


def _kill_with_group(pid: int) -> None:
    """Kill a process, with its group if it leads one."""
    with contextlib.suppress(ProcessLookupError):
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)


def _logged_error(directory: Path) -> str:
    """What the OCI runtime had to say, if anything."""
    try:
        lines = (directory / "log").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        with contextlib.suppress(ValueError, AttributeError):
            entry = json.loads(line)
            if entry.get("level") == "error":
                return str(entry.get("msg"))
    return ""


async def open_session(
    oci: OciRuntime, workers: Workers, container_id: str, bundle: Path, words: Sequence[str], *, tty: bool, stdin: bool
) -> ExecSession:
    """Start a command with live streams. Raises RuntimeFailure, OSError or ValueError."""
    started: list[_Started] = []

    def start() -> None:
        started.append(_start(oci, container_id, bundle, words, tty=tty, stdin=stdin))

    try:
        await workers.run(start)
    except asyncio.CancelledError:
        if started:
            await ExecSession(started[0], workers, tty=tty).close()
        raise
    return ExecSession(started[0], workers, tty=tty)


async def run(session: ExecSession, timeout: float) -> ExecResult:
    """See a command through. Raises TimeoutError, having killed it, after `timeout` seconds (0: none)."""
    outputs = [bytearray(), bytearray()]

    async def collect(output: bytearray, stderr: bool) -> None:
        while data := await (session.read_stderr() if stderr else session.read_stdout()):
            output += data[: _MOST_OUTPUT - len(output)]

    try:
        async with asyncio.timeout(timeout or None):
            async with asyncio.TaskGroup() as group:
                group.create_task(collect(outputs[0], False))
                group.create_task(collect(outputs[1], True))
            code = await session.wait()
        return ExecResult(code, bytes(outputs[0]), bytes(outputs[1]))
    finally:
        await session.close()
