"""The built-in kinds that have something special, one file each or per tight family; `ALL` is what the registry reads.

A kind without an entry behaves generically. To add one: write its file, list it here, and test it in tests/api/kinds.
"""

from __future__ import annotations

from steersman.api.kind import Behavior
from steersman.api.kinds import (
    addresses,
    admissionregistration,
    autoscaling,
    certificates,
    coordination,
    devices,
    discovery,
    extension,
    flowcontrol,
    networking,
    policy,
    rbac,
    runtimeclass,
    scheduling,
    storage,
    storagemigration,
)
from steersman.api.kinds.apps.controllerrevision import CONTROLLERREVISION
from steersman.api.kinds.apps.daemonset import DAEMONSET
from steersman.api.kinds.apps.deployment import DEPLOYMENT
from steersman.api.kinds.apps.replicaset import REPLICASET
from steersman.api.kinds.apps.statefulset import STATEFULSET
from steersman.api.kinds.batch.cronjob import CRONJOB
from steersman.api.kinds.batch.job import JOB_KIND
from steersman.api.kinds.core.componentstatus import COMPONENTSTATUS
from steersman.api.kinds.core.configmap import CONFIGMAP
from steersman.api.kinds.core.endpoints import ENDPOINTS
from steersman.api.kinds.core.event import EVENT, NEW_EVENT
from steersman.api.kinds.core.limitrange import LIMITRANGE
from steersman.api.kinds.core.namespace import NAMESPACE
from steersman.api.kinds.core.node import NODE
from steersman.api.kinds.core.persistentvolume import PERSISTENTVOLUME
from steersman.api.kinds.core.persistentvolumeclaim import PERSISTENTVOLUMECLAIM
from steersman.api.kinds.core.pod import POD
from steersman.api.kinds.core.podtemplate import PODTEMPLATE
from steersman.api.kinds.core.replicationcontroller import REPLICATIONCONTROLLER
from steersman.api.kinds.core.resourcequota import RESOURCEQUOTA
from steersman.api.kinds.core.secret import SECRET
from steersman.api.kinds.core.service import SERVICE
from steersman.api.kinds.core.serviceaccount import SERVICEACCOUNT

ALL: tuple[Behavior, ...] = (
    COMPONENTSTATUS,
    CONFIGMAP,
    CONTROLLERREVISION,
    CRONJOB,
    DAEMONSET,
    DEPLOYMENT,
    ENDPOINTS,
    EVENT,
    JOB_KIND,
    LIMITRANGE,
    NAMESPACE,
    NEW_EVENT,
    NODE,
    PERSISTENTVOLUME,
    PERSISTENTVOLUMECLAIM,
    POD,
    PODTEMPLATE,
    REPLICASET,
    REPLICATIONCONTROLLER,
    RESOURCEQUOTA,
    SECRET,
    SERVICE,
    SERVICEACCOUNT,
    STATEFULSET,
    *admissionregistration.BEHAVIORS,
    autoscaling.HORIZONTALPODAUTOSCALER,
    certificates.CERTIFICATESIGNINGREQUEST,
    certificates.CLUSTERTRUSTBUNDLE,
    coordination.LEASE,
    *devices.BEHAVIORS,
    discovery.ENDPOINTSLICE,
    extension.APISERVICE,
    extension.CUSTOMRESOURCEDEFINITION,
    flowcontrol.FLOWSCHEMA,
    flowcontrol.PRIORITYLEVELCONFIGURATION,
    networking.INGRESS,
    networking.INGRESSCLASS,
    addresses.IPADDRESS,
    networking.NETWORKPOLICY,
    addresses.SERVICECIDR,
    policy.PODDISRUPTIONBUDGET,
    rbac.CLUSTERROLE,
    rbac.CLUSTERROLEBINDING,
    rbac.ROLE,
    rbac.ROLEBINDING,
    runtimeclass.RUNTIMECLASS,
    scheduling.PRIORITYCLASS,
    storage.CSIDRIVER,
    storage.CSINODE,
    storage.CSISTORAGECAPACITY,
    storage.STORAGECLASS,
    storage.VOLUMEATTACHMENT,
    storage.VOLUMEATTRIBUTESCLASS,
    storagemigration.STORAGEVERSIONMIGRATION,
)
