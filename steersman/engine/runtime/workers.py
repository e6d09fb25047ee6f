"""The threads in which the runtime changes namespaces and waits for the kernel.

Owns a thread pool whose threads have their own working directory and root (CLONE_FS), so that a job may enter other
namespaces and come back. The main thread never leaves its namespaces. A process started by a job starts in the
namespaces that the job is in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from steersman.engine.runtime import kernel

P = ParamSpec("P")
T = TypeVar("T")

_HOME = {
    "mnt": kernel.CLONE_NEWNS,
    "net": kernel.CLONE_NEWNET,
    "ipc": kernel.CLONE_NEWIPC,
    "uts": kernel.CLONE_NEWUTS,
    "pid": kernel.CLONE_NEWPID,  # of children to come
}


class Workers:
    """A pool of threads that always begin a job in the namespaces this object was made in."""

    def __init__(self, threads: int = 16) -> None:
        self._home = {name: os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in _HOME}
        self._pool = ThreadPoolExecutor(threads, "runtime", initializer=kernel.unshare, initargs=(kernel.CLONE_FS,))

    async def run(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job` in a worker and wait for it; a cancelled caller waits too, since a thread cannot be interrupted."""
        future = asyncio.wrap_future(self._pool.submit(job, *args, **kwargs))
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            future.exception()  # seen; the caller wants to hear of its cancellation
            raise cancelled
        return future.result()

    def run_blocking(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `job` in a worker, for callers without a loop."""
        return self._pool.submit(job, *args, **kwargs).result()

    def home_fd(self, name: str) -> int:
        """The open namespace `name` (mnt, net, ipc, uts, pid) that jobs begin in; owned by this object."""
        return self._home[name]

    @contextlib.contextmanager
    def away(self, *names: str) -> Iterator[None]:
        """Let a job change the namespaces `names` of its thread; it is brought home afterwards."""
        self._go_home(names)  # a thread that once failed to come home must not start from there
        try:
            yield
        finally:
            self._go_home(names)

    def _go_home(self, names: tuple[str, ...]) -> None:
        for name in names:
            kernel.setns(self._home[name], _HOME[name])

    def close(self) -> None:
        """Wait for running jobs and end the threads."""
        self._pool.shutdown()
        for fd in self._home.values():
            os.close(fd)
        self._home.clear()
