"""From usage to a number of replicas.

Pure: pods, samples and `now` (Unix seconds) in, a number out. Called by `metrics`. Amounts are in thousandths.
Source: kubernetes' pkg/controller/podautoscaler/replica_calculator.go.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from steersman.api.quantity import milli
from steersman.api.resource import Object
from steersman.client.workload import condition
from steersman.lib.clock import parse_rfc3339

_MOST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What the flags horizontal-pod-autoscaler-* say; in seconds, but for `tolerance`, a share.

    `cpu_start`: how long a starting pod's CPU says little; `ready_delay`: until when after its start unready means that
    it never was ready; `down_window`: the usual stabilization window.
    """

    period: float = 15.0
    tolerance: float = 0.1
    down_window: float = 300.0
    cpu_start: float = 300.0
    ready_delay: float = 30.0

    @staticmethod
    def of(config: Mapping[str, str]) -> Settings:
        """Those that are set, and the usual ones."""
        given = {
            "period": "sync-period",
            "tolerance": "tolerance",
            "down_window": "downscale-stabilization",
            "cpu_start": "cpu-initialization-period",
            "ready_delay": "initial-readiness-delay",
        }
        names = {field: f"horizontal-pod-autoscaler-{flag}" for field, flag in given.items()}
        return Settings(**{field: float(config[name]) for field, name in names.items() if name in config})


USUAL = Settings()


class Unable(Exception):
    """No number can be had; the text says why."""


class Sample(NamedTuple):
    """A pod's usage: amount, when its window ended (Unix seconds), and the window's seconds."""

    value: int
    at: float = 0.0
    window: float = 60.0


@dataclass(frozen=True)
class Tolerance:
    """How far usage may be from its target before anything changes, as fractions."""

    up: float = 0.1
    down: float = 0.1

    def within(self, ratio: float) -> bool:
        """Whether this is near enough."""
        return 1 - self.down <= ratio <= 1 + self.up


@dataclass(frozen=True)
class Proposal:
    """What one metric asks for, its name for people, and its MetricStatus."""

    replicas: int
    metric: str
    status: Object


@dataclass
class Groups:
    """Pods by what can be told of them; ignored ones are in none."""

    ready: int
    unready: set[str]
    missing: set[str]
    used: dict[str, int]


def group(
    pods: Iterable[Object], samples: Mapping[str, Sample], resource: str, now: float, settings: Settings = USUAL
) -> Groups:
    """Sort pods. Raises Unable when none is left to count."""
    out = Groups(0, set(), set(), {})
    count = 0
    used = {name: sample.value for name, sample in samples.items()}
    for pod in pods:
        count += 1
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        if pod["metadata"].get("deletionTimestamp") or status.get("phase") == "Failed":
            used.pop(name, None)
        elif status.get("phase", "Pending") == "Pending":
            out.unready.add(name)
        elif name not in samples:
            out.missing.add(name)
        elif resource == "cpu" and _starting(status, samples[name], now, settings):
            out.unready.add(name)
        else:
            out.ready += 1
    if not count:
        raise Unable("no pods returned by selector while calculating replica count")
    out.used = {name: value for name, value in used.items() if name not in out.unready}
    if not out.used:
        raise Unable("did not receive metrics for targeted pods (pods might be unready)")
    return out


def _starting(status: Object, sample: Sample, now: float, settings: Settings) -> bool:
    ready = condition(status.get("conditions") or (), "Ready")
    if ready is None or not status.get("startTime"):
        return True
    start, changed = parse_rfc3339(status["startTime"]), parse_rfc3339(ready["lastTransitionTime"])
    if start + settings.cpu_start > now:
        return ready["status"] == "False" or sample.at < changed + sample.window
    return ready["status"] == "False" and start + settings.ready_delay > changed


def by_average(groups: Groups, current: int, target: int, tolerance: Tolerance) -> tuple[int, int]:
    """Replicas for an average of `target` a pod, and today's average."""
    ratio = _ratio(groups.used, target)
    usage = sum(groups.used.values()) // len(groups.used)
    if settled := _simple(groups, current, ratio, tolerance):
        return settled[0], usage
    filled = _filled(groups, ratio, dict.fromkeys(groups.missing, target))
    return _turned(current, ratio, _ratio(filled, target), len(filled), tolerance), usage


