"""How long a container that keeps ending must wait before it runs again.

Owns the back-off of one pod's containers: none before the first restart, then 10 s doubled up to 300 s, forgotten when
a run lasted twice the maximum. Pure: the caller says when. Source: Pod lifecycle documentation, container restarts.
"""

from __future__ import annotations

from steersman.kubelet.plan import Hold

INITIAL = 10.0
MAXIMUM = 300.0


class CrashLoop:
    """Back-off by container name. Times are Unix seconds."""

    def __init__(self, pod: str) -> None:
        """`pod`: its full name, for messages."""
        self._pod = pod
        self._entries: dict[str, tuple[float, float]] = {}  # delay, when it was set

    def hold(self, name: str, finished_at: float, now: float) -> Hold | None:
        """Until when a container whose last run ended at `finished_at` must wait, if it must."""
        delay, since = self._entries.get(name, (0.0, 0.0))
        if not delay or finished_at - since > 2 * MAXIMUM or now - finished_at >= delay:
            return None
        message = f"back-off {duration(delay)} restarting failed container={name} pod={self._pod}"
        return Hold(finished_at + delay, "CrashLoopBackOff", message)

    def restarted(self, name: str, finished_at: float, now: float) -> None:
        """A container whose last run ended at `finished_at` runs again: the next wait is longer."""
        delay, since = self._entries.get(name, (0.0, 0.0))
        if not delay or finished_at - since > 2 * MAXIMUM:
            self._entries[name] = (INITIAL, now)
        else:
            self._entries[name] = (min(delay * 2, MAXIMUM), now)


def duration(seconds: float) -> str:
    """Seconds as Go prints a duration: `10s`, `1m20s`, `1.5s`, `250ms`."""
    if seconds < 1:
        return f"{seconds * 1000:g}ms" if seconds else "0s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    rest = round(rest, 3)
    if hours:
        return f"{hours}h{minutes}m{rest:g}s"
    return f"{minutes}m{rest:g}s" if minutes else f"{rest:g}s"
