"""The built-in kinds that have something special, one file each; `ALL` is what the registry reads.

A kind without an entry behaves generically. To add one: write its file, list it here, and test it in tests/api/kinds.
"""

from __future__ import annotations

from steersman.api.kind import Behavior
from steersman.api.kinds.apps.controllerrevision import CONTROLLERREVISION
from steersman.api.kinds.apps.daemonset import DAEMONSET
from steersman.api.kinds.apps.deployment import DEPLOYMENT
from steersman.api.kinds.apps.replicaset import REPLICASET
from steersman.api.kinds.apps.statefulset import STATEFULSET
from steersman.api.kinds.core.configmap import CONFIGMAP
from steersman.api.kinds.core.namespace import NAMESPACE
from steersman.api.kinds.core.node import NODE
from steersman.api.kinds.core.pod import POD
from steersman.api.kinds.core.replicationcontroller import REPLICATIONCONTROLLER
from steersman.api.kinds.core.secret import SECRET
from steersman.api.kinds.core.service import SERVICE
from steersman.api.kinds.core.serviceaccount import SERVICEACCOUNT
from steersman.api.kinds.rbac.roles import CLUSTERROLE, CLUSTERROLEBINDING, ROLE, ROLEBINDING

ALL: tuple[Behavior, ...] = (
    CLUSTERROLE,
    CLUSTERROLEBINDING,
    CONFIGMAP,
    CONTROLLERREVISION,
    DAEMONSET,
    DEPLOYMENT,
    NAMESPACE,
    NODE,
    POD,
    REPLICASET,
    REPLICATIONCONTROLLER,
    ROLE,
    ROLEBINDING,
    SECRET,
    SERVICE,
    SERVICEACCOUNT,
    STATEFULSET,
)
