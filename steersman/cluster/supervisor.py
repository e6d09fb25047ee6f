"""The process that keeps a cluster's processes running.

Owns forking, restarting and stopping the children of one profile. What they need is imported once and forked, so that
they share memory and start in milliseconds; it holds the API server's listening sockets, so that clients wait rather
than fail while the API server restarts. It knows no component: it is handed functions to run. Called by `launch.py`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_RESTART_FIRST, _RESTART_MOST = 0.05, 5.0  # seconds
_STABLE = 30.0  # seconds a child must live for its back-off to be forgotten
_STOP_GRACE = 10.0  # seconds between TERM and KILL

Run = Callable[[], None]
"""A child's whole life; it returns when it got SIGTERM and has cleaned up."""


@dataclass
class _Child:
    name: str
    run: Run
    pid: int = 0
    started: float = 0.0
    delay: float = _RESTART_FIRST
    due: float = 0.0  # when to start it again


def name_process(name: str) -> None:
    """What `ps` and `top` show."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def die_with_parent() -> None:
    """Get SIGTERM when the supervisor dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def log_to(path: Path) -> None:
    """Send standard output and error to a file, appended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


class Supervisor:
    """Runs children until SIGTERM. All its waiting is one `sigtimedwait`: an idle cluster does not wake it."""

    def __init__(self, run_directory: Path, logs: Path, children: Sequence[tuple[str, Run]]) -> None:
        self._directory = run_directory
        self._logs = logs
        self._children = [_Child(name, run) for name, run in children]

    def main(self) -> None:
        """Start everything, keep it running, stop it on SIGTERM or SIGINT."""
        signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        gc.collect()
        gc.freeze()
        self._write_state()
        while True:
            self._start_due()
            got = signal.sigtimedwait(signals, self._patience())
            if got is not None and got.si_signo != signal.SIGCHLD:
                break
            self._reap()
        self._stop()

    def _patience(self) -> float:
        due = [child.due for child in self._children if not child.pid]
        return max(0.0, min(due) - time.monotonic()) if due else 3600.0  # noqa: TID251

    def _start_due(self) -> None:
        now = time.monotonic()  # noqa: TID251
        started = False
        for child in self._children:
            if not child.pid and child.due <= now:
                child.pid, child.started, started = self._fork(child), now, True
        if started:
            self._write_state()

    def _fork(self, child: _Child) -> int:
        parent = os.getpid()
        pid = os.fork()
        if not pid:
            self._live(child, parent)
        return pid

    def _live(self, child: _Child, parent: int) -> NoReturn:
        """The child's side of the fork."""
        code = 1
        try:
            die_with_parent()
            if os.getppid() != parent:
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            name_process(f"steer-{child.name}")
            log_to(self._logs / f"{child.name}.log")
            child.run()
            code = 0
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for child in self._children:
                if child.pid == pid:
                    self._ended(child, status)

    def _ended(self, child: _Child, status: int) -> None:
        now = time.monotonic()  # noqa: TID251
        if now - child.started > _STABLE:
            child.delay = _RESTART_FIRST
        code = os.waitstatus_to_exitcode(status)
        print(f"{child.name} (pid {child.pid}) ended with {code}; next start in {child.delay:.2f} s", flush=True)
        child.pid, child.due = 0, now + child.delay
        child.delay = min(child.delay * 2, _RESTART_MOST)
        self._write_state()

    def _write_state(self) -> None:
        state = {"supervisor": os.getpid(), "children": {child.name: child.pid for child in self._children}}
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._directory / "processes.tmp"
        temporary.write_text(json.dumps(state))
        temporary.replace(self._directory / "processes.json")

    def _stop(self) -> None:
        """TERM in reverse order of start, each waited for, so that those who report can still do so."""
        for child in reversed(self._children):
            if not child.pid:
                continue
            os.kill(child.pid, signal.SIGTERM)
            deadline = time.monotonic() + _STOP_GRACE  # noqa: TID251
            while child.pid and (left := deadline - time.monotonic()) > 0:  # noqa: TID251
                self._wait_for(child, left)
            if child.pid:
                os.kill(child.pid, signal.SIGKILL)
                os.waitpid(child.pid, 0)
                child.pid = 0
        (self._directory / "processes.json").unlink(missing_ok=True)

    def _wait_for(self, child: _Child, seconds: float) -> None:
        signal.sigtimedwait({signal.SIGCHLD}, min(seconds, 0.5))
        pid, _ = os.waitpid(child.pid, os.WNOHANG)
        if pid:
            child.pid = 0


def processes(run_directory: Path) -> dict[str, int]:
    """Process ids by name as last written, {} when nothing runs. `supervisor` is one of them."""
    try:
        state = json.loads((run_directory / "processes.json").read_text())
        pids = {"supervisor": int(state["supervisor"])} | {k: int(v) for k, v in state["children"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return pids if alive(pids["supervisor"]) else {}


def alive(pid: int) -> bool:
    """Whether `pid` is a running steer process (not a zombie, not somebody who got its number)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return "(steer" in stat and stat.rpartition(")")[2].split()[0] != "Z"
