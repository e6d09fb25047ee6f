"""The resources of every built-in group: what no schema says.

Owns the table of plurals, short names, categories, scope, verbs, subresources and served versions. `registry.py` turns
each row into a `Kind` for one release. A version is served when it is listed here and the release's schemas have the
kind in it, so one table serves all releases; listed are the stable versions and those betas that were once served by
default. Facts are those of kube-apiserver's discovery documents and registry strategies.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from steersman.api.kind import Subresource

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CREATE = ("create",)
READ = ("get", "list")
UPDATE = ("get", "patch", "update")
PROXY = ("create", "delete", "get", "patch", "update")

GROUPS = (
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "storagemigration.k8s.io",
)
"""Groups in the order of discovery; those of custom resources follow by name."""

SINCE = {("", "pods", "resize"): (1, 33)}
"""Subresources that older releases do not serve by default."""

STATUS = Subresource("status", UPDATE)
SCALE = Subresource("scale", UPDATE, "Scale", "autoscaling", "v1")
_BOTH = (SCALE, STATUS)


class Row(NamedTuple):
    """One resource. `singular` is the kind in lower case; lists are separated by blanks."""

    plural: str
    kind: str
    versions: str = "v1"
    namespaced: bool = True
    short: str = ""
    categories: str = ""
    subresources: tuple[Subresource, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    generations: bool = False
    create_on_update: bool = False
    stored_as: tuple[str, str] | None = None
    returns_deleted: bool = False


def _cluster(plural: str, kind: str, versions: str = "v1", **more: Any) -> Row:
    return Row(plural, kind, versions, namespaced=False, **more)


def _extension(plural: str, kind: str, subresources: tuple[Subresource, ...] = ()) -> Row:
    return _cluster(plural, kind, categories="api-extensions", subresources=subresources, generations=True)


_POD = (
    Subresource("attach", ("create", "get"), "PodAttachOptions"),
    Subresource("binding", CREATE, "Binding"),
    Subresource("ephemeralcontainers", UPDATE),
    Subresource("eviction", CREATE, "Eviction", "policy", "v1"),
    Subresource("exec", ("create", "get"), "PodExecOptions"),
    Subresource("log", ("get",)),
    Subresource("portforward", ("create", "get"), "PodPortForwardOptions"),
    Subresource("proxy", PROXY, "PodProxyOptions"),
    Subresource("resize", UPDATE),
    STATUS,
)

RESOURCES: dict[str, tuple[Row, ...]] = {
    "": (
        Row("bindings", "Binding", verbs=CREATE),
        _cluster("componentstatuses", "ComponentStatus", short="cs", verbs=READ),
        Row("configmaps", "ConfigMap", short="cm"),
        Row("endpoints", "Endpoints", short="ep", create_on_update=True),
        Row("events", "Event", short="ev", create_on_update=True),
        Row("limitranges", "LimitRange", short="limits", create_on_update=True),
        _cluster(
            "namespaces",
            "Namespace",
            short="ns",
            subresources=(Subresource("finalize", ("update",)), STATUS),
            verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
        ),
        _cluster("nodes", "Node", short="no", subresources=(Subresource("proxy", PROXY, "NodeProxyOptions"), STATUS)),
        Row(
            "persistentvolumeclaims", "PersistentVolumeClaim", short="pvc", subresources=(STATUS,), returns_deleted=True
        ),
        _cluster("persistentvolumes", "PersistentVolume", short="pv", subresources=(STATUS,), returns_deleted=True),
        Row("pods", "Pod", short="po", categories="all", subresources=_POD, generations=True, returns_deleted=True),
        Row("podtemplates", "PodTemplate", generations=True, returns_deleted=True),
        Row(
            "replicationcontrollers",
            "ReplicationController",
            short="rc",
            categories="all",
            subresources=_BOTH,
            generations=True,
        ),
        Row("resourcequotas", "ResourceQuota", short="quota", subresources=(STATUS,), returns_deleted=True),
        Row("secrets", "Secret"),
        Row(
            "serviceaccounts",
            "ServiceAccount",
            short="sa",
            subresources=(Subresource("token", CREATE, "TokenRequest", "authentication.k8s.io", "v1"),),
            returns_deleted=True,
        ),
        Row(
            "services",
            "Service",
            short="svc",
            categories="all",
            subresources=(Subresource("proxy", PROXY, "ServiceProxyOptions"), STATUS),
            create_on_update=True,
            returns_deleted=True,
        ),
    ),
    "apiregistration.k8s.io": (
        _cluster("apiservices", "APIService", categories="api-extensions", subresources=(STATUS,)),
    ),
    "apps": (
        Row("controllerrevisions", "ControllerRevision"),
        Row("daemonsets", "DaemonSet", short="ds", categories="all", subresources=(STATUS,), generations=True),
        Row(
            "deployments",
            "Deployment",
            short="deploy",
            categories="all",
            subresources=_BOTH,
            generations=True,
        ),
        Row("replicasets", "ReplicaSet", short="rs", categories="all", subresources=_BOTH, generations=True),
        Row("statefulsets", "StatefulSet", short="sts", categories="all", subresources=_BOTH, generations=True),
    ),
    "events.k8s.io": (Row("events", "Event", short="ev", create_on_update=True, stored_as=("", "events")),),
    "authentication.k8s.io": (
        _cluster("selfsubjectreviews", "SelfSubjectReview", verbs=CREATE),
        _cluster("tokenreviews", "TokenReview", verbs=CREATE),
    ),
    "authorization.k8s.io": (
        Row("localsubjectaccessreviews", "LocalSubjectAccessReview", verbs=CREATE),
        _cluster("selfsubjectaccessreviews", "SelfSubjectAccessReview", verbs=CREATE),
        _cluster("selfsubjectrulesreviews", "SelfSubjectRulesReview", verbs=CREATE),
        _cluster("subjectaccessreviews", "SubjectAccessReview", verbs=CREATE),
    ),
    "autoscaling": (
        Row(
            "horizontalpodautoscalers",
            "HorizontalPodAutoscaler",
            "v2 v1 v2beta2",
            short="hpa",
            categories="all",
            subresources=(STATUS,),
        ),
    ),
    "batch": (
        Row("cronjobs", "CronJob", short="cj", categories="all", subresources=(STATUS,), generations=True),
        Row("jobs", "Job", categories="all", subresources=(STATUS,), generations=True),
    ),
    "certificates.k8s.io": (
        _cluster(
            "certificatesigningrequests",
            "CertificateSigningRequest",
            short="csr",
            subresources=(Subresource("approval", UPDATE), STATUS),
        ),
        _cluster("clustertrustbundles", "ClusterTrustBundle"),
        Row("podcertificaterequests", "PodCertificateRequest", subresources=(STATUS,)),
    ),
    "networking.k8s.io": (
        _cluster("ingressclasses", "IngressClass", generations=True),
        Row("ingresses", "Ingress", short="ing", subresources=(STATUS,), generations=True),
        _cluster("ipaddresses", "IPAddress", short="ip"),
        Row("networkpolicies", "NetworkPolicy", short="netpol", generations=True),
        _cluster("servicecidrs", "ServiceCIDR", subresources=(STATUS,)),
    ),
    "policy": (
        Row("poddisruptionbudgets", "PodDisruptionBudget", short="pdb", subresources=(STATUS,), generations=True),
    ),
    "rbac.authorization.k8s.io": (
        _cluster("clusterrolebindings", "ClusterRoleBinding", create_on_update=True),
        _cluster("clusterroles", "ClusterRole", create_on_update=True),
        Row("rolebindings", "RoleBinding", create_on_update=True),
        Row("roles", "Role", create_on_update=True),
    ),
    "storage.k8s.io": (
        _cluster("csidrivers", "CSIDriver", generations=True, returns_deleted=True),
        _cluster("csinodes", "CSINode", returns_deleted=True),
        Row("csistoragecapacities", "CSIStorageCapacity", "v1 v1beta1"),
        _cluster("storageclasses", "StorageClass", short="sc", returns_deleted=True),
        _cluster("volumeattachments", "VolumeAttachment", subresources=(STATUS,), returns_deleted=True),
        _cluster("volumeattributesclasses", "VolumeAttributesClass", short="vac", returns_deleted=True),
    ),
    "admissionregistration.k8s.io": (
        _extension("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
        _extension("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
        _extension("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
        _extension("validatingadmissionpolicies", "ValidatingAdmissionPolicy", subresources=(STATUS,)),
        _extension("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
        _extension("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
    ),
    "apiextensions.k8s.io": (
        _cluster(
            "customresourcedefinitions",
            "CustomResourceDefinition",
            short="crd crds",
            categories="api-extensions",
            subresources=(STATUS,),
            generations=True,
        ),
    ),
    "scheduling.k8s.io": (_cluster("priorityclasses", "PriorityClass", short="pc", generations=True),),
    "coordination.k8s.io": (Row("leases", "Lease", create_on_update=True),),
    "node.k8s.io": (_cluster("runtimeclasses", "RuntimeClass", create_on_update=True),),
    "discovery.k8s.io": (Row("endpointslices", "EndpointSlice", generations=True),),
    "resource.k8s.io": (
        _cluster("deviceclasses", "DeviceClass", generations=True, returns_deleted=True),
        _cluster("devicetaintrules", "DeviceTaintRule", subresources=(STATUS,), generations=True),
        Row("resourceclaims", "ResourceClaim", subresources=(STATUS,), returns_deleted=True),
        Row("resourceclaimtemplates", "ResourceClaimTemplate", returns_deleted=True),
        _cluster("resourceslices", "ResourceSlice", generations=True, returns_deleted=True),
    ),
    "flowcontrol.apiserver.k8s.io": (
        _cluster("flowschemas", "FlowSchema", "v1 v1beta3 v1beta2 v1beta1", subresources=(STATUS,), generations=True),
        _cluster(
            "prioritylevelconfigurations",
            "PriorityLevelConfiguration",
            "v1 v1beta3 v1beta2 v1beta1",
            subresources=(STATUS,),
            generations=True,
        ),
    ),
    "storagemigration.k8s.io": (
        _cluster("storageversionmigrations", "StorageVersionMigration", subresources=(STATUS,)),
    ),
}
"""Every row by group. For example `RESOURCES["apps"]` holds deployments."""
