"""Schedules in cron's five fields: which times they name, in which time zone.

Pure. Source: crontab(5), and the forms that Kubernetes documents: `@hourly` and its like, `@every 1h30m`. Like the
original, a time that the clocks skip does not happen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

_NAMED = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS = {"janfebmaraprmayjunjulaugsepoctnovdec"[3 * each : 3 * each + 3]: each + 1 for each in range(12)}
_DAYS = {"sunmontuewedthufrisat"[3 * each : 3 * each + 3]: each for each in range(7)}
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(?:\d+(?:\.\d*)?(?:h|ms|us|µs|ns|m|s))+")
_KNOWN = 64  # answers that a schedule remembers
_HORIZON = 366 * 5  # days: a schedule without a time in five years has none


class Schedule(Protocol):
    """Times in Unix seconds."""

    def after(self, since: float) -> float | None:
        """The first time after `since`; None when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Every:
    """The same distance again and again, in whole seconds."""

    seconds: float

    def after(self, since: float) -> float:
        """The first time after `since`."""
        return float(int(since)) + self.seconds


@dataclass(frozen=True, slots=True)
class Fields:
    """Cron's five fields. A day matches by either of day and weekday when both are restricted, else by both."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool
    zone: tzinfo
    _known: dict[float, float | None] = field(default_factory=dict, compare=False, repr=False)  # asked again and again

    def _day_matches(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_day or by_weekday if self.either else by_day and by_weekday

    def _times(self, start: datetime) -> Iterator[float]:
        """Times day by day from `start`'s day on."""
        day = start.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        for passed in range(_HORIZON):
            if self._day_matches(day):
                for hour in self.hours:
                    if not passed and hour < start.hour:
                        continue
                    for minute in self.minutes:
                        yield from self._instants(day.replace(hour=hour, minute=minute))
            day += timedelta(days=1)

    def _instants(self, local: datetime) -> Iterator[float]:
        """A wall-clock time as instants: none when it is skipped, two when the clocks run through it twice."""
        if self.zone is UTC:
            yield local.replace(tzinfo=UTC).timestamp()
            return
        found = []
        for fold in (0, 1):
            aware = local.replace(tzinfo=self.zone, fold=fold)
            instant = aware.timestamp()
            back = datetime.fromtimestamp(instant, self.zone)
            if back.replace(tzinfo=None, fold=0) == local and instant not in found:
                found.append(instant)
        if len(found) == 2 and len(self.hours) < 24:
            found = found[:1]  # a job for one hour of the day runs once
        yield from found

    def after(self, since: float) -> float | None:
        """The first time after `since`."""
        if since not in self._known:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            start = datetime.fromtimestamp(since, self.zone)
            self._known[since] = next((each for each in self._times(start) if each > since), None)
        return self._known[since]


@lru_cache(maxsize=4096)
def parse(text: str, zone: tzinfo = UTC) -> Schedule:
    """The schedule that `text` describes. Raises ValueError."""
    text = text.strip()
    if text.startswith(("TZ=", "CRON_TZ=")):
        name, _, text = text.partition("=")[2].partition(" ")
        try:
            zone = ZoneInfo(name)
        except (ValueError, OSError, KeyError):
            raise ValueError(f"provided bad location {name}: unknown time zone {name}") from None
        text = text.strip()
    if text.startswith("@every "):
        return Every(_duration(text.removeprefix("@every ").strip()))
    if text.startswith("@"):
        if text not in _NAMED:
            raise ValueError(f"unrecognized descriptor: {text}")
        text = _NAMED[text]
    parts = text.split()
    if len(parts) != 5:
        raise ValueError(f"expected exactly 5 fields, found {len(parts)}: {parts}")
    minutes, hours, days, months, weekdays = parts
    return Fields(
        tuple(sorted(_field(minutes, 0, 59))),
        tuple(sorted(_field(hours, 0, 23))),
        frozenset(_field(days, 1, 31)),
        frozenset(_field(months, 1, 12, _MONTHS)),
        frozenset(_field(weekdays, 0, 6, _DAYS)),
        not (_is_star(days) or _is_star(weekdays)),
        zone,
    )


def _is_star(field: str) -> bool:
    return any(part.split("/")[0] in ("*", "?") for part in field.split(","))


def _field(text: str, low: int, high: int, names: dict[str, int] | None = None) -> set[int]:
    out: set[int] = set()
    for part in text.split(","):
        span, slash, every = part.partition("/")
        step = _number(every, {}) if slash else 1
        if step < 1:
            raise ValueError(f"step of range should be a positive number: {part}")
        first, dash, last = span.partition("-")
        if span in ("*", "?"):
            begin, end = low, high
        else:
            begin = _number(first, names or {})
            end = _number(last, names or {}) if dash else (high if slash else begin)
        if begin < low:
            raise ValueError(f"beginning of range ({begin}) below minimum ({low}): {part}")
        if end > high:
            raise ValueError(f"end of range ({end}) above maximum ({high}): {part}")
        if begin > end:
            raise ValueError(f"beginning of range ({begin}) beyond end of range ({end}): {part}")
        out.update(range(begin, end + 1, step))
    return out


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise ValueError(f"failed to parse int from {text}")
    return int(text)


def _duration(text: str) -> float:
    if not _DURATION.fullmatch(text):
        raise ValueError(f"failed to parse duration @every {text}")
    found = re.findall(r"(\d+(?:\.\d*)?)(h|ms|us|µs|ns|m|s)", text)
    return max(float(int(sum(float(count) * _UNITS[unit] for count, unit in found))), 1.0)
