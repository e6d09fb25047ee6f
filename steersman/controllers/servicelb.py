"""Services of type LoadBalancer get an address from a provider, and give it back.

Owns the finalizer and status.loadBalancer of Services without a class. Providers implement `cloud.Balancers`; the one
built in is `Local`: an address of a node, on which kube-proxy answers, each port of it for one Service only. It
balances over the Service's endpoints as every node does, and moves when its node is gone. What fails is tried again
after 5 s, then ever later, at most after 300 s.
Source: cloud-provider's controllers/service.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import NODES, SERVICES, Object
from steersman.client.cloud import Balancers, NoRoom
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
_LEAVING = "ToBeDeletedByClusterAutoscaler"
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_MOST_NAMED = 20  # nodes that an event names
_BALANCED = (
    *("type", "loadBalancerClass", "loadBalancerSourceRanges", "ports", "sessionAffinity", "sessionAffinityConfig"),
    *("loadBalancerIP", "externalIPs", "externalTrafficPolicy", "healthCheckNodePort"),
)

Ports = frozenset[tuple[str, int]]


class Local:
    """Addresses of nodes. `reserved`: ports that nodes need for themselves."""

    def __init__(self, reserved: Iterable[int] = ()) -> None:
        self._reserved = frozenset(("TCP", port) for port in reserved)

    async def ensure(self, service: Object, nodes: Sequence[Object], others: Sequence[Object]) -> list[Object]:
        """The address that the Service has, else the first, of ready nodes if possible, with all ports free."""
        wanted, has = ports_of(service), _given(service)
        asked = service["spec"].get("loadBalancerIP") or ""
        ready = {each for node in nodes if pods.is_ready(node) for each in _addresses(node)}
        found = {each for node in nodes for each in _addresses(node)}
        for address in sorted(found, key=lambda each: (each not in has, each not in ready, ip_address(each))):
            taken = self._reserved.union(*(ports_of(each) for each in others if address in _given(each)))
            if asked in ("", address) and not wanted & taken:
                return [{"ip": address, "ipMode": "VIP"}]
        ports = ", ".join(f"{port}/{protocol}" for protocol, port in sorted(wanted))
        raise NoRoom(f"no node has an address {asked + ' ' if asked else ''}with {ports} free")

    async def delete(self, service: Object) -> None:
        """Nothing is held but what statuses say."""


def ports_of(service: Object) -> Ports:
    """The protocols and ports that a Service answers on."""
    return frozenset((each.get("protocol", "TCP"), each["port"]) for each in service["spec"].get("ports") or ())


def _addresses(node: Object) -> list[str]:
    found = (node.get("status") or {}).get("addresses") or ()
    inside = [each["address"] for each in found if each["type"] == "InternalIP"]
    return [each for each in inside if isinstance(ip_address(each), IPv4Address)]


def _given(service: Object) -> list[str]:
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    return [each["ip"] for each in balancer.get("ingress") or () if each.get("ip")]


def wants(service: Object) -> bool:
    """Whether the Service shall have a balancer from us."""
    spec = service["spec"]
    return spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass")


def usable(node: Object) -> bool:
    """Whether a balancer may use the node."""
    leaving = any(taint["key"] == _LEAVING for taint in node["spec"].get("taints") or ())
    return _included(node) and not leaving and not node["metadata"].get("deletionTimestamp")


def _included(node: Object) -> bool:
    label = (node["metadata"].get("labels") or {}).get(_EXCLUDED)
    return label is None or label in _FALSE


def _provider(context: Context) -> Balancers:
    if context.cloud.balancers is not None:
        return context.cloud.balancers
    return Local(map(int, context.config.get("reserved-ports", "").split()))


@dataclass(slots=True)
class _Known:
    """A Service as its balancer was last made, and the nodes that it was made or changed for."""

    service: Object
    nodes: dict[str, str]


@dataclass(slots=True)
class _Memory:
    """What this controller knows without asking. `wrote`: statuses that the informer may not show yet.

    `nodes` and `seen`: what of nodes and Services was last heard and matters: nothing else may wake us, for a Service
    that failed waits for its turn.
    """

    known: dict[Key, _Known] = field(default_factory=dict)
    wrote: dict[str, Object] = field(default_factory=dict)
    nodes: dict[str, tuple[bool, str]] = field(default_factory=dict)
    seen: dict[Key, object] = field(default_factory=dict)


def _memory(context: Context) -> _Memory:
    found: _Memory = context.memory.setdefault(_Memory, _Memory())
    return found


async def reconcile(context: Context, key: Key) -> Result:
    """Give one Service its balancer, tell it of other nodes, or take it away. Raises OSError and ApiError."""
    service = context.informer(SERVICES).get(*key)
    memory = _memory(context)
    if service is None:
        await _forget(context, memory, key)
        return DONE
    known = memory.known.get(key)
    if known is not None and known.service["metadata"]["uid"] != service["metadata"]["uid"]:
        await _forget(context, memory, key)
        known = None
    try:
        if not wants(service) or service["metadata"].get("deletionTimestamp"):
            await _take_away(context, memory, service)
        elif known is None or _balance_of(known.service) != _balance_of(service):
            await _ensure(context, memory, service)
            return DONE
    except (ApiError, OSError) as error:
        text = f"Error syncing load balancer: {error}"
        context.recorder.event(service, "Warning", "SyncLoadBalancerFailed", text)
        raise
    if key in memory.known:
        await _update(context, memory, service)
    return DONE


def _balance_of(service: Object) -> tuple[object, ...]:
    """What a balancer is made from."""
    spec, meta = service["spec"], service["metadata"]
    return (*(spec.get(name) for name in _BALANCED), len(spec.get("ipFamilies") or ()), meta.get("annotations"))


def _nodes(context: Context) -> tuple[list[Object], dict[str, str]]:
    nodes = [each for each in context.informer(NODES).list() if usable(each)]
    return nodes, {each["metadata"]["name"]: each["spec"].get("providerID", "") for each in nodes}


async def _ensure(context: Context, memory: _Memory, service: Object) -> None:
    tell = context.recorder.event
    tell(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
    if FINALIZER not in (service["metadata"].get("finalizers") or ()):
        try:
            await _mark(context, service, {"finalizers": [FINALIZER]})
        except ApiError as error:
            raise OSError(f"failed to add load balancer cleanup finalizer: {error.message}") from error
    nodes, names = _nodes(context)
    if not nodes:
        tell(service, "Warning", "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
    try:
        ingress = await _provider(context).ensure(service, nodes, _others(context, memory, service))
    except (NoRoom, OSError) as error:
        raise OSError(f"failed to ensure load balancer: {error}") from error
    tell(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")
    await _write(context, memory, service, ingress)
    memory.known[key_of(service)] = _Known(service, names)


def _others(context: Context, memory: _Memory, service: Object) -> list[Object]:
    """The Services that have a balancer, or may have one, as they are or as we wrote them last."""
    there: list[Object] = context.informer(SERVICES).by_index("balanced", "")
    now = [_newest(memory, each) for each in there]
    return [each for each in now if wants(each) and key_of(each) != key_of(service)]


def _newest(memory: _Memory, seen: Object) -> Object:
    written = memory.wrote.get(seen["metadata"]["uid"])
    if written is None:
        return seen
    if int(seen["metadata"]["resourceVersion"]) >= int(written["metadata"]["resourceVersion"]):
        del memory.wrote[seen["metadata"]["uid"]]
        return seen
    return written


async def _write(context: Context, memory: _Memory, service: Object, ingress: list[Object]) -> None:
    """Put the balancer's addresses into the status. Raises OSError."""
    balancer = (service.get("status") or {}).get("loadBalancer") or {}
    if (balancer.get("ingress") or []) == ingress:
        return
    meta = service["metadata"]
    body = {"metadata": {"uid": meta["uid"]}, "status": {"loadBalancer": {"ingress": ingress or None}}}
    try:
        written = await context.client.patch(SERVICES, meta["name"], meta["namespace"], body, subresource="status")
    except ApiError as error:
        if error.code != 404:
            raise OSError(f"failed to update load balancer status: {error.message}") from error
        return
    memory.wrote[meta["uid"]] = written


