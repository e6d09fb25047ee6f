"""Which steps are due for a pod, given what is wanted, what the engine has, and the time.

Owns the order of a pod's life: sandbox, ephemeral, init, sidecar and regular containers, restarts and back-off,
replacement, the end. Pure: called by `worker`, which performs the steps in order and asks again. Source of behaviour:
Pod lifecycle documentation, KEP-753 (sidecars), KEP-5307 (container restart rules), KEP-5532 (all containers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from steersman.api.resource import Object
from steersman.engine.interface import ContainerState, Resources
from steersman.kubelet import podspec, resize, resources
from steersman.kubelet.observed import Observed, Run


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make the volumes and a new sandbox ready."""

    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """Kill what runs in the pod and stop its sandboxes; keep the ended containers."""

    message: str = ""


class Cause(StrEnum):
    """Why a container is killed: it decides the grace period."""

    CHANGED = "changed"
    STARTUP_PROBE = "startupProbe"
    LIVENESS_PROBE = "livenessProbe"
    UNKNOWN = "unknown"
    RESTART_ALL = "restartAll"


@dataclass(frozen=True, slots=True)
class Kill:
    """End one running container."""

    name: str
    container_id: str
    message: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class Start:
    """Make a new run of a container. `field`: which list of the spec it is in. `restart_count`: of the new run."""

    name: str
    field: str
    restart_count: int


