"""What the simulation plays: a user's acts on one kind of workload, its limits, and what must come of it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import (
    CRONJOBS,
    DAEMONSETS,
    DEPLOYMENTS,
    ENDPOINTSLICES,
    JOBS,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    SERVICES,
    STATEFULSETS,
    Object,
    Resource,
)
from steersman.client.nodefit import node_of
from steersman.client.workload import created_at, ready_since, scaled
from steersman.testing.faults import Odds
from steersman.testing.simulation import Simulation

NAMESPACE = "default"


def template(app: str = "web", image: str = "a:1", **spec: object) -> Object:
    return {"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": image}], **spec}}


def selects(app: str = "web") -> Object:
    return {"matchLabels": {"app": app}}


def active(world: Simulation) -> list[Object]:
    return [pod for pod in world.all(PODS) if pods.is_active(pod)]


def available(world: Simulation) -> list[Object]:
    return [pod for pod in active(world) if pods.is_ready(pod)]


def image_of(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


async def change(world: Simulation, kind: Resource, name: str, spec: Object) -> None:
    await world.client.patch(kind, name, NAMESPACE, {"spec": spec})


async def change_image(world: Simulation, kind: Resource, name: str, image: str) -> None:
    body = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}
    await world.client.patch(kind, name, NAMESPACE, body, type="strategic")


async def delete_some_pod(world: Simulation) -> None:
    there = sorted(active(world), key=lambda pod: pod["metadata"]["name"])
    if there:
        try:
            await world.client.delete(PODS, world.random.choice(there)["metadata"]["name"], NAMESPACE)
        except ApiError as error:
            assert error.code == 404


def status_complaint(world: Simulation, kind: Resource, name: str, wanted: Object) -> str:
    found = next((each for each in world.all(kind) if each["metadata"]["name"] == name), None)
    if found is None:
        return f"{kind.kind} {name} is not there"
    status = found.get("status") or {}
    seen = {key: status.get(key) or 0 for key in wanted}
    if seen != wanted:
        return f"{kind.kind} {name} has {seen}, not {wanted}"
    if status.get("observedGeneration", 0) != found["metadata"].get("generation", 0):
        return f"{kind.kind} {name} has not seen its last generation"
    return ""


class Deployments:
    """A Deployment that is scaled, changed, paused; it never has too many pods, and never too few."""

    controllers: Sequence[str] = ("deployment-controller", "replicaset-controller")

    def __init__(self, random: Random) -> None:
        self.replicas = random.randint(1, 7)
        self.surge = random.choice((0, 1, 2, "25%", "100%"))
        self.unavailable = random.choice((1, 2, "25%")) if self.surge == 0 else random.choice((0, 1, "50%"))
        self.gentle = random.random() < 0.6  # the user deletes no pods
        self.image = 1
        self.most, self.least, self.armed = 0, self.replicas, False

    def start(self, world: Simulation) -> None:
        self._limits()
        world.always(PODS, lambda: self._exceeded(world), alone=True)
        world.seen.informer(DEPLOYMENTS)
        world.seen.informer(REPLICASETS)

    def _limits(self) -> None:
        surge = scaled(self.surge, self.replicas, up=True)
        lacking = scaled(self.unavailable, self.replicas, up=False)
        if not surge and not lacking:
            lacking = 1
        self.most = max(self.most, self.replicas + surge)
        self.least = min(self.least, self.replicas - lacking)

    def _exceeded(self, world: Simulation) -> str:
        if len(there := active(world)) > self.most:
            return f"{len(there)} pods, at most {self.most} may be"
        ready = len(available(world))
        self.armed = self.armed or ready >= self.least
        if self.gentle and self.armed and ready < self.least:
            return f"{ready} available pods, at least {self.least} must be"
        return ""

    async def play(self, world: Simulation) -> None:
        strategy = {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": self.surge, "maxUnavailable": self.unavailable},
        }
        spec = {"replicas": self.replicas, "selector": selects(), "template": template(), "strategy": strategy}
        await world.client.create(DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec}, NAMESPACE)
        for _ in range(world.random.randint(1, 5)):
            await world.pause(world.random.random() * 40)
            await self._act(world, world.random.choice(("image", "image", "scale", "pause", "delete")))
        await change(world, DEPLOYMENTS, "web", {"paused": False})

    async def _act(self, world: Simulation, act: str) -> None:
        if act == "image":
            self.image += 1
            await change_image(world, DEPLOYMENTS, "web", f"a:{self.image}")
        elif act == "scale":
            self.replicas = world.random.randint(0, 8)
            self._limits()
            await change(world, DEPLOYMENTS, "web", {"replicas": self.replicas})
        elif act == "pause":
            await change(world, DEPLOYMENTS, "web", {"paused": world.random.random() < 0.5})
        elif not self.gentle:
            await delete_some_pod(world)

    def complaint(self, world: Simulation) -> str:
        images = [image_of(pod) for pod in world.all(PODS)]
        if images != [f"a:{self.image}"] * self.replicas:
            return f"pods of {images}, wanted are {self.replicas} of {self.image}"
        names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        return status_complaint(world, DEPLOYMENTS, "web", dict.fromkeys(names, self.replicas))


class StatefulSets:
    """A StatefulSet that is scaled and changed: one of each ordinal, in order, one missing at a time."""

    controllers: Sequence[str] = ("statefulset-controller",)

    def __init__(self, random: Random) -> None:
        self.replicas = random.randint(1, 4)
        self.highest = self.replicas
        self.parallel = random.random() < 0.3
        self.gentle = random.random() < 0.6
        self.whole = False
        self.image = 1

    def start(self, world: Simulation) -> None:
        world.always(PODS, lambda: self._exceeded(world))
        world.seen.informer(STATEFULSETS)

    def _exceeded(self, world: Simulation) -> str:
        names = {pod["metadata"]["name"] for pod in world.all(PODS)}
        if odd := names - {f"web-{number}" for number in range(self.highest)}:
            return f"pods {odd} are none of its ordinals"
        ready = {pod["metadata"]["name"] for pod in available(world)}
        self.whole = self.whole or len(ready) == self.replicas
        if self.gentle and self.whole and not self.parallel and len(ready) < self.replicas - 1:
            return f"only {sorted(ready)} are ready of {self.replicas}"
        return ""

    async def play(self, world: Simulation) -> None:
        spec = {"replicas": self.replicas, "selector": selects(), "template": template(), "serviceName": "web"}
        spec["podManagementPolicy"] = "Parallel" if self.parallel else "OrderedReady"
        await world.client.create(STATEFULSETS, {"metadata": {"name": "web"}, "spec": spec}, NAMESPACE)
        for _ in range(world.random.randint(1, 4)):
            await world.pause(world.random.random() * 60)
            act = world.random.choice(("image", "image", "scale", "delete"))
            if act == "image":
                self.image += 1
                await change_image(world, STATEFULSETS, "web", f"a:{self.image}")
            elif act == "scale" and not self.gentle:
                self.replicas = world.random.randint(0, 4)
                self.highest = max(self.highest, self.replicas)
                await change(world, STATEFULSETS, "web", {"replicas": self.replicas})
            elif act == "delete" and not self.gentle:
                await delete_some_pod(world)

    def complaint(self, world: Simulation) -> str:
        found = sorted((pod["metadata"]["name"], image_of(pod)) for pod in available(world))
        wanted = [(f"web-{number}", f"a:{self.image}") for number in range(self.replicas)]
        if found != wanted or len(world.all(PODS)) != self.replicas:
            return f"{found}, not {wanted}"
        names = ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas")
        return status_complaint(world, STATEFULSETS, "web", dict.fromkeys(names, self.replicas))


class DaemonSets:
    """A DaemonSet that is changed: one pod a node, a second only as a surge, few missing."""

    controllers: Sequence[str] = ("daemonset-controller",)

    def __init__(self, random: Random) -> None:
        self.surge = random.choice((0, 0, 1, "50%"))
        self.unavailable = random.choice((1, 2, "50%")) if self.surge == 0 else 0
        self.image = 1
        self.nodes = 3
        self.whole = False
        self.gentle = random.random() < 0.6

    def start(self, world: Simulation) -> None:
        world.always(PODS, lambda: self._exceeded(world), alone=True)
        world.seen.informer(DAEMONSETS)

    def _exceeded(self, world: Simulation) -> str:
        surge = scaled(self.surge, self.nodes, up=True)
        lacking = scaled(self.unavailable, self.nodes, up=True)
        here: dict[str, list[Object]] = {}
        for pod in active(world):
            here.setdefault(node_of(pod), []).append(pod)
        doubled = [name for name, found in here.items() if len(found) > 1 and _was_fine(found)]
        if len(doubled) > surge or any(len(found) > 1 + bool(surge) for found in here.values()):
            return f"two pods on {doubled} or three on some, the surge is {surge}"
        ready = len({pod["spec"].get("nodeName") for pod in available(world)})
        self.whole = self.whole or ready == self.nodes
        if self.gentle and self.whole and ready < self.nodes - lacking:
            return f"available on {ready} nodes of {self.nodes}, at most {lacking} may lack"
        return ""

    async def play(self, world: Simulation) -> None:
        rolling = {"maxSurge": self.surge, "maxUnavailable": self.unavailable}
        strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
        spec = {"selector": selects(), "template": template(), "updateStrategy": strategy}
        await world.client.create(DAEMONSETS, {"metadata": {"name": "web"}, "spec": spec}, NAMESPACE)
        for _ in range(world.random.randint(1, 4)):
            await world.pause(world.random.random() * 60)
            if self.gentle or world.random.random() < 0.5:
                self.image += 1
                await change_image(world, DAEMONSETS, "web", f"a:{self.image}")
            else:
                await delete_some_pod(world)

    def complaint(self, world: Simulation) -> str:
        found = sorted((pod["spec"].get("nodeName", ""), image_of(pod)) for pod in available(world))
        wanted = [(f"node-{number}", f"a:{self.image}") for number in range(self.nodes)]
        if found != wanted or len(world.all(PODS)) != self.nodes:
            return f"{found}, not {wanted}"
        names = ("desiredNumberScheduled", "numberAvailable", "updatedNumberScheduled")
        return status_complaint(world, DAEMONSETS, "web", dict.fromkeys(names, self.nodes))


def _was_fine(found: list[Object]) -> bool:
    """Whether the older pod was known to be ready when the younger was made: only then it counts as surge."""
    older, younger = sorted(found, key=created_at)[:2]
    since = ready_since(older)
    return since is not None and since + 3 * Odds().longest_stall < created_at(younger)


class Jobs:
    """A Job whose pods end, well or not: never more at once than asked for, never more done than wanted."""

    controllers: Sequence[str] = ("job-controller",)

    def __init__(self, random: Random) -> None:
        self.completions = random.randint(1, 7)
        self.parallelism = self.most = random.randint(1, 4)
        self.indexed = random.random() < 0.5
        self.failures = random.choice((0.0, 0.3))

    def start(self, world: Simulation) -> None:
        world.lifetimes["web"], world.job_failures = 20.0, self.failures
        self.succeeded: dict[str, str] = {}
        world.always(PODS, lambda: self._exceeded(world), alone=True)
        world.seen.informer(JOBS)

    def _exceeded(self, world: Simulation) -> str:
        running = active(world)
        if len(running) > self.most:
            return f"{len(running)} pods at once, parallelism is {self.most}"
        for pod in world.all(PODS):
            tracked = pod["metadata"].get("finalizers") and not pod["metadata"].get("deletionTimestamp")
            if tracked and (pod.get("status") or {}).get("phase") == "Succeeded":
                notes = pod["metadata"].get("annotations") or {}
                self.succeeded[pod["metadata"]["uid"]] = notes.get("batch.kubernetes.io/job-completion-index", "")
        if len(self.succeeded) > self.completions:
            return f"{len(self.succeeded)} pods have succeeded, {self.completions} were wanted"
        if self.indexed and len(set(self.succeeded.values())) < len(self.succeeded):
            return "an index succeeded twice"
        return ""

    async def play(self, world: Simulation) -> None:
        spec = {
            "completions": self.completions,
            "parallelism": self.parallelism,
            "backoffLimit": 1000,
            "completionMode": "Indexed" if self.indexed else "NonIndexed",
            "template": template(restartPolicy="Never"),
        }
        await world.client.create(JOBS, {"metadata": {"name": "web"}, "spec": spec}, NAMESPACE)
        for _ in range(world.random.randint(0, 3)):
            await world.pause(world.random.random() * 30)
            if world.random.random() < 0.5:
                await change(world, JOBS, "web", {"suspend": world.random.random() < 0.5})
            else:
                self.parallelism = world.random.randint(1, 4)
                self.most = max(self.most, self.parallelism)
                await change(world, JOBS, "web", {"parallelism": self.parallelism})
        await world.pause(world.random.random() * 20)
        await change(world, JOBS, "web", {"suspend": False})

    def complaint(self, world: Simulation) -> str:
        if len(self.succeeded) < self.completions:
            return f"{len(self.succeeded)} of {self.completions} have succeeded"
        (job,) = world.all(JOBS)
        status = job.get("status") or {}
        if not any(each["type"] == "Complete" and each["status"] == "True" for each in status.get("conditions") or ()):
            return f"the Job is not complete: {status}"
        counted = status.get("succeeded", 0)
        if counted < self.completions or (counted > self.completions and not world.twins) or status.get("active"):
            return f"the Job has counted {status.get('succeeded')}"
        if kept := [pod for pod in world.all(PODS) if pod["metadata"].get("finalizers")]:
            return f"{len(kept)} pods are still tracked"
        return ""


class CronJobs:
    """A CronJob that starts a Job a minute: one at a time where that is asked for, and none twice."""

    controllers: Sequence[str] = ("cronjob-controller", "job-controller")

    def __init__(self, random: Random) -> None:
        self.policy = random.choice(("Allow", "Forbid", "Replace"))
        self.life = random.choice((20.0, 150.0))
        self.kept = random.randint(0, 3)
        self.names: set[str] = set()

    def start(self, world: Simulation) -> None:
        world.lifetimes["web"] = self.life
        world.always(JOBS, lambda: self._exceeded(world), alone=True)
        world.seen.informer(CRONJOBS)

    def _exceeded(self, world: Simulation) -> str:
        jobs = world.all(JOBS)
        self.names |= {job["metadata"]["name"] for job in jobs}
        running = [job for job in jobs if not _ended(job) and not job["metadata"].get("deletionTimestamp")]
        if self.policy == "Forbid" and len(running) > 1:
            return f"{len(running)} Jobs at once"
        return ""

    async def play(self, world: Simulation) -> None:
        spec = {
            "schedule": "* * * * *",
            "concurrencyPolicy": self.policy,
            "successfulJobsHistoryLimit": self.kept,
            "jobTemplate": {"spec": {"template": template(restartPolicy="Never")}},
        }
        await world.client.create(CRONJOBS, {"metadata": {"name": "web"}, "spec": spec}, NAMESPACE)
        await world.pause(240 + world.random.random() * 120)
        await change(world, CRONJOBS, "web", {"suspend": True})

    def complaint(self, world: Simulation) -> str:
        jobs = world.all(JOBS)
        if any(not _ended(job) for job in jobs):
            return "Jobs still run"
        if not 1 <= len(self.names) <= 7:
            return f"{len(self.names)} Jobs were started"
        if len(jobs) > self.kept:
            return f"{len(jobs)} Jobs are kept, the limit is {self.kept}"
        (cron,) = world.all(CRONJOBS)
        return "the CronJob still lists active Jobs" if (cron.get("status") or {}).get("active") else ""


def _ended(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


class Budgets:
    """Evictions against a budget, with the budget's controller late and failing: the budget holds."""

    controllers: Sequence[str] = ("disruption-controller", "replicaset-controller")

    def __init__(self, random: Random) -> None:
        self.replicas = random.randint(3, 6)
        self.budget: Object = random.choice(({"minAvailable": 2}, {"maxUnavailable": 1}, {"minAvailable": "50%"}))
        self.armed = False

    @property
    def least(self) -> int:
        if "maxUnavailable" in self.budget:
            return self.replicas - scaled(self.budget["maxUnavailable"], self.replicas, up=True)
        return scaled(self.budget["minAvailable"], self.replicas, up=True)

    def start(self, world: Simulation) -> None:
        world.always(PODS, lambda: self._exceeded(world), alone=True)
        world.seen.informer(PODDISRUPTIONBUDGETS)

    def _exceeded(self, world: Simulation) -> str:
        if len(there := active(world)) > self.replicas:
            return f"{len(there)} pods, {self.replicas} were wanted"
        ready = len(available(world))
        self.armed = self.armed or ready >= self.least
        return f"{ready} pods are left, {self.least} must be" if self.armed and ready < self.least else ""

    async def play(self, world: Simulation) -> None:
        spec = {"replicas": self.replicas, "selector": selects(), "template": template()}
        await world.client.create(REPLICASETS, {"metadata": {"name": "web"}, "spec": spec}, NAMESPACE)
        budget = {"metadata": {"name": "web"}, "spec": {"selector": selects(), **self.budget}}
        await world.client.create(PODDISRUPTIONBUDGETS, budget, NAMESPACE)
        await world.pause(30)
        for _ in range(30):
            await world.pause(world.random.random() * 4)
            there = sorted(active(world), key=lambda pod: pod["metadata"]["name"])
            if there and self.armed:
                name = world.random.choice(there)["metadata"]["name"]
                body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
                try:
                    await world.client.create(PODS, body, NAMESPACE, name=name, subresource="eviction")
                except ApiError as error:
                    assert error.code in (404, 429), error

    def complaint(self, world: Simulation) -> str:
        if len(available(world)) != self.replicas or len(world.all(PODS)) != self.replicas:
            return f"{len(available(world))} pods, not {self.replicas}"
        wanted = {"currentHealthy": self.replicas, "disruptionsAllowed": self.replicas - self.least}
        return status_complaint(world, PODDISRUPTIONBUDGETS, "web", wanted)


