"""An owner's children: which are his, adopting and releasing them, creating and deleting them with events.

Owns the one index by controller, the rules of adoption, and slow start. Called by workload controllers.
Source: kubernetes' pkg/controller, ControllerRefManager and RealPodControl; slow start as its slowStartBatch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from steersman.api.errors import ApiError
from steersman.api.labels import Selector
from steersman.api.resource import Object, Resource
from steersman.client.controller import Context, Key, key_of
from steersman.client.informer import Informer
from steersman.client.workload import controller_of, is_controlled_by, owner_reference

BY_CONTROLLER = "controller"
_COUNTED = ("DaemonSet", "Job", "ReplicaSet", "StatefulSet")  # whose waits for caches metrics tell of
BURST = 500  # children created or deleted in one go
_AT_ONCE = 32  # requests: each more is a new connection, whose handshake costs more than to wait
_ASK_FIRST, _ASK_MOST = 0.1, 30.0  # seconds between questions that get no answer


def file_by_controller(obj: Object) -> Iterable[str]:
    """The index function: the controller's uid; for those who have none the namespace, and each label in it."""
    reference = controller_of(obj)
    if reference is not None:
        yield reference["uid"]
        return
    meta = obj["metadata"]
    yield f"orphans {meta.get('namespace', '')}"
    for key, value in (meta.get("labels") or {}).items():
        yield f"orphans {meta.get('namespace', '')}/{key}={value}"


INDEX = {BY_CONTROLLER: file_by_controller}


def owned_by(informer: Informer, owner: Object) -> list[Object]:
    """The children whose controller is `owner`."""
    return informer.by_index(BY_CONTROLLER, owner["metadata"]["uid"])


def orphans(informer: Informer, namespace: str, selector: Selector) -> list[Object]:
    """The objects of a namespace that nobody controls, and that the selector may mean."""
    label = next(selector.equal, "")
    return informer.by_index(BY_CONTROLLER, f"orphans {namespace}{'/' if label else ''}{label}")


def in_doubt(error: BaseException) -> bool:
    """Whether a write that ended so may have been done all the same: its answer is lost, or the server says no more."""
    return error.code >= 500 if isinstance(error, ApiError) else isinstance(error, OSError | TimeoutError)


def namespace_terminates(error: ApiError) -> bool:
    """Whether a create failed only because the namespace is going away."""
    return any(cause.get("reason") == "NamespaceTerminating" for cause in error.details.get("causes") or ())


async def catch_up(context: Context, owner: Object, kind: Resource) -> None:
    """Nobody knows whether the last writes were done: ask, and trust no informer that knows less than the answer.

    Without this an owner whose creates time out would have too many children until they are seen and deleted.
    """
    delay = _ASK_FIRST
    while True:
        try:
            page = await context.client.list(kind, owner["metadata"]["namespace"])
            break
        except (ApiError, OSError, TimeoutError):
            await context.clock.sleep(delay)
            delay = min(delay * 2, _ASK_MOST)
    mine = [child for child in page.items if is_controlled_by(child, owner)]
    context.expectations.asked(key_of(owner), mine)


