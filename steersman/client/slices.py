"""EndpointSlices as small as they may be and changed as rarely as possible.

Owns the pure plan from the endpoints there should be and the slices there are to what is written. Called by the
controllers that write slices. Source: kubernetes' staging/src/k8s.io/endpointslice/reconciler.go for the order of
preferences: leave slices alone, then fill those that change anyway, then one with room, then new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from steersman.api.errors import ApiError
from steersman.api.resource import ENDPOINTSLICES, Object
from steersman.client.children import Children, namespace_terminates
from steersman.client.controller import Context
from steersman.client.metrics import exponential

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


@dataclass(slots=True)
class Changes:
    """What to write."""

    create: list[Object] = field(default_factory=list)
    update: list[Object] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)


def _key(address_type: str, ports: Iterable[Object]) -> bytes:
    return _encode([address_type, sorted(_encode(port) for port in ports)])


def _identity(endpoint: Object) -> bytes:
    """Endpoints with the same identity are one that changed: the same pod, or the same addresses."""
    target = endpoint.get("targetRef") or {}
    return _encode(
        [target.get("uid", ""), endpoint.get("nodeName", ""), endpoint["addresses"], endpoint.get("hostname", "")]
    )


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
    wanted = {_identity(endpoint): endpoint for endpoint in group.endpoints}
    unchanged: list[Object] = []
    changed: list[Object] = []
    for old in existing:
        kept = [wanted.pop(identity) for each in old.get("endpoints") or () if (identity := _identity(each)) in wanted]
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


def _count(context: Context, changes: Changes, existing: Mapping[str, Object], of: str) -> None:
    """What a look changes, for metrics of the controller `of`."""
    family = context.metrics.counter(f"{of}_changes", "Slices written.", ("operation",))
    updated = [each for each in changes.update if each != existing.get(each["metadata"]["name"])]
    for operation, found in (("create", changes.create), ("update", updated), ("delete", changes.delete)):
        if found:
            family.labels(operation).inc(len(found))
    before = {name: {_identity(each) for each in found.get("endpoints") or ()} for name, found in existing.items()}
    old = [before.get(each["metadata"]["name"], set()) for each in (*updated, *changes.delete)]
    was = set().union(*old)
    now = {_identity(each) for found in (*changes.create, *updated) for each in found["endpoints"]}
    for word, number in (("added", len(now - was)), ("removed", len(was - now))):
        name, text = f"{of}_endpoints_{word}_per_sync", f"Endpoints {word} at a look."
        context.metrics.histogram(name, text, (), exponential(2, 2, 15)).labels().observe(number)


async def write(
    context: Context, children: Children, changes: Changes, existing: Mapping[str, Object], of: str
) -> None:
    """Carry a plan out. `existing` are the slices by name: an update that changes nothing is left out.

    `of` is what metrics call the controller.
    """
    _count(context, changes, existing, of)
    client, key = context.client, (children.owner["metadata"]["namespace"], children.owner["metadata"]["name"])
    for new in changes.create:
        try:
            made = await client.create(ENDPOINTSLICES, new, key[0])
        except ApiError as error:
            if namespace_terminates(error):
                return
            raise
        context.expectations.created(key, made)
    for changed in changes.update:
        if changed != existing.get(changed["metadata"]["name"]):
            context.expectations.created(key, await client.update(ENDPOINTSLICES, changed))
    for gone in changes.delete:
        context.expectations.deleted(key, gone)
        try:
            await client.delete(ENDPOINTSLICES, gone["metadata"]["name"], key[0])
        except ApiError as error:
            if error.code != 404:
                raise
