"""Deterministic simulation of controllers: a seed decides who acts when and what goes wrong.

Owns `Simulation`: an API server, one or more copies of the controllers on faulty connections, nodes that run pods, and
a faithful view of everything that happened, on which invariants are checked after every change. Called by tests, under
a `VirtualLoop`; a seed replays exactly, also in another process when PYTHONHASHSEED is the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any, Protocol

from steersman.api.errors import ApiError
from steersman.api.resource import LEASES, NODES, PODS, Object, Resource
from steersman.api.term import Term
from steersman.client.client import Client
from steersman.client.cloud import Cloud
from steersman.client.controller import Context
from steersman.client.events import EventRecorder
from steersman.client.informer import Informer, Informers
from steersman.client.metrics import Metrics
from steersman.client.nodefit import node_of
from steersman.controllers.run import run_controllers
from steersman.lib.clock import rfc3339, rfc3339_micro
from steersman.lib.tasks import Tasks
from steersman.lib.virtualtime import VirtualLoop
from steersman.testing.cluster import ApiCluster
from steersman.testing.faults import FaultyTransport, Odds, Trace
from steersman.testing.objects import node as node_object

PATIENCE = 4000.0  # virtual seconds after the last fault in which everything must be as wanted
TWINS = 0.4  # how often a second copy of the controllers is active for a while
UNLED = 0.2  # how many of those know nothing of a leader, as with `leader-elect=false`
LEASE = ("kube-system", "kube-controller-manager")
_LOG = logging.getLogger("steersman")
STILL = 120.0  # virtual seconds without a write that must follow


class Violated(AssertionError):
    """An invariant does not hold, or the end is not what was asked for."""


class Scenario(Protocol):
    """Something that a user does, what must hold meanwhile, and what must come of it.

    One that has `settings`, or a `cloud`, gives them to its controllers.
    """

    controllers: Sequence[str]

    def start(self, world: Simulation) -> None:
        """Ask the world to check invariants."""
        ...

    async def play(self, world: Simulation) -> None:
        """What the user does, while things go wrong."""
        ...

    def complaint(self, world: Simulation) -> str:
        """What is not yet as it must become; empty when all is well."""
        ...


class _Failures(logging.Handler):
    """What a controller does not expect is logged, and tried again for ever: here it is a failure."""

    def __init__(self, world: Simulation) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Fail with the exception that is told of."""
        if record.exc_info is not None and isinstance(error := record.exc_info[1], Exception):
            self._world.fail(error)


class _Quiet(EventRecorder):
    """Events are not what is simulated, and cost as much as all the rest."""

    def event(self, regarding: Object, type: Any, reason: str, message: str) -> None:
        """Say nothing."""


