"""What happens in the cluster: objects become facts in the columns, and changes become events for the queue.

Owns the handlers of the informers. Called by the loop. What changed on a node decides which kinds of event it is, so
that a heartbeat wakes nobody. Source: kube-scheduler's eventhandlers.go and framework/events.go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from steersman.api.resource import (
    NAMESPACES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    SERVICES,
    STATEFULSETS,
    Object,
    Resource,
)
from steersman.client.deviceclaims import CLAIMS, CLASSES, RULES, SLICES
from steersman.client.informer import Handler, Informers
from steersman.scheduler import kept, podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.configuration import DEFAULT_SCHEDULER
from steersman.scheduler.framework import Event, Kind
from steersman.scheduler.kept import Shared
from steersman.scheduler.nominations import Nominations
from steersman.scheduler.podinfo import PodInfo
from steersman.scheduler.profiles import Profile
from steersman.scheduler.queue import Queue

STORAGECLASSES = Resource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
_CSIDRIVERS = Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False)
_CSINODES = Resource("storage.k8s.io", "v1", "csinodes", "CSINode", namespaced=False)
_ATTACHMENTS = Resource("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", namespaced=False)
_CAPACITIES = Resource("storage.k8s.io", "v1", "csistoragecapacities", "CSIStorageCapacity")
_STORAGE: Mapping[Resource, Kind] = {
    PERSISTENTVOLUMECLAIMS: "claim",
    PERSISTENTVOLUMES: "volume",
    STORAGECLASSES: "class",
    _CSIDRIVERS: "class",
    _CSINODES: "node limits",
    _ATTACHMENTS: "attachment",
    _CAPACITIES: "capacity",
}
_CONTROLLERS = (REPLICATIONCONTROLLERS, REPLICASETS, STATEFULSETS)


class Observer:
    """Keeps columns and queue true. `assumed`: uid to node, until the binding is seen or has failed."""

    def __init__(
        self,
        informers: Informers,
        columns: Columns,
        queue: Queue,
        nominations: Nominations,
        profiles: Mapping[str, Profile],
        *,
        whole: bool = False,
        handled: Callable[[str, float], None] = lambda event, seconds: None,
        now: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`whole`: keep all of pods that are on nodes, for those who send them to others.

        `handled` is told of every event and the seconds it took by `now`.
        """
        self._handled, self._now = handled, now
        self._heard: list[str] = []  # events of the change that is being taken note of
        self._columns = columns
        self._queue = queue
        self._nominations = nominations
        self._profiles = profiles
        self.assumed: dict[str, str] = {}
        watched: list[tuple[Resource, Handler]] = [
            (NAMESPACES, self._namespace),
            (SERVICES, self._service),
            *((each, self._controller(each)) for each in _CONTROLLERS),
            *((each, self._storage(each)) for each in _STORAGE),
            (CLASSES, self._class),
            (SLICES, self._slice),
            (RULES, self._rule),
            (CLAIMS, self._claim),
            (NODES, self._node),
            (PODS, self._pod),
        ]
        share = self._share = Shared()
        self._pods = informers.informer(PODS, decode=kept.whole if whole else lambda body: kept.lean(body, share))
        self._watched = [
            (self._pods if resource == PODS else informers.informer(resource), handler) for resource, handler in watched
        ]

    async def start(self) -> None:
        """Begin to watch; returns when everything that is there has been read."""
        for informer, handler in self._watched:
            informer.add_handler(self._measured(handler))
        for informer, _ in self._watched:
            await informer.settled()

    def find(self, namespace: str, name: str) -> Object | None:
        """A pod as last seen."""
        return self._pods.get(namespace, name)

    def forget_assumed(self, pod: PodInfo, node: str) -> None:
        """A binding failed: the room is free again."""
        if self.assumed.pop(pod.uid, None) == node:
            self._columns.remove_pod(pod.uid)
            self._queue.tell(Event("pod freed", pod=pod, node=node, awaited=self._columns.awaited(node)))

    def _measured(self, handler: Handler) -> Handler:
        """The same handler, its time told for each event that a change was."""

        def changed(old: Object | None, new: Object | None) -> None:
            began = self._now()
            try:
                handler(old, new)
            finally:
                if self._heard:
                    took = self._now() - began
                    for event in self._heard:
                        self._handled(event, took)
                    self._heard.clear()

        return changed

    def _tell(self, event: Event) -> None:
        self._heard.append(event.label)
        self._queue.tell(event)

    # One handler per kind of object ------------------------------------------------------------------------------

    def _namespace(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._columns.peers.set_namespace(new["metadata"]["name"], new["metadata"].get("labels") or {})
        elif old is not None:
            self._columns.peers.set_namespace(old["metadata"]["name"], None)

    def _service(self, old: Object | None, new: Object | None) -> None:
        meta, spec = (new or old or {})["metadata"], None if new is None else new.get("spec") or {}
        self._columns.owners.set_service(meta["namespace"], meta["name"], spec)

    def _controller(self, resource: Resource) -> Handler:
        def changed(old: Object | None, new: Object | None) -> None:
            meta, spec = (new or old or {})["metadata"], None if new is None else new.get("spec") or {}
            self._columns.owners.set_controller(resource.kind, meta["namespace"], meta["name"], spec)

        return changed

    def _storage(self, resource: Resource) -> Handler:
        kind, volumes = _STORAGE[resource], self._columns.volumes

        def changed(old: Object | None, new: Object | None) -> None:
            meta = (new or old or {})["metadata"]
            name, key = meta["name"], (meta.get("namespace") or "", meta["name"])
            if resource == PERSISTENTVOLUMECLAIMS:
                volumes.set_claim(key, new)
            elif resource == PERSISTENTVOLUMES:
                volumes.set_volume(name, new)
            elif resource == STORAGECLASSES:
                volumes.set_class(name, new)
            elif resource == _CSIDRIVERS:
                volumes.set_driver(name, new)
            elif resource == _ATTACHMENTS:
                volumes.set_attachment(name, new)
            elif resource == _CAPACITIES:
                volumes.set_capacity(key, new)
            else:
                volumes.set_limits(name, self._columns.rows.get(name), new)
            self._tell(Event(kind, old=old, new=new))

        return changed

    def _class(self, old: Object | None, new: Object | None) -> None:
        if self._columns.devices.set_class((new or old or {})["metadata"]["name"], new):
            self._columns.changes += 1
        self._tell(Event("device class", old=old, new=new))

    def _slice(self, old: Object | None, new: Object | None) -> None:
        self._columns.devices.set_slice((new or old or {})["metadata"]["name"], new)
        self._tell(Event("devices", old=old, new=new))

    def _rule(self, old: Object | None, new: Object | None) -> None:
        self._columns.devices.set_rule((new or old or {})["metadata"]["name"], new)
        self._tell(Event("devices", old=old, new=new))

    def _claim(self, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {})["metadata"]
        self._columns.devices.set_claim((meta["namespace"], meta["name"]), new)
        self._tell(Event("device claim", old=old, new=new))

    def _node(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._columns.remove_node(old["metadata"]["name"])
                self._tell(Event("node removed", old=old, node=old["metadata"]["name"]))
            return
        kinds = changes(old, new)
        if old is not None and not kinds and _images(old) == _images(new):
            return  # a heartbeat
        self._columns.set_node(new)
        for kind in kinds:
            self._tell(Event(kind, old=old, new=new, node=new["metadata"]["name"]))

    def _pod(self, old: Object | None, new: Object | None) -> None:
        if old is not None and (new is None or old["metadata"]["uid"] != new["metadata"]["uid"]):
            self._gone(old)
        if new is None:
            return
        uid, node = new["metadata"]["uid"], new["spec"].get("nodeName")
        if podinfo.is_ended(new):
            self._gone(new)
        elif node:
            self._placed(old, new, uid, node)
        elif self._is_mine(new) and uid not in self.assumed and _wants_attempt(old, new):
            info = self._read(new)
            if info.nominated and not self._nominations.node_of(info):
                self._nominations.add(info, info.nominated)  # by whoever scheduled before us
            self._heard.append("UnschedulablePodAdd" if old is None else "UnschedulablePodUpdate")
            self._queue.put(info)

    def _is_mine(self, pod: Object) -> bool:
        return (pod["spec"].get("schedulerName") or DEFAULT_SCHEDULER) in self._profiles

    def _read(self, pod: Object) -> PodInfo:
        """A pending pod's facts; scheduling gates only where its profile heeds them."""
        info = podinfo.read(pod)
        return info if self._profiles[info.scheduler].gates else replace(info, gates=())

    def _placed(self, old: Object | None, new: Object, uid: str, node: str) -> None:
        """A pod is on a node: new there, or changed."""
        known = self._columns.pod(uid, node)
        was_there = old is not None and bool(old["spec"].get("nodeName"))
        same = old is not None and _unchanged(old, new, bound=not was_there and uid in self.assumed)
        if known is not None and same and uid not in self._columns.nominated:
            info = replace(known, pod=new)
            self._columns.refresh(info if was_there else self._share.info(info), node)
        else:
            info = self._share.info(podinfo.read(new))
            self._columns.add_pod(info, node)
        if not was_there:
            self._queue.remove(uid)
            self.assumed.pop(uid, None)
            self._nominations.remove(uid, counted=False)
            self._tell(Event("pod came", pod=info, node=node))
        elif not same:
            event = Event("pod changed", pod=info, was=known or info, node=node, awaited=self._columns.awaited(node))
            self._tell(event)

    def _gone(self, pod: Object) -> None:
        uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName") or ""
        if not node:
            self._heard.append("UnschedulablePodDelete")
        self._queue.remove(uid)
        held = node or self.assumed.pop(uid, "")
        info = self._columns.pod(uid, held) if held else None
        self._nominations.remove(uid)
        self._columns.remove_pod(uid)
        if held and info is not None:
            self._tell(Event("pod freed", pod=info, node=held, awaited=self._columns.awaited(held)))


def _spec(name: str) -> Callable[[Object], object]:
    return lambda node: (node.get("spec") or {}).get(name)


_FACTS: Mapping[Kind, Callable[[Object], object]] = {
    "node resources": lambda node: (node.get("status") or {}).get("allocatable"),
    "node labels": lambda node: node["metadata"].get("labels"),
    "node taints": lambda node: (_spec("taints")(node), _spec("unschedulable")(node)),
    "node features": lambda node: (node.get("status") or {}).get("declaredFeatures"),
}


def changes(old: Object | None, new: Object) -> list[Kind]:
    """The kinds of event that a node's change is; none for a heartbeat."""
    return ["node added"] if old is None else [kind for kind, of in _FACTS.items() if of(old) != of(new)]


def _images(node: Object) -> object:
    return (node.get("status") or {}).get("images")


def _unchanged(old: Object, new: Object, *, bound: bool) -> bool:
    """Whether nothing that scheduling counts differs; `bound`: we have just bound it, and its spec cannot change."""
    one, other = old["metadata"], new["metadata"]
    if one.get("labels") != other.get("labels") or ("deletionTimestamp" in one) != ("deletionTimestamp" in other):
        return False
    if (old.get("status") or {}).get("startTime") != (new.get("status") or {}).get("startTime"):
        return False  # who started last is evicted first
    return bound or bool(old["spec"] == new["spec"])


def _wants_attempt(old: Object | None, new: Object) -> bool:
    """A new pod, or one whose own fields or claims changed; a mere status write is no reason to try again."""
    return (
        old is None
        or _claims_made(old) != _claims_made(new)
        or old["spec"] != new["spec"]
        or old["metadata"].get("labels") != new["metadata"].get("labels")
        or "deletionTimestamp" in new["metadata"]
    )


def _claims_made(pod: Object) -> object:
    return (pod.get("status") or {}).get("resourceClaimStatuses")
