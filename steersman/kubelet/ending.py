"""Ending containers: hooks, notice, order, and the signal.

Owns lifecycle hooks and the way a container or a whole pod is brought down. Called by `worker` and by the clean-up of
pods that the API has forgotten. Source: Pod lifecycle documentation, termination; KEP-753 for the order of sidecars.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from steersman.api.resource import Object
from steersman.engine.interface import NoSuchContainer, Runtime
from steersman.kubelet import actions, podspec
from steersman.kubelet.observed import Observed
from steersman.kubelet.tell import Teller

if TYPE_CHECKING:
    from steersman.lib.clock import Clock

T = TypeVar("T")
_AGENT = "kube-lifecycle/1.36"
_HTTP_HOOK_SECONDS = 3600.0


async def run_hook(
    runtime: Runtime, clock: Clock, handler: Object, pod: Object, container: Object, container_id: str, pod_ip: str
) -> str:
    """Run a postStart or preStop handler to its end; "" or why it failed."""
    where = f'for Container "{container["name"]}" in Pod "{podspec.full_name(pod)}" failed - error: '
    if handler.get("exec"):
        command = handler["exec"].get("command") or ()
        outcome = await actions.run_command(runtime, container_id, command, 0)
        shown = f"[{' '.join(command)}]"
        detail = outcome.output if outcome.unknown else f'command exited with an error, message: "{outcome.output}"'
        return "" if outcome.ok else f"Exec lifecycle hook ({shown}) {where}{detail}"
    if handler.get("httpGet"):
        outcome = await actions.http_get(handler["httpGet"], container, pod_ip, _HTTP_HOOK_SECONDS, _AGENT)
        answered = outcome.ok or outcome.output.startswith("HTTP probe failed with statuscode")
        return "" if answered else f"HTTP lifecycle hook ({handler['httpGet'].get('path', '')}) {where}{outcome.output}"
    if handler.get("sleep"):
        await clock.sleep(float(handler["sleep"].get("seconds") or 0))
    return ""


@dataclass(frozen=True, slots=True)
class Ending:
    """What ending needs."""

    runtime: Runtime
    clock: Clock
    teller: Teller
    pod_ip: str = ""

    async def container(
        self,
        pod: Object,
        container: Object,
        container_id: str,
        grace: float,
        message: str = "",
        after: Sequence[asyncio.Event] = (),
    ) -> None:
        """End one container: preStop, wait for `after`, the signal, KILL after `grace` seconds in all."""
        name = container["name"]
        self.teller.container(name, "Normal", "Killing", message or f"Stopping container {name}")
        began = self.clock.monotonic()
        hook = (container.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            await self._pre_stop(pod, container, container_id, hook, grace)
        left = grace - (self.clock.monotonic() - began)
        if after and left > 0:
            await self._within(_all(after), left)
            left = grace - (self.clock.monotonic() - began)
        try:
            await self.runtime.stop_container(container_id, max(left, podspec.MINIMUM_GRACE))
        except NoSuchContainer:
            return

    async def _pre_stop(self, pod: Object, container: Object, container_id: str, hook: Object, grace: float) -> None:
        work = run_hook(self.runtime, self.clock, hook, pod, container, container_id, self.pod_ip)
        failure = await self._within(work, grace)
        if failure:
            # The reason stays out of the event: it could carry a secret from the server.
            self.teller.container(container["name"], "Warning", "FailedPreStopHook", "PreStopHook failed")

    async def _within(self, work: Coroutine[Any, Any, T], seconds: float) -> T | None:
        """Wait for `work` at most this long by the clock; None when it took longer."""
        task = asyncio.ensure_future(work)
        timer = asyncio.ensure_future(self.clock.sleep(seconds))
        try:
            await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            for each in (task, timer):
                each.cancel()

    async def pod(self, pod: Object, seen: Observed, grace: float, messages: Mapping[str, str] | None = None) -> None:
        """End everything that runs: regular containers at once, then sidecars, the last one first."""
        running = {each.container.config.name: each for each in seen.running()}
        sidecars = [each["name"] for each in podspec.init_containers(pod) if podspec.is_sidecar(each)]
        done = {name: asyncio.Event() for name in running}

        async def end(name: str) -> None:
            found = podspec.container_named(pod, name)
            container = found[1] if found else {"name": name}
            after: list[asyncio.Event] = []
            if name in sidecars:
                later = sidecars[sidecars.index(name) + 1 :]
                after = [done[each] for each in running if each not in sidecars or each in later]
            try:
                await self.container(pod, container, running[name].id, grace, (messages or {}).get(name, ""), after)
            finally:
                done[name].set()

        await asyncio.gather(*(end(name) for name in running))


async def _all(events: Sequence[asyncio.Event]) -> None:
    for each in events:
        await each.wait()
