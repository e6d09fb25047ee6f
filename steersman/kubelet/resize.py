"""In-place resize: what a running pod was given of what its spec asks for, and what its containers have of that.

Owns, for one pod, the allocated resources (which the pod is counted with and runs by) and the actuated ones (which are
in its cgroups), with the file that keeps both over a restart of the kubelet. Called by `worker`, which changes cgroups
through `steps`. A pod that was never resized has no file. Source: KEP-1287; reasons and messages are the original's.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from steersman.api.resource import Object
from steersman.engine.interface import Resources
from steersman.kubelet import podspec, resources
from steersman.kubelet.admission import Refusal

_FIELDS = ("initContainers", "containers")
_RETRY = 10.0


class Resize:
    """One pod's. `problem` says why the last change of cgroups failed; it is tried again at `retry_at`."""

    def __init__(self, pod: Object, file: Path) -> None:
        self._file = file
        self._allocated = _by_name(pod)
        self._pod_level: Any = pod["spec"].get("resources")
        self.actuated: dict[str, Object] = dict(self._allocated)
        self.pod_limits: Resources | None = None  # in the pod's own cgroup, once something was resized
        self.pending: Refusal | None = None
        self.problem = ""
        self.retry_at = 0.0
        self._load()

    def _load(self) -> None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(self._file.read_text())
            allocated, actuated = dict(found["allocated"]), dict(found["actuated"])
            limits = Resources(**found["limits"])
            self._allocated.update({name: each for name, each in allocated.items() if name in self._allocated})
            self.actuated.update({name: each for name, each in actuated.items() if name in self.actuated})
            self._pod_level, self.pod_limits = found["pod"], limits

    def save(self) -> None:
        """Keep it for the next kubelet. Raises OSError."""
        limits = self.pod_limits or Resources()
        text = json.dumps(
            {
                "allocated": self._allocated,
                "actuated": self.actuated,
                "pod": self._pod_level,
                "limits": {name: getattr(limits, name) for name in ("cpu_shares", "cpu_quota", "cpu_period")}
                | {"memory_limit": limits.memory_limit, "hugepage_limits": limits.hugepage_limits},
            }
        )
        self._file.parent.mkdir(parents=True, exist_ok=True)
        partial = self._file.with_suffix(".new")
        partial.write_text(text)
        os.replace(partial, self._file)

    def asked(self, pod: Object) -> bool:
        """Whether the spec asks for something else than what is allocated."""
        return _by_name(pod) != self._allocated or pod["spec"].get("resources") != self._pod_level

    def applied(self, pod: Object) -> Object:
        """The pod with what is allocated to it instead of what it asks for; the same object when that is the same."""
        if not self.asked(pod):
            return pod
        spec = {**pod["spec"], **{name: self._with(pod["spec"][name]) for name in _FIELDS if pod["spec"].get(name)}}
        spec.pop("resources", None)
        if self._pod_level is not None:
            spec["resources"] = self._pod_level
        return {**pod, "spec": spec}

    def _with(self, containers: Sequence[Object]) -> list[Object]:
        return [{**each, "resources": self._allocated.get(each["name"]) or {}} for each in containers]

    def allocate(self, pod: Object) -> None:
        """Give the pod what its spec asks for. Raises OSError when that could not be kept."""
        if self.pod_limits is None:
            self.pod_limits = resources.of_pod(self.applied(pod))
        self._allocated = _by_name(pod)
        self._pod_level = pod["spec"].get("resources")
        self.pending, self.problem, self.retry_at = None, "", 0.0
        self.save()

    def started(self, container: Object) -> None:
        """A new run has what is allocated to it."""
        name = container["name"]
        if name in self.actuated and self.actuated[name] != (container.get("resources") or {}):
            self.actuated[name] = container.get("resources") or {}
            self.save()

    def failed(self, problem: str, now: float) -> None:
        """The cgroups could not be changed."""
        self.problem, self.retry_at = problem, now + _RETRY

    def done(self, names: Sequence[str], pod: Object, limits: Resources) -> None:
        """These containers, and the pod's cgroup, are as allocated. Raises OSError when that could not be kept."""
        by_name = _by_name(pod)
        self.actuated.update({name: by_name[name] for name in names})
        self.pod_limits, self.problem, self.retry_at = limits, "", 0.0
        self.save()

    def in_progress(self, pod: Object, running: set[str]) -> bool:
        """Whether a running container, or the pod's cgroup, does not yet have what is allocated."""
        if self.pod_limits is not None and self.pod_limits != resources.of_pod(pod):
            return True
        return any(self.actuated.get(name) != each for name, each in _by_name(pod).items() if name in running)

    def conditions(self, pod: Object, running: set[str]) -> Iterator[Object]:
        """PodResizePending and PodResizeInProgress, as far as they hold; `pod` as allocated."""
        if self.pending is not None:
            reason, message = self.pending.reason, self.pending.message
            yield {"type": "PodResizePending", "status": "True", "reason": reason, "message": message}
        if self.in_progress(pod, running):
            out = {"type": "PodResizeInProgress", "status": "True"}
            yield {**out, "reason": "Error", "message": self.problem} if self.problem else out


