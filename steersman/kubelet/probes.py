"""Probing the containers of one pod: when to ask, how many answers it takes, what follows.

Owns one task for each probe of each running container and the results that plan and status read. Called by `worker`.
Source: Pod API, Probe; KEP-753 for sidecars.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from steersman.api.resource import Object
from steersman.engine.interface import Runtime
from steersman.kubelet import actions, env, grpchealth
from steersman.kubelet.actions import Outcome
from steersman.kubelet.tell import Teller
from steersman.lib.metrics import Family, Registry, Value
from steersman.lib.tasks import Tasks

if TYPE_CHECKING:
    from steersman.lib.clock import Clock

_AGENT = "kube-probe/1.36"
_TRIES_WHEN_UNKNOWN = 3
KINDS = ("startup", "readiness", "liveness")


def probe_counter(metrics: Registry) -> Family[Value]:
    """The counter of /metrics/probes. Raises ValueError when it is there already."""
    text = "Cumulative number of a liveness, readiness or startup probe for a container by result."
    return metrics.counter("prober_probe_total", text, _COUNTED)


_COUNTED = ("probe_type", "result", "container", "pod", "namespace", "pod_uid")


class Probes:
    """Results by container id. `startup` and `liveness`: None until the first verdict."""

    def __init__(
        self,
        runtime: Runtime,
        clock: Clock,
        tasks: Tasks,
        changed: Callable[[], None],
        counted: Callable[[str, str, str], None] = lambda kind, container, result: None,
    ) -> None:
        """`changed` is called whenever a verdict changes, `counted` for every answer."""
        self._counted = counted
        self._runtime = runtime
        self._clock = clock
        self._tasks = tasks
        self._changed = changed
        self._running: dict[str, dict[str, asyncio.Task[None]]] = {}
        self.startup: dict[str, bool | None] = {}
        self.liveness: dict[str, bool | None] = {}
        self.ready: dict[str, bool] = {}

    @property
    def started(self) -> dict[str, bool]:
        """Whether each container with a startup probe has started."""
        return {key: bool(value) for key, value in self.startup.items()}

    def follow(
        self, container: Object, container_id: str, started_at: float, pod_ip: str, teller: Teller, old: Object | None
    ) -> None:
        """Probe a running container from now on; does nothing when it is probed already.

        `old`: its last status when the kubelet was started anew, so that a ready container stays ready.
        """
        if container_id in self._running:
            return
        tasks: dict[str, asyncio.Task[None]] = {}
        self._running[container_id] = tasks
        was_started = bool(old and old.get("started"))
        begun = asyncio.Event()
        if container.get("startupProbe") and not was_started:
            self.startup[container_id] = None
        else:
            begun.set()
        if container.get("readinessProbe"):
            self.ready[container_id] = bool(old and old.get("ready"))
        for kind in KINDS:
            spec = container.get(f"{kind}Probe")
            if spec and not (kind == "startup" and was_started):
                probe = _Probe(self, kind, spec, container, container_id, started_at, pod_ip, teller, begun)
                tasks[kind] = self._tasks.spawn(probe.run(), f"{kind} probe {container_id}")

    def stop_restarting(self) -> None:
        """The pod is being deleted: only readiness still matters."""
        for tasks in self._running.values():
            for kind in ("startup", "liveness"):
                task = tasks.pop(kind, None)
                if task is not None:
                    task.cancel()
        self.liveness.clear()

    def forget(self, container_id: str) -> None:
        """A container has ended."""
        for task in self._running.pop(container_id, {}).values():
            task.cancel()
        for results in (self.startup, self.liveness, self.ready):
            results.pop(container_id, None)

    def keep_only(self, running: set[str]) -> None:
        """Forget every container that does not run any more."""
        for container_id in set(self._running) - running:
            self.forget(container_id)

    def _verdict(self, kind: str, container_id: str, verdict: bool) -> None:
        if container_id not in self._running:
            return
        results: dict[str, bool | None] | dict[str, bool]
        results = {"startup": self.startup, "liveness": self.liveness, "readiness": self.ready}[kind]
        if results.get(container_id) is not verdict:
            results[container_id] = verdict
            self._changed()

    async def _ask(self, spec: Object, container: Object, container_id: str, pod_ip: str) -> Outcome:
        timeout = float(spec.get("timeoutSeconds") or 1)
        if spec.get("exec"):
            static = {each["name"]: each.get("value") or "" for each in container.get("env") or ()}
            command = [env.expand(each, static) for each in spec["exec"].get("command") or ()]
            return await actions.run_command(self._runtime, container_id, command, timeout)
        if spec.get("httpGet"):
            return await actions.http_get(spec["httpGet"], container, pod_ip, timeout, _AGENT)
        if spec.get("tcpSocket"):
            try:
                port = actions.port_number(spec["tcpSocket"]["port"], container)
            except ValueError as error:
                return Outcome(False, str(error), unknown=True)
            return await actions.connect(spec["tcpSocket"].get("host") or pod_ip, port, timeout)
        if spec.get("grpc"):
            grpc = spec["grpc"]
            return await grpchealth.check(pod_ip, int(grpc["port"]), grpc.get("service") or "", timeout)
        return Outcome(False, "missing probe handler", unknown=True)


class _Probe:
    """One probe of one run of a container."""

    def __init__(
        self,
        probes: Probes,
        kind: str,
        spec: Object,
        container: Object,
        container_id: str,
        started_at: float,
        pod_ip: str,
        teller: Teller,
        begun: asyncio.Event,
    ) -> None:
        self._probes, self._kind, self._spec = probes, kind, spec
        self._container, self._id, self._started_at = container, container_id, started_at
        self._pod_ip, self._teller, self._begun = pod_ip, teller, begun

    async def run(self) -> None:
        """Ask until there is a verdict that ends the asking."""
        clock = self._probes._clock
        if self._kind != "startup":
            await self._begun.wait()
        delay = self._started_at + float(self._spec.get("initialDelaySeconds") or 0) - clock.now()
        if delay > 0:
            await clock.sleep(delay)
        period = float(self._spec.get("periodSeconds") or 10)
        needed = {
            True: int(self._spec.get("successThreshold") or 1),
            False: int(self._spec.get("failureThreshold") or 3),
        }
        last: bool | None = None
        in_a_row = 0
        while True:
            began = clock.monotonic()
            answer = await self._once()
            if answer is not None:
                in_a_row = in_a_row + 1 if answer is last else 1
                last = answer
                if in_a_row >= needed[answer]:
                    self._probes._verdict(self._kind, self._id, answer)
                    if self._kind == "startup" and answer:
                        self._begun.set()
                    if self._kind == "startup" or (self._kind == "liveness" and not answer):
                        return
            await clock.sleep(max(period - (clock.monotonic() - began), 0.01))

    async def _once(self) -> bool | None:
        """One answer; None when it could not be asked."""
        outcome = Outcome(False, unknown=True)
        for _ in range(_TRIES_WHEN_UNKNOWN):
            outcome = await self._probes._ask(self._spec, self._container, self._id, self._pod_ip)
            if not outcome.unknown:
                break
        name, title = self._container["name"], self._kind.capitalize()
        result = "unknown" if outcome.unknown else "successful" if outcome.ok else "failed"
        self._probes._counted(title, name, result)
        if outcome.unknown:
            text = f"{title} probe errored and resulted in unknown state: {outcome.output}"
            self._teller.container(name, "Warning", "Unhealthy", text)
            return None
        if not outcome.ok:
            self._teller.container(name, "Warning", "Unhealthy", f"{title} probe failed: {outcome.output}")
        elif outcome.warning:
            self._teller.container(name, "Warning", "ProbeWarning", f"{title} probe warning: {outcome.output}")
        return outcome.ok
