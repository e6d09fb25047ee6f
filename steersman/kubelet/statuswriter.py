"""Writing pods' statuses to the API: at once, one write at a time for a pod, only the newest, only what changed.

Owns the last status that the API is known to have for each pod. Called by `worker`, which never waits for it except at
a pod's end. Source: status subresource; strategic merge of conditions and addresses.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from steersman.api.errors import ApiError
from steersman.api.resource import PODS, Object
from steersman.kubelet import podspec
from steersman.lib.tasks import Tasks

if TYPE_CHECKING:
    from steersman.client.client import Client
    from steersman.lib.clock import Clock

log = logging.getLogger(__name__)

_RETRY_FIRST, _RETRY_LONGEST = 0.5, 30.0
_PASSING = 0.1
_MERGED = {"conditions": "type", "podIPs": "ip", "hostIPs": "ip"}
"""Lists of the status that are merged by a key; every other list is replaced."""


class StatusWriter:
    """Statuses of this node's pods on their way to the API."""

    def __init__(self, client: Client, clock: Clock, tasks: Tasks) -> None:
        self._client = client
        self._clock = clock
        self._tasks = tasks
        self._wanted: dict[str, tuple[Object, Object]] = {}  # uid: pod, status
        self._known: dict[str, Object] = {}  # uid: the status that the API has
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._hurry: dict[str, asyncio.Event] = {}

    def write(self, pod: Object, status: Object, *, passing: bool = False) -> None:
        """Bring the API's status to this one: at once, or when it is only `passing` if it lasts a tenth of a second."""
        uid = podspec.uid(pod)
        self._wanted[uid] = (pod, status)
        if not passing:
            self._hurry.setdefault(uid, asyncio.Event()).set()
        if uid not in self._writing:
            self._writing[uid] = self._tasks.spawn(self._write(uid), f"status of {podspec.full_name(pod)}")

    async def written(self, uid: str) -> None:
        """Wait until nothing is left to write for a pod, or it is gone."""
        task = self._writing.get(uid)
        if task is not None:
            await asyncio.wait({task})

    def forget(self, uid: str) -> None:
        """A pod is gone."""
        for each in (self._wanted, self._known, self._hurry):
            each.pop(uid, None)

    async def _write(self, uid: str) -> None:
        retry = _RETRY_FIRST
        try:
            while uid in self._wanted:
                await self._settled(uid)
                pod, status = self._wanted.pop(uid)
                known = self._known.get(uid, pod.get("status") or {})
                body = difference(known, status)
                if not body:
                    continue
                try:
                    await self._patch(pod, body)
                    self._known[uid] = status
                    retry = _RETRY_FIRST
                except ApiError as error:
                    if error.code == 404 or (error.code == 409 and "uid" in error.message.lower()):
                        return
                    log.warning("cannot write status of %s: %s", podspec.full_name(pod), error)
                    await self._again(uid, pod, status, retry)
                    retry = min(retry * 2, _RETRY_LONGEST)
                except OSError as error:
                    log.info("cannot reach the API for the status of %s: %s", podspec.full_name(pod), error)
                    await self._again(uid, pod, status, retry)
                    retry = min(retry * 2, _RETRY_LONGEST)
        finally:
            self._writing.pop(uid, None)

    async def _settled(self, uid: str) -> None:
        """Wait while the status is a passing one."""
        hurry = self._hurry.setdefault(uid, asyncio.Event())
        if not hurry.is_set():
            timer = asyncio.ensure_future(self._clock.sleep(_PASSING))
            urgent = asyncio.ensure_future(hurry.wait())
            await asyncio.wait({timer, urgent}, return_when=asyncio.FIRST_COMPLETED)
            timer.cancel()
            urgent.cancel()
        hurry.clear()

    async def _again(self, uid: str, pod: Object, status: Object, after: float) -> None:
        await self._clock.sleep(after)
        self._wanted.setdefault(uid, (pod, status))

    async def _patch(self, pod: Object, body: Object) -> None:
        namespace, name = podspec.key(pod)
        patch = {"metadata": {"uid": podspec.uid(pod)}, "status": body}
        await self._client.patch(PODS, name, namespace, patch, type="strategic", subresource="status")


def difference(old: Object, new: Object) -> Object:
    """The strategic merge patch that turns one status into the other; empty when there is nothing to do."""
    out: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if value == before:
            continue
        merge_key = _MERGED.get(key)
        out[key] = value if merge_key is None else _merged(before or [], value, merge_key)
    return out


def _merged(old: list[Any], new: list[Any], key: str) -> list[Any]:
    before = {each[key]: each for each in old}
    changed = [each for each in new if before.get(each[key]) != each]
    names = {each[key] for each in new}
    gone = [{"$patch": "delete", key: each} for each in before if each not in names]
    # A condition that lost its reason or message must lose it in the API too.
    lost = [{**{field: None for field in before.get(each[key], {}) if field not in each}, **each} for each in changed]
    return gone + lost
