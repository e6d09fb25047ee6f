"""The cloud's routes to the pods of every node.

Owns the routes within `cluster-cidr` and the nodes' condition NetworkUnavailable, which is True as long as a route is
missing. Settings: `configure-cloud-routes` (true, and only with `allocate-node-cidrs`), `cluster-name` (kubernetes),
`route-reconciliation-period` in seconds (10): all nodes are looked at together, and not more often than that.
Source: cloud-provider's controllers/route; texts are the original's.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import NODES, Object
from steersman.client.cloud import Route, Routes, named
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch
from steersman.lib.clock import rfc3339

log = logging.getLogger(__name__)

Network = IPv4Network | IPv6Network
_ALL = Key("", "routes")
_AT_ONCE = 200
_CONDITION = "NetworkUnavailable"
_MADE = ("False", "RouteCreated", "RouteController created a route")
_FAILED = ("True", "NoRouteCreated", "RouteController failed to create a route")


def plan(nodes: Iterable[Object], routes: Sequence[Route], ours: Sequence[Network]) -> tuple[list[Route], list[Route]]:
    """The routes to delete and those to make, the first first: a route whose node moved is among both."""
    wanted = {(node["metadata"]["name"], cidr): node for node in nodes for cidr in node["spec"].get("podCIDRs") or ()}
    good: set[tuple[str, str]] = set()
    bad: list[Route] = []
    for route in routes:
        node = wanted.get((route.node, route.destination))
        moved = node is not None and route.follows and _sorted(route.addresses) != _sorted(addresses(node))
        if node is not None and not moved and not route.blackhole:
            good.add((route.node, route.destination))
        elif _within(route.destination, ours):
            bad.append(route)
    made = [Route("", name, cidr, addresses(node)) for (name, cidr), node in wanted.items() if (name, cidr) not in good]
    return bad, made


def addresses(node: Object) -> list[Object]:
    """A node's addresses."""
    return list((node.get("status") or {}).get("addresses") or ())


def _sorted(found: Sequence[Object]) -> list[tuple[str, str]]:
    return sorted((each["type"], each["address"]) for each in found)


def _within(destination: str, ours: Sequence[Network]) -> bool:
    try:
        network = ip_network(destination, strict=False)
    except ValueError:
        log.warning("ignoring a route to %r, which is no range of addresses", destination)
        return False
    return any(network.overlaps(each) for each in ours if each.version == network.version)


def conditioned(node: Object, complete: bool, now: float) -> list[Object] | None:
    """The node's conditions with ours; None when they say so already."""
    status, reason, message = _MADE if complete else _FAILED
    old = pods.condition(node, _CONDITION)
    if old is not None and (old["status"], old.get("reason")) == (status, reason):
        return None
    stamp = rfc3339(now)
    ours = {"type": _CONDITION, "status": status, "reason": reason, "message": message, "lastTransitionTime": stamp}
    if old is not None and old["status"] == status:
        ours["lastTransitionTime"] = old["lastTransitionTime"]
    rest = [each for each in (node.get("status") or {}).get("conditions") or () if each["type"] != _CONDITION]
    return [*rest, {**ours, "lastHeartbeatTime": stamp}]


async def reconcile(context: Context, _: Key) -> Result:
    """Make the routes right, then say on each node whether its own are there."""
    cloud = context.cloud
    if cloud.routes is None:
        return DONE
    period, now = float(context.config.get("route-reconciliation-period", "10")), context.clock.monotonic()
    left = context.memory.get("last", now - period) + period - now
    if left > 0:
        return Result(left)
    context.memory["last"] = now
    cluster = context.config.get("cluster-name", "kubernetes")
    nodes = context.informer(NODES).list()
    routes = await cloud.routes.list(cluster)
    ours = [ip_network(each.strip()) for each in context.config["cluster-cidr"].split(",")]
    bad, made = plan(nodes, routes, ours)
    limit = asyncio.Semaphore(_AT_ONCE)
    await asyncio.gather(*(_delete(cloud.routes, cluster, route, limit) for route in bad))
    by_name = {node["metadata"]["name"]: node for node in nodes}
    done = await asyncio.gather(
        *(_create(context, cloud.routes, cluster, by_name[route.node], route, limit) for route in made)
    )
    failed = {route.node for route, worked in zip(made, done, strict=True) if not worked}
    failed |= {route.node for route in routes if not (by_name.get(route.node) or {"spec": {}})["spec"].get("podCIDRs")}
    for node in nodes:
        name = node["metadata"]["name"]
        if name in failed or node["spec"].get("podCIDRs"):
            await _say(context, node, name not in failed)
    return Result(period)


async def _delete(routes: Routes, cluster: str, route: Route, limit: asyncio.Semaphore) -> None:
    async with limit:
        try:
            await routes.delete(cluster, route)
        except OSError as error:
            log.warning("could not delete route %s %s: %s", route.name, route.destination, error)


async def _create(
    context: Context, routes: Routes, cluster: str, node: Object, route: Route, limit: asyncio.Semaphore
) -> bool:
    uid, begun = node["metadata"]["uid"], context.clock.monotonic()
    async with limit:
        try:
            await routes.create(cluster, uid, route)
        except OSError as error:
            took = f"{context.clock.monotonic() - begun:g}s"
            text = f"Could not create route {uid} {route.destination} for node {route.node} after {took}: {error}"
            about = {"kind": "Node", "apiVersion": "v1", "name": route.node, "uid": uid}
            context.recorder.event(about, "Warning", "FailedToCreateRoute", text)
            return False
    return True


async def _say(context: Context, node: Object, complete: bool) -> None:
    conditions = conditioned(node, complete, context.clock.now())
    if conditions is None:
        return
    name, ours = node["metadata"]["name"], [each for each in conditions if each["type"] == _CONDITION]
    body = {"metadata": {"uid": node["metadata"]["uid"]}, "status": {"conditions": ours}}
    try:
        await context.client.patch(NODES, name, "", body, type="strategic", subresource="status")
    except ApiError as error:
        if error.code not in (404, 409, 422):  # the next round sees the node as it is then
            raise


def _any(_: Context, __: Object) -> Iterable[Key]:
    yield _ALL


def _asked_for(config: Mapping[str, str]) -> bool:
    """With a cloud that is to have routes; ranges that cannot be are an error of the start. Raises ValueError."""
    off = config.get("configure-cloud-routes") == "false" or config.get("allocate-node-cidrs") != "true"
    if off or not named(config):
        return False
    ranges = [ip_network(each.strip()) for each in config.get("cluster-cidr", "").split(",") if each.strip()]
    if not ranges:
        raise ValueError("RouteController: Must specify clusterCIDR.")
    return True


CONTROLLER = Controller(
    "node-route-controller",
    reconcile,
    (Watch(NODES, _any),),
    workers=1,
    component="route_controller",
    asked_for=_asked_for,
)
