"""The controller manager: one control loop a file, each named as kube-controller-manager names it.

Owns `ALL`, the list of controllers, and their selection as `--controllers` spells it. Modules are loaded when they are
chosen: controllers do not import each other, and a start pays only for what runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module

from steersman.client.controller import Controller

ALL: Mapping[str, str] = {
    "namespace-controller": "namespace",
    "serviceaccount-controller": "serviceaccount",
    "root-ca-certificate-publisher-controller": "rootca",
    "replicaset-controller": "replicaset",
    "replicationcontroller-controller": "replicaset:REPLICATIONCONTROLLER",
    "deployment-controller": "deployment",
    "daemonset-controller": "daemonset",
    "statefulset-controller": "statefulset",
    "job-controller": "job",
    "cronjob-controller": "cronjob",
    "endpoints-controller": "endpoints",
    "endpointslice-controller": "endpointslice",
    "endpointslice-mirroring-controller": "endpointslicemirroring",
    "garbage-collector-controller": "garbage",
    "node-lifecycle-controller": "nodelifecycle",
    "node-ipam-controller": "nodeipam",
    "taint-eviction-controller": "tainteviction",
    "ttl-controller": "ttl",
    "pod-garbage-collector-controller": "podgc",
    "ttl-after-finished-controller": "ttlafterfinished",
    "serviceaccount-token-controller": "serviceaccounttoken",
    "legacy-serviceaccount-token-cleaner-controller": "legacytokencleaner",
    "storage-version-migrator-controller": "storageversionmigrator",
    "persistentvolume-binder-controller": "pvbinder",
    "persistentvolume-attach-detach-controller": "attachdetach",
    "persistentvolume-expander-controller": "volumeexpand",
    "ephemeral-volume-controller": "ephemeralvolume",
    "hostpath-provisioner-controller": "hostpathprovisioner",
    "persistentvolumeclaim-protection-controller": "pvcprotection",
    "persistentvolume-protection-controller": "pvprotection",
    "volumeattributesclass-protection-controller": "vacprotection",
    "resourcequota-controller": "resourcequota",
    "disruption-controller": "disruption",
    "clusterrole-aggregation-controller": "clusterroleaggregation",
    "horizontal-pod-autoscaler-controller": "hpa",
    "service-cidr-controller": "servicecidr",
    "certificatesigningrequest-approving-controller": "certificates.approving",
    "certificatesigningrequest-signing-controller": "certificates.signing",
    "certificatesigningrequest-cleaner-controller": "certificates.cleaning",
    "validatingadmissionpolicy-status-controller": "validatingadmissionpolicystatus",
    "token-cleaner-controller": "tokencleaner",
    "bootstrap-signer-controller": "bootstrapsigner",
    "service-lb-controller": "servicelb",
    "cloud-node-controller": "cloudnode",
    "cloud-node-lifecycle-controller": "cloudnodelifecycle",
    "node-route-controller": "noderoute",
    "resourceclaim-controller": "resourceclaim",
    "device-taint-eviction-controller": "devicetainteviction",
    "selinux-warning-controller": "selinuxwarning",
}
"""Each controller's name, and where its `Controller` is: a module here, `:` and the value's name (CONTROLLER)."""

OFF = frozenset({"bootstrap-signer-controller", "selinux-warning-controller", "token-cleaner-controller"})
"""Those that `*` does not mean: they run when they are named."""
USUAL = ("*", "bootstrap-signer-controller", "token-cleaner-controller")
"""What runs unless somebody says otherwise: as a cluster of kubeadm's has it."""
GATED = frozenset(
    {
        "kube-apiserver-serving-clustertrustbundle-publisher-controller",
        "podcertificaterequest-cleaner-controller",
        "podgroup-protection-controller",
        "resourcepoolstatusrequest-controller",
        "storageversion-garbage-collector-controller",
    }
)
"""Those whose features are off in the original: it knows their names, and nothing runs."""

_SHORT = """
    clusterrole-aggregation cronjob daemonset deployment disruption endpointslice ephemeral-volume job namespace
    persistentvolume-binder persistentvolume-expander replicaset replicationcontroller resourcequota serviceaccount
    serviceaccount-token statefulset ttl ttl-after-finished
"""
ALIASES: Mapping[str, str] = {name: f"{name}-controller" for name in _SHORT.split()} | {
    "attachdetach": "persistentvolume-attach-detach-controller",
    "cloud-node-lifecycle": "cloud-node-lifecycle-controller",
    "bootstrapsigner": "bootstrap-signer-controller",
    "csrapproving": "certificatesigningrequest-approving-controller",
    "csrcleaner": "certificatesigningrequest-cleaner-controller",
    "csrsigning": "certificatesigningrequest-signing-controller",
    "endpoint": "endpoints-controller",
    "endpointslicemirroring": "endpointslice-mirroring-controller",
    "garbagecollector": "garbage-collector-controller",
    "horizontalpodautoscaling": "horizontal-pod-autoscaler-controller",
    "legacy-service-account-token-cleaner": "legacy-serviceaccount-token-cleaner-controller",
    "nodeipam": "node-ipam-controller",
    "nodelifecycle": "node-lifecycle-controller",
    "podgc": "pod-garbage-collector-controller",
    "pv-protection": "persistentvolume-protection-controller",
    "pvc-protection": "persistentvolumeclaim-protection-controller",
    "resource-claim-controller": "resourceclaim-controller",
    "root-ca-cert-publisher": "root-ca-certificate-publisher-controller",
    "route": "node-route-controller",
    "service": "service-lb-controller",
    "svm": "storage-version-migrator-controller",
    "tokencleaner": "token-cleaner-controller",
}
"""The names that controllers had before they were all named alike, which `--controllers` takes still."""


def load(name: str) -> Controller:
    """The controller of that name. Raises KeyError for one that does not exist."""
    module, _, attribute = ALL[name].partition(":")
    found = getattr(import_module(f"{__name__}.{module}"), attribute or "CONTROLLER")
    assert isinstance(found, Controller)
    return found


def select(wanted: Iterable[str]) -> list[str]:
    """The names that a `--controllers` list means: `*` all but OFF, `name` that one, `-name` not that one.

    Raises ValueError for a name that no controller has, with kube-controller-manager's words.
    """
    given = [term.strip() for term in wanted if term.strip()]
    terms = [f"-{ALIASES.get(term[1:], term[1:])}" if term[0] == "-" else ALIASES.get(term, term) for term in given]
    for term in terms:
        if term != "*" and term.removeprefix("-") not in ALL.keys() | GATED:
            raise ValueError(f'"{term}" is not in the list of known controllers')
    every = "*" in terms
    return [name for name in ALL if name in terms or (every and name not in OFF and f"-{name}" not in terms)]