def _by_name(pod: Object) -> dict[str, Object]:
    everything = [*podspec.init_containers(pod), *podspec.containers(pod)]
    return {each["name"]: each.get("resources") or {} for each in everything}


def needs_restart(container: Object, actuated: Object) -> bool:
    """Whether a difference concerns a resource whose resize policy is RestartContainer."""
    wanted = container.get("resources") or {}
    policies = {each["resourceName"]: each.get("restartPolicy") for each in container.get("resizePolicy") or ()}
    return any(
        policy == "RestartContainer"
        and any((wanted.get(kind) or {}).get(name) != (actuated.get(kind) or {}).get(name) for kind in _KINDS)
        for name, policy in policies.items()
    )


_KINDS = ("requests", "limits")


def verdict(pod: Object, others: Sequence[Object], allocatable: Mapping[str, str]) -> Refusal | None:
    """Why a resize cannot be allocated: Infeasible (never on this node) or Deferred (not now); None: it can."""
    for name in ("cpu", "memory"):
        if name not in allocatable:
            continue
        requested = resources.pod_total(pod, name, "requests") or 0
        capacity = (resources.milli if name == "cpu" else resources.whole)(allocatable[name])
        if requested > capacity:
            text = f"Node didn't have enough capacity: {name}, requested: {requested}, capacity: {capacity}"
            return Refusal("Infeasible", text)
        used = sum(resources.pod_total(each, name, "requests") or 0 for each in others)
        if requested + used > capacity:
            text = f"Node didn't have enough resource: {name}, requested: {requested}, "
            return Refusal("Deferred", text + f"used: {used}, capacity: {capacity}")
    return None


def widest(before: Resources, after: Resources) -> Resources:
    """The larger of both limits: what the pod's cgroup has while its containers change. 0 is no limit."""

    def larger(one: int, other: int) -> int:
        return max(one, other) if one > 0 and other > 0 else 0

    quota = larger(before.cpu_quota, after.cpu_quota)
    return Resources(
        cpu_shares=max(before.cpu_shares, after.cpu_shares),
        cpu_quota=quota,
        cpu_period=(after.cpu_period or before.cpu_period) if quota else 0,
        memory_limit=larger(before.memory_limit, after.memory_limit),
        hugepage_limits=after.hugepage_limits,
    )


def summary(pod: Object, problem: str = "") -> str:
    """What an event says about a resize: the resources asked for, as JSON."""
    out: Object = {}
    for name in _FIELDS:
        if pod["spec"].get(name):
            out[name] = [{"name": c["name"], "resources": c.get("resources") or {}} for c in pod["spec"][name]]
    out["generation"] = pod["metadata"].get("generation", 0)
    if problem:
        out["error"] = problem
    return json.dumps(out, separators=(",", ":"))
