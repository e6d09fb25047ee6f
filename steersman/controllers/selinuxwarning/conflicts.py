"""Which pods use a volume with which SELinux label, and which of them cannot use it on one node.

Pure: it is told of pods and answers with conflicts. Called by the controller.
Source: kubernetes' pkg/controller/volume/selinuxwarning/cache and translator; messages are the original's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from steersman.client.controller import Key


class Use(NamedTuple):
    """How one pod uses a volume. `policy`: MountOption or Recursive."""

    label: str
    policy: str


class Conflict(NamedTuple):
    """Two pods that differ in one property, as the first of them sees it."""

    property: str
    pod: Key
    value: str
    other: Key
    other_value: str

    @property
    def reason(self) -> str:
        """The event's reason."""
        return f"{self.property}Conflict"

    @property
    def message(self) -> str:
        """The event's text: the other pod is named only to its own namespace."""
        end = "If both pods land on the same node, only one of them may access the volume."
        if self.pod.namespace == self.other.namespace:
            who = f"conflicts with pod {self.other.name} that uses the same volume as this pod with {self.property}"
            return f'{self.property} "{self.value}" {who} "{self.other_value}". {end}'
        who = f"conflicts with another pod that uses the same volume as this pod with a different {self.property}"
        return f'{self.property}"{self.value}" {who}. {end}'


def label_of(options: dict[str, str]) -> str:
    """User, role, type and level of `seLinuxOptions`; what is not said there stays empty, for only nodes know it."""
    label = ":".join(options.get(part) or "" for part in ("user", "role", "type", "level"))
    return "" if label == ":::" else label


def differ(one: str, other: str) -> bool:
    """Whether two labels cannot be the same: parts that are not said may be anything, but for the level."""
    parts = ([*label.split(":", 3), "", "", "", ""][:4] for label in (one, other))
    for position, (mine, theirs) in enumerate(zip(*parts, strict=True)):
        if mine != theirs and (position == 3 or (mine and theirs)):
            return True
    return False


@dataclass(slots=True)
class _Volume:
    driver: str
    pods: dict[Key, Use] = field(default_factory=dict)
    conflicts: list[Conflict] = field(default_factory=list)


class Uses:
    """Every volume's users. `told` hears of each conflict that comes (True) or goes (False)."""

    def __init__(self, told: Callable[[Conflict, bool], None]) -> None:
        self._told = told
        self._volumes: dict[str, _Volume] = {}
        self._of_pod: dict[Key, set[str]] = {}

    def add(self, volume: str, pod: Key, use: Use, driver: str) -> list[Conflict]:
        """A pod uses a volume; the conflicts that this makes, each from both sides. Nothing new makes none."""
        there = self._volumes.setdefault(volume, _Volume(driver))
        if there.pods.get(pod) == use:
            return []
        there.pods[pod] = use
        self._of_pod.setdefault(pod, set()).add(volume)
        found: list[Conflict] = []
        for other, others in there.pods.items():
            if others.policy != use.policy:
                found += _both("SELinuxChangePolicy", pod, use.policy, other, others.policy)
            if differ(others.label, use.label):
                found += _both("SELinuxLabel", pod, use.label, other, others.label)
        self._settle(there, pod, found)
        return found

    def _settle(self, volume: _Volume, pod: Key, new: list[Conflict]) -> None:
        for each in volume.conflicts:
            if pod in (each.pod, each.other):
                self._told(each, False)
        for each in new:
            self._told(each, True)
        volume.conflicts = [each for each in volume.conflicts if pod not in (each.pod, each.other)] + new

    def remove(self, pod: Key) -> None:
        """A pod is gone, or has ended."""
        for name in self._of_pod.pop(pod, ()):
            volume = self._volumes[name]
            self._settle(volume, pod, [])
            del volume.pods[pod]
            if not volume.pods:
                del self._volumes[name]

    def of_driver(self, name: str) -> list[Key]:
        """The pods that use volumes of a CSI driver."""
        return [pod for volume in self._volumes.values() if volume.driver == name for pod in volume.pods]


def _both(property: str, pod: Key, value: str, other: Key, other_value: str) -> list[Conflict]:
    return [Conflict(property, pod, value, other, other_value), Conflict(property, other, other_value, pod, value)]
