"""A crowd of users on one cluster, and a model of what must come of what they ask: a Hypothesis state machine.

Time is virtual, nothing fails but nodes; after every operation everything settles, then the pods are compared. While an
operation is under way no workload passes its limits, and those that it does not touch stay as they are.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import (
    CRONJOBS,
    DAEMONSETS,
    DEPLOYMENTS,
    JOBS,
    NODES,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    Object,
    Resource,
)
from steersman.client.workload import controller_of, scaled
from steersman.controllers.hpa import HPAS
from steersman.lib.clock import rfc3339
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.faults import Odds
from steersman.testing.objects import node
from steersman.testing.simulation import Simulation

from .limits import Limits, app_of
from .scenarios import NAMESPACE, change, change_image, image_of, selects, template
from .usage import Usage, autoscaler

CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "replicationcontroller-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "cronjob-controller",
    "garbage-collector-controller",
    "disruption-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
    "horizontal-pod-autoscaler-controller",
    "node-lifecycle-controller",
)
PATIENCE = {f"node-{name}-grace-period": "1000000" for name in ("startup", "monitor")}  # nodes need not speak
LONG_ENOUGH = 150.0  # virtual seconds
COUNTED = {DEPLOYMENTS, REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS}
SCALES = st.integers(0, 4)
SURGES = st.sampled_from((0, 1, 2, "25%", "100%"))
LACKING = st.sampled_from((1, 2, "50%"))
PROPAGATION = st.sampled_from(["Background", "Foreground", "Orphan"])
_NODES = 3


@dataclass
class Workload:
    """What was asked for."""

    kind: Resource
    name: str
    replicas: int = 0
    image: int = 1
    paused: bool = False
    shown: int = 1  # the image that pods have, which a paused Deployment's template is ahead of
    before: list[int] = field(default_factory=list)
    surge: int | str = 0  # while images change
    lacking: int | str = 1
    all_at_once: bool = False  # when images change
    partition: int = 0  # below which a StatefulSet's pods have the image that all had last
    held: int = 1  # that image
    on: dict[str, int] = field(default_factory=dict)  # of a DaemonSet: the image of each node's pod
    by_hand: bool = False  # OnDelete: a pod has the newest image once its predecessor was deleted
    budget: Object | None = None
    outcome: tuple[str, int] | None = None  # how a Job ends, and how many of its pods are there then, at least


def _stays(pod: Object) -> bool:
    """Whether a pod stays on a node that is not ready, as those of DaemonSets do."""
    return any(each.get("key") == "node.kubernetes.io/not-ready" for each in pod["spec"].get("tolerations") or ())


class Crowd(RuleBasedStateMachine):
    """Operations, and the model beside them."""

    def __init__(self) -> None:
        super().__init__()
        odds = Odds(latency=0.01)
        odds.calm()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.workloads: dict[str, Workload] = {}
        self.loose: Counter[tuple[str, str]] = Counter()  # pods that nobody owns any more, by app and image
        self.barred: set[str] = set()  # nodes on which no pod may be
        self.ill: set[str] = set()  # nodes that are not ready: DaemonSets' pods stay there, the others leave
        self.limits = Limits()
        self.loads: dict[str, int] = {}
        self.made = 0
        self.world: Simulation = self.run(self._open(odds))

    async def _open(self, odds: Odds) -> Simulation:
        at_once = {"horizontal-pod-autoscaler-cpu-initialization-period": "0", **PATIENCE}
        world = Simulation(1, CONTROLLERS, odds=odds, nodes=_NODES, settings=at_once)
        Usage(world, self.loads)
        await world.__aenter__()
        for kind in (*COUNTED, DAEMONSETS, JOBS, CRONJOBS, NODES):
            world.seen.informer(kind)
        await world.seen.synced()
        world.always(PODS, lambda: self.limits.passed(world.all(PODS)))
        await world.run_copy()
        return world

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def act(self, *work: Coroutine[Any, Any, Any], seconds: float = LONG_ENOUGH) -> None:
        """Do it, and wait until nothing moves any more."""

        async def all_of_it() -> None:
            for each in work:
                await each
            await self.world.pause(seconds)

        self.run(all_of_it())
        for each in self.workloads.values():
            if each.kind is STATEFULSETS and len(self._pods_of(each)) <= 1 and not self._below(each):
                each.held = each.shown  # all have it now, or there is none to have another
        self.limits.still({each.name: self._size(each) for each in self.workloads.values() if each.outcome is None})
        for each in self.workloads.values():
            if each.kind is DAEMONSETS:
                self.limits.least[each.name] = self._size(each) - len(self.ill)

    def teardown(self) -> None:
        self.run(self.world.__aexit__(None))
        self.runner.close()

    def _some(self, data: st.DataObject, *kinds: Resource) -> Workload | None:
        names = sorted(name for name, each in self.workloads.items() if each.kind in (kinds or (each.kind,)))
        return self.workloads[data.draw(st.sampled_from(names))] if names else None

    # Operations.

    @initialize()
    def look(self) -> None:
        self.act()

    @rule(kind=st.sampled_from((REPLICASETS, REPLICATIONCONTROLLERS)), replicas=SCALES)
    def create(self, kind: Resource, replicas: int) -> None:
        selector: Object = {} if kind is REPLICATIONCONTROLLERS else {"matchLabels": {}}
        self._create(Workload(kind, self._name(), replicas), {"selector": selector})

    @rule(replicas=SCALES, surge=SURGES, lacking=LACKING, all_at_once=st.booleans())
    def create_deployment(self, replicas: int, surge: int | str, lacking: int | str, all_at_once: bool) -> None:
        made = Workload(DEPLOYMENTS, self._name(), replicas, surge=surge, lacking=lacking, all_at_once=all_at_once)
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": lacking}}
        self._create(made, {"strategy": {"type": "Recreate"} if all_at_once else rolling})

    @rule(replicas=SCALES, partition=st.integers(0, 2), parallel=st.booleans(), lacking=LACKING)
    def create_stateful_set(self, replicas: int, partition: int, parallel: bool, lacking: int | str) -> None:
        made = Workload(STATEFULSETS, self._name(), replicas, partition=partition, lacking=lacking)
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": partition, "maxUnavailable": lacking}}
        policy = "Parallel" if parallel else "OrderedReady"
        self._create(made, {"serviceName": made.name, "updateStrategy": rolling, "podManagementPolicy": policy})

    def _create(self, made: Workload, spec: Object) -> None:
        """As many pods as asked for, one by one or all at once."""
        self.workloads[made.name] = made
        self.limits.moves(made.name, 0, made.replicas)
        selector: Object = {"app": made.name} if made.kind is REPLICATIONCONTROLLERS else selects(made.name)
        spec = {**spec, "replicas": made.replicas, "selector": selector, "template": template(made.name)}
        self.act(self.world.client.create(made.kind, {"metadata": {"name": made.name}, "spec": spec}, NAMESPACE))

    @rule(surge=st.sampled_from((0, 0, 1, "50%")), lacking=LACKING)
    def create_daemon_set(self, surge: int | str, lacking: int | str) -> None:
        name = self._name()
        made = self.workloads[name] = Workload(DAEMONSETS, name, surge=surge, lacking=0 if surge else lacking)
        made.on = dict.fromkeys(self._well(), 1)
        self.limits.moves(name, 0, self._size(made))
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": made.lacking}}
        spec = {"selector": selects(name), "template": template(name), "updateStrategy": strategy}
        self.act(self.world.client.create(DAEMONSETS, {"metadata": {"name": name}, "spec": spec}, NAMESPACE))

    @rule()
    def create_daemon_set_updated_by_hand(self) -> None:
        name = self._name()
        made = self.workloads[name] = Workload(DAEMONSETS, name, on=dict.fromkeys(self._well(), 1), by_hand=True)
        self.limits.moves(name, 0, self._size(made))
        spec = {"selector": selects(name), "template": template(name), "updateStrategy": {"type": "OnDelete"}}
        self.act(self.world.client.create(DAEMONSETS, {"metadata": {"name": name}, "spec": spec}, NAMESPACE))

    @rule(completions=st.integers(1, 4), parallelism=st.integers(0, 3), indexed=st.booleans(), suspend=st.booleans())
    def create_job(self, completions: int, parallelism: int, indexed: bool, suspend: bool) -> None:
        """Its pods never end by themselves: as many as may run do."""
        made = Workload(JOBS, self._name(), min(completions, parallelism), paused=suspend)
        self._create_job(
            made,
            {
                "completions": completions,
                "parallelism": parallelism,
                "completionMode": "Indexed" if indexed else "NonIndexed",
                "suspend": suspend,
                "backoffLimit": 1000,
            },
        )

    @rule(how=st.sampled_from(("back-off", "policy", "index", "success", "plain")), limit=st.integers(0, 2))
    def create_job_that_ends(self, how: str, limit: int) -> None:
        """Its pods end: all fail, or one success is enough, or all are wanted."""
        made = Workload(JOBS, self._name(), 3 if how in ("success", "index") else 1)
        spec: Object = {"completions": made.replicas, "parallelism": made.replicas, "backoffLimit": limit}
        if how in ("success", "index"):
            spec["completionMode"] = "Indexed"
        if how == "back-off":
            made.outcome = "Failed", limit + 1
        elif how == "policy":
            rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
            spec |= {"podFailurePolicy": {"rules": [rule]}, "backoffLimit": 6}
            made.outcome = "Failed", 1
        elif how == "index":
            del spec["backoffLimit"]
            spec |= {"backoffLimitPerIndex": limit}
            made.outcome = "Failed", 3 * (limit + 1)
        elif how == "success":
            spec["successPolicy"] = {"rules": [{"succeededCount": 1}]}
            made.outcome = "Complete", 1
        else:
            made.outcome = "Complete", 1
        self.world.lifetimes[made.name] = 20.0
        if made.outcome[0] == "Failed":
            self.world.failing.add(made.name)
        self._create_job(made, spec, seconds=400)

    def _create_job(self, made: Workload, spec: Object, seconds: float = LONG_ENOUGH) -> None:
        self.workloads[made.name] = made
        self.limits.moves(made.name, 0, made.replicas)
        spec = {**spec, "template": template(made.name, restartPolicy="Never")}
        work = self.world.client.create(JOBS, {"metadata": {"name": made.name}, "spec": spec}, NAMESPACE)
        self.act(work, seconds=seconds)

    @rule(policy=st.sampled_from(("Allow", "Forbid", "Replace")), seconds=st.integers(100, 250))
    def create_cron_job(self, policy: str, seconds: int) -> None:
        """A Job a minute for a while, then no more; their pods never end by themselves."""
        name = self._name()
        made = self.workloads[name] = Workload(CRONJOBS, name)
        job = {"spec": {"template": template(name, restartPolicy="Never")}}
        spec = {"schedule": "* * * * *", "concurrencyPolicy": policy, "jobTemplate": job}

        async def for_a_while() -> None:
            clock = self.world.clock
            begun = int(clock.now())
            await self.world.client.create(CRONJOBS, {"metadata": {"name": name}, "spec": spec}, NAMESPACE)
            if (over := (begun + seconds) % 60) < 2:  # not just when a Job is due
                await self.world.pause(2 - over)
            await self.world.pause(seconds)
            ticks = int(clock.now()) // 60 - begun // 60
            made.replicas = ticks if policy == "Allow" else 1
            await change(self.world, CRONJOBS, name, {"suspend": True})

        most = {"Allow": seconds // 60 + 2, "Forbid": 1, "Replace": 2}  # a Job that is replaced still has its pods
        self.limits.moves(name, 0, most[policy])
        self.act(for_a_while())

    @rule(data=st.data(), replicas=SCALES)
    def scale(self, data: st.DataObject, replicas: int) -> None:
        if (chosen := self._some(data, *COUNTED)) is not None:
            self.limits.moves(
                chosen.name, min(chosen.replicas, replicas), max(chosen.replicas, replicas) + self._room(chosen)[1]
            )
            chosen.replicas = replicas
            self.act(change(self.world, chosen.kind, chosen.name, {"replicas": replicas}))

    def _room(self, chosen: Workload) -> tuple[int, int]:
        """How many pods may lack, and how many may be too many, while images change."""
        size = self._size(chosen)
        if chosen.kind is STATEFULSETS:
            return max(scaled(chosen.lacking, size, up=False), 1), 0
        if chosen.kind not in (DEPLOYMENTS, DAEMONSETS):
            return 1, 0
        if chosen.all_at_once:
            return size, 0
        surge = scaled(chosen.surge, size, up=True)
        lacking = scaled(chosen.lacking, size, up=chosen.kind is DAEMONSETS)
        return lacking if surge or lacking else 1, surge

    @rule(data=st.data())
    def change_image(self, data: st.DataObject) -> None:
        if (chosen := self._some(data, DEPLOYMENTS, STATEFULSETS, DAEMONSETS)) is not None:
            chosen.before.append(chosen.image)
            self._change_image(chosen, max([chosen.image, *chosen.before]) + 1)

    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        """As `kubectl rollout undo --to-revision`: the template of an earlier revision is the one again."""
        chosen = self._some(data, DEPLOYMENTS, STATEFULSETS, DAEMONSETS)
        if chosen is not None and chosen.before:
            self._change_image(chosen, data.draw(st.sampled_from(sorted(set(chosen.before)))))

    def _change_image(self, chosen: Workload, image: int) -> None:
        if chosen.kind is DAEMONSETS and not chosen.by_hand:
            if self.ill:
                return  # which of its pods are replaced depends on which are ready
            chosen.on = dict.fromkeys(chosen.on, image)
        self._rolls(chosen)
        chosen.image = image
        self._shown(chosen)
        self.act(change_image(self.world, chosen.kind, chosen.name, f"a:{image}"), seconds=2 * LONG_ENOUGH)

    def _rolls(self, chosen: Workload) -> None:
        size, (lacking, surge) = self._size(chosen), self._room(chosen)
        if chosen.by_hand:
            lacking = surge = 0
        ill = len(self.ill) if chosen.kind is DAEMONSETS else 0
        self.limits.moves(chosen.name, size - lacking - ill, size + surge)

    @rule(data=st.data(), stop=st.booleans())
    def pause_or_suspend(self, data: st.DataObject, stop: bool) -> None:
        chosen = self._some(data, DEPLOYMENTS, JOBS)
        if chosen is None or chosen.outcome is not None:
            return
        if chosen.kind is JOBS:
            self.limits.moves(chosen.name, 0, chosen.replicas)
        else:
            self._rolls(chosen)
        chosen.paused = stop
        self._shown(chosen)
        field_name = "suspend" if chosen.kind is JOBS else "paused"
        self.act(change(self.world, chosen.kind, chosen.name, {field_name: stop}))

    @rule(number=st.integers(0, _NODES - 1), how=st.sampled_from(("taint", "taint", "ill", "ill", "delete")))
    def lose_a_node(self, number: int, how: str) -> None:
        """A node that its pods have to leave, or that is not there any more; others go on as asked elsewhere."""
        name = f"node-{number}"
        if name in self.barred | self.ill or len(self.barred | self.ill) == _NODES - 1:
            return
        (self.ill if how == "ill" else self.barred).add(name)
        self.world.places.remove(name)
        self.limits.lapse()
        for pod in self.world.all(PODS):
            if (
                pod["spec"].get("nodeName") == name
                and controller_of(pod) is None
                and not (how == "ill" and _stays(pod))
            ):
                self.loose[app_of(pod), image_of(pod)] -= 1
        if how == "ill":
            self.act(self._tell_node(name, "False"), seconds=2 * LONG_ENOUGH)
            return
        for each in self.workloads.values():
            each.on.pop(name, None)
        if how == "delete":
            self.act(self.world.client.delete(NODES, name), seconds=2 * LONG_ENOUGH)
        else:
            body = {"spec": {"taints": [{"key": "k", "effect": "NoExecute"}]}}
            self.act(self.world.client.patch(NODES, name, "", body), seconds=2 * LONG_ENOUGH)

    async def _tell_node(self, name: str, ready: str) -> None:
        stamp = rfc3339(self.world.clock.now())
        conditions = [{"type": "Ready", "status": ready, "lastTransitionTime": stamp}]
        await self.world.client.patch(NODES, name, "", {"status": {"conditions": conditions}}, subresource="status")

    @precondition(lambda self: self.ill)
    @rule(data=st.data())
    def a_node_recovers(self, data: st.DataObject) -> None:
        """Its kubelet is there again, and says of its pods that they are ready."""
        name = data.draw(st.sampled_from(sorted(self.ill)))
        self.ill.discard(name)
        self.world.places.append(name)

        async def recover() -> None:
            await self._tell_node(name, "True")
            await self.world.pause(5)
            stamp = rfc3339(self.world.clock.now())
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp}
            for pod in self.world.all(PODS):
                if pod["spec"].get("nodeName") == name and pods.is_active(pod):
                    body = {"status": {"conditions": [ready]}}
                    at = pod["metadata"]["name"], NAMESPACE
                    await self.world.client.patch(PODS, *at, body, type="strategic", subresource="status")

        for each in self.workloads.values():
            if each.kind is DAEMONSETS:
                each.on.setdefault(name, each.image)
                self.limits.moves(each.name, self._size(each) - len(self.ill) - 1, self._size(each))
        self.act(recover())

    @precondition(lambda self: self.barred)
    @rule(data=st.data())
    def get_a_node_back(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.barred)))
        self.barred.discard(name)
        self.world.places.append(name)
        for each in self.workloads.values():
            if each.kind is DAEMONSETS:
                each.on[name] = each.image
                self.limits.moves(each.name, self._size(each) - 1 - len(self.ill), self._size(each))
        if any(each["metadata"]["name"] == name for each in self.world.all(NODES)):
            self.act(self.world.client.patch(NODES, name, "", {"spec": {"taints": []}}))
        else:
            self.act(self.world.client.create(NODES, node(name)))

    @rule(data=st.data())
    def delete_pod(self, data: st.DataObject) -> None:
        found = sorted(pod["metadata"]["name"] for pod in self.world.all(PODS) if pods.is_active(pod))
        if found:
            name = data.draw(st.sampled_from(found))
            pod = self._pod(name)
            if not pod["metadata"].get("ownerReferences"):
                self.loose[app_of(pod), image_of(pod)] -= 1
            self._disturb(pod)
            self.act(self.world.client.delete(PODS, name, NAMESPACE))

    def _pod(self, name: str) -> Object:
        return next(each for each in self.world.all(PODS) if each["metadata"]["name"] == name)

    def _disturb(self, pod: Object) -> None:
        """A pod of a workload is about to go, or to leave it."""
        if (owner := self.workloads.get(app_of(pod))) is not None:
            size, least = self._size(owner), self._size(owner) - 1
            if owner.kind is DAEMONSETS:  # on a node that is not ready no other is made
                where, least = pod["spec"]["nodeName"], least - len(self.ill)
                owner.on.pop(where)
                owner.on |= {} if where in self.ill else {where: owner.image}
            self.limits.moves(owner.name, least, size)

    @rule(data=st.data())
    def let_a_pod_go(self, data: st.DataObject) -> None:
        """A pod whose labels are changed is its owner's no more, who makes another."""
        kinds = COUNTED - {STATEFULSETS}
        found = sorted(each["metadata"]["name"] for each in self.world.all(PODS) if self._owner(each) in kinds)
        if found:
            name = data.draw(st.sampled_from(found))
            pod = self._pod(name)
            self.loose["loose", image_of(pod)] += 1
            self._disturb(pod)
            self.act(self.world.client.patch(PODS, name, NAMESPACE, {"metadata": {"labels": {"app": "loose"}}}))

    @rule(data=st.data())
    def give_a_pod_back(self, data: st.DataObject) -> None:
        """A pod that nobody owns gets labels that somebody selects: he takes it, and lets one go."""
        chosen = self._some(data, REPLICASETS, REPLICATIONCONTROLLERS)
        found = sorted(
            each["metadata"]["name"]
            for each in self.world.all(PODS)
            if controller_of(each) is None and image_of(each) == "a:1" and pods.is_active(each)
        )
        if chosen is not None and found:
            name = data.draw(st.sampled_from(found))
            self.loose[app_of(self._pod(name)), "a:1"] -= 1
            self.limits.moves(chosen.name, chosen.replicas, chosen.replicas + 1)
            self.act(self.world.client.patch(PODS, name, NAMESPACE, {"metadata": {"labels": {"app": chosen.name}}}))

    @rule(data=st.data(), least=st.integers(1, 2), most=st.integers(2, 5), load=st.integers(0, 6))
    def autoscale(self, data: st.DataObject, least: int, most: int, load: int) -> None:
        """For a while, as a load asks for; one that has no pods is not scaled."""
        chosen = self._some(data, REPLICASETS, DEPLOYMENTS)
        if chosen is None or not chosen.replicas:
            return
        self.loads[chosen.name] = 100 * load
        wanted = min(max(load, least), most)
        self.limits.moves(chosen.name, min(chosen.replicas, least), max(chosen.replicas, most) + self._room(chosen)[1])
        chosen.replicas = wanted
        down = {"scaleDown": {"stabilizationWindowSeconds": 0}}
        body = autoscaler(chosen.name, chosen.kind.kind, least, most, behavior=down)
        self.act(self.world.client.create(HPAS, body, NAMESPACE), seconds=300)
        self.act(self.world.client.delete(HPAS, chosen.name, NAMESPACE), seconds=1)

    @rule(data=st.data(), least=st.booleans(), number=st.integers(0, 3))
    def set_budget(self, data: st.DataObject, least: bool, number: int) -> None:
        if (chosen := self._some(data, *COUNTED)) is not None and chosen.budget is None:
            chosen.budget = {"minAvailable" if least else "maxUnavailable": number}
            spec = {"selector": selects(chosen.name), **chosen.budget}
            self.act(
                self.world.client.create(
                    PODDISRUPTIONBUDGETS, {"metadata": {"name": chosen.name}, "spec": spec}, NAMESPACE
                )
            )

    @rule(data=st.data(), tries=st.integers(1, 3))
    def evict(self, data: st.DataObject, tries: int) -> None:
        """As `kubectl drain` asks: as many go as the budget lets, and the others are told to wait."""
        chosen = self._some(data, *COUNTED)
        there = (
            []
            if chosen is None
            else sorted(
                each["metadata"]["name"]
                for each in self.world.all(PODS)
                if app_of(each) == chosen.name and controller_of(each)
            )
        )
        if (
            chosen is None
            or chosen.budget is None
            or any(app == chosen.name and count for (app, _), count in self.loose.items())
        ):
            return
        size, budget = chosen.replicas, chosen.budget
        kept = budget["minAvailable"] if "minAvailable" in budget else max(size - budget["maxUnavailable"], 0)
        self.limits.moves(chosen.name, min(kept, size), size)
        let: list[str] = []

        async def ask() -> None:
            for name in there[:tries]:
                body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
                try:
                    await self.world.client.create(PODS, body, NAMESPACE, name=name, subresource="eviction")
                    let.append(name)
                except ApiError as error:
                    assert error.code == 429, error

        self.act(ask())
        assert len(let) == min(tries, len(there), max(size - kept, 0))

    @precondition(lambda self: self.workloads)
    @rule(data=st.data(), propagation=PROPAGATION)
    def delete(self, data: st.DataObject, propagation: str) -> None:
        chosen = self._some(data)
        assert chosen is not None
        if propagation == "Orphan":
            if chosen.kind is DEPLOYMENTS:  # its ReplicaSets live on, and so do their pods
                propagation = "Background"
            elif chosen.kind in (JOBS, CRONJOBS):
                propagation = "Foreground"
            else:
                self.loose += self._pods_of(chosen)
        del self.workloads[chosen.name]
        self.limits.least.pop(chosen.name, None)
        work = [self.world.client.delete(chosen.kind, chosen.name, NAMESPACE, propagation=propagation)]
        if chosen.budget is not None:
            work.append(self.world.client.delete(PODDISRUPTIONBUDGETS, chosen.name, NAMESPACE))
        self.act(*work)

    # The model.

    def _well(self) -> set[str]:
        """The nodes on which DaemonSets start pods."""
        return {f"node-{number}" for number in range(_NODES)} - self.barred - self.ill

    def _name(self) -> str:
        self.made += 1
        return f"w{self.made}"

    def _shown(self, chosen: Workload) -> None:
        if not (chosen.paused and chosen.kind is DEPLOYMENTS):
            chosen.shown = chosen.image

    def _owner(self, pod: Object) -> Resource | None:
        owned = self.workloads.get(app_of(pod))
        return owned.kind if owned is not None else None

    def _size(self, chosen: Workload) -> int:
        return sum(self._pods_of(chosen).values())

    def _below(self, chosen: Workload) -> int:
        """How many pods of a StatefulSet keep the image that all had last."""
        return min(chosen.partition, chosen.replicas) if chosen.held != chosen.shown else 0

    def _pods_of(self, chosen: Workload) -> Counter[tuple[str, str]]:
        count = chosen.replicas
        if chosen.outcome is not None:
            count = 0
        elif chosen.kind is DAEMONSETS:
            return Counter((chosen.name, f"a:{image}") for image in chosen.on.values())
        elif chosen.kind is JOBS and chosen.paused:
            count = 0
        elif chosen.kind is STATEFULSETS:
            below = self._below(chosen)
            parts = {(chosen.name, f"a:{chosen.held}"): below, (chosen.name, f"a:{chosen.shown}"): count - below}
            return +Counter(parts)
        return Counter({(chosen.name, f"a:{chosen.shown}"): count})

    @invariant()
    def the_pods_are_those_asked_for(self) -> None:
        wanted = sum(map(self._pods_of, self.workloads.values()), self.loose.copy())
        alive = [pod for pod in self.world.all(PODS) if pods.is_active(pod)]
        assert +Counter((app_of(pod), image_of(pod)) for pod in alive) == +wanted
        for pod in alive:
            where = pod["spec"]["nodeName"]
            assert pods.is_ready(pod) or where in self.ill
            assert where not in self.barred
            assert where not in self.ill or _stays(pod)
        self.world.check()

    @invariant()
    def jobs_that_end_end_as_they_should(self) -> None:
        for name, chosen in self.workloads.items():
            if chosen.outcome is not None:
                kind, count = chosen.outcome
                job = self.world.seen.informer(JOBS).get(NAMESPACE, name)
                assert job is not None
                status = job["status"]
                assert any(each["type"] == kind and each["status"] == "True" for each in status["conditions"])
                assert status["failed" if kind == "Failed" else "succeeded"] >= count
                assert kind == "Complete" or status["failed"] == count

    @invariant()
    def statuses_tell_the_same(self) -> None:
        for chosen in self.workloads.values():
            if chosen.kind in COUNTED:
                found = self.world.seen.informer(chosen.kind).get(NAMESPACE, chosen.name)
                assert found is not None
                assert (found["status"].get("readyReplicas") or 0) == chosen.replicas, (chosen, found["status"])