class Slices:
    """A Service whose pods come and go: in the end its slices hold exactly those that are ready."""

    controllers: Sequence[str] = ("endpointslice-controller", "replicaset-controller")

    def __init__(self, random: Random) -> None:
        self.replicas = random.randint(1, 6)

    def start(self, world: Simulation) -> None:
        world.seen.informer(ENDPOINTSLICES)

    async def play(self, world: Simulation) -> None:
        spec = {"replicas": self.replicas, "selector": selects(), "template": template()}
        await world.client.create(REPLICASETS, {"metadata": {"name": "web"}, "spec": spec}, NAMESPACE)
        service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
        await world.client.create(SERVICES, service, NAMESPACE)
        for _ in range(6):
            await world.pause(world.random.random() * 20)
            if world.random.random() < 0.5:
                self.replicas = world.random.randint(0, 6)
                await change(world, REPLICASETS, "web", {"replicas": self.replicas})
            else:
                await delete_some_pod(world)

    def complaint(self, world: Simulation) -> str:
        found = [ip for each in world.all(ENDPOINTSLICES) for end in each["endpoints"] or () for ip in end["addresses"]]
        wanted = [pod["status"]["podIP"] for pod in available(world)]
        if len(wanted) != self.replicas:
            return f"{len(wanted)} pods are ready"
        return "" if sorted(found) == sorted(wanted) else f"addresses {found}, not {wanted}"


ALL = (Deployments, StatefulSets, DaemonSets, Jobs, CronJobs, Budgets, Slices)
