"""The scheduler's loop: take a pod, decide over all nodes, assume, bind.

Owns the wiring of informers to columns and queue, and the writes: bindings, the PodScheduled condition, events. The
decision itself is `decide`, which is pure. Called by `cluster`. It never waits for a binding before the next decision.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from steersman.api.errors import ApiError
from steersman.api.resource import (
    NAMESPACES,
    NODES,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    SERVICES,
    STATEFULSETS,
    Object,
    Resource,
)
from steersman.client.client import Client
from steersman.client.events import EventRecorder
from steersman.client.informer import Handler, Informers
from steersman.lib.clock import Clock, rfc3339
from steersman.lib.tasks import Tasks
from steersman.scheduler import podinfo, preemption
from steersman.scheduler.columns import Columns
from steersman.scheduler.configuration import DEFAULT_SCHEDULER, Configuration
from steersman.scheduler.framework import Verdict, fit_error, run_filters, run_scores
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.profiles import Profile, make_all
from steersman.scheduler.queue import Queue

log = logging.getLogger(__name__)

DEFAULT_NAME = DEFAULT_SCHEDULER
_CONTROLLERS = (REPLICATIONCONTROLLERS, REPLICASETS, STATEFULSETS)
_BINDINGS = 64  # in flight at once
_CONDITION = "PodScheduled"


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a pod goes, or why nowhere."""

    node: str
    message: str = ""
    verdict: Verdict | None = None


def decide(columns: Columns, pod: PodInfo, profile: Profile, random: Random) -> Decision:
    """The best feasible node, ties broken at random; no node and the reasons when there is none."""
    verdict = run_filters(profile.filters, columns, pod)
    feasible = verdict.feasible
    count = int(np.count_nonzero(feasible))
    if count == 0:
        return Decision("", fit_error(len(columns), verdict.histogram()), verdict)
    row = columns.rows.get(pod.nominated)
    if row is not None and feasible[row]:  # room was made for it there
        return Decision(pod.nominated)
    if count == 1:
        return Decision(columns.names[int(np.argmax(feasible))])
    scores = run_scores(profile.scores, columns, pod, feasible)
    best = np.flatnonzero(scores == scores.max())
    return Decision(columns.names[int(best[random.randrange(len(best))])])


def no_victims(columns: Columns, verdict: Verdict) -> str:
    """What the original says of preemption when it finds nothing to evict."""
    total = len(columns)
    if not total:
        return ""
    candidates = int(np.count_nonzero(verdict.resolvable()))
    parts = {
        "No preemption victims found for incoming pod": candidates,
        "Preemption is not helpful for scheduling": total - candidates,
    }
    return "preemption: " + fit_error(total, {reason: count for reason, count in parts.items() if count})


