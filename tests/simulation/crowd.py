"""A crowd of users on one cluster, and a model of what must come of what they ask: a Hypothesis state machine.

Time is virtual, nothing fails; after every operation everything settles, then the pods are compared.
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
from steersman.api.resource import (
    CRONJOBS,
    DAEMONSETS,
    DEPLOYMENTS,
    JOBS,
    NODES,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    Object,
    Resource,
)
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.faults import Odds
from steersman.testing.simulation import Simulation

from .scenarios import NAMESPACE, change, change_image, image_of, selects, template

CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "replicationcontroller-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "cronjob-controller",
    "garbage-collector-controller",
)
LONG_ENOUGH = 90.0  # virtual seconds
COUNTED = {DEPLOYMENTS, REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS}
SCALES = st.integers(0, 4)
PROPAGATION = st.sampled_from(["Background", "Foreground", "Orphan"])


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


class Crowd(RuleBasedStateMachine):
    """Operations, and the model beside them."""

    def __init__(self) -> None:
        super().__init__()
        odds = Odds(latency=0.01)
        odds.calm()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.world: Simulation = self.run(self._open(odds))
        self.workloads: dict[str, Workload] = {}
        self.loose: Counter[tuple[str, str]] = Counter()  # pods that nobody owns any more, by app and image
        self.barred: set[str] = set()
        self.made = 0

    async def _open(self, odds: Odds) -> Simulation:
        world = Simulation(1, CONTROLLERS, odds=odds)
        await world.__aenter__()
        for kind in (*COUNTED, DAEMONSETS, JOBS, CRONJOBS, NODES):
            world.seen.informer(kind)
        await world.seen.synced()
        await world.run_copy()
        return world

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def act(self, *work: Coroutine[Any, Any, Any]) -> None:
        """Do it, and wait until nothing moves any more."""

        async def all_of_it() -> None:
            for each in work:
                await each
            await self.world.pause(LONG_ENOUGH)

        self.run(all_of_it())

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

    @rule(kind=st.sampled_from(sorted(COUNTED, key=lambda each: each.kind)), replicas=SCALES)
    def create(self, kind: Resource, replicas: int) -> None:
        name = self._name()
        selector: Object = {"app": name} if kind is REPLICATIONCONTROLLERS else selects(name)
        spec = {"replicas": replicas, "selector": selector, "template": template(name)}
        if kind is STATEFULSETS:
            spec["serviceName"] = name
        self.workloads[name] = Workload(kind, name, replicas)
        self.act(self.world.client.create(kind, {"metadata": {"name": name}, "spec": spec}, NAMESPACE))

    @rule()
    def create_daemon_set(self) -> None:
        name = self._name()
        self.workloads[name] = Workload(DAEMONSETS, name)
        body = {"metadata": {"name": name}, "spec": {"selector": selects(name), "template": template(name)}}
        self.act(self.world.client.create(DAEMONSETS, body, NAMESPACE))

    @rule(completions=st.integers(1, 4), parallelism=st.integers(0, 3), indexed=st.booleans(), suspend=st.booleans())
    def create_job(self, completions: int, parallelism: int, indexed: bool, suspend: bool) -> None:
        """Its pods never end by themselves: as many as may run do."""
        name = self._name()
        self.workloads[name] = Workload(JOBS, name, min(completions, parallelism), paused=suspend)
        spec = {
            "completions": completions,
            "parallelism": parallelism,
            "completionMode": "Indexed" if indexed else "NonIndexed",
            "suspend": suspend,
            "backoffLimit": 1000,
            "template": template(name, restartPolicy="Never"),
        }
        self.act(self.world.client.create(JOBS, {"metadata": {"name": name}, "spec": spec}, NAMESPACE))

    @rule(data=st.data(), replicas=SCALES)
    def scale(self, data: st.DataObject, replicas: int) -> None:
        if (chosen := self._some(data, *COUNTED)) is not None:
            chosen.replicas = replicas
            self.act(change(self.world, chosen.kind, chosen.name, {"replicas": replicas}))

    @rule(data=st.data())
    def change_image(self, data: st.DataObject) -> None:
        if (chosen := self._some(data, DEPLOYMENTS, STATEFULSETS, DAEMONSETS)) is not None:
            chosen.before.append(chosen.image)
            chosen.image = max([chosen.image, *chosen.before]) + 1
            self._shown(chosen)
            self.act(change_image(self.world, chosen.kind, chosen.name, f"a:{chosen.image}"))

    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        """As `kubectl rollout undo --to-revision`: the template of an earlier revision is the one again."""
        chosen = self._some(data, DEPLOYMENTS, STATEFULSETS, DAEMONSETS)
        if chosen is not None and chosen.before:
            chosen.image = data.draw(st.sampled_from(sorted(set(chosen.before))))
            self._shown(chosen)
            self.act(change_image(self.world, chosen.kind, chosen.name, f"a:{chosen.image}"))

    @rule(data=st.data(), stop=st.booleans())
    def pause_or_suspend(self, data: st.DataObject, stop: bool) -> None:
        if (chosen := self._some(data, DEPLOYMENTS, JOBS)) is not None:
            chosen.paused = stop
            self._shown(chosen)
            field_name = "suspend" if chosen.kind is JOBS else "paused"
            self.act(change(self.world, chosen.kind, chosen.name, {field_name: stop}))

    @rule(number=st.integers(0, 2), there=st.booleans())
    def taint(self, number: int, there: bool) -> None:
        """A node that daemon pods may not stay on, or may again."""
        name = f"node-{number}"
        (self.barred.add if there else self.barred.discard)(name)
        body = {"spec": {"taints": [{"key": "k", "effect": "NoExecute"}] if there else []}}
        self.act(self.world.client.patch(NODES, name, "", body))

    @rule(data=st.data())
    def delete_pod(self, data: st.DataObject) -> None:
        found = sorted(pod["metadata"]["name"] for pod in self.world.all(PODS))
        if found:
            name = data.draw(st.sampled_from(found))
            pod = next(each for each in self.world.all(PODS) if each["metadata"]["name"] == name)
            if not pod["metadata"].get("ownerReferences"):
                self.loose[_app(pod), image_of(pod)] -= 1
            self.act(self.world.client.delete(PODS, name, NAMESPACE))

    @rule(data=st.data())
    def let_a_pod_go(self, data: st.DataObject) -> None:
        """A pod whose labels are changed is its owner's no more, who makes another."""
        found = sorted(each["metadata"]["name"] for each in self.world.all(PODS) if self._owner(each) in COUNTED)
        found = [name for name in found if not self.world.seen.informer(STATEFULSETS).get(NAMESPACE, name[:2])]
        if found:
            name = data.draw(st.sampled_from(found))
            pod = next(each for each in self.world.all(PODS) if each["metadata"]["name"] == name)
            self.loose["loose", image_of(pod)] += 1
            self.act(self.world.client.patch(PODS, name, NAMESPACE, {"metadata": {"labels": {"app": "loose"}}}))

    @precondition(lambda self: self.workloads)
    @rule(data=st.data(), propagation=PROPAGATION)
    def delete(self, data: st.DataObject, propagation: str) -> None:
        chosen = self._some(data)
        assert chosen is not None
        if propagation == "Orphan":
            if chosen.kind is DEPLOYMENTS:  # its ReplicaSets live on, and so do their pods
                propagation = "Background"
            elif chosen.kind is JOBS:
                propagation = "Foreground"
            else:
                self.loose += self._pods_of(chosen)
        del self.workloads[chosen.name]
        self.act(self.world.client.delete(chosen.kind, chosen.name, NAMESPACE, propagation=propagation))

    # The model.

    def _name(self) -> str:
        self.made += 1
        return f"w{self.made}"

    def _shown(self, chosen: Workload) -> None:
        if not (chosen.paused and chosen.kind is DEPLOYMENTS):
            chosen.shown = chosen.image

    def _owner(self, pod: Object) -> Resource | None:
        owned = self.workloads.get(_app(pod))
        return owned.kind if owned is not None else None

    def _pods_of(self, chosen: Workload) -> Counter[tuple[str, str]]:
        count = chosen.replicas
        if chosen.kind is DAEMONSETS:
            count = 3 - len(self.barred)
        elif chosen.kind is JOBS and chosen.paused:
            count = 0
        return Counter({(chosen.name, f"a:{chosen.shown}"): count})

    @invariant()
    def the_pods_are_those_asked_for(self) -> None:
        wanted = sum(map(self._pods_of, self.workloads.values()), self.loose.copy())
        found = Counter((_app(pod), image_of(pod)) for pod in self.world.all(PODS))
        assert +found == +wanted
        assert all(pods.is_ready(pod) for pod in self.world.all(PODS))
        self.world.check()

    @invariant()
    def statuses_tell_the_same(self) -> None:
        for chosen in self.workloads.values():
            if chosen.kind in COUNTED:
                found = self.world.seen.informer(chosen.kind).get(NAMESPACE, chosen.name)
                assert found is not None
                assert (found["status"].get("readyReplicas") or 0) == chosen.replicas


def _app(pod: Object) -> str:
    return str(pod["metadata"]["labels"].get("app", ""))
