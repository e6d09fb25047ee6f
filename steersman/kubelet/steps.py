"""Doing what a plan says: sandbox, volumes, images, containers of one pod.

Owns the effects; each step is safe to repeat and everything it leaves can be found again through the engine's labels.
Called by `worker`, which owns the order. A step that can not be done raises `Held`: why, and until when to wait.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, SECRETS, Object, Resource
from steersman.engine.interface import (
    Container,
    ContainerConfig,
    ContainerState,
    Credentials,
    Image,
    Runtime,
    RuntimeFailure,
)
from steersman.kubelet import (
    containerconfig,
    downward,
    env,
    hosts,
    labels,
    podspec,
    pulling,
    resize,
    resolvconf,
    resources,
    sandboxconfig,
)
from steersman.kubelet.blocking import in_thread
from steersman.kubelet.containerconfig import Ingredients
from steersman.kubelet.ending import Ending, run_hook
from steersman.kubelet.env import ConfigError
from steersman.kubelet.node import HANDLERS
from steersman.kubelet.objects import Fetched
from steersman.kubelet.observed import Observed
from steersman.kubelet.plan import Cause, Change, Hold, Kill, Prepare, Start
from steersman.kubelet.pulling import NoImage, Puller
from steersman.kubelet.resize import Resize
from steersman.kubelet.settings import NodeConfig
from steersman.kubelet.tell import EventType, Recorder, Teller
from steersman.kubelet.volumes import mounter
from steersman.kubelet.volumes.context import VolumeContext, VolumeFailed
from steersman.lib.backoff import Backoff
from steersman.lib.metrics import Family, Value
from steersman.lib.tasks import Tasks

if TYPE_CHECKING:
    from steersman.client.client import Client
    from steersman.client.informer import Informer
    from steersman.kubelet.objects import ObjectSource
    from steersman.kubelet.statuswriter import StatusWriter
    from steersman.kubelet.tokens import Tokens
    from steersman.lib.clock import Clock

RUNTIMECLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
T = TypeVar("T")
_RETRY = 10.0


class PodEnded(Exception):
    """The pod is to end: what was waited for does not matter any more."""


class Guard(Protocol):
    """How long waits are made: they are given up, with PodEnded, as soon as the pod is to end."""

    def __call__(self, work: Coroutine[Any, Any, T]) -> Awaitable[T]:
        """Wait for `work`. Raises PodEnded, having cancelled it."""
        ...


class Held(Exception):
    """A step could not be done; `name`: the container it was for, "" for the whole pod."""

    def __init__(self, name: str, hold: Hold) -> None:
        super().__init__(hold.message)
        self.name = name
        self.hold = hold


@dataclass(frozen=True, slots=True)
class Node:
    """What every pod of this node shares."""

    settings: NodeConfig
    client: Client
    runtime: Runtime
    puller: Puller
    clock: Clock
    recorder: Recorder
    tasks: Tasks
    objects: ObjectSource
    tokens: Tokens
    statuses: StatusWriter
    services: Informer
    allocatable: Mapping[str, str]
    resolver: resolvconf.Resolver
    probed: Family[Value]  # prober_probe_total
    networked: Callable[[Object, Sequence[str]], Coroutine[Any, Any, None]]  # waits until a new pod's network is ready
    room_changed: Callable[[], None] = lambda: None  # something takes less of the node now
    others: Callable[[str], Sequence[Object]] = lambda uid: ()  # active pods of the node but this one, as allocated


@dataclass(slots=True)
class PodSteps:
    """The steps of one pod. `volumes`: name to host path once they are set up."""

    node: Node
    pod: Object
    guard: Guard
    volumes: Mapping[str, Path] | None = None
    image_volumes: dict[str, str] = field(default_factory=dict)
    _volume_backoff: Backoff[str] = field(default_factory=lambda: Backoff(0.5, 122.0))
    _sandbox_backoff: Backoff[str] = field(default_factory=lambda: Backoff(2.0, 60.0))

    @property
    def uid(self) -> str:
        """The pod's."""
        return podspec.uid(self.pod)

    @property
    def teller(self) -> Teller:
        """Events about this pod."""
        return Teller(self.node.recorder, self.pod)

    @property
    def directories(self) -> mounter.PodDirectories:
        """Where the pod's things are."""
        settings = self.node.settings
        return mounter.PodDirectories(settings.pods / self.uid, settings.memory / "pods" / self.uid)

    def facts(self, ips: Sequence[str]) -> downward.Facts:
        """What the downward API says about a pod with these addresses."""
        settings = self.node.settings
        own = settings.addresses if podspec.host_network(self.pod) else ips
        return downward.Facts(settings.addresses, own, self.node.allocatable)

    async def prepare(self, step: Prepare) -> None:
        """Volumes and sandbox, at the same time. Raises Held."""
        settings = self.node.settings
        resolver, warnings = resolvconf.pod_resolver(self.pod, self.node.resolver, settings.dns)
        for text in warnings:
            self.teller.pod("Warning", "DNSConfigForming", text)
        config = sandboxconfig.sandbox_config(self.pod, step.attempt, resolver, settings.dns.domain, settings.logs)
        if step.attempt:
            message = "Pod sandbox changed, it will be killed and re-created."
            self.teller.pod("Normal", "SandboxChanged", message)
        await self._check_handler()
        results = await asyncio.gather(
            self.node.runtime.run_sandbox(config),
            self.guard(self.set_up_volumes()),
            self.guard(self._warm_up()),
            return_exceptions=True,
        )
        sandbox, volumes, _ = results
        if isinstance(sandbox, RuntimeFailure):
            raise self._no_sandbox(str(sandbox))
        for result in (sandbox, volumes):
            if isinstance(result, BaseException):
                raise result
        self._sandbox_backoff.forget("")
        if not isinstance(sandbox, BaseException) and sandbox.ips:
            await self.guard(self.node.networked(self.pod, sandbox.ips))

    def _no_sandbox(self, why: str) -> Held:
        self.teller.pod("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {why}")
        return Held("", Hold(self.node.clock.now() + self._sandbox_backoff.next("")))

    async def _check_handler(self) -> None:
        """The pod's RuntimeClass must name a handler that is here. Raises Held."""
        name = self.pod["spec"].get("runtimeClassName")
        if not name:
            return
        found = await self.guard(Fetched(self.node.client).get(RUNTIMECLASSES, "", name))
        if found is None:
            raise self._no_sandbox(f'failed to get sandbox runtime: RuntimeClass "{name}" not found')
        if found.get("handler", "") not in HANDLERS:
            raise self._no_sandbox(f'failed to get sandbox runtime: no runtime for "{found["handler"]}" is configured')

    async def _warm_up(self) -> None:
        """Read what the containers' environments name, so that nobody waits for it later."""
        names = {each for _, container in podspec.every_container(self.pod) for each in env.references(container)}
        await asyncio.gather(*(self._fetch(kind, name) for kind, name in names), return_exceptions=True)

    async def _fetch(self, kind: str, name: str) -> Object | None:
        resource = CONFIGMAPS if kind == "configmaps" else SECRETS
        return await self.node.objects.for_pod(self.uid).get(resource, podspec.key(self.pod)[0], name)

    async def set_up_volumes(self) -> None:
        """Every volume, brought up to date. Raises Held."""
        context = VolumeContext(
            self.node.objects.for_pod(self.uid),
            self.node.tokens,
            self.facts(()),
            self.node.clock.now(),
            Fetched(self.node.client),
        )
        try:
            self.volumes = await mounter.set_up(context, self.pod, self.directories)
        except VolumeFailed as error:
            for text in str(error).splitlines():
                self.teller.pod("Warning", "FailedMount", text)
            raise Held("", Hold(self.node.clock.now() + self._volume_backoff.next(""))) from None
        self._volume_backoff.forget("")

    async def start(self, step: Start, seen: Observed) -> None:
        """A new run of a container, to the end of its postStart hook. Raises Held."""
        found = podspec.container_named(self.pod, step.name)
        sandbox = seen.sandbox
        if found is None or sandbox is None:
            return
        container = found[1]
        if self.volumes is None:
            await self.guard(self.set_up_volumes())
        last = seen.latest(step.name)
        created = last is not None and last.container.state is ContainerState.CREATED
        if last is not None and created and last.container.sandbox_id == sandbox.id:
            await self._run(container, last.container, sandbox.ips)  # the kubelet died between create and start
            return
        image = await self._image(step.name, container["image"], container.get("imagePullPolicy") or "IfNotPresent")
        await self._image_volumes(step.name)
        made = await self._create(container, step, seen, image, sandbox.id, sandbox.ips)
        await self._run(container, made, sandbox.ips)

    async def _image(self, name: str, reference: str, policy: str) -> Image:
        teller = self.teller

        def tell(type: EventType, reason: str, message: str) -> None:
            teller.container(name, type, reason, message)

        try:
            logins: Sequence[Credentials] = ()
            if self.node.puller.present(reference, policy) is None and policy != "Never":
                logins = await self.guard(self._logins(reference))
            return await self.guard(self.node.puller.ensure(self.uid, reference, policy, logins, tell))
        except NoImage as error:
            tell("Warning", "Failed", f"Error: {error.reason}")
            raise Held(name, Hold(error.until, error.reason, str(error))) from None

    async def _logins(self, reference: str) -> list[Credentials]:
        names = [each["name"] for each in self.pod["spec"].get("imagePullSecrets") or () if each.get("name")]
        found = await asyncio.gather(*(self._fetch("secrets", name) for name in names), return_exceptions=True)
        missing = [name for name, each in zip(names, found, strict=True) if not isinstance(each, dict)]
        if missing:
            text = f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
            text += "attempting to pull the image may not succeed."
            self.teller.pod("Warning", "FailedToRetrieveImagePullSecret", text)
        return pulling.credentials_for(reference, [each for each in found if isinstance(each, dict)])

    async def _image_volumes(self, name: str) -> None:
        for volume in self.pod["spec"].get("volumes") or ():
            source = volume.get("image")
            if source and volume["name"] not in self.image_volumes:
                policy = source.get("pullPolicy") or "IfNotPresent"
                image = await self._image(name, source["reference"], policy)
                self.image_volumes[volume["name"]] = image.id

    async def _create(
        self, container: Object, step: Start, seen: Observed, image: Image, sandbox: str, ips: Sequence[str]
    ) -> Container:
        name = step.name
        try:
            fetched = await self.guard(self._fetched(container))
            target = seen.latest(container.get("targetContainerName") or "")
            config = await in_thread(
                self._configure, container, step.restart_count, image, fetched, ips, target.id if target else ""
            )
        except (ConfigError, ApiError, OSError) as error:
            self._failed(name, f"Error: {error}")
            raise self._held(name, "CreateContainerConfigError", str(error)) from None
        try:
            made = await self.node.runtime.create_container(sandbox, config)
        except RuntimeFailure as error:
            self._failed(name, f"Error: {error}")
            raise self._held(name, error.reason or "CreateContainerError", str(error)) from None
        self.teller.container(name, "Normal", "Created", "Container created")
        return made

    def _configure(
        self,
        container: Object,
        restart_count: int,
        image: Image,
        fetched: env.Fetched,
        ips: Sequence[str],
        target: str,
    ) -> ContainerConfig:
        """The configuration of a new run, with the files it mounts. Raises ConfigError or OSError."""
        given = Ingredients(
            image=image,
            restart_count=restart_count,
            fetched=fetched,
            services=self._service_variables(),
            facts=self.facts(ips),
            volumes=self.volumes or {},
            image_volumes=self.image_volumes,
            directories=self.directories,
            hosts_file=self._hosts_file(ips),
            memory_capacity=self.node.settings.memory_capacity,
            seccomp_profiles=self.node.settings.root / "seccomp",
            target_container=target,
        )
        return containerconfig.container_config(self.pod, container, given)

    async def _fetched(self, container: Object) -> dict[tuple[str, str], Object | None]:
        keys = list(env.references(container))
        found = await asyncio.gather(*(self._fetch(kind, name) for kind, name in keys))
        return dict(zip(keys, found, strict=True))

    def _service_variables(self) -> dict[str, str]:
        links = self.pod["spec"].get("enableServiceLinks") is not False
        return env.service_variables(self.node.services.list(), podspec.key(self.pod)[0], links=links)

    def _hosts_file(self, ips: Sequence[str]) -> Path | None:
        if not containerconfig.needs_hosts_file(self.pod, ips):
            return None
        settings = self.node.settings
        of_node = ""
        if podspec.host_network(self.pod):
            try:
                of_node = Path(settings.hosts_file).read_text(encoding="utf-8", errors="replace")
            except OSError:
                of_node = ""
        path = self.directories.root / "etc-hosts"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = hosts.content(self.pod, ips, settings.dns.domain, of_node)
        if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != text:
            hosts.write(path, text)
        return path

    def _failed(self, name: str, text: str) -> None:
        self.teller.container(name, "Warning", "Failed", text)

    def _held(self, name: str, reason: str, message: str) -> Held:
        return Held(name, Hold(self.node.clock.now() + _RETRY, reason, message))

    async def _run(self, container: Object, made: Container, ips: Sequence[str]) -> None:
        name = container["name"]
        try:
            await self.node.runtime.start_container(made.id)
        except RuntimeFailure as error:
            self._failed(name, f"Error: {error}")
            raise self._held(name, error.reason or "RunContainerError", str(error)) from None
        self.teller.container(name, "Normal", "Started", "Container started")
        hook = (container.get("lifecycle") or {}).get("postStart")
        if not hook:
            return
        address = ips[0] if ips else ""
        failure = await self.guard(
            run_hook(self.node.runtime, self.node.clock, hook, self.pod, container, made.id, address)
        )
        if failure:
            self.teller.container(name, "Warning", "FailedPostStartHook", "PostStartHook failed")
            ending = self.ending(ips)
            await ending.container(self.pod, container, made.id, podspec.grace_period(self.pod), "FailedPostStartHook")
            raise Held(name, Hold(0, "PostStartHookError", failure))

    def ending(self, ips: Sequence[str]) -> Ending:
        """How containers of this pod are ended."""
        address = (self.node.settings.addresses if podspec.host_network(self.pod) else ips)[:1]
        return Ending(self.node.runtime, self.node.clock, self.teller, address[0] if address else "")

    async def kill(self, step: Kill, seen: Observed) -> None:
        """End one running container."""
        found = podspec.container_named(self.pod, step.name)
        container = found[1] if found else {"name": step.name}
        grace: Any = None
        if not podspec.deleting(self.pod) and step.cause in (Cause.STARTUP_PROBE, Cause.LIVENESS_PROBE):
            grace = (container.get(step.cause.value) or {}).get("terminationGracePeriodSeconds")
        if step.cause is Cause.RESTART_ALL:
            grace = 0
        if grace is None:
            grace = podspec.grace_period(self.pod)
        await self.ending(seen.sandbox.ips if seen.sandbox else ()).container(
            self.pod, container, step.container_id, float(grace), step.message
        )

    async def change(self, step: Change, seen: Observed, resizing: Resize) -> None:
        """New limits for running containers, within a pod that is wide enough meanwhile. Raises RuntimeFailure."""
        runtime, sandbox = self.node.runtime, seen.sandbox
        if sandbox is None:
            return
        target = resources.of_pod(self.pod)
        wide = resize.widest(resizing.pod_limits or target, target)
        await runtime.update_sandbox(sandbox.id, wide)
        for name in step.names:
            found, run = podspec.container_named(self.pod, name), seen.latest(name)
            if found is not None and run is not None and run.running:
                wanted = resources.of_container(self.pod, found[1], self.node.settings.memory_capacity)
                await runtime.update_resources(run.id, wanted)
                resizing.done([name], self.pod, wide)
        restarting = any(
            run.running and resizing.actuated.get(name) != (found[1].get("resources") or {})
            for name in seen.runs
            if (run := seen.latest(name)) and (found := podspec.container_named(self.pod, name))
        )
        if not restarting:
            await runtime.update_sandbox(sandbox.id, target)
            wide = target
        resizing.done([], self.pod, wide)

    async def stop(self, seen: Observed, grace: float, messages: Mapping[str, str] | None = None) -> None:
        """End every container, then stop the sandboxes."""
        await self.ending(seen.sandbox.ips if seen.sandbox else ()).pod(self.pod, seen, grace, messages)
        await asyncio.gather(*(self.node.runtime.stop_sandbox(each.id) for each in seen.sandboxes))