@dataclass(frozen=True, slots=True)
class Change:
    """Bring the limits of running containers, and of the pod's cgroup, to what is allocated (resize)."""

    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class Remove:
    """Forget a run that nobody will ask about."""

    container_id: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Forget a sandbox that was replaced and holds nothing any more."""

    sandbox_id: str


Step = Prepare | StopSandbox | Kill | Start | Change | Remove | RemoveSandbox


@dataclass(frozen=True, slots=True)
class Hold:
    """A container must not be started before `until` (Unix seconds)."""

    until: float
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known besides the engine. Probe results are by container id; None or missing: no result yet.

    `holds` are by container name; "" holds the whole pod. `actuated`: the resources that running containers have, by
    name; `pod_limits`: those in the pod's cgroup, when it was ever resized; neither is changed before `resize_at`.
    `restarts`: the counts of containers of which the engine has no run.
    """

    startup: Mapping[str, bool | None] = field(default_factory=dict)
    liveness: Mapping[str, bool | None] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    actuated: Mapping[str, Object] = field(default_factory=dict)
    pod_limits: Resources | None = None
    resize_at: float = 0.0
    restarts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order. `wake_at`: when to plan again although nothing happened (Unix seconds)."""

    steps: Sequence[Step] = ()
    wake_at: float | None = None


KEPT_RUNS = 2
"""Runs of a container that are kept: the last, and the one before for `logs --previous`."""


def plan(pod: Object, seen: Observed, facts: Facts, now: float) -> Plan:
    """The steps that are due for a pod that is neither deleted nor in a final phase."""
    draft = _Draft(pod, seen, facts, now)
    if restarts_all(pod, seen):
        draft.restart_all()
    elif seen.sandbox is None:
        draft.without_sandbox()
    else:
        draft.with_sandbox()
    return Plan(tuple(draft.steps), draft.wake_at)


def restarts_all(pod: Object, seen: Observed) -> bool:
    """Whether a container has ended so that all are to be restarted."""
    ended = ((each, seen.latest(each["name"])) for _, each in podspec.every_container(pod))
    return any(run is not None and run.exited and podspec.restarts_all(each, run.exit_code) for each, run in ended)


class _Draft:
    """A plan while it is being made."""

    def __init__(self, pod: Object, seen: Observed, facts: Facts, now: float) -> None:
        self.pod, self.seen, self.facts, self.now = pod, seen, facts, now
        self.steps: list[Step] = []
        self.wake_at: float | None = None

    def restart_all(self) -> None:
        """Nothing stays of any container; who asked for it goes last, so that a kubelet that dies goes on with it."""
        asked: list[Step] = []
        for each in (*podspec.containers(self.pod), *podspec.init_containers(self.pod)):
            for run in self.seen.runs.get(each["name"]) or ():
                if run.exited and podspec.restarts_all(each, run.exit_code):
                    asked.append(Remove(run.id))
                    continue
                if not run.exited:
                    self.steps.append(Kill(each["name"], run.id, "killing", Cause.RESTART_ALL))
                self.steps.append(Remove(run.id))
        self.steps += asked

    def without_sandbox(self) -> None:
        """No sandbox yet, or it died: everything starts again from the init containers."""
        if self.seen.runs and self.seen.sandboxes and podspec.restart_policy(self.pod) == "Never":
            self._stop_if_needed()
            return
        latest = [(each, self.seen.latest(each["name"])) for each in podspec.containers(self.pod)]
        if any(run for _, run in latest) and not any(
            run is None or not run.exited or podspec.should_restart(self.pod, each, run.exit_code)
            for each, run in latest
        ):
            self._stop_if_needed()
            return
        self._stop_if_needed()
        hold = self.facts.holds.get("")
        if hold is not None and hold.until > self.now:
            self._wake(hold.until)
            return
        self.steps.append(Prepare(self.seen.next_attempt))

    def _stop_if_needed(self) -> None:
        if self.seen.running():
            self.steps.append(StopSandbox())

    def with_sandbox(self) -> None:
        """The usual case: bring each container to where it should be."""
        for each in podspec.ephemeral_containers(self.pod):
            if self.seen.latest(each["name"]) is None:
                self._start("ephemeralContainers", each)
        self._resizes()
        before = len(self.steps)
        initialized = self._init_containers()
        if initialized is None:
            del self.steps[before:]
            self.steps.append(StopSandbox())
            return
        if initialized:
            self._regular_containers()
        self._prune()

    def _resizes(self) -> None:
        """Limits of running containers that changed; containers that must restart for it are replaced instead."""
        names = []
        for each in [*podspec.init_containers(self.pod), *podspec.containers(self.pod)]:
            run = self.seen.latest(each["name"])
            if run is not None and run.running and self._differs(each) and not self._restarts(each):
                names.append(each["name"])
        limits = self.facts.pod_limits
        if not names and (limits is None or limits == resources.of_pod(self.pod)):
            return
        if self.facts.resize_at > self.now:
            self._wake(self.facts.resize_at)
        else:
            self.steps.append(Change(tuple(names)))

    def _differs(self, container: Object) -> bool:
        has = self.facts.actuated.get(container["name"])
        return has is not None and has != (container.get("resources") or {})

    def _restarts(self, container: Object) -> bool:
        return self._differs(container) and resize.needs_restart(container, self.facts.actuated[container["name"]])

    def _init_containers(self) -> bool | None:
        """True: regular containers may run; False: not yet; None: initialization failed for good."""
        inits = podspec.init_containers(self.pod)
        if not inits:
            return True
        done_before = any(
            run.container.state in (ContainerState.RUNNING, ContainerState.CREATED) or self._in_this_sandbox(run)
            for each in podspec.containers(self.pod)
            if (run := self.seen.latest(each["name"])) is not None
        )
        for each in inits:
            if podspec.is_sidecar(each):
                ready = self._sidecar(each)
                if not ready and not done_before:
                    return False
            elif not done_before:
                outcome = self._init_container(each)
                if outcome is not True:
                    return outcome
        return True

    def _in_this_sandbox(self, run: Run) -> bool:
        return self.seen.sandbox is not None and run.container.sandbox_id == self.seen.sandbox.id

    def _init_container(self, container: Object) -> bool | None:
        run = self.seen.latest(container["name"])
        if run is None or not self._in_this_sandbox(run):
            self._start("initContainers", container)
            return False
        if run.running:
            return False
        if run.exited:
            if run.exit_code == 0:
                return True
            if not podspec.should_restart(self.pod, container, run.exit_code, is_init=True):
                return None
        self._start("initContainers", container)
        return False

    def _sidecar(self, container: Object) -> bool:
        """Keep a sidecar running; True once it has started, so that the next container may."""
        run = self.seen.latest(container["name"])
        if run is None or not run.running:
            self._start("initContainers", container)
            return False
        name = container["name"]
        if container.get("startupProbe"):
            started = self.facts.startup.get(run.id)
            if started is False:
                message = f"Init container {name} failed startup probe"
                self._replace("initContainers", container, run, message, Cause.STARTUP_PROBE)
            if not started:
                return False
        if run.hash != podspec.container_hash(container):
            self._replace("initContainers", container, run, f"Init container {name} definition changed", Cause.CHANGED)
        elif self._restarts(container):
            self._replace(
                "initContainers", container, run, f"Init container {name} resize requires restart", Cause.CHANGED
            )
        elif container.get("livenessProbe") and self.facts.liveness.get(run.id) is False:
            message = f"Init container {name} failed liveness probe"
            self._replace("initContainers", container, run, message, Cause.LIVENESS_PROBE)
        return True

    def _regular_containers(self) -> None:
        alive = 0
        for each in podspec.containers(self.pod):
            run = self.seen.latest(each["name"])
            if run is None or run.container.state in (ContainerState.CREATED, ContainerState.UNKNOWN):
                self._start("containers", each)
                alive += 1
            elif run.exited:
                if podspec.should_restart(self.pod, each, run.exit_code):
                    self._start("containers", each)
                    alive += 1
            else:
                alive += self._check(each, run)
        if not alive:
            # Sidecars must not keep a finished pod alive.
            self.steps = [*(step for step in self.steps if isinstance(step, Kill)), StopSandbox()]

    def _check(self, container: Object, run: Run) -> int:
        """Look at a running container; 0 when it is killed for good."""
        name = container["name"]
        policy = container.get("restartPolicy") or podspec.restart_policy(self.pod)
        restart = policy != "Never"
        if run.hash != podspec.container_hash(container):
            message, cause, restart = f"Container {name} definition changed", Cause.CHANGED, True
        elif self._restarts(container):
            message, cause, restart = f"Container {name} resize requires restart", Cause.CHANGED, True
        elif self.facts.liveness.get(run.id) is False:
            message, cause = f"Container {name} failed liveness probe", Cause.LIVENESS_PROBE
        elif self.facts.startup.get(run.id) is False:
            message, cause = f"Container {name} failed startup probe", Cause.STARTUP_PROBE
        else:
            return 1
        if restart:
            self._replace("containers", container, run, message + ", will be restarted", cause)
            return 1
        self.steps.append(Kill(name, run.id, message, cause))
        return 0

    def _replace(self, field_name: str, container: Object, run: Run, message: str, cause: Cause) -> None:
        self.steps.append(Kill(container["name"], run.id, message, cause))
        self._start(field_name, container)

    def _start(self, field_name: str, container: Object) -> None:
        name = container["name"]
        for hold in (self.facts.holds.get(""), self.facts.holds.get(name)):
            if hold is not None and hold.until > self.now:
                self._wake(hold.until)
                return
        last = self.seen.latest(name)
        self.steps.append(Start(name, field_name, last.restart_count + 1 if last else self.facts.restarts.get(name, 0)))

    def _prune(self) -> None:
        for runs in self.seen.runs.values():
            self.steps += [Remove(run.id) for run in runs[KEPT_RUNS:] if not run.running]
        used = {run.container.sandbox_id for runs in self.seen.runs.values() for run in runs}
        self.steps += [RemoveSandbox(each.id) for each in self.seen.sandboxes[1:] if each.id not in used]

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)
