"""What no workload of the crowd may pass while an operation is under way: how many pods, and how many that are ready.

Whoever is not touched by an operation keeps exactly what it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from steersman.api import pods
from steersman.api.resource import Object


@dataclass(slots=True)
class Limits:
    """By label `app`: the least number of ready pods, and the most that are active."""

    least: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)

    def still(self, sizes: Mapping[str, int]) -> None:
        """Everything is as wanted, and stays so."""
        self.least, self.most = dict(sizes), dict(sizes)

    def moves(self, name: str, least: int, most: int) -> None:
        """One workload is about to change."""
        self.least[name], self.most[name] = max(least, 0), most

    def lapse(self) -> None:
        """Nodes come or go: how many are ready is nobody's promise."""
        self.least = dict.fromkeys(self.least, 0)

    def passed(self, there: list[Object]) -> str:
        """What is not within its limits; empty when all is."""
        alive = [pod for pod in there if pods.is_active(pod)]
        active = Counter(app_of(pod) for pod in alive)
        ready = Counter(app_of(pod) for pod in alive if pods.is_ready(pod))
        for name, most in self.most.items():
            if active[name] > most:
                return f"{name} has {active[name]} pods, at most {most} may be"
        for name, least in self.least.items():
            if ready[name] < least:
                return f"{name} has {ready[name]} ready pods, at least {least} must be"
        return ""


def app_of(pod: Object) -> str:
    """The workload that a pod was made for."""
    return str((pod["metadata"].get("labels") or {}).get("app", ""))
