"""Nodes of a cloud: what the provider knows of a new one, and its addresses as they change.

Owns the taint node.cloudprovider.kubernetes.io/uninitialized, with which a kubelet registers that waits for a cloud;
the labels of type, zone and region; and the addresses. Settings: `node-status-update-frequency` in seconds (300).
Source: cloud-provider's controllers/node; texts are the original's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import ip_address

from steersman.api.resource import NODES, Object
from steersman.client.cloud import UNINITIALIZED, Instance, Instances, named
from steersman.client.controller import DONE, Context, Controller, For, Key, Result

_PROVIDED = "alpha.kubernetes.io/provided-node-ip"
_TYPE = ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type")
_ZONE = ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone")
_REGION = ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region")
_RESERVED = re.compile(r"(^|\.)(kubernetes|k8s)\.io/")


def waits(node: Object) -> bool:
    """Whether the node is not yet known to the cloud."""
    return any(taint["key"] == UNINITIALIZED for taint in node["spec"].get("taints") or ())


def initialized(node: Object, instance: Instance) -> Object:
    """The node with what its provider says, and without the taint. Raises ValueError when it may not have that yet."""
    name, spec = node["metadata"]["name"], dict(node["spec"])
    spec["providerID"] = spec.get("providerID") or instance.provider_id
    if not spec["providerID"]:
        raise ValueError(f"cloud provider does not set node provider ID for node {name}")
    enforced(node, instance.addresses)
    spec["taints"] = [taint for taint in spec.get("taints") or () if taint["key"] != UNINITIALIZED]
    labels = dict(node["metadata"].get("labels") or {})
    for keys, value in ((_TYPE, instance.type), (_ZONE, instance.zone), (_REGION, instance.region)):
        if value:
            labels |= dict.fromkeys(keys, value)
    for key, value in instance.labels.items():
        if not _RESERVED.search(key):  # those are Kubernetes' own
            labels.setdefault(key, value)
    return {**node, "metadata": {**node["metadata"], "labels": labels}, "spec": spec}


def enforced(node: Object, addresses: Sequence[Object]) -> list[Object]:
    """The provider's addresses, less those of a type of which the kubelet was told the one to use.

    Raises ValueError when it was told one that the provider does not know.
    """
    asked = (node["metadata"].get("annotations") or {}).get(_PROVIDED, "")
    first: list[Object] = []
    for text in filter(None, map(str.strip, asked.split(","))):
        matching = [each for each in addresses if _same(each["address"], text)]
        if not matching:
            raise ValueError(
                f'provided node ip for node "{node["metadata"]["name"]}" is not valid: '
                f"failed to get node address from cloud provider that matches ip: {text}"
            )
        first += matching
    types = {each["type"] for each in first}
    return [*first, *(each for each in addresses if each["type"] not in types)]


def _same(one: str, other: str) -> bool:
    try:
        return ip_address(one) == ip_address(other)
    except ValueError:
        return False  # a name


def addressed(node: Object, addresses: Sequence[Object]) -> list[Object] | None:
    """The node's addresses by its provider, with its own host name; None when it has them. Raises ValueError."""
    if not addresses:
        return None
    current = (node.get("status") or {}).get("addresses") or []
    wanted = list(addresses)
    if not any(each["type"] == "Hostname" for each in wanted):
        wanted += [each for each in current if each["type"] == "Hostname"]
    wanted = enforced(node, wanted)
    return None if _sorted(wanted) == _sorted(current) else wanted


def _sorted(addresses: Sequence[Object]) -> list[tuple[str, str]]:
    return sorted((each["type"], each["address"]) for each in addresses)


def missing_labels(node: Object) -> dict[str, str]:
    """Labels of the stable names that the older ones ask for."""
    labels = node["metadata"].get("labels") or {}
    pairs = (_ZONE, _REGION, _TYPE)
    return {new: labels[old] for old, new in pairs if old in labels and labels.get(new) != labels[old]}


async def reconcile(context: Context, key: Key) -> Result:
    """Make one node known, or look whether its addresses changed."""
    looked: dict[str, float] = context.memory.setdefault("looked", {})
    node, cloud = context.informer(NODES).get(*key), context.cloud
    if node is None:
        looked.pop(key.name, None)
        return DONE
    if cloud.instances is None:
        return DONE
    try:
        if waits(node):
            if (instance := await cloud.instances.metadata(node)) is None:
                return DONE
            made = await context.client.update(NODES, initialized(node, instance))
            await _address(context, made, instance)
            context.recorder.event(node, "Normal", "Synced", "Node synced successfully")
        else:
            if labels := missing_labels(node):
                await context.client.patch(NODES, key.name, "", {"metadata": {"labels": labels}})
            return await _look(context, node, cloud.instances, looked)
    except ValueError as error:
        raise OSError(str(error)) from error  # the provider may know more later
    return DONE


async def _look(context: Context, node: Object, instances: Instances, looked: dict[str, float]) -> Result:
    """Ask for the addresses once in a while."""
    name, now = node["metadata"]["name"], context.clock.monotonic()
    period = float(context.config.get("node-status-update-frequency", "300"))
    left = looked.get(name, -period) + period - now
    if left <= 0:
        looked[name], left = now, period
        if (instance := await instances.metadata(node)) is not None:
            await _address(context, node, instance)
    return Result(left)


async def _address(context: Context, node: Object, instance: Instance) -> None:
    if (addresses := addressed(node, instance.addresses)) is None:
        return
    changed = {**node, "status": {**(node.get("status") or {}), "addresses": addresses}}
    await context.client.update(NODES, changed, subresource="status")


CONTROLLER = Controller(
    "cloud-node-controller", reconcile, (For(NODES),), workers=1, component="cloud-node-controller", asked_for=named
)
