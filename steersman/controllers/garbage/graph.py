"""Who owns whom, over every object of the cluster.

Owns `Graph`, fed by informers, and the pure decisions about one object. Keys are uids. Source: kubernetes'
pkg/controller/garbagecollector (graph_builder) for behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from steersman.api.resource import Object, Resource

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"


@dataclass(slots=True)
class Node:
    """One object: what it is, its metadata, and the uids of those that name it as an owner."""

    resource: Resource
    meta: Object
    dependents: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)  # owners of which an event has said that they cannot be

    @property
    def uid(self) -> str:
        """metadata.uid."""
        return str(self.meta["uid"])

    @property
    def namespace(self) -> str:
        """metadata.namespace; empty for cluster-scoped objects."""
        return str(self.meta.get("namespace") or "")

    @property
    def owners(self) -> list[Object]:
        """metadata.ownerReferences."""
        return self.meta.get("ownerReferences") or []

    @property
    def being_deleted(self) -> bool:
        """Whether it has a deletion timestamp."""
        return bool(self.meta.get("deletionTimestamp"))

    def has_finalizer(self, name: str) -> bool:
        """Whether the finalizer is there."""
        return name in (self.meta.get("finalizers") or ())

    @property
    def waits_for_dependents(self) -> bool:
        """Whether it is being deleted in the foreground."""
        return self.being_deleted and self.has_finalizer(FOREGROUND)

    @property
    def orphans(self) -> bool:
        """Whether it is being deleted and its dependents are to be kept."""
        return self.being_deleted and self.has_finalizer(ORPHAN)

    def blocks(self, owner: str) -> bool:
        """Whether the owner's foreground deletion waits for this object."""
        return any(each["uid"] == owner and each.get("blockOwnerDeletion") for each in self.owners)


class Graph:
    """All objects by uid. `look` is called with each uid that may have to be acted upon."""

    def __init__(self, look: Callable[[str], None]) -> None:
        self.nodes: dict[str, Node] = {}
        self.gone: set[str] = set()  # owners that were here, while they have dependents
        self._waiting: dict[str, set[str]] = {}  # dependents of owners that are not here (yet)
        self._look = look

    def changed(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        """An informer's handler."""
        if new is not None:
            self._put(resource, new["metadata"])
        elif old is not None:
            self._remove(old["metadata"])

    def _put(self, resource: Resource, meta: Object) -> None:
        uid = meta["uid"]
        node = self.nodes.get(uid)
        before = {each["uid"] for each in node.owners} if node is not None else set()
        if node is None:
            node = self.nodes[uid] = Node(resource, meta, self._waiting.pop(uid, set()))
        else:
            was_blocking = {owner for owner in before if node.blocks(owner)}
            node.meta = meta
            for owner in was_blocking:
                if not node.blocks(owner):
                    self._look_at_waiting(owner)
        after = {each["uid"] for each in node.owners}
        for owner in before - after:
            self._unlink(owner, uid)
        for owner in after - before:
            self._dependents(owner).add(uid)
        if self._needs_look(node, new_owners=after - before):
            self._look(uid)

    def _needs_look(self, node: Node, *, new_owners: Iterable[str]) -> bool:
        if node.waits_for_dependents or node.orphans:
            return True
        for reference in node.owners:
            owner = self.nodes.get(reference["uid"])
            if (
                owner is None
                or owner.waits_for_dependents
                or (reference["uid"] in new_owners and not same(reference, owner, node))
            ):
                return True
        return False

    def _dependents(self, owner: str) -> set[str]:
        node = self.nodes.get(owner)
        return node.dependents if node is not None else self._waiting.setdefault(owner, set())

    def _unlink(self, owner: str, uid: str) -> None:
        self._dependents(owner).discard(uid)
        if not self._waiting.get(owner, True):
            del self._waiting[owner]
            self.gone.discard(owner)
        self._look_at_waiting(owner)

    def _look_at_waiting(self, owner: str) -> None:
        node = self.nodes.get(owner)
        if node is not None and node.waits_for_dependents:
            self._look(owner)

    def _remove(self, meta: Object) -> None:
        node = self.nodes.pop(meta["uid"], None)
        if node is None:
            return
        for each in node.owners:
            self._unlink(each["uid"], node.uid)
        if node.dependents:
            self._waiting[node.uid] = node.dependents
            self.gone.add(node.uid)
            for uid in node.dependents:
                self._look(uid)


def same(reference: Object, owner: Node, dependent: Node) -> bool:
    """Whether a reference means this owner: kind, name, and the dependent's namespace unless cluster-scoped."""
    return (
        reference["kind"] == owner.resource.kind
        and reference["name"] == owner.meta["name"]
        and reference["apiVersion"].rpartition("/")[0] == owner.resource.group
        and (not owner.resource.namespaced or owner.namespace == dependent.namespace)
    )
