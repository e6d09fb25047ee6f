"""The scheduler's loop: take a pod, decide over all nodes, assume, bind.

Owns the writes: bindings, evictions, the PodScheduled condition, events; `observer` knows what happens. The decision
itself is `decide`, which is pure. Called by `cluster`. It never waits for a binding before the next decision.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple

import msgspec.structs
import numpy as np

from steersman.api.errors import ApiError
from steersman.api.resource import PODDISRUPTIONBUDGETS, PODS, Object
from steersman.client.client import Client
from steersman.client.informer import Informers
from steersman.client.series import SeriesRecorder
from steersman.lib.clock import Clock, rfc3339
from steersman.lib.metrics import Registry
from steersman.lib.tasks import Tasks, turn
from steersman.scheduler import podinfo, preemption, why
from steersman.scheduler.columns import Columns
from steersman.scheduler.configuration import DEFAULT_SCHEDULER, Configuration
from steersman.scheduler.extenders import ExtenderError, Extenders
from steersman.scheduler.extenders import make_all as make_extenders
from steersman.scheduler.framework import (
    Event,
    Kind,
    PluginError,
    Rescue,
    Reservation,
    Reserved,
    Scores,
    Verdict,
    always,
    fit_error,
    refusal,
    run_filters,
    run_scores,
)
from steersman.scheduler.metrics import BINDING, ERROR, PREEMPTION, SCHEDULED, UNSCHEDULABLE, SchedulerMetrics
from steersman.scheduler.nominations import Nominations
from steersman.scheduler.observer import Observer
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.profiles import Profile, make_all, timed
from steersman.scheduler.queue import Queue
from steersman.scheduler.repeats import Repeats
from steersman.scheduler.why import Memory, Parts, Worked

log = logging.getLogger(__name__)

DEFAULT_NAME = DEFAULT_SCHEDULER
_BINDINGS, _WRITES = 24, 8  # in flight at once: together no more than the client keeps connections for
_SAMPLED = 10  # of so many attempts one measures its plugins
_CONDITION = "PodScheduled"


class Decision(NamedTuple):
    """Where a pod goes, or why nowhere."""

    node: str
    message: str = ""
    verdict: Verdict | None = None
    parts: Parts = ()
    filtered: float = 0.0  # when filters were done


def decide(
    columns: Columns, pod: PodInfo, profile: Profile, random: Random, now: Callable[[], float] = lambda: 0.0
) -> Decision:
    """The best feasible node, ties broken at random; no node and the reasons when there is none."""
    verdict = run_filters(profile.filters, columns, pod)
    feasible, filtered = verdict.feasible, now()
    count = int(np.count_nonzero(feasible))
    if count == 0:
        return Decision("", refusal(len(columns), verdict), verdict, filtered=filtered)
    row = columns.rows.get(pod.nominated)
    if row is not None and feasible[row]:  # room was made for it there
        return Decision(pod.nominated, verdict=verdict, filtered=filtered)
    if count == 1:
        return Decision(columns.names[int(np.argmax(feasible))], verdict=verdict, filtered=filtered)
    parts: list[tuple[str, int, Scores]] = []
    scores = run_scores(profile.scores, columns, pod, feasible, parts)
    best = np.flatnonzero(scores == scores.max())
    node = columns.names[int(best[random.randrange(len(best))])]
    return Decision(node, verdict=verdict, parts=parts, filtered=filtered)


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
        recorder: SeriesRecorder,
        clock: Clock,
        random: Random,
        configuration: Configuration | None = None,
        metrics: SchedulerMetrics | None = None,
    ) -> None:
        """Raises ConfigurationError where the configuration's plugins do not go together."""
        self._metrics = metrics or SchedulerMetrics(Registry())
        configuration = configuration or Configuration()
        self._client = client
        self._clock = clock
        self._random = random
        self._profiles = make_all(configuration)
        self._recorders = {name: recorder.named(name) for name in self._profiles}
        self.columns = Columns(clock)
        self._nominations = Nominations(self.columns)
        self._hints = {
            (name, plugin.name): plugin.hints
            for name, profile in self._profiles.items()
            for plugin in profile.filters
            if plugin.hints is not None
        }
        self._kinds = {
            (name, plugin.name): plugin.alike
            for name, profile in self._profiles.items()
            for plugin in profile.filters
            if plugin.alike is not None
        }
        self._queue = Queue(
            clock,
            configuration.initial_backoff,
            configuration.max_backoff,
            interests=_interests(self._profiles),
            asked=self._asked,
            alike=self._alike,
        )
        self._observer = Observer(
            informers,
            self.columns,
            self._queue,
            self._nominations,
            self._profiles,
            whole=bool(configuration.extenders),
            handled=self._metrics.handled,
            now=clock.monotonic,
        )
        self._extenders = Extenders(make_extenders(configuration.extenders))
        self._memory = Memory()
        self._repeats = Repeats(self.columns, clock.monotonic)
        self._victims = preemption.Memory()
        self._bindings = asyncio.Semaphore(_BINDINGS)
        self._writes = asyncio.Semaphore(_WRITES)  # evictions and conditions
        self._budgets = informers.informer(PODDISRUPTIONBUDGETS)
        self._metrics.watch(self._queue, self.columns, self._observer.assumed, self._profiles)
        self._timed = {
            name: timed(each, self._metrics.plugin, clock.monotonic) for name, each in self._profiles.items()
        }
        self._tries = 0

    def explain(self, namespace: str, name: str) -> dict[str, Any] | None:
        """Why a pod is on its node, or on none, as `why` tells it; None for a pod that is not known or not ours."""
        pod = self._observer.find(namespace, name)
        profile = None if pod is None else self._profiles.get(pod["spec"].get("schedulerName") or DEFAULT_NAME)
        if pod is None or profile is None:
            return None
        info = msgspec.structs.replace(podinfo.read(pod), node_name="")  # where it is does not say where it could be
        try:
            return self._explained(pod, info, profile)
        except PluginError as error:
            return {"pod": info.key, "scheduler": info.scheduler, "node": "", "basis": "now", "message": str(error)}

    def _explained(self, pod: Object, info: PodInfo, profile: Profile) -> dict[str, Any]:
        node = pod["spec"].get("nodeName") or self._observer.assumed.get(info.uid, "")
        worked = self._memory.find(info.uid, self.columns)
        remembered = worked is not None and worked.node == node
        if worked is None or not remembered:
            worked = why.work_out(self.columns, info, profile, node)
        elif not worked.verdict.refusals:
            now = why.work_out(self.columns, info, profile, node)
            worked = worked._replace(verdict=Verdict(worked.verdict.feasible, now.verdict.refusals))
        told = why.tell(self.columns, info, worked, remembered=remembered)
        state = self._queue.state(info.uid)
        return told if state is None or node else {**told, "queue": state}

    async def run(self) -> None:
        """Schedule until cancelled."""
        await self._observer.start()
        await self._budgets.synced()
        try:
            async with Tasks() as tasks:
                while True:
                    pod = await self._queue.pop()
                    try:
                        await self._one(pod, tasks)
                    except Exception:  # one pod that nobody can decide on must not keep all others waiting
                        log.exception("deciding on %s failed", pod.key)
                        self._queue.retry(pod.uid)
        finally:
            await self._extenders.close()

    def _asked(self, pod: PodInfo, plugin: str, event: Event) -> bool:
        """What the plugin's hint says of an event."""
        hints = self._hints.get((pod.scheduler, plugin))
        hint = always if hints is None else hints.get(event.kind)
        if hint is None:
            return False
        began = self._clock.monotonic()
        found = hint(self.columns, pod, event)
        self._metrics.hinted(plugin, event.label, self._clock.monotonic() - began, queue=found)
        return found

    def _alike(self, pod: PodInfo, plugin: str) -> Hashable:
        """Which pods the plugin's hints treat like this one."""
        alike = self._kinds.get((pod.scheduler, plugin))
        return None if alike is None else (pod.scheduler, alike(pod))

    # One pod -----------------------------------------------------------------------------------------------------

    async def _one(self, pod: PodInfo, tasks: Tasks) -> None:
        if pod.pod["metadata"].get("deletionTimestamp"):
            self._queue.remove(pod.uid)
            return
        for plugin in self._profiles[pod.scheduler].holds:
            if plugin.hold is not None and plugin.hold(self.columns, pod) is not None:
                self._queue.hold(pod.uid, plugin.name)
                return
        began = self._clock.monotonic()
        try:
            decision = self._decide(pod, await self._asked_elsewhere(pod))
            self._metrics.decided(self._clock.monotonic() - began)
            rescues: list[Rescue] = []
            victims: preemption.Victims | None = None
            why = ""
            if not decision.node:
                lost = self._clock.monotonic()
                rescues = self._rescue(pod)
                try:
                    victims, why = await self._preempt(pod, decision)
                    texts = [*(each.text for each in rescues), why] if victims is None else []
                    why = ", ".join(text for text in texts if text)
                    status = "Unschedulable" if victims is None else "Success"
                except ExtenderError as error:  # the pod fits nowhere all the same
                    why, status = f"preemption: {error}", "Error"
                self._metrics.point("PostFilter", status, pod.scheduler, self._clock.monotonic() - lost)
        except (ExtenderError, PluginError) as error:
            self._attempted(ERROR, pod, began)
            self._queue.retry(pod.uid)
            tasks.spawn(self._report(pod, str(error), "", reason="SchedulerError"), f"report {pod.key}")
            return
        if pod.uid in self._observer.assumed or self._queue.state(pod.uid) is None:
            return  # it was bound or deleted while others were asked
        if decision.verdict is not None:
            worked = Worked(decision.verdict, decision.parts, decision.node, self.columns.comings)
            self._memory.keep(pod.uid, worked)
        if not decision.node:
            self._attempted(UNSCHEDULABLE, pod, began)
            self._queue.failed(pod.uid, decision.verdict.plugins() if decision.verdict is not None else ())
            node = victims.node if victims is not None else ""
            message = f"{decision.message} {why}" if why else decision.message
            for rescue in rescues:
                if rescue.write is not None:
                    tasks.spawn(self._mend(pod, rescue), f"rescue {pod.key}")
            if victims is not None:
                self._metrics.preempted(len(victims.pods))
                evicting = self._metrics.during(PREEMPTION, self._evict(pod, victims))
                tasks.spawn(evicting, f"preempt for {pod.key}")
            tasks.spawn(self._report(pod, message, node), f"report {pod.key}")
            await turn()  # nothing else waits here, and thousands may fit nowhere
            return
        self._nominations.remove(pod.uid)
        taken = self._reserve(pod, decision.node)
        self._observer.assumed[pod.uid] = decision.node
        self.columns.add_pod(pod, decision.node)
        if not taken:  # what is reserved may take minutes to settle, and must not hold up the others
            await self._bindings.acquire()
        binding = self._metrics.during(BINDING, self._bind(pod, decision.node, taken, began))
        tasks.spawn(binding, f"bind {pod.key}")

    def _attempted(self, result: str, pod: PodInfo, began: float) -> None:
        self._metrics.attempted(result, pod.scheduler, self._clock.monotonic() - began)

    def _reserve(self, pod: PodInfo, node: str) -> list[tuple[str, Reservation]]:
        """What the pod takes with its node, by plugin."""
        began = self._clock.monotonic()
        found = [
            (plugin.name, taken)
            for plugin in self._profiles[pod.scheduler].reserves
            if plugin.reserve is not None and (taken := plugin.reserve(self.columns, pod, node)) is not None
        ]
        self._metrics.point("Reserve", "Success", pod.scheduler, self._clock.monotonic() - began)
        return found

    def _rescue(self, pod: PodInfo) -> list[Rescue]:
        """What plugins would give up for a pod that fits nowhere."""
        plugins = self._profiles[pod.scheduler].rescues
        return [plugin.rescue(self.columns, pod) for plugin in plugins if plugin.rescue is not None]

    async def _mend(self, pod: PodInfo, rescue: Rescue) -> None:
        try:
            async with self._writes:
                if rescue.write is not None:
                    await rescue.write(self._client)
        except (ApiError, OSError, TimeoutError) as error:
            log.warning("cannot make room for %s: %s", pod.key, error)

    async def _asked_elsewhere(self, pod: PodInfo) -> Profile:
        """The pod's profile, with what extenders say of the pod as one plugin more. Raises ExtenderError.

        In every tenth attempt its plugins are timed, one by one.
        """
        self._tries += 1
        profile = (self._profiles if self._tries % _SAMPLED else self._timed)[pod.scheduler]
        if not self._extenders.any(pod):
            return profile
        with self._nominations.aside(pod):
            feasible = run_filters(profile.filters, self.columns, pod).feasible
        names = [self.columns.names[row] for row in np.flatnonzero(feasible)]
        if not names:
            return profile
        said = await self._extenders.judge(pod, {name: self.columns.node(name) or {} for name in names})
        scores = (*profile.scores, said) if said.score is not None else profile.scores
        return replace(profile, filters=(*profile.filters, said), scores=scores)

    def _decide(self, pod: PodInfo, profile: Profile) -> Decision:
        """Decide with the pods counted that room is being made for, unless this one is more important than they."""
        began = self._clock.monotonic()
        if (nominated := self._nominations.node_of(pod)) and nominated != pod.nominated:
            pod = msgspec.structs.replace(pod, nominated=nominated)
        with self._nominations.aside(pod):
            choice = self._repeats.decide(pod, profile, self._random)
            if choice is None:
                decision = decide(self.columns, pod, profile, self._random, self._clock.monotonic)
            else:
                verdict = Verdict(choice.feasible)
                decision = Decision(choice.node, verdict=verdict, parts=choice.parts, filtered=choice.filtered)
        self._metrics.point("Filter", "Success", profile.name, decision.filtered - began)
        scored = np.count_nonzero(decision.verdict.feasible) if decision.parts and decision.verdict is not None else 0
        self._metrics.judged(profile.name, len(self.columns), int(scored))
        if decision.node:
            self._metrics.point("Score", "Success", profile.name, self._clock.monotonic() - decision.filtered)
        if not len(self._nominations) or not decision.node or not (pod.affinity.near or pod.spread):
            return decision
        with self._nominations.aside(pod, everybody=True):  # those who may never come are no company
            verdict = run_filters(profile.filters, self.columns, pod)
        if verdict.feasible[self.columns.rows[decision.node]]:
            return decision
        return Decision("", refusal(len(self.columns), verdict), verdict)

    async def _preempt(self, pod: PodInfo, decision: Decision) -> tuple[preemption.Victims | None, str]:
        """Whose place the pod takes, or why nobody's, in the original's words."""
        assert decision.verdict is not None
        profile = self._profiles[pod.scheduler]
        if profile.candidates is None:
            return None, ""
        nominated = self._nominations.node_of(pod) or pod.nominated
        if why := preemption.ineligible(pod, nominated, self.columns):
            return None, f"preemption: {why}"
        budgets = [preemption.read_budget(each) for each in self._budgets.list()]
        with self._nominations.aside(pod):
            found: Sequence[preemption.Victims] = preemption.find(
                self.columns,
                pod,
                profile.filters,
                decision.verdict,
                budgets,
                self._random,
                profile.candidates,
                self._victims,
            )
        if found and self._extenders.preempting:
            there = {each.node: self.columns.pods[self.columns.rows[each.node]] for each in found}
            found = await self._extenders.preempt(pod, found, there)
        victims = preemption.best(found)
        if victims is None:
            self._nominations.remove(pod.uid)
            return None, no_victims(self.columns, decision.verdict)
        for uid in self._nominations.lower(pod, victims.node):
            self._nominations.remove(uid)
        self._nominations.add(pod, victims.node)
        return victims, ""

    async def _evict(self, pod: PodInfo, victims: preemption.Victims) -> None:
        """Mark and delete the victims; their ends wake the pod."""
        began = self._clock.monotonic()
        done = await self._evicted(pod, victims)
        self._metrics.evicted(self._clock.monotonic() - began, done=done)

    async def _evicted(self, pod: PodInfo, victims: preemption.Victims) -> bool:
        going = [self._gone(pod, victim, victims.node) for victim in victims.pods if not victim.deleting]
        done = all(await asyncio.gather(*going))  # at once: the next preemptor's wait until these have had their turn
        if not done:
            self._nominations.remove(pod.uid)
        return done

    async def _gone(self, pod: PodInfo, victim: PodInfo, node: str) -> bool:
        """Mark and delete one victim; whether it is gone, or going."""
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
        where = victim.name, victim.namespace
        try:
            async with self._writes:
                await self._client.patch(PODS, *where, patch, type="strategic", subresource="status", quiet=True)
                await self._client.delete(PODS, *where, uid=victim.uid, quiet=True)
        except (ApiError, OSError, TimeoutError) as error:
            if isinstance(error, ApiError) and error.code in (404, 409):
                return True  # gone already, or another pod of that name
            log.warning("cannot preempt %s: %s", victim.key, error)
            return False
        text = f"Preempted by pod {pod.uid} on node {node}"
        self._recorders[pod.scheduler].event(victim.pod, "Normal", "Preempted", "Preempting", text, pod.pod)
        return True

    async def _settle(self, pod: PodInfo, node: str, taken: list[tuple[str, Reservation]]) -> bool:
        """Make true what was reserved; when that fails, all of it and the node are given back."""

        def tell(reason: str, text: str) -> None:
            self._recorders[pod.scheduler].event(pod.pod, "Normal", reason, "Scheduling", text)

        for plugin, reservation in taken:
            try:
                await reservation.settle(self._client, tell)
            except (Reserved, ApiError, OSError, TimeoutError) as error:
                await self._give_back(pod, taken)
                self._unbind(pod, node, error, f'running PreBind plugin "{plugin}": {error}')
                return False
        return True

    async def _give_back(self, pod: PodInfo, taken: list[tuple[str, Reservation]]) -> None:
        for _, reservation in reversed(taken):
            reservation.undo()
        for plugin, reservation in reversed(taken):
            try:
                await reservation.release(self._client)
            except (ApiError, OSError, TimeoutError) as error:  # the next attempt comes here again
                log.warning("cannot take back what %s wrote for %s: %s", plugin, pod.key, error)

    async def _bind(self, pod: PodInfo, node: str, taken: list[tuple[str, Reservation]], began: float) -> None:
        if taken:
            waited = self._clock.monotonic()
            settled = await self._settle(pod, node, taken)
            status = "Success" if settled else "Error"
            self._metrics.point("PreBind", status, pod.scheduler, self._clock.monotonic() - waited)
            if not settled:
                self._attempted(ERROR, pod, began)
                return
            await self._bindings.acquire()
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        asked, status = self._clock.monotonic(), "Success"
        try:
            if not await self._bound_elsewhere(pod, node):
                await self._client.post(PODS, binding, pod.namespace, name=pod.name, subresource="binding")
        except (ApiError, ExtenderError, OSError, TimeoutError) as error:
            status = "Error"
            self._attempted(ERROR, pod, began)
            await self._give_back(pod, taken)
            self._unbind(pod, node, error, f'binding rejected: running Bind plugin "DefaultBinder": {error}')
        else:
            self._attempted(SCHEDULED, pod, began)
            attempts, since, flushed = self._queue.history(pod.uid)
            self._metrics.bound(attempts, self._clock.monotonic() - since if attempts else 0.0, flushed=flushed)
            self._queue.remove(pod.uid)
            self._recorders[pod.scheduler].event(
                pod.pod, "Normal", "Scheduled", "Binding", f"Successfully assigned {pod.key} to {node}"
            )
        finally:
            self._metrics.point("Bind", status, pod.scheduler, self._clock.monotonic() - asked)
            self._bindings.release()

    async def _bound_elsewhere(self, pod: PodInfo, node: str) -> bool:
        """Whether an extender has bound the pod. Raises ExtenderError."""
        for binder in self._extenders.binders(pod):
            try:
                await binder.bind(pod, node)
            except ExtenderError as error:
                if not binder.ignorable:
                    raise
                log.warning("extender %s does not bind %s: %s", binder.url, pod.key, error)
            else:
                return True
        return False

    def _unbind(self, pod: PodInfo, node: str, error: Exception, message: str) -> None:
        """Take an assumption back. A pod that is gone or bound meanwhile is told of by its informer."""
        self._observer.forget_assumed(pod, node)
        if isinstance(error, ApiError) and error.code == 404:
            self._queue.remove(pod.uid)
            return
        log.warning("cannot bind %s to %s: %s", pod.key, node, error)
        self._recorders[pod.scheduler].event(pod.pod, "Warning", "FailedScheduling", "Scheduling", message)
        self._queue.retry(pod.uid)

    async def _report(self, pod: PodInfo, message: str, nominated: str, *, reason: str = "Unschedulable") -> None:
        """Say why not: an event, the condition where it changed, and where room is being made."""
        self._recorders[pod.scheduler].event(pod.pod, "Warning", "FailedScheduling", "Scheduling", message)
        now = rfc3339(self._clock.now())
        known = (pod.pod.get("status") or {}).get("conditions") or []
        found = next((c for c in known if c.get("type") == _CONDITION), {})
        told = (found.get("status"), found.get("reason"), found.get("message"))
        if told == ("False", reason, message) and nominated in ("", pod.nominated):
            return
        condition = {"type": _CONDITION, "status": "False", "reason": reason, "message": message}
        changed = found.get("status") != "False"
        condition["lastTransitionTime"] = now if changed else found.get("lastTransitionTime", now)
        if generation := pod.pod["metadata"].get("generation"):
            condition["observedGeneration"] = generation
        patch: Object = {"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}}
        if nominated:
            patch["status"]["nominatedNodeName"] = nominated
        try:
            async with self._writes:
                where = pod.name, pod.namespace
                await self._client.patch(PODS, *where, patch, type="strategic", subresource="status", quiet=True)
        except (ApiError, OSError, TimeoutError) as error:
            log.warning("cannot write the condition of %s: %s", pod.key, error)


def _interests(profiles: Mapping[str, Profile]) -> dict[str, frozenset[Kind]]:
    """Which kinds of event may help those that a plugin refused; one that cannot tell is not listed."""
    plugins = [plugin for profile in profiles.values() for plugin in profile.filters]
    blind = {plugin.name for plugin in plugins if plugin.hints is None}
    names = {plugin.name for plugin in plugins} - blind
    return {
        name: frozenset(kind for plugin in plugins if plugin.name == name for kind in plugin.hints or ())
        for name in names
    }
