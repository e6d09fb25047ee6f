"""EndpointSlices as small as they may be and changed as rarely as possible.

Owns the pure plan from the endpoints there should be and the slices there are to what is written. Called by the
controllers that write slices. Source: kubernetes' staging/src/k8s.io/endpointslice/reconciler.go for the order of
preferences: leave slices alone, then fill those that change anyway, then one with room, then new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec

from steersman.api.errors import ApiError
from steersman.api.resource import ENDPOINTSLICES, Object
from steersman.client.children import Children, namespace_terminates
from steersman.client.controller import Context
from steersman.client.slicecounts import Changes, SliceCounts, identity

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_encode = msgspec.json.Encoder(order="deterministic").encode


@dataclass(slots=True)
class Group:
    """Endpoints that may share a slice: one address type, one set of ports."""

    address_type: str
    ports: list[Object]
    endpoints: list[Object] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        """Equal for groups that may share a slice."""
        return _key(self.address_type, self.ports)


def _key(address_type: str, ports: Iterable[Object]) -> bytes:
    return _encode([address_type, sorted(_encode(port) for port in ports)])


def plan(groups: Sequence[Group], existing: Iterable[Object], most: int, make: Callable[[Group], Object]) -> Changes:
    """The writes after which `existing` shows `groups`, at most `most` endpoints a slice.

    `make` gives an empty slice of a group, whose labels, annotations and owner are those that every slice must have.
    """
    changes = Changes()
    by_key: dict[bytes, list[Object]] = {}
    for each in existing:
        by_key.setdefault(_key(each["addressType"], each.get("ports") or ()), []).append(each)
    for group in groups:
        _plan_group(group, by_key.pop(group.key, []), most, make(group), changes)
    changes.delete.extend(each for rest in by_key.values() for each in rest)
    while changes.delete and changes.create:  # a slice that would go can hold what is new, if only its ports differ
        if changes.delete[-1]["addressType"] != changes.create[-1]["addressType"]:
            break
        old, new = changes.delete.pop(), changes.create.pop()
        changes.update.append({**old, **{key: new[key] for key in ("endpoints", "ports")}, "metadata": _meta(old, new)})
    return changes


def _meta(old: Object, new: Object) -> Object:
    wanted = {key: new["metadata"][key] for key in ("labels", "annotations") if key in new["metadata"]}
    return {**old["metadata"], **wanted}


def _plan_group(group: Group, existing: list[Object], most: int, empty: Object, changes: Changes) -> None:
    wanted = {identity(endpoint): endpoint for endpoint in group.endpoints}
    unchanged: list[Object] = []
    changed: list[Object] = []
    for old in existing:
        kept = [wanted.pop(mark) for each in old.get("endpoints") or () if (mark := identity(each)) in wanted]
        new = {**old, "endpoints": kept, "metadata": _meta(old, empty)}
        same = kept == (old.get("endpoints") or []) and new["metadata"] == old["metadata"]
        (unchanged if same else changed).append(new)
    left = list(wanted.values())
    for each in sorted(changed, key=lambda each: -len(each["endpoints"])):
        _fill(each, left, most)
    if left and (roomy := [each for each in unchanged if len(each["endpoints"]) + len(left) <= most]):
        chosen = max(roomy, key=lambda each: len(each["endpoints"]))
        unchanged.remove(chosen)
        chosen["endpoints"] = list(chosen["endpoints"])
        _fill(chosen, left, most)
        changed.append(chosen)
    fresh: list[Object] = []
    while left:
        new = {**empty, "endpoints": []}
        _fill(new, left, most)
        fresh.append(new)
    full = [each for each in changed if each["endpoints"]]
    bare = [each for each in changed if not each["endpoints"]]
    if not (unchanged or full or fresh):  # one slice stays, to say that there is nothing
        fresh_needed = not bare
        if fresh_needed:
            fresh.append({**empty, "endpoints": []})
        else:
            full.append(bare.pop())
    changes.create.extend(fresh)
    changes.update.extend(full)
    changes.delete.extend(bare)


def _fill(slice_: Object, left: list[Object], most: int) -> None:
    room = most - len(slice_["endpoints"])
    slice_["endpoints"].extend(left[:room])
    del left[: max(room, 0)]


async def write(
    context: Context, children: Children, changes: Changes, existing: Mapping[str, Object], counts: SliceCounts
) -> None:
    """Carry a plan out. `existing` are the slices by name: an update that changes nothing is left out.

    Raises ApiError, in the original's words.
    """
    meta = children.owner["metadata"]
    key = (meta["namespace"], meta["name"])
    whole = f"EndpointSlice for {children.owner_kind.kind} {key[0]}/{key[1]}"
    changes.update = [each for each in changes.update if each != existing.get(each["metadata"]["name"])]
    counts.changed(changes, existing)
    for new in changes.create:
        with _telling(f"failed to create {whole}"):
            try:
                made = await context.client.create(ENDPOINTSLICES, new, key[0])
            except ApiError as error:
                if namespace_terminates(error):
                    return
                raise
        counts.wrote("create")
        context.expectations.created(key, made)
    for changed in changes.update:
        with _telling(f"failed to update {changed['metadata']['name']} {whole}"):
            context.expectations.created(key, await context.client.update(ENDPOINTSLICES, changed))
        counts.wrote("update")
    for gone in changes.delete:
        context.expectations.deleted(key, gone)
        try:
            with _telling(f"failed to delete {gone['metadata']['name']} {whole}"):
                await context.client.delete(ENDPOINTSLICES, gone["metadata"]["name"], key[0])
        except ApiError as error:
            if error.code != 404:
                raise
        counts.wrote("delete")


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Errors say what could not be done."""
    try:
        yield
    except ApiError as error:
        raise ApiError(error.code, error.reason, f"{what}: {error.message}", error.details) from error
