"""Keeping container logs small: a log that is too large is put aside, and only the newest few are kept.

Owns the files beside a container's log (`0.log.<time>`). Run by `agent`. Source: containerLogMaxSize and
containerLogMaxFiles of the original's configuration, 10 MiB and 5 files by default.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from steersman.engine.interface import Runtime, RuntimeFailure

if TYPE_CHECKING:
    from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_MAX_BYTES = 10 << 20
_MAX_FILES = 5
_PERIOD = 10.0


class LogRotation:
    """Rotation of the logs of every running container."""

    def __init__(
        self, runtime: Runtime, clock: Clock, *, max_bytes: int = _MAX_BYTES, max_files: int = _MAX_FILES
    ) -> None:
        self._runtime = runtime
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_files = max_files

    async def run(self) -> None:
        """Look at every log now and then, for ever."""
        while True:
            await self._clock.sleep(_PERIOD)
            await self.look()

    async def look(self) -> None:
        """Rotate what is too large."""
        for container in self._runtime.containers():
            if not container.pid or not container.log_path:
                continue
            path = Path(container.log_path)
            try:
                if self._put_aside(path):
                    await self._runtime.reopen_log(container.id)
            except (OSError, RuntimeFailure) as error:
                log.warning("cannot rotate %s: %s", path, error)

    def _put_aside(self, path: Path) -> bool:
        if not path.exists() or path.stat().st_size < self._max_bytes:
            return False
        stamp = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y%m%d-%H%M%S")
        path.rename(path.with_name(f"{path.name}.{stamp}"))
        older = sorted(path.parent.glob(f"{path.name}.*"))
        for each in older[: max(len(older) - (self._max_files - 1), 0)]:
            each.unlink()
        return True
