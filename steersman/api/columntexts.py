"""What printer columns are said to mean: the words of the field that each one shows.

Owns which field that is; the words are the schema's, and are read once, when somebody first asks for a Table. A column
that shows no single field has words of ours. Called by `registry.py` for the API server. Source: the fields that
kubernetes' pkg/printers takes its texts from, by comparison with the Tables of kube-apiserver 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.api.schema import Schemas

_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_ALWAYS = {"Name": (_META, "name"), "Age": (_META, "creationTimestamp"), "Created At": (_META, "creationTimestamp")}
_FIELDS: dict[str, dict[str, dict[str, str]]] = {
    "certificatesigningrequests": {
        "certificates.v1.CertificateSigningRequestSpec": {"RequestedDuration": "expirationSeconds"},
    },
    "configmaps": {
        "core.v1.ConfigMap": {"Data": "data"},
    },
    "controllerrevisions": {
        "apps.v1.ControllerRevision": {"Revision": "revision"},
    },
    "cronjobs": {
        "batch.v1.CronJobSpec": {"Schedule": "schedule", "Timezone": "timeZone", "Suspend": "suspend"},
        "batch.v1.CronJobStatus": {"Active": "active", "Last Schedule": "lastScheduleTime"},
        "batch.v1.JobSpec": {"Selector": "selector"},
    },
    "csidrivers": {
        "storage.v1.CSIDriverSpec": {
            "AttachRequired": "attachRequired",
            "PodInfoOnMount": "podInfoOnMount",
            "StorageCapacity": "storageCapacity",
            "TokenRequests": "tokenRequests",
            "RequiresRepublish": "requiresRepublish",
            "Modes": "volumeLifecycleModes",
        },
    },
    "daemonsets": {
        "apps.v1.DaemonSetStatus": {
            "Desired": "desiredNumberScheduled",
            "Current": "currentNumberScheduled",
            "Ready": "numberReady",
            "Up-to-date": "updatedNumberScheduled",
            "Available": "numberAvailable",
        },
        "core.v1.PodSpec": {"Node Selector": "nodeSelector"},
        "apps.v1.DaemonSetSpec": {"Selector": "selector"},
    },
    "deployments": {
        "apps.v1.DeploymentStatus": {"Up-to-date": "updatedReplicas", "Available": "availableReplicas"},
        "apps.v1.DeploymentSpec": {"Selector": "selector"},
    },
    "endpoints": {
        "core.v1.Endpoints": {"Endpoints": "subsets"},
    },
    "endpointslices": {
        "discovery.v1.EndpointSlice": {"AddressType": "addressType", "Ports": "ports", "Endpoints": "endpoints"},
    },
    "events": {
        "core.v1.Event": {
            "Last Seen": "lastTimestamp",
            "Type": "type",
            "Reason": "reason",
            "Object": "involvedObject",
            "Source": "source",
            "Message": "message",
            "First Seen": "firstTimestamp",
            "Count": "count",
        },
        "core.v1.ObjectReference": {"Subobject": "fieldPath"},
    },
    "flowschemas": {
        "flowcontrol.v1.PriorityLevelConfigurationReference": {"PriorityLevel": "name"},
        "flowcontrol.v1.FlowSchemaSpec": {
            "MatchingPrecedence": "matchingPrecedence",
            "DistinguisherMethod": "distinguisherMethod",
        },
    },
    "horizontalpodautoscalers": {
        "autoscaling.v2.HorizontalPodAutoscalerSpec": {
            "Reference": "scaleTargetRef",
            "Targets": "metrics",
            "MaxPods": "maxReplicas",
        },
        "autoscaling.v1.HorizontalPodAutoscalerSpec": {"MinPods": "minReplicas"},
        "autoscaling.v2.HorizontalPodAutoscalerStatus": {"Replicas": "currentReplicas"},
    },
    "ipaddresses": {
        "networking.v1.IPAddressSpec": {"ParentRef": "parentRef"},
    },
    "jobs": {
        "batch.v1.JobStatus": {"Completions": "succeeded"},
        "batch.v1.JobSpec": {"Selector": "selector"},
    },
    "leases": {
        "coordination.v1.LeaseSpec": {"Holder": "holderIdentity"},
    },
    "networkpolicies": {
        "networking.v1.NetworkPolicySpec": {"Pod-Selector": "podSelector"},
    },
    "nodes": {
        "core.v1.NodeSystemInfo": {
            "Version": "kubeletVersion",
            "OS-Image": "osImage",
            "Kernel-Version": "kernelVersion",
            "Container-Runtime": "containerRuntimeVersion",
        },
        "core.v1.NodeStatus": {"Internal-IP": "addresses", "External-IP": "addresses"},
    },
    "persistentvolumeclaims": {
        "core.v1.PersistentVolumeClaimStatus": {
            "Status": "phase",
            "Capacity": "capacity",
            "Access Modes": "accessModes",
        },
        "core.v1.PersistentVolumeClaimSpec": {"Volume": "volumeName", "VolumeMode": "volumeMode"},
    },
    "persistentvolumes": {
        "core.v1.PersistentVolumeSpec": {
            "Capacity": "capacity",
            "Access Modes": "accessModes",
            "Reclaim Policy": "persistentVolumeReclaimPolicy",
            "Claim": "claimRef",
            "VolumeMode": "volumeMode",
        },
        "core.v1.PersistentVolumeStatus": {"Status": "phase", "Reason": "reason"},
    },
    "pods": {
        "core.v1.PodStatus": {"IP": "podIP", "Nominated Node": "nominatedNodeName"},
        "core.v1.PodSpec": {"Node": "nodeName", "Readiness Gates": "readinessGates"},
    },
    "priorityclasses": {
        "scheduling.v1.PriorityClass": {
            "Value": "value",
            "Global-Default": "globalDefault",
            "PreemptionPolicy": "preemptionPolicy",
        },
    },
    "prioritylevelconfigurations": {
        "flowcontrol.v1.PriorityLevelConfigurationSpec": {"Type": "type"},
        "flowcontrol.v1.LimitedPriorityLevelConfiguration": {"NominalConcurrencyShares": "nominalConcurrencyShares"},
        "flowcontrol.v1.QueuingConfiguration": {
            "Queues": "queues",
            "HandSize": "handSize",
            "QueueLengthLimit": "queueLengthLimit",
        },
    },
    "replicasets": {
        "apps.v1.ReplicaSetSpec": {"Desired": "replicas", "Selector": "selector"},
        "apps.v1.ReplicaSetStatus": {"Current": "replicas", "Ready": "readyReplicas"},
    },
    "replicationcontrollers": {
        "core.v1.ReplicationControllerSpec": {"Desired": "replicas", "Selector": "selector"},
        "core.v1.ReplicationControllerStatus": {"Current": "replicas", "Ready": "readyReplicas"},
    },
    "resourceslices": {
        "resource.v1.ResourceSliceSpec": {"Node": "nodeName", "Driver": "driver"},
        "resource.v1.ResourcePool": {"Pool": "name"},
    },
    "secrets": {
        "core.v1.Secret": {"Type": "type", "Data": "data"},
    },
    "servicecidrs": {
        "networking.v1.ServiceCIDRSpec": {"CIDRs": "cidrs"},
    },
    "services": {
        "core.v1.ServiceSpec": {
            "Type": "type",
            "Cluster-IP": "clusterIP",
            "External-IP": "externalIPs",
            "Port(s)": "ports",
            "Selector": "selector",
        },
    },
    "storageclasses": {
        "storage.v1.StorageClass": {
            "Provisioner": "provisioner",
            "ReclaimPolicy": "reclaimPolicy",
            "VolumeBindingMode": "volumeBindingMode",
            "AllowVolumeExpansion": "allowVolumeExpansion",
        },
    },
    "volumeattachments": {
        "storage.v1.VolumeAttachmentSpec": {"Attacher": "attacher", "Node": "nodeName"},
        "storage.v1.VolumeAttachmentSource": {"PV": "persistentVolumeName"},
        "storage.v1.VolumeAttachmentStatus": {"Attached": "attached"},
    },
    "volumeattributesclasses": {
        "storage.v1.VolumeAttributesClass": {"DriverName": "driverName"},
    },
}
"""By resource: definitions below io.k8s.api, and the columns that show their fields."""


class ColumnTexts:
    """The words for the columns of every built-in resource of a release."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._known: dict[str, dict[str, str]] | None = None

    def of(self, plural: str) -> Mapping[str, str]:
        """Words by column; those that every resource has are under "" too."""
        if self._known is None:
            self._known = self._read()
            self._schemas.forget_descriptions()
        return self._known.get(plural) or self._known[""]

    def _read(self) -> dict[str, dict[str, str]]:
        always = {column: self._schemas.descriptions(name).get(prop, "") for column, (name, prop) in _ALWAYS.items()}
        found = {"": always}
        for plural, definitions in _FIELDS.items():
            words = found[plural] = dict(always)
            for name, columns in definitions.items():
                texts = self._schemas.descriptions(f"io.k8s.api.{name}")
                for column, prop in columns.items():
                    if text := texts.get(prop):
                        words[column] = text
        return found
