"""How fast a size may change: stabilization windows, scaling policies, least and most.

Owns `History` (what was recommended and done lately) and `normalize`. Called by the autoscaler. Pure: it is told the
time, in Unix seconds. Source: kubernetes' pkg/controller/podautoscaler/horizontal.go, KEP-853.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from steersman.api.labels import Selector
from steersman.api.resource import Object

_LONGEST = 3600.0  # seconds: no window may be longer
_UP: Object = {
    "stabilizationWindowSeconds": 0,
    "selectPolicy": "Max",
    "policies": [
        {"type": "Pods", "value": 4, "periodSeconds": 15},
        {"type": "Percent", "value": 100, "periodSeconds": 15},
    ],
}
_DOWN: Object = {
    "selectPolicy": "Max",
    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
}
_LOWER = "recent recommendations were lower than current one, applying the lowest recent recommendation"
_HIGHER = "recent recommendations were higher than current one, applying the highest recent recommendation"
_TOO_FAST_UP = "the desired replica count is increasing faster than the maximum scale rate"
_TOO_FAST_DOWN = "the desired replica count is decreasing faster than the maximum scale rate"
_TOO_MANY = "the desired replica count is more than the maximum replica count"
_TOO_FEW = "the desired replica count is less than the minimum replica count"
_WITHIN = "the desired count is within the acceptable range"

Happened = list[tuple[float, int]]


@dataclass
class History:
    """What is remembered of one autoscaler: (time, number) pairs, the newest last; gone when the process restarts."""

    recommendations: Happened = field(default_factory=list)
    ups: Happened = field(default_factory=list)
    downs: Happened = field(default_factory=list)
    due: float = 0.0
    mark: tuple[Any, ...] = ()
    selector: Selector | None = None

    def begin(self, current: int, now: float) -> None:
        """The size that is there is the first recommendation."""
        if not self.recommendations:
            self.recommendations.append((now, current))

    def recommend(self, replicas: int, now: float) -> None:
        """Remember, and forget what no window reaches."""
        self.recommendations[:] = [each for each in self.recommendations if now - each[0] <= _LONGEST]
        self.recommendations.append((now, replicas))

    def scaled(self, behavior: Object | None, before: int, after: int, now: float) -> None:
        """Remember a change; only policies ask for it."""
        if behavior is None:
            return
        changes = self.ups if after > before else self.downs
        changes[:] = [each for each in changes if now - each[0] <= _LONGEST]
        changes.append((now, abs(after - before)))


class Decision(NamedTuple):
    """A size; reason and message of AbleToScale; status, reason and message of ScalingLimited."""

    replicas: int
    able: tuple[str, str]
    limited: tuple[str, str, str]


def normalize(
    behavior: Object | None,
    history: History,
    current: int,
    proposed: int,
    least: int,
    most: int,
    now: float,
    down_window: float = 300.0,
) -> Decision:
    """The size to take of the size `proposed`; `history` learns of the proposal.

    `down_window`: seconds of the usual window of stabilization downwards.
    """
    up = {**_UP, **((behavior or {}).get("scaleUp") or {})}
    down = {**_DOWN, "stabilizationWindowSeconds": down_window, **((behavior or {}).get("scaleDown") or {})}
    if behavior is None:
        steady = max([proposed, *(size for at, size in history.recommendations if now - at <= down_window)])
    else:
        steady = _steady(history, current, proposed, up, down, now)
    history.recommend(proposed, now)
    able = ("ReadyForNewScale", "recommended size matches current size")
    if steady != proposed:
        rising = behavior is not None and proposed >= current
        able = ("ScaleUpStabilized", _LOWER) if rising else ("ScaleDownStabilized", _HIGHER)
    if behavior is None:
        replicas, reason, message = _plain(current, steady, least, most)
    else:
        replicas, reason, message = _limited(history, current, steady, least, most, up, down, now)
    return Decision(replicas, able, ("False" if replicas == steady else "True", reason, message))


def _steady(history: History, current: int, proposed: int, up: Object, down: Object, now: float) -> int:
    """The nearest size to the current one between the lowest and the highest of recent proposals."""
    recent = history.recommendations
    floor = min([proposed, *(size for at, size in recent if now - at < int(up["stabilizationWindowSeconds"]))])
    ceiling = max([proposed, *(size for at, size in recent if now - at < int(down["stabilizationWindowSeconds"]))])
    return min(max(current, floor), ceiling)


def _plain(current: int, desired: int, least: int, most: int) -> tuple[int, str, str]:
    fast = max(2 * current, 4)
    if desired < least:
        return least, "TooFewReplicas", _TOO_FEW
    if most > fast and desired > fast:
        return fast, "ScaleUpLimit", _TOO_FAST_UP
    if desired > most:
        return most, "TooManyReplicas", _TOO_MANY
    return desired, "DesiredWithinRange", _WITHIN


def _limited(
    history: History, current: int, desired: int, least: int, most: int, up: Object, down: Object, now: float
) -> tuple[int, str, str]:
    if desired > current:
        fast = max(current, _limit(history, current, up, 1, now))
        if desired > min(fast, most):
            return (fast, "ScaleUpLimit", _TOO_FAST_UP) if fast < most else (most, "TooManyReplicas", _TOO_MANY)
    elif desired < current:
        fast = min(current, _limit(history, current, down, -1, now))
        if desired < max(fast, least):
            return (fast, "ScaleDownLimit", _TOO_FAST_DOWN) if fast > least else (least, "TooFewReplicas", _TOO_FEW)
    return desired, "DesiredWithinRange", _WITHIN


def _limit(history: History, current: int, rules: Object, sign: int, now: float) -> int:
    """How far the policies let the size go up (`sign` 1) or down (-1) now."""
    if rules.get("selectPolicy") == "Disabled":
        return current
    reached = []
    for policy in rules.get("policies") or ():
        added, taken = (
            sum(change for at, change in changes if now - at < policy["periodSeconds"])
            for changes in (history.ups, history.downs)
        )
        start = current - added + taken
        if policy["type"] == "Pods":
            reached.append(start + sign * policy["value"])
        elif sign > 0:  # rounded up, or one replica would never become two
            reached.append(math.ceil(start * (100 + policy["value"]) / 100))
        else:
            reached.append(int(start * (100 - policy["value"]) / 100))
    most_change = rules.get("selectPolicy") != "Min"
    pick = max if most_change == (sign > 0) else min
    return pick(reached, default=current)
