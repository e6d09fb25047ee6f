"""One pod's life on this node: look, plan, act, report, again.

Owns one task for each pod and everything that is remembered about it in memory; all of that can be lost, since engine
and API hold the truth. Started and told of changes by `agent`. It decides nothing itself: `plan` and `status` do.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Coroutine
from typing import Any, TypeVar

from steersman.api.errors import ApiError
from steersman.api.resource import PODS, Object
from steersman.engine.interface import RuntimeFailure
from steersman.kubelet import conditions, labels, podspec, resize, sandboxconfig, status, steps, tokens
from steersman.kubelet.blocking import in_thread
from steersman.kubelet.holds import Holds
from steersman.kubelet.observed import Observed, Run, observe
from steersman.kubelet.plan import (
    Change,
    Facts,
    Hold,
    Kill,
    Plan,
    Prepare,
    Remove,
    RemoveSandbox,
    Start,
    StopSandbox,
    plan,
)
from steersman.kubelet.probes import Probes
from steersman.kubelet.resize import Resize
from steersman.kubelet.status import Final, Known
from steersman.kubelet.steps import Held, Node, PodEnded, PodSteps
from steersman.kubelet.volumes import mounter
from steersman.lib.clock import parse_rfc3339

log = logging.getLogger(__name__)
T = TypeVar("T")

_STEP_FAILED_RETRY = 10.0


class PodWorker:
    """The task of one pod."""

    def __init__(self, node: Node, pod: Object) -> None:
        self._node = node
        self._clock = node.clock
        resources_file = node.settings.pods / podspec.uid(pod) / "resources.json"
        self._resize = Resize(pod, resources_file)
        self._wanted = pod  # as the API has it
        self.pod = pod = self._resize.applied(pod)  # with the resources that it was given
        self.uid = podspec.uid(pod)
        self.status: Object = pod.get("status") or {}
        self._at_start = self.status  # what an earlier kubelet said, for containers that still run
        self._steps = PodSteps(node, pod, self._unless_ending)
        self._holds = Holds(self._steps, node.puller, node.clock)
        self._messages: dict[str, str] = {}
        self._probes = Probes(node.runtime, node.clock, node.tasks, self.wake, self._probed)
        self._counters: set[tuple[str, ...]] = set()
        self._wake = asyncio.Event()
        self._end = asyncio.Event()
        self._forgotten = False
        self._final: Final | None = None
        self._ended = False
        self._volumes_due = mounter.follows_api(pod)
        if podspec.deleting(pod):
            self._end.set()

    def update(self, pod: Object) -> None:
        """The API has a newer version of the pod."""
        before, self._wanted = self._wanted, pod
        self.pod = self._steps.pod = self._resize.applied(pod)
        if podspec.deleting(pod):
            self._end.set()
        if _concerns(pod) != _concerns(before):
            if _labels(pod) != _labels(before):
                self._volumes_due = mounter.follows_api(pod)
            self.wake()

    def room_changed(self) -> None:
        """There may be more room on the node."""
        if self._resize.pending is not None:
            self.wake()

    @property
    def active(self) -> bool:
        """Whether it takes up room on the node. One that was deleted by force takes none, though it is still ending."""
        return not self._ended and not self._forgotten

    def forget(self) -> None:
        """The API has the pod no more: end it, report nothing."""
        self._forgotten = True
        self._end.set()
        self.wake()

    def reject(self, reason: str, message: str) -> None:
        """This node can not take the pod."""
        self.status = status.rejected(self.pod, reason, f"Pod was rejected: {message}", self._clock.now())
        self._ended = True
        self._node.statuses.write(self.pod, self.status)
        self._steps.teller.pod("Warning", reason, message)

    def wake(self) -> None:
        """Something may have changed."""
        self._wake.set()

    def objects_changed(self) -> None:
        """A ConfigMap or Secret that the pod uses changed."""
        self._volumes_due = mounter.follows_api(self.pod)
        self._holds.objects_changed()
        self.wake()

    def observed(self) -> Observed:
        """The pod as the engine has it now."""
        containers = [
            each for each in self._node.runtime.containers() if each.config.labels.get(labels.POD_UID) == self.uid
        ]
        for each in containers:
            if each.finished_at and each.id not in self._messages:
                self._messages[each.id] = steps.termination_message(each)
        return observe(self.uid, self._node.runtime.sandboxes(), containers, self._messages)

    async def run(self) -> None:
        """Until the pod is gone."""
        while not self._end.is_set():
            self._wake.clear()
            wake_at = await self._sync()
            await self._wait(wake_at)
        await self._terminate()

    async def _wait(self, wake_at: float | None) -> None:
        if self._end.is_set():
            return
        if wake_at is None:
            await self._wake.wait()
            return
        timer = asyncio.ensure_future(self._clock.sleep(max(wake_at - self._clock.now(), 0)))
        waiter = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({timer, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waiter.cancel()

    # Running.

    async def _sync(self) -> float | None:
        """Bring the pod to where it should be; returns when to look again."""
        while not self._end.is_set() and not self._ended:
            seen = self.observed()
            if podspec.finished(self.pod):  # an earlier kubelet, or somebody else, has said the last word
                await self._steps.stop(seen, podspec.grace_period(self.pod))
                self._ended = True
                return None
            self._follow_probes(seen)
            self._allocate()
            now = self._clock.now()
            deadline = self._deadline()
            if deadline is not None and now >= deadline and self._final is None:
                self._exceeded()
            if self._final is not None:
                await self._steps.stop(seen, podspec.grace_period(self.pod))
                self._finish()
                return None
            decision = plan(self.pod, seen, self._facts(seen), now)
            self.publish(seen, passing=any(isinstance(each, Prepare | Start) for each in decision.steps))
            if not decision.steps and self.status.get("phase") in ("Succeeded", "Failed"):
                self._finish()
                return None
            if not decision.steps:
                await self._refresh_volumes(seen)
                return self._earliest(decision, deadline)
            await self._perform(decision, seen)
        return None

    def _earliest(self, decision: Plan, deadline: float | None) -> float | None:
        times = [decision.wake_at, deadline, self._holds.turns_at()]
        if any("serviceAccountToken" in each for each in _projections(self.pod)):
            times.append(self._clock.now() + tokens.RENEW_CHECK)
        known = [each for each in times if each is not None]
        return min(known) if known else None

    def _deadline(self) -> float | None:
        seconds, since = self.pod["spec"].get("activeDeadlineSeconds"), self.status.get("startTime")
        return parse_rfc3339(since) + float(seconds) if seconds is not None and since else None

    def _exceeded(self) -> None:
        text = "Pod was active on the node longer than the specified deadline"
        self._final = Final("DeadlineExceeded", text)
        self._steps.teller.pod("Normal", "DeadlineExceeded", text)

    def _finish(self) -> None:
        """A final phase was reached: nothing runs any more, and nothing will."""
        self._ended = True
        self._probes.keep_only(set())
        self.publish(self.observed())
        mounter.take_down(self._steps.directories, everything=False)

    async def _refresh_volumes(self, seen: Observed) -> None:
        renew = any("serviceAccountToken" in each for each in _projections(self.pod))
        if not (self._volumes_due or renew) or seen.sandbox is None:
            return
        self._volumes_due = False
        try:
            await self._unless_ending(self._steps.set_up_volumes())
        except (Held, PodEnded):
            self._volumes_due = True

    def _allocate(self) -> None:
        """Give the pod the resources that it asks for now, if the node has them."""
        if not self._resize.asked(self._wanted) or podspec.deleting(self.pod):
            self._resize.pending = None
            return
        refusal = resize.verdict(self._wanted, self._node.others(self.uid), self._node.allocatable)
        if refusal is None:
            self._resize.allocate(self._wanted)
            self.pod = self._steps.pod = self._wanted
            text = f"Pod resize started: {resize.summary(self.pod)}"
            self._steps.teller.pod("Normal", "ResizeStarted", text)
            self._node.room_changed()
        elif refusal != self._resize.pending:
            self._resize.pending = refusal
            text = f"Pod resize {refusal.reason}: {resize.summary(self._wanted, refusal.message)}"
            self._steps.teller.pod("Warning", f"Resize{refusal.reason}", text)

    async def _change(self, step: Change, seen: Observed) -> None:
        try:
            await self._unless_ending(self._steps.change(step, seen, self._resize))
        except (RuntimeFailure, OSError) as error:
            self._resize.failed(str(error), self._clock.now())
            self._steps.teller.pod(
                "Warning", "ResizeError", f"Pod resize error: {resize.summary(self.pod, str(error))}"
            )
            return
        if not self._resize.in_progress(self.pod, _names(self.observed())):
            text = f"Pod resize completed: {resize.summary(self.pod)}"
            self._steps.teller.pod("Normal", "ResizeCompleted", text)

    def _facts(self, seen: Observed) -> Facts:
        resizing = self._resize
        return Facts(
            self._probes.startup,
            self._probes.liveness,
            self._holds.current(seen),
            resizing.actuated,
            resizing.pod_limits,
            resizing.retry_at,
            status.restarts(self.pod, self.status, seen),
        )

    async def _perform(self, decision: Plan, seen: Observed) -> None:
        for step in decision.steps:
            if self._end.is_set():
                return
            name = step.name if isinstance(step, Start | Kill) else ""
            try:
                await self._step(step, seen)
            except PodEnded:
                return
            except Held as held:
                self._holds.add(held.name, held.hold)
            except (RuntimeFailure, ApiError, OSError) as error:
                log.warning("cannot do %s for %s: %s", type(step).__name__, podspec.full_name(self.pod), error)
                self._holds.add(name, Hold(self._clock.now() + _STEP_FAILED_RETRY))
            else:
                continue
            if not isinstance(step, Start) or step.field == "initContainers":
                return

    async def _step(self, step: Any, seen: Observed) -> None:
        match step:
            case Prepare():
                await self._steps.prepare(step)
                self._holds.succeeded("")
            case Start():
                await self._start(step)
            case Change():
                await self._change(step, seen)
            case Kill():
                await self._unless_ending(self._steps.kill(step, seen))
            case StopSandbox():
                await self._steps.stop(seen, podspec.grace_period(self.pod))
            case Remove():
                self._messages.pop(step.container_id, None)
                await self._node.runtime.remove_container(step.container_id)
            case RemoveSandbox():
                await self._node.runtime.remove_sandbox(step.sandbox_id)

    async def _start(self, step: Start) -> None:
        seen = self.observed()
        self._holds.restarted(step.name, seen)
        try:
            await self._steps.start(step, seen)
        except Held as held:
            if held.hold.reason == "PostStartHookError":
                self._holds.add(held.name, held.hold)
                return
            raise
        self._holds.succeeded(step.name)
        found = podspec.container_named(self.pod, step.name)
        if found is not None:
            self._resize.started(found[1])
        self.publish(self.observed(), passing=True)

    async def _unless_ending(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for it, but give up (PodEnded) as soon as the pod is to end: a pull or a hook may take minutes."""
        task = asyncio.ensure_future(work)
        end = asyncio.ensure_future(self._end.wait())
        try:
            await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            end.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        raise PodEnded

    # Reporting.

    def _follow_probes(self, seen: Observed) -> None:
        running = seen.running()
        self._probes.keep_only({run.id for run in running})
        before = {
            each["name"]: each
            for field in ("initContainerStatuses", "containerStatuses")
            for each in self._at_start.get(field) or ()
        }
        ips = self._node.settings.addresses if podspec.host_network(self.pod) else _ips(seen)
        for run in running:
            found = podspec.container_named(self.pod, run.container.config.name)
            if found is None or found[0] == "ephemeralContainers":
                continue
            if found[0] == "initContainers" and not podspec.is_sidecar(found[1]):
                continue
            old = before.get(run.container.config.name)
            same = old is not None and str(old.get("containerID", "")).endswith(f"//{run.id}")
            self._probes.follow(
                found[1],
                run.id,
                run.container.started_at,
                ips[0] if ips else "",
                self._steps.teller,
                old if same else None,
            )

    def _probed(self, kind: str, container: str, result: str) -> None:
        namespace, name = podspec.key(self.pod)
        values = (kind, result, container, name, namespace, self.uid)
        self._counters.add(values)
        self._node.probed.labels(*values).inc()

    def publish(self, seen: Observed, *, passing: bool = False) -> None:
        """Make the status anew and send it when it changed. `passing`: it will change again in a moment."""
        if self._forgotten:
            return
        self._follow_probes(seen)
        fresh = status.pod_status(self.pod, self.status, seen, self._known(seen), self._clock.now())
        if fresh != self.status:
            passing = passing and fresh["phase"] == "Pending"
            self.status = fresh
            self._node.statuses.write(self.pod, fresh, passing=passing)

    def _known(self, seen: Observed) -> Known:
        return Known(
            resize=tuple(self._resize.conditions(self.pod, _names(seen))),
            actuated=self._resize.actuated,
            host_ips=self._node.settings.addresses,
            ready=self._probes.ready,
            started=self._probes.started,
            waiting=self._holds.waiting(),
            final=self._final,
            ending=self._ended,
            name_image=self._name_image,
            runtime_name=self._node.runtime.version()[0],
        )

    def _name_image(self, run: Run) -> tuple[str, str]:
        return self._node.puller.names(run.container.image_id, run.container.config.annotations.get(labels.IMAGE, ""))

    # The end.

    async def end_with_node(self, most: float) -> None:
        """Hooks, signals and order as at a deletion, but within `most` seconds. Raises RuntimeFailure or OSError."""
        self._probes.keep_only(set())
        await self._steps.stop(self.observed(), min(podspec.grace_period(self.pod), most))

    async def _terminate(self) -> None:
        """End everything, say how it ended, and let go of the pod."""
        self._probes.stop_restarting()
        await self._stop_within_grace()
        self._ended = True
        self._probes.keep_only(set())
        seen = self.observed()
        self.publish(seen)
        await asyncio.gather(self._node.statuses.written(self.uid), self._clean_up(seen))
        if not self._forgotten:
            await self._delete_from_api()
        self._node.statuses.forget(self.uid)
        self._node.objects.release(self.uid)
        self._node.tokens.forget(self.uid)
        self._node.puller.forget(self.uid)
        for values in self._counters:
            self._node.probed.forget(*values)

    async def _stop_within_grace(self) -> None:
        """Stop the pod; when deletion is asked for again with less grace, stop it with that."""
        while True:
            grace = podspec.grace_period(self.pod)
            self._wake.clear()
            seen = self.observed()
            stopping = asyncio.ensure_future(self._steps.stop(seen, grace))
            while not stopping.done():
                waiter = asyncio.ensure_future(self._wake.wait())
                await asyncio.wait({stopping, waiter}, return_when=asyncio.FIRST_COMPLETED)
                waiter.cancel()
                self._wake.clear()
                self.publish(self.observed())
                if not stopping.done() and podspec.grace_period(self.pod) < grace:
                    stopping.cancel()
                    break
            try:
                await stopping
            except asyncio.CancelledError:
                if asyncio.current_task() is not None and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                    raise
                continue
            except (RuntimeFailure, OSError) as error:
                self._steps.teller.pod("Warning", "FailedKillPod", f"error killing pod: {error}")
                await self._clock.sleep(_STEP_FAILED_RETRY)
                continue
            if not self.observed().running():
                return

    async def _clean_up(self, seen: Observed) -> None:
        await asyncio.gather(*(self._node.runtime.remove_sandbox(each.id) for each in seen.sandboxes))
        await in_thread(mounter.take_down, self._steps.directories, everything=True)
        logs = sandboxconfig.log_directory(self._node.settings.logs, self.pod)
        await in_thread(shutil.rmtree, logs, ignore_errors=True)

    async def _delete_from_api(self) -> None:
        """The last word: the object may go. Tried until the API has heard it."""
        namespace, name = podspec.key(self.pod)
        retry = 1.0
        while not self._forgotten:
            try:
                await self._node.client.delete(PODS, name, namespace, grace_seconds=0, uid=self.uid)
                return
            except ApiError as error:
                if error.code in (404, 409):
                    return
                log.warning("cannot delete %s: %s", podspec.full_name(self.pod), error)
            except OSError as error:
                log.info("cannot reach the API to delete %s: %s", podspec.full_name(self.pod), error)
            await self._clock.sleep(retry)
            retry = min(retry * 2, 30.0)


def _names(seen: Observed) -> set[str]:
    return {run.container.config.name for run in seen.running()}


def _ips(seen: Observed) -> list[str]:
    return list(seen.sandbox.ips) if seen.sandbox is not None else []


def _labels(pod: Object) -> tuple[Any, Any]:
    return pod["metadata"].get("labels"), pod["metadata"].get("annotations")


def _projections(pod: Object) -> list[Object]:
    return [
        source
        for volume in pod["spec"].get("volumes") or ()
        for source in (volume.get("projected") or {}).get("sources") or ()
    ]


def _concerns(pod: Object) -> tuple[Any, ...]:
    """What of a pod can change what the kubelet does; its own status writes are not among it."""
    meta, state = pod["metadata"], pod.get("status") or {}
    foreign = [each for each in state.get("conditions") or () if each["type"] not in conditions.OWNED]
    return (
        meta.get("generation"),
        meta.get("deletionTimestamp"),
        meta.get("deletionGracePeriodSeconds"),
        meta.get("labels"),
        meta.get("annotations"),
        pod["spec"],
        foreign,
    )
