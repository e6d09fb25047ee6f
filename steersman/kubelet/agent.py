"""The kubelet of one node: it hears of pods, starts a worker for each, and carries news from the engine to them.

Owns the workers, the node's registration, recovery after its own death, and the clean-up of pods that the API has
forgotten. Built by `cluster` with everything it needs; `run` ends only by cancellation, which leaves every container
running. The HTTPS server asks it through `access.PodAccess`.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from steersman.api.errors import ApiError
from steersman.api.resource import NODES, PODS, SERVICES, Object
from steersman.engine.interface import ContainerEvent, Images, Runtime, RuntimeFailure
from steersman.kubelet import admission, cadvisor, labels, lookup, podspec, resolvconf, resources, sandboxconfig, stats
from steersman.kubelet.ending import Ending
from steersman.kubelet.logrotation import LogRotation
from steersman.kubelet.node import NodeAgent, allocatable, node_object
from steersman.kubelet.objects import ObjectSource
from steersman.kubelet.observed import observe
from steersman.kubelet.probes import probe_counter
from steersman.kubelet.pulling import Puller
from steersman.kubelet.settings import NodeConfig
from steersman.kubelet.statuswriter import StatusWriter
from steersman.kubelet.steps import Node
from steersman.kubelet.tell import Recorder, Teller
from steersman.kubelet.tokens import Tokens
from steersman.kubelet.volumes import mounter
from steersman.kubelet.worker import PodWorker
from steersman.lib.metrics import Registry
from steersman.lib.tasks import Tasks

if TYPE_CHECKING:
    from steersman.client.client import Client
    from steersman.client.informer import Informer, Informers
    from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_ORPHAN_GRACE = 1.0
_WORKER_RETRY = 5.0


async def _nothing_to_wait_for(pod: Object, ips: Sequence[str]) -> None:
    """A network that is ready with its addresses."""


class Kubelet:
    """One node's agent (`access.PodAccess`)."""

    def __init__(
        self,
        *,
        settings: NodeConfig,
        client: Client,
        informers: Informers,
        runtime: Runtime,
        images: Images,
        clock: Clock,
        recorder: Recorder,
        networked: Callable[[Object, Sequence[str]], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """Nothing happens before `run`. The runtime is the caller's to start and close.

        `networked` is told of a new pod's addresses before its containers start, and waited for.
        """
        self.settings = settings
        self.node_name = settings.name
        self.runtime = runtime
        self._client = client
        self._images = images
        self._clock = clock
        self._recorder = recorder
        self._tasks = Tasks()
        self._pods: Informer = informers.informer(PODS, fields=f"spec.nodeName={settings.name}")
        self._own: Informer = informers.informer(NODES, fields=f"metadata.name={settings.name}")
        services = informers.informer(SERVICES)
        self._services = services
        self._agent = NodeAgent(client, clock, settings, runtime, images)
        self._workers: dict[str, PodWorker] = {}
        self._objects = ObjectSource(client, clock=clock, tasks=self._tasks, changed=self._objects_changed)
        self._rates = stats.Rates(clock.now())
        self._probe_metrics = Registry()
        self._node = Node(
            settings=settings,
            client=client,
            runtime=runtime,
            puller=Puller(images, clock),
            clock=clock,
            recorder=recorder,
            tasks=self._tasks,
            objects=self._objects,
            tokens=Tokens(client, clock),
            statuses=StatusWriter(client, clock, self._tasks),
            services=services,
            allocatable=allocatable(settings),
            resolver=resolvconf.host_config(settings.resolv_conf),
            others=self._others,
            networked=networked or _nothing_to_wait_for,
            probed=probe_counter(self._probe_metrics),
            room_changed=self._room_changed,
        )
        self.registered = asyncio.Event()

    async def run(self) -> None:
        """Be this node until cancelled."""
        for directory in (self.settings.pods, self.settings.memory / "pods", self.settings.logs):
            directory.mkdir(parents=True, exist_ok=True)
        for private in (self.settings.pods, self.settings.memory / "pods"):
            private.chmod(0o750)
        events = self.runtime.events()  # before the first look, so that nothing falls between
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear(events))
                group.create_task(self._live())
                group.create_task(LogRotation(self.runtime, self._clock).run())
        finally:
            await self._tasks.close()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Kubelet]:
        """`run` beside the caller, for as long as the block lasts."""
        tasks = Tasks()
        task = tasks.spawn(self.run(), f"kubelet {self.node_name}")
        try:
            ready = asyncio.ensure_future(self.registered.wait())
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            if task.done():
                await task
            yield self
        finally:
            await tasks.close()

    async def _live(self) -> None:
        node = {"apiVersion": "v1", "kind": "Node", "name": self.node_name, "uid": self.node_name}
        self._recorder.event(node, "Normal", "Starting", "Starting kubelet.")
        await asyncio.gather(self._agent.register(), self._pods.synced(), self._services.synced())
        ready = f"Node {self.node_name} status is now: NodeReady"
        self._recorder.event(node, "Normal", "NodeReady", ready)
        self._clean_up_orphans()
        self._pods.add_handler(self._pod_changed)
        self._own.add_handler(self._node_changed)
        self.registered.set()
        await self._agent.keep_alive()

    # News.

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and (new is None or podspec.uid(old) != podspec.uid(new)):
            worker = self._workers.get(podspec.uid(old))
            if worker is not None:
                worker.forget()
                self._room_changed()
        if new is None:
            return
        worker = self._workers.get(podspec.uid(new))
        if worker is None:
            self._begin(new)
        else:
            worker.update(new)
            if podspec.finished(new) and not (old is not None and podspec.finished(old)):
                self._room_changed()

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and self._agent.notice(new):
            self._tasks.spawn(self._report(), f"status of {self.node_name}")

    async def _report(self) -> None:
        try:
            await self._agent.report()
        except (ApiError, OSError) as error:
            log.warning("cannot write the status of node %s, will with the next: %s", self.node_name, error)

    def _begin(self, pod: Object) -> None:
        worker = PodWorker(self._node, pod)
        self._workers[worker.uid] = worker
        if not podspec.finished(pod) and not podspec.deleting(pod) and not worker.observed().sandboxes:
            refusal = self._refusal(worker, node_object(self.settings, {}))
            if refusal == admission.UNSUITED:
                self._tasks.spawn(self._look_again(worker), f"pod {podspec.full_name(pod)}")
                return
            if refusal is not None:
                worker.reject(refusal.reason, refusal.message)
        self._tasks.spawn(self._work(worker), f"pod {podspec.full_name(pod)}")

    def _refusal(self, worker: PodWorker, node: Object) -> admission.Refusal | None:
        others = [each.pod for each in self._workers.values() if each is not worker and each.active]
        return admission.admit(worker.pod, others, self._node.allocatable, node)

    async def _look_again(self, worker: PodWorker) -> None:
        """By the labels that this node gave itself the pod is wrong here; others may have added some since."""
        try:
            node = await self._client.get(NODES, self.node_name)
        except (ApiError, OSError, TimeoutError) as error:
            log.warning("cannot read node %s: %s", self.node_name, error)
            node = node_object(self.settings, {})
        if (refusal := self._refusal(worker, node)) is not None:
            worker.reject(refusal.reason, refusal.message)
        await self._work(worker)

    def _others(self, uid: str) -> list[Object]:
        return [each.pod for each in self._workers.values() if each.uid != uid and each.active]

    def _room_changed(self) -> None:
        """Something left the node, or became smaller: a resize that waits may fit now."""
        for worker in self._workers.values():
            worker.room_changed()

    async def _work(self, worker: PodWorker) -> None:
        """Let a worker run to its end; a mistake in it must not leave the pod without one."""
        while True:
            try:
                await worker.run()
            except Exception:  # whatever it is, the next look at engine and API may do better
                log.exception("worker of %s failed, it starts again", podspec.full_name(worker.pod))
                await self._clock.sleep(_WORKER_RETRY)
            else:
                break
        if self._workers.get(worker.uid) is worker:
            del self._workers[worker.uid]
            self._room_changed()

    async def _hear(self, events: AsyncIterator[ContainerEvent]) -> None:
        """Wake the worker of each container that something happened to."""
        owners: dict[str, str] = {}
        async for event in events:
            uid = owners.get(event.sandbox_id)
            if uid is None:
                for sandbox in self.runtime.sandboxes():
                    owners[sandbox.id] = sandbox.config.labels.get(labels.POD_UID, "")
                uid = owners.get(event.sandbox_id, "")
            worker = self._workers.get(uid)
            if worker is not None:
                worker.wake()
            elif event.kind == "deleted":
                owners.pop(event.sandbox_id, None)

    def _objects_changed(self, users: set[str]) -> None:
        for uid in users:
            worker = self._workers.get(uid)
            if worker is not None:
                worker.objects_changed()

    async def end_pods(self, most: float) -> None:
        """After `run`: end what the pods run, each within its own grace period and all within `most` seconds.

        Nothing is said of it in statuses: the pods start again with the node.
        """
        workers = [each for each in self._workers.values() if each.active]
        results = await asyncio.gather(*(each.end_with_node(most) for each in workers), return_exceptions=True)
        for worker, result in zip(workers, results, strict=True):
            if isinstance(result, Exception):
                log.warning("cannot end %s: %s", podspec.full_name(worker.pod), result)

    # What was left behind.

    def _clean_up_orphans(self) -> None:
        """End what belongs to pods that the API does not have (any more)."""
        known = {podspec.uid(each) for each in self._pods.list()}
        owners = [labels.owner(each.config.labels) for each in self.runtime.sandboxes()]
        orphans = {each.uid: each for each in owners if each is not None and each.uid not in known}
        for owner in orphans.values():
            self._tasks.spawn(self._end_orphan(owner), f"orphan {owner.namespace}/{owner.name}")
        for uid in (mounter.pods_on_disk(self.settings.pods) | self._in_memory()) - known - set(orphans):
            mounter.take_down(self._directories(uid), everything=True)

    def _in_memory(self) -> set[str]:
        return mounter.pods_on_disk(self.settings.memory / "pods")

    def _directories(self, uid: str) -> mounter.PodDirectories:
        return mounter.PodDirectories(self.settings.pods / uid, self.settings.memory / "pods" / uid)

    async def _end_orphan(self, owner: labels.Owner) -> None:
        seen = observe(owner.uid, self.runtime.sandboxes(), self.runtime.containers(), {})
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": owner.namespace, "name": owner.name, "uid": owner.uid},
            "spec": {"containers": []},
        }
        for run in seen.running():
            _, container = labels.remembered_pod(owner, run.container.config.annotations, run.container.config.name)
            pod["spec"]["containers"].append(container)
        ips = seen.sandbox.ips if seen.sandbox is not None else ()
        ending = Ending(self.runtime, self._clock, Teller(self._recorder, pod), ips[0] if ips else "")
        try:
            await ending.pod(pod, seen, _ORPHAN_GRACE)
            for sandbox in seen.sandboxes:
                await self.runtime.remove_sandbox(sandbox.id)
        except RuntimeFailure as error:
            log.warning("cannot remove forgotten pod %s/%s: %s", owner.namespace, owner.name, error)
            return
        mounter.take_down(self._directories(owner.uid), everything=True)
        shutil.rmtree(sandboxconfig.log_directory(self.settings.logs, pod), ignore_errors=True)

    # For the HTTPS server.

    def pods(self) -> Sequence[Object]:
        """Every pod here, with the status that this kubelet holds."""
        return [{**worker.pod, "status": worker.status} for worker in self._workers.values()]

    def _worker(self, namespace: str, pod: str, uid: str = "") -> PodWorker:
        for worker in self._workers.values():
            if podspec.key(worker.pod) == (namespace, pod) and uid in ("", worker.uid):
                return worker
        raise ApiError(404, "NotFound", f'pod "{pod}" does not exist')

    def container_id(self, namespace: str, pod: str, container: str, *, uid: str = "") -> str:
        """The engine's id of the running container. Raises ApiError."""
        return lookup.running_container(container, self._worker(namespace, pod, uid).status)

    def log_container_id(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> str:
        """The engine's id of the container whose log is meant. Raises ApiError."""
        return lookup.log_container(pod, container, self._worker(namespace, pod).status, previous=previous)

    def log_path(self, namespace: str, pod: str, container: str, *, previous: bool = False) -> str:
        """The absolute path of that log. Raises ApiError."""
        found = self.log_container_id(namespace, pod, container, previous=previous)
        try:
            return self.runtime.container(found).log_path
        except RuntimeFailure as error:
            raise ApiError(404, "NotFound", str(error)) from None

    def sandbox_id(self, namespace: str, pod: str, *, uid: str = "") -> str:
        """The engine's id of the pod's ready sandbox. Raises ApiError."""
        sandbox = self._worker(namespace, pod, uid).observed().sandbox
        if sandbox is None:
            raise ApiError(404, "NotFound", f'pod "{pod}" has no running sandbox')
        return sandbox.id

    def configuration(self) -> Object:
        """The settings that /configz shows."""
        return self.settings.configuration()

    def probe_metrics(self) -> str:
        """How often probes were answered how."""
        return self._probe_metrics.text()

    async def cadvisor_metrics(self) -> str:
        """Each container's use of the machine."""
        usages = await stats.usages(self.runtime)
        cpus = int(resources.amount(self.settings.capacity.get("cpu", "0")))
        return cadvisor.metrics(usages, cpus, self.settings.memory_capacity)

    async def stats_summary(self) -> Object:
        """Usage of the node and its pods."""
        usages = await stats.usages(self.runtime)
        return stats.summary(self.settings, usages, self._images, self.pods(), self._rates, self._clock.now())