@dataclass(frozen=True, slots=True)
class Children:
    """The children of one kind that one owner has."""

    context: Context
    owner: Object
    owner_kind: Resource
    kind: Resource
    noun: str = "pod"
    finalizers: tuple[str, ...] = ()  # that an adopted child gets
    made: Callable[[bool], None] = lambda _: None  # told of each child that was to be made, and whether it was

    @property
    def informer(self) -> Informer:
        """Where the children are seen."""
        return self.context.informer(self.kind)

    @property
    def _key(self) -> Key:
        return key_of(self.owner)

    def settled(self) -> bool:
        """Whether the informer shows all that this owner has done."""
        if self.context.expectations.fulfilled(self._key, self.informer):
            return True
        if self.owner_kind.kind in _COUNTED:
            name = f"{self.owner_kind.kind.lower()}_controller_stale_sync_skips_total"
            family = self.context.metrics.counter(name, "Looks put off until caches show all.", ("group", "resource"))
            family.labels(self.kind.group, self.kind.plural).inc()
        return False

    async def claim(
        self, selector: Selector, also: Callable[[Object], bool] = lambda _: True, *, adopt: bool = True
    ) -> list[Object]:
        """The owner's children: those that he controls and selects; orphans are adopted, strays let go.

        Children for which `also` does not hold are left as they are. Raises ApiError.
        """
        mine: list[Object] = []
        dying = bool(self.owner["metadata"].get("deletionTimestamp"))
        for child in owned_by(self.informer, self.owner):
            if not also(child):
                continue
            if selector.matches(child["metadata"].get("labels")):
                mine.append(child)
            elif not dying and adopt:
                await self._release(child)
        if dying or not adopt:
            return mine
        checked = False
        for child in orphans(self.informer, self.owner["metadata"]["namespace"], selector):
            meta = child["metadata"]
            if meta.get("deletionTimestamp") or not selector.matches(meta.get("labels")) or not also(child):
                continue
            if not checked:
                await self._check_alive()
                checked = True
            if (adopted := await self._adopt(child)) is not None:
                mine.append(adopted)
        return mine

    async def _check_alive(self) -> None:
        """Adopt only for an owner that is certainly there: the garbage collector trusts references."""
        meta = self.owner["metadata"]
        fresh = await self.context.client.get(self.owner_kind, meta["name"], meta["namespace"])
        if fresh["metadata"]["uid"] != meta["uid"] or fresh["metadata"].get("deletionTimestamp"):
            raise ApiError(409, "Conflict", f"{meta['namespace']}/{meta['name']} is being deleted or was replaced")

    async def _adopt(self, child: Object) -> Object | None:
        meta: Object = {"ownerReferences": [owner_reference(self.owner, self.owner_kind)]}
        if self.finalizers:
            meta["finalizers"] = list(self.finalizers)
        return await self._patch(child, meta)

    async def _release(self, child: Object) -> None:
        uid = self.owner["metadata"]["uid"]
        await self._patch(child, {"ownerReferences": [{"$patch": "delete", "uid": uid}]})

    async def _patch(self, child: Object, meta: Object) -> Object | None:
        """Change a child's metadata if it is still the same; None when it is gone."""
        at = child["metadata"]
        body = {"metadata": {"uid": at["uid"], **meta}}
        try:
            return await self.context.client.patch(
                self.kind, at["name"], at.get("namespace", ""), body, type="strategic"
            )
        except ApiError as error:
            if error.code in (404, 422):  # gone, or replaced by one of the same name
                return None
            raise

    async def create(self, child: Object) -> Object | None:
        """Create a child; None when the namespace is going away. Raises ApiError after telling by an event."""
        tell = self.context.recorder.event
        try:
            made = await self.context.client.create(self.kind, child, self.owner["metadata"]["namespace"])
        except ApiError as error:
            if namespace_terminates(error):
                return None
            tell(self.owner, "Warning", "FailedCreate", f"Error creating: {error.message}")
            self.made(False)
            raise
        self.context.expectations.created(self._key, made)
        self.made(True)
        tell(self.owner, "Normal", "SuccessfulCreate", f"Created {self.noun}: {made['metadata']['name']}")
        return made

    async def delete(self, child: Object, *, as_seen: bool = False) -> None:
        """Delete a child; one that is gone already is fine. Raises ApiError after telling by an event.

        `as_seen`: only if it has not changed since; otherwise nothing happens until the informer shows how it is now.
        """
        tell = self.context.recorder.event
        meta = child["metadata"]
        self.context.expectations.deleted(self._key, child)
        try:
            version = meta["resourceVersion"] if as_seen else ""
            await self.context.client.delete(
                self.kind, meta["name"], meta.get("namespace", ""), uid=meta["uid"], resource_version=version
            )
        except ApiError as error:
            if not in_doubt(error) and (as_seen or error.code not in (404, 409)):
                self.context.expectations.kept(self._key, child)
            if error.code in (404, 409):
                return
            tell(self.owner, "Warning", "FailedDelete", f"Error deleting: {error.message}")
            raise
        tell(self.owner, "Normal", "SuccessfulDelete", f"Deleted {self.noun}: {meta['name']}")

    async def create_all(self, wanted: Sequence[Object]) -> None:
        """Create many: first one, then twice as many each time that went well. Raises the first error."""
        done, size = 0, 1
        while done < len(wanted):
            batch = wanted[done : done + size]
            await self._together(self.create(child) for child in batch)
            done += len(batch)
            size *= 2

    async def delete_all(self, unwanted: Sequence[Object], *, as_seen: bool = False) -> None:
        """Delete many at once. Raises the first error after trying them all."""
        await self._together(self.delete(child, as_seen=as_seen) for child in unwanted)

    async def _together(self, work: Iterable[Awaitable[object]]) -> None:
        room = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(each: Awaitable[object]) -> None:
            async with room:
                await each

        results = await asyncio.gather(*map(in_turn, work), return_exceptions=True)
        errors = [each for each in results if isinstance(each, BaseException)]
        if any(map(in_doubt, errors)):
            await catch_up(self.context, self.owner, self.kind)
        for error in errors:
            raise error
