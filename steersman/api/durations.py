"""Durations as Go writes them: `1h30m`, `-1.5s`, `250ms`. Pure.

Source: Go's time.ParseDuration, whose complaints these are.
"""

from __future__ import annotations

import re

from steersman.api.validation import quote

_PART = re.compile(r"(\d*)(?:(\.)(\d*))?([^.\d]*)", re.ASCII)
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 2**63 / 1e9  # seconds: 64 bits of nanoseconds


def seconds(text: str) -> float:
    """The duration in seconds. Raises ValueError as Go would."""
    body = text[1:] if text[:1] in ("+", "-") else text
    if body == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(body) or not body:
        found = _PART.match(body, at)
        if found is None or not (found[1] or found[3]):
            raise ValueError(f"time: invalid duration {quote(text)}")
        if not found[4]:
            raise ValueError(f"time: missing unit in duration {quote(text)}")
        if found[4] not in _SECONDS:
            raise ValueError(f"time: unknown unit {quote(found[4])} in duration {quote(text)}")
        if len(found[1]) > 19:
            raise ValueError(f"time: invalid duration {quote(text)}")
        total += float(f"{found[1] or 0}.{found[3] or 0}") * _SECONDS[found[4]]
        at = found.end()
    if total >= _LONGEST:
        raise ValueError(f"time: invalid duration {quote(text)}")
    return -total if text[0] == "-" else total


def show(nanos: int) -> str:
    """`1m30s` for 90 seconds in nanoseconds, as Go's time.Duration prints it."""
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    if rest < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1000), ("ns", 1)):
            if rest >= size:
                return f"{sign}{rest / size:g}{unit}"
        return "0s"
    minutes, small = divmod(rest, 60_000_000_000)
    hours, minutes = divmod(minutes, 60)
    whole, fraction = divmod(small, 1_000_000_000)
    seconds = f"{whole}.{fraction:09d}".rstrip("0") if fraction else str(whole)
    text = f"{seconds}s"
    if minutes or hours:
        text = f"{minutes}m{text}"
    return sign + (f"{hours}h{text}" if hours else text)