async def _update(context: Context, memory: _Memory, service: Object) -> None:
    """Tell a balancer of the nodes if they are others than it was made for. Raises OSError after telling."""
    known, tell = memory.known[key_of(service)], context.recorder.event
    nodes, names = _nodes(context)
    known.service = service
    if names == known.nodes:
        return
    metrics = context.metrics
    metrics.counter("service_controller_loadbalancer_sync_total", "Balancers told of nodes.").labels().inc()
    try:
        ingress = await _provider(context).ensure(service, nodes, _others(context, memory, service))
    except (NoRoom, OSError) as error:
        shown = sorted(names)
        if len(shown) > _MOST_NAMED:
            shown = [*shown[:_MOST_NAMED], f"<{len(shown) - _MOST_NAMED} more>"]
        limited = f"[node names limited, total number of nodes: {len(names)}]"
        metrics.counter("service_controller_nodesync_error_total", "Those that failed.").labels().inc()
        text = f"Error updating load balancer with new hosts [{' '.join(shown)}] {limited}, error: {error}"
        tell(service, "Warning", "UpdateLoadBalancerFailed", text)
        raise OSError(text) from error
    known.nodes = names
    if names:
        tell(service, "Normal", "UpdatedLoadBalancer", "Updated load balancer with new hosts")
    else:
        tell(service, "Warning", "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
    await _write(context, memory, service, ingress)


async def _take_away(context: Context, memory: _Memory, service: Object) -> None:
    key, tell = key_of(service), context.recorder.event
    marked = FINALIZER in (service["metadata"].get("finalizers") or ())
    if not marked and key not in memory.known:
        return
    if _given(service) or key in memory.known:
        tell(service, "Normal", "DeletingLoadBalancer", "Deleting load balancer")
        try:
            await _provider(context).delete(service)
        except OSError as error:
            raise OSError(f"failed to delete load balancer: {error}") from error
    memory.known.pop(key, None)
    if marked:
        try:
            await _mark(context, service, {"$deleteFromPrimitiveList/finalizers": [FINALIZER]})
        except ApiError as error:
            raise OSError(f"failed to remove load balancer cleanup finalizer: {error.message}") from error
    tell(service, "Normal", "DeletedLoadBalancer", "Deleted load balancer")
    await _write(context, memory, service, [])


async def _forget(context: Context, memory: _Memory, key: Key) -> None:
    """A Service went although it had a balancer. Raises OSError after telling."""
    known = memory.known.get(key)
    if known is None:
        return
    tell = context.recorder.event
    tell(known.service, "Normal", "DeletingLoadBalancer", "Deleting load balancer")
    try:
        await _provider(context).delete(known.service)
    except OSError as error:
        tell(known.service, "Warning", "DeleteLoadBalancerFailed", f"Error deleting load balancer: {error}")
        raise
    tell(known.service, "Normal", "DeletedLoadBalancer", "Deleted load balancer")
    del memory.known[key]


async def _mark(context: Context, service: Object, change: Object) -> Object:
    meta = service["metadata"]
    body = {"metadata": {"uid": meta["uid"], **change}}
    return await context.client.patch(
        SERVICES, meta["name"], meta["namespace"], body, type="strategic", subresource="status"
    )


def _of_node(context: Context, changed: Object) -> Iterable[Key]:
    """Every balanced Service, when the nodes that balancers may use are others now."""
    name, nodes = changed["metadata"]["name"], _memory(context).nodes
    node = context.informer(NODES).get("", name)
    now = (_included(node), node["spec"].get("providerID", "")) if node is not None else None
    if nodes.get(name) == now:
        return
    if now is None:
        del nodes[name]
    else:
        nodes[name] = now
    yield from map(key_of, context.informer(SERVICES).by_index("balanced", ""))


def _file(service: Object) -> Iterable[str]:
    if wants(service):
        yield ""
        if not _given(service):
            yield "waiting"


def _of_service(context: Context, service: Object) -> Iterable[Key]:
    """The Service, and those that wait for the room that it leaves."""
    key, seen = key_of(service), _memory(context).seen
    now = context.informer(SERVICES).get(*key)
    marked = now is not None and FINALIZER in (now["metadata"].get("finalizers") or ())
    if now is not None and (wants(now) or marked):
        leaves = bool(now["metadata"].get("deletionTimestamp"))
        matters: object = (_balance_of(now), leaves, marked and (leaves or not wants(now)))
    else:
        matters = None
    if seen.get(key) != matters:
        seen[key] = matters
        yield key
    if matters is None:
        seen.pop(key, None)
    if wants(service) and (now is None or not wants(now)):
        yield from map(key_of, context.informer(SERVICES).by_index("balanced", "waiting"))


CONTROLLER = Controller(
    "service-lb-controller",
    reconcile,
    (Watch(SERVICES, _of_service), Watch(NODES, _of_node)),
    workers=1,
    component="service-controller",
    indexes={SERVICES: {"balanced": _file}},
    asked_for=lambda config: config.get("cloud-provider") != "external",
    retry=(5.0, 300.0),
)
