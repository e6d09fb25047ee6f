"""How long kubelets may keep Secrets and ConfigMaps before they look again: longer the more nodes there are.

Owns the annotation `node.alpha.kubernetes.io/ttl` of nodes, in seconds. Source: kubernetes' pkg/controller/ttl.
"""

from __future__ import annotations

from collections.abc import Iterable

from steersman.api.resource import NODES, Object
from steersman.client.controller import DONE, Context, Controller, Key, Result, Watch, key_of

ANNOTATION = "node.alpha.kubernetes.io/ttl"
_STEPS = ((0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 2**31 - 1, 300))
"""Sizes of the cluster from and up to which a step holds, and its seconds; they overlap, so that none flickers."""


def step_for(count: int, step: int) -> int:
    """The step of a cluster that has so many nodes now and was on `step`."""
    while count > _STEPS[step][1]:
        step += 1
    while count < _STEPS[step][0]:
        step -= 1
    return step


async def reconcile(context: Context, key: Key) -> Result:
    """Annotate one node. Others follow with their next heartbeat, as in the original."""
    node = context.informer(NODES).get(*key)
    wanted = str(_STEPS[context.memory.get("step", 0)][2])
    if node is None or (node["metadata"].get("annotations") or {}).get(ANNOTATION) == wanted:
        return DONE
    await context.client.patch(NODES, key.name, "", {"metadata": {"annotations": {ANNOTATION: wanted}}})
    return DONE


def _counted(context: Context, node: Object) -> Iterable[Key]:
    names: set[str] = context.memory.setdefault("names", set())
    key = key_of(node)
    (names.discard if context.informer(NODES).get(*key) is None else names.add)(key.name)
    context.memory["step"] = step_for(len(names), context.memory.get("step", 0))
    yield key


CONTROLLER = Controller("ttl-controller", reconcile, (Watch(NODES, _counted),))
