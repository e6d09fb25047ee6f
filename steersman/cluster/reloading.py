"""Files of the API server that are read anew when they change: who signs clients, its certificate, and the two
configurations of who is believed and who is asked.

Owns the following of files and the metrics of what came of it. Called by `apiserver.py`. A file that cannot be used
changes nothing. The token file, kubeconfigs and keys of service accounts are read once, as in the original. Source:
apiserver's pkg/server/dynamiccertificates, pkg/util/filesystem and the options' authenticationconfig/metrics.
"""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from steersman.lib.clock import Clock
from steersman.lib.inotify import DirectoryWatch
from steersman.lib.metrics import Registry
from steersman.lib.tasks import Tasks

log = logging.getLogger(__name__)

_LOOK = 60.0  # seconds between looks where nothing tells of a change

Contents = Mapping[Path, bytes]
Act = Callable[[], Awaitable[None] | None]
"""What to do after a change. Raises OSError and ValueError when the files cannot be used."""


class Metrics:
    """What became of one configuration's file: `name` is authentication or authorization."""

    def __init__(self, name: str, path: Path) -> None:
        self.registry = of = Registry()
        prefix, both = f"apiserver_{name}_config_controller_", ("status", "apiserver_id_hash")
        self._count = of.counter(f"{prefix}automatic_reloads_total", "Files read anew.", both)
        self._last = of.gauge(f"{prefix}automatic_reload_last_timestamp_seconds", "When that was last done.", both)
        self._info = of.gauge(f"{prefix}last_config_info", "The file in use.", ("apiserver_id_hash", "hash"))
        self._server = _hash(f"apiserver-{socket.gethostname()}".encode())
        self._path, self._used = path, ""
        self._in_use()

    def reloaded(self, now: float, *, well: bool) -> None:
        """The file was read anew; `now` in Unix seconds."""
        labels = "success" if well else "failure", self._server
        self._count.labels(*labels).value += 1
        self._last.labels(*labels).set(now)
        if well:
            self._in_use()

    def _in_use(self) -> None:
        self._info.forget(self._server, self._used)
        self._used = _hash(_content(self._path))
        self._info.labels(self._server, self._used).set(1)


class Follower:
    """Follows any number of files."""

    def __init__(self, clock: Clock, tasks: Tasks) -> None:
        self._clock = clock
        self._tasks = tasks

    def follow(self, what: str, paths: Sequence[Path], act: Act, metrics: Metrics | None = None) -> None:
        """From now on call `act` when one of the files has become another; `what` is for the log."""
        for folder in {path.parent for path in paths}:
            here = [path for path in paths if path.parent == folder]
            seen = {path: _content(path) for path in here}
            self._tasks.spawn(self._follow(what, folder, seen, act, metrics), f"changes of {what}")

    async def _follow(self, what: str, folder: Path, seen: Contents, act: Act, metrics: Metrics | None) -> None:
        watch = DirectoryWatch(folder)
        try:
            while True:
                found = {path: _content(path) for path in seen}
                if found != seen:
                    seen = found
                    well = await _done(what, act)
                    if metrics is not None:
                        metrics.reloaded(self._clock.now(), well=well)
                await watch.wait(_LOOK)
        finally:
            watch.close()


async def _done(what: str, act: Act) -> bool:
    try:
        doing = act()
        if doing is not None:
            await doing
    except (OSError, ValueError) as error:
        log.error("cannot reload %s: %s", what, error)
        return False
    log.info("reloaded %s", what)
    return True


def _content(path: Path) -> bytes:
    """What is in a file; nothing where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _hash(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}" if data else ""