class Simulation:
    """One world. Use it as `async with`, on a VirtualLoop."""

    def __init__(
        self,
        seed: int,
        controllers: Sequence[str],
        *,
        odds: Odds | None = None,
        nodes: int = 3,
        settings: Mapping[str, str] | None = None,
        cloud: Cloud | None = None,
    ) -> None:
        self.random = Random(seed)
        self.odds = odds or Odds()
        self.trace = Trace()
        self.cluster = ApiCluster(seed=seed)
        self.clock = self.cluster.clock
        self.client = self.cluster.client
        self.twins = False  # whether two copies were active at once that no Lease told apart
        self.job_failures = 0.0  # how likely a pod that ends fails
        self.failing: set[str] = set()  # labels `app` of pods that certainly do, with exit code 42
        self.places = [f"node-{number}" for number in range(nodes)]  # where pods are put
        self.lifetimes: dict[str, float] = {}  # seconds after which pods with this label `app` end by themselves
        self._controllers = controllers
        self._settings = settings or {}
        self._cloud = cloud
        self._nodes = nodes
        self._server, self._tasks = Tasks(), Tasks()
        self._copies: dict[int, Tasks] = {}
        self._started = 0
        self._leader = 0  # the copy that took the Lease last
        self.metrics = Metrics(self.clock.monotonic)  # of the copy that was started last
        self._addresses = 0
        self._endings: dict[str, asyncio.Event] = {}
        self._failure: BaseException | None = None
        self._checks: list[tuple[Informer, Callable[[], str]]] = []
        self._failures = _Failures(self)
        self.seen = Informers(self.client, clock=self.clock, tasks=self._tasks, random=Random(seed))

    async def __aenter__(self) -> Simulation:
        _LOG.addHandler(self._failures)
        await self.cluster.__aenter__()
        for number in range(self._nodes):
            await self.client.create(NODES, node_object(f"node-{number}"))
        pods = self.seen.informer(PODS)
        pods.add_handler(self._pod_changed)
        await self.seen.synced()
        return self

    async def __aexit__(self, *_: object) -> None:
        for tasks in list(self._copies.values()):
            await tasks.close()
        await self._tasks.close()
        await self._server.close()
        await self.cluster.__aexit__()
        _LOG.removeHandler(self._failures)

    # Controllers.

    async def run_copy(self, *, led: bool = True) -> int:
        """Start a copy of the controllers; returns its number.

        `led`: it takes the Lease, whoever has it, and works in that term; who had it works on as if nothing were.
        """
        self._started += 1
        number, tasks = self._started, Tasks()
        term = await self._take_lease(number) if led else None

        def die() -> None:
            self._tasks.spawn(self._reborn(number), "reborn")

        transport = FaultyTransport(
            self.cluster.transport,
            who=f"copy-{number}",
            odds=self.odds,
            random=self.random,
            clock=self.clock,
            server=self._server,
            trace=self.trace,
            die=die,
        )
        client = Client(transport, clock=self.clock, user_agent=f"copy-{number}")
        if term is not None:
            client = client.leading(term)
        informers = Informers(client, clock=self.clock, tasks=tasks, random=self.random)
        recorder = _Quiet(client, self.clock, tasks, component="simulation")
        self.metrics = Metrics(self.clock.monotonic)
        context = Context(
            client, informers, self.clock, recorder, self.random, self._settings, self._cloud, self.metrics
        )
        tasks.spawn(run_controllers(context, self._controllers), f"copy {number}")
        self._copies[number] = tasks
        return number

    async def _take_lease(self, number: int) -> Term:
        """A new term for a copy, from this moment on."""
        self._leader = number
        namespace, name = LEASE
        now = rfc3339_micro(self.clock.now())
        spec = {"holderIdentity": f"copy-{number}", "acquireTime": now, "renewTime": now}
        if number == 1:
            await self.client.create(LEASES, {"metadata": {"name": name}, "spec": spec}, namespace)
        else:
            await self.client.patch(LEASES, name, namespace, {"spec": spec})
        return Term(namespace, name, now, f"copy-{number}")

    async def stop_copy(self, number: int) -> None:
        """A copy is gone from one moment to the next; harmless when it is gone already."""
        if (tasks := self._copies.pop(number, None)) is not None:
            await tasks.close()

    async def run_twin(self, unled: float = UNLED) -> None:
        """For a while two copies are active: an older leader does not know yet that it leads no more, or nobody asks
        who leads. Then one of the two goes; one that lost the Lease begins anew."""
        await self.clock.sleep(self.random.random() * 30)
        if self.random.random() < unled:
            self.twins = True
            number = await self.run_copy(led=False)
            await self.clock.sleep(self.random.random() * 60)
            await self.stop_copy(number)
            return
        before = self._leader
        taken = await self.run_copy()
        await self.clock.sleep(self.random.random() * 60)
        goes = self.random.choice((before, taken))
        await self.stop_copy(goes)
        if goes == self._leader:
            await self._reborn(before)

    async def _reborn(self, number: int) -> None:
        """A copy is gone; another takes its place if it led, or nobody else does."""
        await self.stop_copy(number)
        await self.clock.sleep(self.random.random() * 5)
        if number == self._leader or self._leader not in self._copies:
            await self.run_copy()

    def start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Do something beside all the rest, for as long as the simulation lasts."""
        self._tasks.spawn(work, name)

    # Nodes.

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            self._ending(old).set()
        if new is None:
            return
        if new["metadata"]["uid"] not in self._endings:
            self._tasks.spawn(self._guarded(self._live(new)), "pod")
        if new["metadata"].get("deletionTimestamp"):
            self._ending(new).set()

    def _ending(self, pod: Object) -> asyncio.Event:
        """Set when the pod is being deleted, or is gone."""
        return self._endings.setdefault(pod["metadata"]["uid"], asyncio.Event())

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except ApiError as error:
            if error.code not in (404, 409):
                self.fail(error)
        except Exception as error:
            self.fail(error)

    async def _live(self, pod: Object) -> None:
        """A pod's life: bound, ready after a while, ended when its time or its deletion comes."""
        meta = pod["metadata"]
        at = (meta["name"], meta["namespace"])
        ending = self._ending(pod)
        try:
            await self._run_pod(pod, ending)
        except ApiError as error:
            if error.code not in (404, 409):
                raise
        await ending.wait()
        await self.clock.sleep(self.random.random() * 3)
        await self.client.delete(PODS, *at, grace_seconds=0, uid=meta["uid"])

    async def _run_pod(self, pod: Object, ending: asyncio.Event) -> None:
        if await self._ended_within(ending, self.random.random() * 2):
            return
        meta = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "uid": meta["uid"]},
            "target": {"kind": "Node", "name": node_of(pod) or self.random.choice(self.places)},
        }
        await self.client.create(PODS, binding, meta["namespace"], name=meta["name"], subresource="binding")
        if await self._ended_within(ending, self.random.random() * 5):
            return
        self._addresses += 1
        ip = f"10.244.{self._addresses // 250}.{self._addresses % 250 + 1}"
        where: Object = {"podIP": ip, "podIPs": [{"ip": ip}], "startTime": rfc3339(self.clock.now())}
        await self._status(pod, phase="Running", conditions=[self._ready("True")], **where)
        app = (meta.get("labels") or {}).get("app", "")
        life = self.lifetimes.get(app)
        if life is None or await self._ended_within(ending, life * self.random.random()):
            return
        failed = app in self.failing or self.random.random() < self.job_failures
        ended = {"terminated": {"exitCode": 42 if failed else 0, "finishedAt": rfc3339(self.clock.now())}}
        container = {"name": pod["spec"]["containers"][0]["name"], "image": "i", "imageID": "", "ready": False}
        states = [{**container, "restartCount": 0, "state": ended}]
        phase = "Failed" if failed else "Succeeded"
        await self._status(pod, phase=phase, conditions=[self._ready("False")], containerStatuses=states)

    def _ready(self, status: str) -> Object:
        return {"type": "Ready", "status": status, "lastTransitionTime": rfc3339(self.clock.now())}

    async def _status(self, pod: Object, **status: Any) -> None:
        meta = pod["metadata"]
        body = {"metadata": {"uid": meta["uid"]}, "status": status}
        await self.client.patch(PODS, meta["name"], meta["namespace"], body, type="strategic", subresource="status")

    async def _ended_within(self, ending: asyncio.Event, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await ending.wait()
        except TimeoutError:
            return False
        return True

    # Looking.

    def all(self, resource: Resource) -> list[Object]:
        """Every object of a kind that the scenario has begun to look at, as it is."""
        return self.seen.informer(resource).list()

    def always(self, resource: Resource, check: Callable[[], str], *, alone: bool = False) -> None:
        """Call `check` after every change of a kind; a text that it returns ends the simulation.

        `alone`: unless two copies of the controllers were active that know no leader, and may do the same thing twice.
        """

        def changed(old: Object | None, new: Object | None) -> None:
            try:
                complaint = check()
            except Exception as error:
                self.fail(error)
                return
            if complaint and not (alone and self.twins):
                self.fail(Violated(f"at {self.clock.monotonic():.3f}: {complaint}"))

        self.seen.informer(resource).add_handler(changed)

    def fail(self, error: BaseException) -> None:
        """The simulation has failed; the first reason counts."""
        if self._failure is None:
            self._failure = error
            self.trace.lines.append(f"{self.clock.monotonic():.6f} FAILED: {error}")

    def check(self) -> None:
        """Raises what has gone wrong so far."""
        if self._failure is not None:
            raise self._failure

    async def pause(self, seconds: float) -> None:
        """Let time pass, and notice what goes wrong meanwhile."""
        await self.clock.sleep(seconds)
        self.check()

    async def settle(self, complaint: Callable[[], str]) -> None:
        """Faults end; wait until there is nothing to complain of, and nobody writes any more. Raises Violated."""
        self.odds.calm()
        end = self.clock.monotonic() + PATIENCE
        while (why := complaint()) or self.clock.monotonic() - self.trace.last_write < STILL:
            self.check()
            if self.clock.monotonic() > end:
                raise Violated(f"never settled: {why or 'somebody goes on writing: ' + self.trace.lines[-1]}")
            await self.clock.sleep(5)
        self.check()


async def _play(
    seed: int, make: Callable[[Random], Scenario], odds: Odds | None, trace: list[str], *, usurped: bool
) -> None:
    scenario = make(Random(seed))
    given = {name: getattr(scenario, name) for name in ("settings", "cloud") if hasattr(scenario, name)}
    async with Simulation(seed, scenario.controllers, odds=odds, **given) as world:
        try:
            scenario.start(world)
            await world.seen.synced()
            await world.run_copy()
            if usurped:
                world.start(world.run_twin(unled=0), "twin")
            elif world.random.random() < TWINS:
                world.start(world.run_twin(), "twin")
            await scenario.play(world)
            await world.settle(lambda: scenario.complaint(world))
        finally:
            trace.extend(world.trace.lines)


def simulate(seed: int, make: Callable[[Random], Scenario], *, odds: Odds | None = None, usurped: bool = False) -> str:
    """Play one scenario with one seed from beginning to end; returns a digest of all that was asked.

    `usurped`: another copy certainly takes the Lease while the first goes on. Raises Violated, with the seed and the
    last requests in its notes.
    """
    trace: list[str] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        try:
            runner.run(_play(seed, make, odds, trace, usurped=usurped))
        except Exception as error:
            end = next((at for at, line in enumerate(trace) if " FAILED: " in line), len(trace))
            error.add_note(f"seed {seed}; the last requests:\n" + "\n".join(trace[max(end - 40, 0) : end]))
            raise
    return hashlib.blake2b("\n".join(trace).encode(), digest_size=8).hexdigest()
