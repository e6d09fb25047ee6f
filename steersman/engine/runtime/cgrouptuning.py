"""One setting of the cgroup hierarchy that halves the time to create a container: `favordynmods`.

Moving a process into a cgroup waits for an RCU grace period (10 to 25 ms) unless the hierarchy is mounted with this
option, which makes forks a little dearer instead. Only speed depends on it: where it cannot be set, nothing is said.
Source: cgroup-v2.rst, mount options. Owns setting it and taking it back; called by `prepare.py` and `purge.py`.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from steersman.engine.runtime import kernel

log = logging.getLogger(__name__)

_OPTION = "favordynmods"
_KIND = "cgroup2"


def favor(marker: Path) -> None:
    """Set the option on the version 2 hierarchy; `marker` notes that we did."""
    found = _hierarchy()
    if found is None or _OPTION in found[1]:
        return
    try:
        kernel.reconfigure(found[0], [*found[1], _OPTION])
        marker.touch()
    except OSError as error:
        log.debug("no %s on %s: %s", _OPTION, found[0], error)


def restore(marker: Path) -> None:
    """Take the option back if `favor` set it."""
    found = _hierarchy()
    if marker.exists() and found is not None and _OPTION in found[1]:
        with contextlib.suppress(OSError):
            kernel.reconfigure(found[0], [option for option in found[1] if option != _OPTION])


def _hierarchy() -> tuple[str, list[str]] | None:
    """Where the version 2 hierarchy is mounted, and its options."""
    for line in Path("/proc/thread-self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        if kind == _KIND:
            return mount.split(" ", 5)[4], [option for option in options.split(",") if option not in ("rw", "ro")]
    return None