class Scheduler:
    """One scheduler of any number of profiles, each for the pods that name it. `run` works until it is cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: EventRecorder,
        clock: Clock,
        random: Random,
        configuration: Configuration | None = None,
    ) -> None:
        """Raises ConfigurationError where the configuration's plugins do not go together."""
        configuration = configuration or Configuration()
        self._client = client
        self._clock = clock
        self._random = random
        self._profiles = make_all(configuration)
        self._recorders = {name: recorder.named(name) for name in self._profiles}
        self.columns = Columns()
        self._queue = Queue(clock, configuration.initial_backoff, configuration.max_backoff)
        self._bindings = asyncio.Semaphore(_BINDINGS)
        self._assumed: dict[str, str] = {}  # uid -> node, until the binding is seen or has failed
        self._nominated: dict[str, tuple[str, PodInfo]] = {}  # uid -> node where room is being made for it
        self._nodes = informers.informer(NODES)
        self._pods = informers.informer(PODS)
        self._namespaces = informers.informer(NAMESPACES)
        self._budgets = informers.informer(PODDISRUPTIONBUDGETS)
        self._services = informers.informer(SERVICES)
        self._controllers = [(each, informers.informer(each)) for each in _CONTROLLERS]

    async def run(self) -> None:
        """Schedule until cancelled."""
        self._namespaces.add_handler(self._namespace_changed)
        self._services.add_handler(self._service_changed)
        for resource, controllers in self._controllers:
            controllers.add_handler(self._controller_changed(resource))
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)
        owners = [controllers for _, controllers in self._controllers]
        for informer in (self._namespaces, self._services, *owners, self._nodes, self._pods, self._budgets):
            await informer.synced()
        async with Tasks() as tasks:
            while True:
                await self._one(await self._queue.pop(), tasks)

    # What happens in the cluster ---------------------------------------------------------------------------------

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.columns.peers.set_namespace(new["metadata"]["name"], new["metadata"].get("labels") or {})
        elif old is not None:
            self.columns.peers.set_namespace(old["metadata"]["name"], None)

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        self.columns.owners.set_service(meta["namespace"], meta["name"], None if new is None else new.get("spec") or {})

    def _controller_changed(self, resource: Resource) -> Handler:
        def changed(old: Object | None, new: Object | None) -> None:
            meta, spec = (new or old or {})["metadata"], None if new is None else new.get("spec") or {}
            self.columns.owners.set_controller(resource.kind, meta["namespace"], meta["name"], spec)

        return changed

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self.columns.remove_node(old["metadata"]["name"])
            return
        self.columns.set_node(new)
        if old is None or _matters(old, new):
            self._queue.move_all()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and (new is None or old["metadata"]["uid"] != new["metadata"]["uid"]):
            self._forget(old["metadata"]["uid"], freed=bool(old["spec"].get("nodeName")))
        if new is None:
            return
        uid, node = new["metadata"]["uid"], new["spec"].get("nodeName")
        if podinfo.is_ended(new):
            self._forget(uid, freed=True)
        elif node:
            self._queue.remove(uid)
            self._assumed.pop(uid, None)
            self._nominated.pop(uid, None)
            info = podinfo.read(new)
            self.columns.add_pod(info, node)
            if old is None or not old["spec"].get("nodeName") or (old["metadata"].get("labels") or {}) != info.labels:
                self._queue.pod_came(info)
        elif self._is_mine(new) and uid not in self._assumed and _wants_attempt(old, new):
            self._queue.put(self._read(new))

    def _is_mine(self, pod: Object) -> bool:
        return (pod["spec"].get("schedulerName") or DEFAULT_NAME) in self._profiles

    def _read(self, pod: Object) -> PodInfo:
        """A pending pod's facts; scheduling gates only where its profile heeds them."""
        info = podinfo.read(pod)
        return info if self._profiles[info.scheduler].gates else replace(info, gates=())

    def _forget(self, uid: str, *, freed: bool) -> None:
        self._queue.remove(uid)
        self._assumed.pop(uid, None)
        self._nominated.pop(uid, None)
        self.columns.remove_pod(uid)
        if freed:
            self._queue.move_all()

    # One pod -----------------------------------------------------------------------------------------------------

    async def _one(self, pod: PodInfo, tasks: Tasks) -> None:
        if pod.pod["metadata"].get("deletionTimestamp"):
            self._queue.remove(pod.uid)
            return
        decision = self._decide(pod)
        if not decision.node:
            victims, why = self._preempt(pod, decision)
            self._queue.failed(pod.uid)
            node = victims.node if victims is not None else ""
            message = f"{decision.message} {why}" if why else decision.message
            tasks.spawn(self._report(pod, message, node), f"report {pod.key}")
            if victims is not None:
                tasks.spawn(self._evict(pod, victims), f"preempt for {pod.key}")
            return
        self._assumed[pod.uid] = decision.node
        self.columns.add_pod(pod, decision.node)
        await self._bindings.acquire()
        tasks.spawn(self._bind(pod, decision.node), f"bind {pod.key}")

    def _decide(self, pod: PodInfo) -> Decision:
        """Decide with the pods counted that room is being made for, unless this one is more important than they."""
        ahead = [
            (info, node)
            for uid, (node, info) in self._nominated.items()
            if uid != pod.uid and info.priority >= pod.priority and uid not in self._assumed
        ]
        if nominated := self._nominated.get(pod.uid):
            pod = replace(pod, nominated=nominated[0])
        for info, node in ahead:
            self.columns.add_pod(info, node)
        try:
            return decide(self.columns, pod, self._profiles[pod.scheduler], self._random)
        finally:
            for info, _ in ahead:
                self.columns.remove_pod(info.uid)

    def _preempt(self, pod: PodInfo, decision: Decision) -> tuple[preemption.Victims | None, str]:
        """Whose place the pod takes, or why nobody's, in the original's words."""
        assert decision.verdict is not None
        profile = self._profiles[pod.scheduler]
        if profile.candidates is None:
            return None, ""
        nominated = self._nominated.get(pod.uid, ("", pod))[0] or pod.nominated
        if why := preemption.ineligible(pod, nominated, self.columns):
            return None, f"preemption: {why}"
        budgets = [preemption.read_budget(each) for each in self._budgets.list()]
        victims = preemption.choose(
            self.columns, pod, profile.filters, decision.verdict, budgets, self._random, profile.candidates
        )
        if victims is None:
            self._nominated.pop(pod.uid, None)
            return None, no_victims(self.columns, decision.verdict)
        for uid, (node, info) in list(self._nominated.items()):
            if node == victims.node and info.priority < pod.priority:
                del self._nominated[uid]
        self._nominated[pod.uid] = (victims.node, pod)
        return victims, ""

    async def _evict(self, pod: PodInfo, victims: preemption.Victims) -> None:
        """Mark and delete the victims; their ends wake the pod."""
        for victim in victims.pods:
            if victim.deleting:
                continue
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "PreemptionByScheduler",
                "message": f"{pod.scheduler}: preempting to accommodate a higher priority pod",
                "lastTransitionTime": rfc3339(self._clock.now()),
            }
            if generation := victim.pod["metadata"].get("generation"):
                condition["observedGeneration"] = generation
            patch = {"metadata": {"uid": victim.uid}, "status": {"conditions": [condition]}}
            try:
                await self._client.patch(
                    PODS, victim.name, victim.namespace, patch, type="strategic", subresource="status"
                )
                await self._client.delete(PODS, victim.name, victim.namespace, uid=victim.uid)
            except (ApiError, OSError, TimeoutError) as error:
                if isinstance(error, ApiError) and error.code in (404, 409):
                    continue  # gone already, or another pod of that name
                log.warning("cannot preempt %s: %s", victim.key, error)
                self._nominated.pop(pod.uid, None)
                return
            self._recorders[pod.scheduler].event(
                victim.pod, "Normal", "Preempted", f"Preempted by pod {pod.uid} on node {victims.node}"
            )

    async def _bind(self, pod: PodInfo, node: str) -> None:
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._client.create(PODS, binding, pod.namespace, name=pod.name, subresource="binding")
        except (ApiError, OSError, TimeoutError) as error:
            self._unbind(pod, node, error)
        else:
            self._queue.remove(pod.uid)
            self._recorders[pod.scheduler].event(
                pod.pod, "Normal", "Scheduled", f"Successfully assigned {pod.key} to {node}"
            )
        finally:
            self._bindings.release()

    def _unbind(self, pod: PodInfo, node: str, error: Exception) -> None:
        """Take an assumption back. A pod that is gone or bound meanwhile is told of by its informer."""
        if self._assumed.pop(pod.uid, None) == node:
            self.columns.remove_pod(pod.uid)
            self._queue.move_all()
        if isinstance(error, ApiError) and error.code == 404:
            self._queue.remove(pod.uid)
            return
        log.warning("cannot bind %s to %s: %s", pod.key, node, error)
        self._recorders[pod.scheduler].event(
            pod.pod, "Warning", "FailedScheduling", f'binding rejected: running Bind plugin "DefaultBinder": {error}'
        )
        self._queue.retry(pod.uid)

    async def _report(self, pod: PodInfo, message: str, nominated: str) -> None:
        """Say why not: an event, the condition where it changed, and where room is being made."""
        self._recorders[pod.scheduler].event(pod.pod, "Warning", "FailedScheduling", message)
        now = rfc3339(self._clock.now())
        known = (pod.pod.get("status") or {}).get("conditions") or []
        found = next((c for c in known if c.get("type") == _CONDITION), {})
        told = (found.get("status"), found.get("reason"), found.get("message"))
        if told == ("False", "Unschedulable", message) and nominated in ("", pod.nominated):
            return
        condition = {"type": _CONDITION, "status": "False", "reason": "Unschedulable", "message": message}
        changed = found.get("status") != "False"
        condition["lastTransitionTime"] = now if changed else found.get("lastTransitionTime", now)
        if generation := pod.pod["metadata"].get("generation"):
            condition["observedGeneration"] = generation
        patch: Object = {"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}}
        if nominated:
            patch["status"]["nominatedNodeName"] = nominated
        try:
            await self._client.patch(PODS, pod.name, pod.namespace, patch, type="strategic", subresource="status")
        except (ApiError, OSError, TimeoutError) as error:
            log.warning("cannot write the condition of %s: %s", pod.key, error)


def _matters(old: Object, new: Object) -> bool:
    """Whether a node changed in a way that could let a pod in."""
    return (
        old.get("spec") != new.get("spec")
        or old["metadata"].get("labels") != new["metadata"].get("labels")
        or (old.get("status") or {}).get("allocatable") != (new.get("status") or {}).get("allocatable")
    )


def _wants_attempt(old: Object | None, new: Object) -> bool:
    """A new pod, or one whose own fields changed; a mere status write is no reason to try again."""
    return (
        old is None
        or old["spec"] != new["spec"]
        or old["metadata"].get("labels") != new["metadata"].get("labels")
        or "deletionTimestamp" in new["metadata"]
    )