def _ratio(used: Mapping[str, int], target: int) -> float:
    return sum(used.values()) // len(used) / target


def by_utilization(
    groups: Groups, requests: Mapping[str, int], current: int, target: int, tolerance: Tolerance
) -> tuple[int, int, int]:
    """Replicas for `target` percent of requests; today's percentage and average."""
    percent, average = _percentage(groups.used, requests)
    ratio = percent / target
    if settled := _simple(groups, current, ratio, tolerance):
        return settled[0], percent, average
    fallback = {name: requests[name] * max(100, target) // 100 for name in groups.missing}
    filled = _filled(groups, ratio, fallback)
    again = _percentage(filled, requests)[0] / target
    return _turned(current, ratio, again, len(filled), tolerance), percent, average


def _percentage(used: Mapping[str, int], requests: Mapping[str, int]) -> tuple[int, int]:
    known = [name for name in used if name in requests]
    total, asked = sum(used[name] for name in known), sum(requests[name] for name in known)
    if not asked:
        raise Unable("no metrics returned matched known pods")
    return total * 100 // asked, total // len(known)


def _simple(groups: Groups, current: int, ratio: float, tolerance: Tolerance) -> tuple[int] | None:
    """The answer, when every pod has said its part."""
    if groups.missing or (groups.unready and ratio > 1):
        return None
    return (current if tolerance.within(ratio) else min(_MOST, math.ceil(ratio * groups.ready)),)


def _filled(groups: Groups, ratio: float, fallback: Mapping[str, int]) -> dict[str, int]:
    """Usage with a guess for the silent that works against the change: full on the way down, none on the way up."""
    out = dict(groups.used)
    if ratio < 1:
        out.update(fallback)
    elif ratio > 1:
        out.update(dict.fromkeys(groups.missing | groups.unready, 0))
    return out


def _turned(current: int, ratio: float, again: float, count: int, tolerance: Tolerance) -> int:
    """The answer from guesses; none that would turn the direction."""
    replicas = min(_MOST, math.ceil(again * count))
    if tolerance.within(again) or (ratio < 1 < again) or (again < 1 < ratio):
        return current
    if (again < 1 and replicas > current) or (again > 1 and replicas < current):
        return current
    return replicas


def by_ratio(pods: Iterable[Object], current: int, ratio: float, tolerance: Tolerance) -> int:
    """Replicas for one total: in proportion to the ready pods."""
    if not current:
        return min(_MOST, math.ceil(ratio))
    if tolerance.within(ratio):
        return current
    found = list(pods)
    if not found:
        text = "no pods returned by selector while calculating replica count"
        raise Unable(f"unable to calculate ready pods: {text}")
    return min(_MOST, math.ceil(ratio * sum(map(_is_ready, found))))


def _is_ready(pod: Object) -> bool:
    status = pod.get("status") or {}
    ready = condition(status.get("conditions") or (), "Ready")
    return status.get("phase") == "Running" and ready is not None and ready["status"] == "True"


def by_share(total: int, target: int, running: int, tolerance: Tolerance) -> tuple[int, int]:
    """Replicas so that each has `target` of a total; today's share."""
    if running and tolerance.within(total / (target * running)):
        return running, math.ceil(total / running)
    return min(_MOST, math.ceil(total / target)), math.ceil(total / running) if running else total


def requests_of(pods: Iterable[Object], container: str, resource: str) -> dict[str, int]:
    """What each pod asks for. Raises Unable for one that does not say."""
    return {pod["metadata"]["name"]: _request(pod, container, resource) for pod in pods}


def _request(pod: Object, container: str, resource: str) -> int:
    name, spec = pod["metadata"]["name"], pod["spec"]
    whole = (spec.get("resources") or {}).get("requests") or {}
    if not container and resource in whole:
        return milli(whole[resource])
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    chosen = [each for each in [*spec["containers"], *sidecars] if container in ("", each["name"])]
    if not chosen:
        raise Unable(f"container {container} not found in Pod {name}")
    total = 0
    for each in chosen:
        asked = ((each.get("resources") or {}).get("requests") or {}).get(resource)
        if asked is None:
            raise Unable(f"missing request for {resource} in container {each['name']} of Pod {name}")
        total += milli(asked)
    return total
