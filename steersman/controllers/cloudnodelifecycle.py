"""Nodes whose machine is off or gone.

Owns the taint node.cloudprovider.kubernetes.io/shutdown, and deletes nodes that fell silent and have no machine any
more. A node that is ready is never asked about. Settings: `node-monitor-period` in seconds (5).
Source: cloud-provider's controllers/nodelifecycle; texts are the original's.
"""

from __future__ import annotations

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.resource import NODES, Object
from steersman.client.cloud import SHUTDOWN, named
from steersman.client.controller import DONE, Context, Controller, For, Key, Result
from steersman.lib.clock import rfc3339


def tainted(node: Object, off: bool, now: float) -> list[Object] | None:
    """The node's taints with or without ours; None when they are so already."""
    taints = node["spec"].get("taints") or []
    ours = [each for each in taints if each["key"] == SHUTDOWN and each["effect"] == "NoSchedule"]
    if bool(ours) == off:
        return None
    if off:
        return [*taints, {"key": SHUTDOWN, "effect": "NoSchedule", "timeAdded": rfc3339(now)}]
    return [each for each in taints if each not in ours]


async def reconcile(context: Context, key: Key) -> Result:
    """Ask for the machine of one node that is not ready; again as long as it is not."""
    node, cloud = context.informer(NODES).get(*key), context.cloud
    if node is None or cloud.instances is None:
        return DONE
    again = Result(float(context.config.get("node-monitor-period", "5")))
    if pods.is_ready(node):
        await _taint(context, node, off=False)
        return DONE
    if not await cloud.instances.exists(node):
        await _delete(context, node)
        return again
    if await cloud.instances.shutdown(node):
        await _taint(context, node, off=True)
    return again


async def _taint(context: Context, node: Object, *, off: bool) -> None:
    taints = tainted(node, off, context.clock.now())
    if taints is not None:
        await context.client.update(NODES, {**node, "spec": {**node["spec"], "taints": taints}})


async def _delete(context: Context, node: Object) -> None:
    meta, tell = node["metadata"], context.recorder.event
    name = meta["name"]
    about = {"kind": "Node", "apiVersion": "v1", "name": name, "uid": meta["uid"]}
    tell(about, "Normal", "DeletingNode", f"Deleting node {name} because it does not exist in the cloud provider")
    try:
        await context.client.delete(NODES, name, uid=meta["uid"])
    except ApiError as error:
        if error.code in (404, 409):
            return  # gone, or another of its name
        tell(about, "Warning", "DeletingNodeFailed", f"Failed deleting node {name}: {error}")


CONTROLLER = Controller(
    "cloud-node-lifecycle-controller",
    reconcile,
    (For(NODES),),
    workers=1,
    component="cloud-node-lifecycle-controller",
    asked_for=named,
)