MESSAGE_BYTES = 4096
_LOG_BYTES, _LOG_LINES = 2048, 80


def termination_message(container: Container) -> str:
    """What an ended container left at its terminationMessagePath, or the end of its log where it asked for that."""
    annotations = container.config.annotations
    text, there = "", annotations.get(labels.MESSAGE_FILE, "")
    if there:
        try:
            with Path(there).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(size - MESSAGE_BYTES, 0))
                text = file.read(MESSAGE_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            text = ""
        except OSError as error:
            return f"Error on reading termination log {there}: {error.strerror}"
    if text or annotations.get(labels.MESSAGE_POLICY) != "FallbackToLogsOnError" or container.exit_code == 0:
        return text
    return _end_of_log(container.log_path)


def _end_of_log(path: str) -> str:
    """The last lines of a log in the CRI's format: `<time> <stream> <F|P> <text>`."""
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - 16 * _LOG_BYTES, 0))
            lines = file.read().split(b"\n")
    except OSError:
        return ""
    out = b""
    for line in lines[-_LOG_LINES - 1 :]:
        parts = line.split(b" ", 3)
        if len(parts) == 4:
            out += parts[3] + (b"\n" if parts[2].startswith(b"F") else b"")
    return out[-_LOG_BYTES:].decode("utf-8", "replace")
