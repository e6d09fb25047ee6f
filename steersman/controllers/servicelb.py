"""Services of type LoadBalancer get an address from a provider, and give it back.

Owns the finalizer and status.loadBalancer of Services without a class. Providers implement `cloud.Balancers`; the one
built in is `Local`: an address of a node, on which kube-proxy answers, each port of it for one Service only. It
balances over the Service's endpoints as every node does, and does not survive its node.
Source: cloud-provider's controllers/service.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, ip_address

from steersman.api import pods
from steersman.api.resource import NODES, SERVICES, Object
from steersman.client.cloud import Balancers, NoRoom
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
_EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"

Ports = frozenset[tuple[str, int]]


class Local:
    """Addresses of nodes. `reserved`: ports that nodes need for themselves."""

    def __init__(self, reserved: Iterable[int] = ()) -> None:
        self._reserved = frozenset(("TCP", port) for port in reserved)

    async def ensure(self, service: Object, nodes: Sequence[Object], others: Sequence[Object]) -> list[Object]:
        """The first node's address on which all ports are free."""
        wanted = ports_of(service)
        asked = service["spec"].get("loadBalancerIP") or ""
        for address in sorted({each for node in nodes for each in _addresses(node)}, key=ip_address):
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
    excluded = _EXCLUDED in (node["metadata"].get("labels") or {})
    return pods.is_ready(node) and not excluded and not node["metadata"].get("deletionTimestamp")


def _provider(context: Context) -> Balancers:
    if context.cloud.balancers is not None:
        return context.cloud.balancers
    return Local(map(int, context.config.get("reserved-ports", "").split()))


async def reconcile(context: Context, key: Key) -> Result:
    """Give one Service its balancer, or take it away."""
    service = context.informer(SERVICES).get(*key)
    if service is None:
        return DONE
    provider = _provider(context)
    if not wants(service) or service["metadata"].get("deletionTimestamp"):
        await _take_away(context, provider, service)
        return DONE
    if _given(service):
        context.memory.get("lately", {}).pop(service["metadata"]["uid"], None)
        return DONE
    nodes = [each for each in context.informer(NODES).list() if usable(each)]
    tell = context.recorder.event
    tell(service, "Normal", "EnsuringLoadBalancer", "Ensuring load balancer")
    if FINALIZER not in (service["metadata"].get("finalizers") or ()):
        service = await _mark(context, service, {"finalizers": [FINALIZER]})
    if not nodes:
        tell(service, "Warning", "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer")
        return DONE
    lately: dict[str, Object] = context.memory.setdefault("lately", {})  # what we wrote and may not see yet
    there = [lately.get(each["metadata"]["uid"], each) for each in context.informer(SERVICES).list()]
    others = [each for each in there if wants(each) and key_of(each) != key]
    try:
        ingress = await provider.ensure(service, nodes, others)
    except (NoRoom, OSError) as error:
        text = f"Error syncing load balancer: failed to ensure load balancer: {error}"
        tell(service, "Warning", "SyncLoadBalancerFailed", text)
        return DONE if isinstance(error, NoRoom) else Result(5.0)
    changed = {**service, "status": {**(service.get("status") or {}), "loadBalancer": {"ingress": ingress}}}
    lately[service["metadata"]["uid"]] = await context.client.update(SERVICES, changed, subresource="status")
    tell(service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer")
    return DONE


async def _take_away(context: Context, provider: Balancers, service: Object) -> None:
    if FINALIZER not in (service["metadata"].get("finalizers") or ()):
        return
    tell = context.recorder.event
    tell(service, "Normal", "DeletingLoadBalancer", "Deleting load balancer")
    await provider.delete(service)
    if _given(service) and not service["metadata"].get("deletionTimestamp"):
        changed = {**service, "status": {**service["status"], "loadBalancer": {}}}
        service = await context.client.update(SERVICES, changed, subresource="status")
    await _mark(context, service, {"$deleteFromPrimitiveList/finalizers": [FINALIZER]})
    tell(service, "Normal", "DeletedLoadBalancer", "Deleted load balancer")


async def _mark(context: Context, service: Object, change: Object) -> Object:
    meta = service["metadata"]
    body = {"metadata": {"uid": meta["uid"], **change}}
    return await context.client.patch(SERVICES, meta["name"], meta["namespace"], body, type="strategic")


def _waiting(context: Context, changed: Object) -> Iterable[Key]:
    """A node that comes, or a Service that goes, may leave room for those that wait."""
    if changed["kind"] == "Node" and not usable(changed):
        return
    waiting: list[Object] = context.informer(SERVICES).by_index("waiting", "")
    yield from map(key_of, waiting)


def _file_waiting(service: Object) -> Iterable[str]:
    if wants(service) and not _given(service):
        yield ""


def _of_service(context: Context, service: Object) -> Iterable[Key]:
    yield key_of(service)
    if wants(service) and context.informer(SERVICES).get(*key_of(service)) is None:
        yield from _waiting(context, service)


CONTROLLER = Controller(
    "service-lb-controller",
    reconcile,
    (Watch(SERVICES, _of_service), Watch(NODES, _waiting)),
    workers=1,
    component="service-controller",
    indexes={SERVICES: {"waiting": _file_waiting}},
    asked_for=lambda config: config.get("cloud-provider") != "external",
)
