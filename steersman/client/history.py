"""ControllerRevisions: the templates that a DaemonSet or StatefulSet had, numbered.

Owns the revisions of one owner. Called by the controllers of those kinds; kubectl's rollout history and undo read what
is written here. Source: kubernetes' pkg/controller/history.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from steersman.api import protobuf
from steersman.api.errors import ApiError
from steersman.api.labels import Selector
from steersman.api.resource import CONTROLLERREVISIONS, STATEFULSETS, Object, Resource
from steersman.client.children import Children
from steersman.client.controller import Context
from steersman.client.workload import owner_reference, safe_hash

HASH_LABEL = "controller-revision-hash"
_SET_LABEL = "controller.kubernetes.io/hash"  # on revisions of StatefulSets; their pods have the other


@dataclass(frozen=True, slots=True)
class History:
    """An owner's revisions: the one of its template now, and the others, oldest first."""

    current: Object
    others: list[Object]
    collisions: int

    def named(self, name: str) -> Object | None:
        """A revision by name."""
        return next((each for each in [*self.others, self.current] if each["metadata"]["name"] == name), None)


def snapshot(owner: Object) -> Object:
    """What a revision keeps: a patch that puts the template back, in the form that Go's encoder gives it.

    Clients compare its bytes with those of the owner that they have (kubectl's undo does), so empty fields are left
    out as typed objects leave them out, and keys are sorted.
    """
    body = {"apiVersion": "v1", "kind": "PodTemplate", "template": owner["spec"]["template"]}
    _, typed = protobuf.decode(protobuf.encode(body))
    return _sorted({"spec": {"template": {**typed["template"], "$patch": "replace"}}})


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def restored(owner: Object, revision: Object) -> Object:
    """The owner with the template of a revision."""
    template = {key: value for key, value in revision["data"]["spec"]["template"].items() if key != "$patch"}
    return {**owner, "spec": {**owner["spec"], "template": template}}


def _label_for(kind: Resource) -> str:
    return _SET_LABEL if kind is STATEFULSETS else HASH_LABEL


def hash_of(revision: Object) -> str:
    """The revision's hash, which pods carry."""
    labels = revision["metadata"].get("labels") or {}
    return str(labels.get(HASH_LABEL) or labels.get(_SET_LABEL) or "")


async def record(context: Context, owner: Object, kind: Resource, selector: Selector) -> History:
    """The owner's history, with a revision for its template now: found, moved to the front, or made."""
    children = Children(context, owner, kind, CONTROLLERREVISIONS, "revision")
    found = sorted(await children.claim(selector), key=lambda each: (each["revision"], each["metadata"]["name"]))
    data = snapshot(owner)
    collisions = (owner.get("status") or {}).get("collisionCount") or 0
    newest = max((each["revision"] for each in found), default=0)
    same = [each for each in found if each.get("data") == data]
    if not same:
        made, collisions = await _create(context, owner, kind, data, newest + 1, collisions)
        return History(made, [each for each in found if each["metadata"]["uid"] != made["metadata"]["uid"]], collisions)
    current = same[-1]
    others = [each for each in found if each is not current]
    if current["revision"] < newest:
        current = await context.client.update(CONTROLLERREVISIONS, {**current, "revision": newest + 1})
    return History(current, others, collisions)


async def _create(
    context: Context, owner: Object, kind: Resource, data: Object, number: int, collisions: int
) -> tuple[Object, int]:
    """A new revision; a name that another template has is avoided by counting collisions."""
    meta = owner["metadata"]
    while True:
        digest = safe_hash(data, collisions)
        labels = {**((owner["spec"]["template"].get("metadata") or {}).get("labels") or {}), _label_for(kind): digest}
        name = f"{meta['name'][:223]}-{digest}"
        body: Object = {
            "metadata": {
                "name": name,
                "labels": labels,
                "ownerReferences": [owner_reference(owner, kind)],
                **({"annotations": meta["annotations"]} if meta.get("annotations") else {}),
            },
            "data": data,
            "revision": number,
        }
        try:
            return await context.client.create(CONTROLLERREVISIONS, body, meta["namespace"]), collisions
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
        there = await context.client.get(CONTROLLERREVISIONS, name, meta["namespace"])
        if there.get("data") == data:
            return there, collisions
        collisions += 1


async def trim(context: Context, history: History, limit: int, live: Iterable[str]) -> None:
    """Delete the oldest revisions above the limit that no pod has; `live` are their names or hashes."""
    kept = set(live)
    idle = [each for each in history.others if not kept & {each["metadata"]["name"], hash_of(each)}]
    for gone in idle[: max(len(idle) - limit, 0)]:
        try:
            await context.client.delete(CONTROLLERREVISIONS, gone["metadata"]["name"], gone["metadata"]["namespace"])
        except ApiError as error:
            if error.code != 404:
                raise
