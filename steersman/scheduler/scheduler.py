"""The scheduler's loop: take a pod, decide over all nodes, assume, bind.

Owns the wiring of informers to columns and queue, and the writes: bindings, the PodScheduled condition, events. The
decision itself is `decide`, which is pure. Called by `cluster`. It never waits for a binding before the next decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from steersman.api.errors import ApiError
from steersman.api.resource import NAMESPACES, NODES, PODDISRUPTIONBUDGETS, PODS, Object
from steersman.client.client import Client
from steersman.client.events import EventRecorder
from steersman.client.informer import Informers
from steersman.lib.clock import Clock, rfc3339
from steersman.lib.tasks import Tasks
from steersman.scheduler import podinfo, preemption
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Plugin, Verdict, fit_error, run_filters, run_scores
from steersman.scheduler.plugins import DEFAULT
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.queue import Queue

log = logging.getLogger(__name__)

DEFAULT_NAME = "default-scheduler"
_BINDINGS = 64  # in flight at once
_CONDITION = "PodScheduled"


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a pod goes, or why nowhere."""

    node: str
    message: str = ""
    verdict: Verdict | None = None


def decide(columns: Columns, pod: PodInfo, plugins: Sequence[Plugin], random: Random) -> Decision:
    """The best feasible node, ties broken at random; no node and the reasons when there is none."""
    verdict = run_filters(plugins, columns, pod)
    feasible = verdict.feasible
    count = int(np.count_nonzero(feasible))
    if count == 0:
        return Decision("", fit_error(len(columns), verdict.histogram()), verdict)
    row = columns.rows.get(pod.nominated)
    if row is not None and feasible[row]:  # room was made for it there
        return Decision(pod.nominated)
    if count == 1:
        return Decision(columns.names[int(np.argmax(feasible))])
    scores = run_scores(plugins, columns, pod, feasible)
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
    """One profile's scheduler. `run` works until it is cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: EventRecorder,
        clock: Clock,
        random: Random,
        *,
        name: str = DEFAULT_NAME,
        plugins: Sequence[Plugin] = DEFAULT,
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._clock = clock
        self._random = random
        self._name = name
        self._plugins = plugins
        self.columns = Columns()
        self._queue = Queue(clock)
        self._bindings = asyncio.Semaphore(_BINDINGS)
        self._assumed: dict[str, str] = {}  # uid -> node, until the binding is seen or has failed
        self._nominated: dict[str, tuple[str, PodInfo]] = {}  # uid -> node where room is being made for it
        self._nodes = informers.informer(NODES)
        self._pods = informers.informer(PODS)
        self._namespaces = informers.informer(NAMESPACES)
        self._budgets = informers.informer(PODDISRUPTIONBUDGETS)

    async def run(self) -> None:
        """Schedule until cancelled."""
        self._namespaces.add_handler(self._namespace_changed)
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)
        for informer in (self._namespaces, self._nodes, self._pods, self._budgets):
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
            self._queue.put(podinfo.read(new))

    def _is_mine(self, pod: Object) -> bool:
        return (pod["spec"].get("schedulerName") or DEFAULT_NAME) == self._name

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
            return decide(self.columns, pod, self._plugins, self._random)
        finally:
            for info, _ in ahead:
                self.columns.remove_pod(info.uid)

    def _preempt(self, pod: PodInfo, decision: Decision) -> tuple[preemption.Victims | None, str]:
        """Whose place the pod takes, or why nobody's, in the original's words."""
        assert decision.verdict is not None
        nominated = self._nominated.get(pod.uid, ("", pod))[0] or pod.nominated
        if why := preemption.ineligible(pod, nominated, self.columns):
            return None, f"preemption: {why}"
        budgets = [preemption.read_budget(each) for each in self._budgets.list()]
        victims = preemption.choose(self.columns, pod, self._plugins, decision.verdict, budgets, self._random)
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
                "message": f"{self._name}: preempting to accommodate a higher priority pod",
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
            self._recorder.event(
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
            self._recorder.event(pod.pod, "Normal", "Scheduled", f"Successfully assigned {pod.key} to {node}")
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
        self._recorder.event(
            pod.pod, "Warning", "FailedScheduling", f'binding rejected: running Bind plugin "DefaultBinder": {error}'
        )
        self._queue.retry(pod.uid)

    async def _report(self, pod: PodInfo, message: str, nominated: str) -> None:
        """Say why not: an event, the condition where it changed, and where room is being made."""
        self._recorder.event(pod.pod, "Warning", "FailedScheduling", message)
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
