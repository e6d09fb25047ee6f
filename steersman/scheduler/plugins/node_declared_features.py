"""NodeDeclaredFeatures: what a pod needs of a kubelet must be among what the node declares (KEP-5328).

Which needs there are is component-helpers' nodedeclaredfeatures: of those that scheduling asks for, in 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steersman.api.resource import Object
from steersman.scheduler.columns import Columns
from steersman.scheduler.framework import Event, Plugin, Rejection
from steersman.scheduler.podinfo import PodInfo

_REASON = "node(s) didn't match Pod's required features"
_RESTART_ALL = "RestartAllContainersOnContainerExits"
_HOST_USERS = "UserNamespacesHostNetworkSupport"


def make(args: Mapping[str, Any]) -> Plugin:
    """It has no arguments."""
    return Plugin("NodeDeclaredFeatures", filter=filter, hints={"node added": _news, "node features": _news})


def needs(pod: Object) -> set[str]:
    """What the pod needs of its node's kubelet."""
    spec, found = pod["spec"], set()
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        rules = container.get("restartPolicyRules") or ()
        if rules and any(rule.get("action") == "RestartAllContainers" for rule in rules):
            found.add(_RESTART_ALL)
    if spec.get("hostNetwork") and spec.get("hostUsers") is False:
        found.add(_HOST_USERS)
    return found


def filter(columns: Columns, pod: PodInfo) -> Sequence[Rejection]:
    """Refuse nodes that lack something; nobody's going can mend that."""
    wanted = needs(pod.pod)
    if not wanted:
        return ()
    lacking = np.ones(len(columns.live), np.bool_)
    for name, row in columns.rows.items():
        lacking[row] = not wanted <= _declared(columns.node(name))
    return (Rejection(lacking, _REASON, resolvable=False),)


def _declared(node: Object | None) -> set[str]:
    return set(((node or {}).get("status") or {}).get("declaredFeatures") or ())


def _news(columns: Columns, pod: PodInfo, event: Event) -> bool:
    """A node has all that is needed now."""
    return needs(pod.pod) <= _declared(event.new)
