"""What of a pod must wait, until when, and what is shown meanwhile.

Owns failed starts, pulls that back off and crash loops of one pod, in memory only: a kubelet that starts anew tries at
once. Asked by `worker` before every plan and for every status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steersman.kubelet import podspec
from steersman.kubelet.crashloop import CrashLoop
from steersman.kubelet.observed import Observed, Run
from steersman.kubelet.plan import Hold
from steersman.kubelet.pulling import Puller
from steersman.kubelet.status import Waiting
from steersman.kubelet.steps import PodSteps

if TYPE_CHECKING:
    from steersman.lib.clock import Clock

_PULL_FAILED = ("ErrImagePull", "RegistryUnavailable", "SignatureValidationFailed")


@dataclass(frozen=True, slots=True)
class _Shown:
    """A hold, and when its reason turns into a back-off (0: never)."""

    hold: Hold
    turns_at: float = 0.0


class Holds:
    """Holds by container name; "" holds the whole pod."""

    def __init__(self, steps: PodSteps, puller: Puller, clock: Clock) -> None:
        self._steps = steps
        self._puller = puller
        self._clock = clock
        self._crashes = CrashLoop(podspec.full_name(steps.pod))
        self._shown: dict[str, _Shown] = {}

    def add(self, name: str, hold: Hold) -> None:
        """Something failed."""
        now = self._clock.now()
        # A failed pull is first shown as what it was, later as a back-off, as the original's resync does.
        turns_at = now + (hold.until - now) / 2 if hold.reason in _PULL_FAILED else 0.0
        self._shown[name] = _Shown(hold, turns_at)

    def succeeded(self, name: str) -> None:
        """It worked: nothing waits any more, nor does the whole pod."""
        self._shown.pop(name, None)
        self._shown.pop("", None)

    def restarted(self, name: str, seen: Observed) -> None:
        """A container is about to run again."""
        ended = _last_end(seen, name)
        if ended is not None:
            self._crashes.restarted(name, ended.container.finished_at, self._clock.now())

    def objects_changed(self) -> None:
        """A ConfigMap or Secret changed: what failed for want of it may be tried at once."""
        for name, shown in list(self._shown.items()):
            if name == "" or shown.hold.reason == "CreateContainerConfigError":
                self._shown[name] = _Shown(Hold(0, shown.hold.reason, shown.hold.message))

    def current(self, seen: Observed) -> Mapping[str, Hold]:
        """The holds as they are now, crash loops included; tells people about new ones."""
        now = self._clock.now()
        for name, shown in list(self._shown.items()):
            if shown.turns_at and now >= shown.turns_at:
                self._back_off(name, shown)
            elif now >= shown.hold.until and shown.hold.reason == "CrashLoopBackOff":
                del self._shown[name]
        for name, runs in seen.runs.items():
            ended = _last_end(seen, name)
            if ended is None or runs[0].running or name in self._shown:
                continue
            hold = self._crashes.hold(name, ended.container.finished_at, now)
            if hold is not None and self._runs_again(name, ended):
                self._shown[name] = _Shown(hold)
                text = f"Back-off restarting failed container {name} in pod {podspec.full_name(self._steps.pod)}"
                self._steps.teller.container(name, "Warning", "BackOff", text)
        return {name: shown.hold for name, shown in self._shown.items()}

    def _runs_again(self, name: str, ended: Run) -> bool:
        found = podspec.container_named(self._steps.pod, name)
        if found is None:
            return False
        is_init = found[0] == "initContainers"
        return podspec.should_restart(self._steps.pod, found[1], ended.exit_code, is_init=is_init)

    def _back_off(self, name: str, shown: _Shown) -> None:
        found = podspec.container_named(self._steps.pod, name)
        image = found[1]["image"] if found else ""
        waiting = self._puller.backing_off(self._steps.uid, image)
        if waiting is None:
            self._shown[name] = _Shown(shown.hold)
            return
        self._shown[name] = _Shown(Hold(shown.hold.until, waiting.reason, str(waiting)))
        self._steps.teller.container(name, "Normal", "BackOff", f'Back-off pulling image "{image}"')
        self._steps.teller.container(name, "Warning", "Failed", f"Error: {waiting.reason}")

    def turns_at(self) -> float | None:
        """When the next reason turns into a back-off."""
        times = [shown.turns_at for shown in self._shown.values() if shown.turns_at]
        return min(times) if times else None

    def waiting(self) -> Mapping[str, Waiting]:
        """What statuses show, by container name."""
        return {
            name: Waiting(shown.hold.reason, shown.hold.message)
            for name, shown in self._shown.items()
            if name and shown.hold.reason
        }


def _last_end(seen: Observed, name: str) -> Run | None:
    return next((run for run in seen.runs.get(name, ()) if run.exited), None)
