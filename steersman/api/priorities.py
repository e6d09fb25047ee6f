"""In which order clients see groups and versions: what APIService objects say when nobody changed them.

Owns the numbers for built-in groups. Called by discovery and by whoever makes the objects. Pure. Source:
DefaultGenericAPIServicePriorities in kubernetes' pkg/controlplane/apiserver/aggregator.go, and cmd/kube-apiserver/app.
"""

from __future__ import annotations

_GROUPS = """
    apiregistration.k8s.io       20000 v1:0
    -                            18000 v1:1
    apps                         17800 v1:15
    events.k8s.io                17750 v1:15 v1beta1:5
    authentication.k8s.io        17700 v1:15 v1beta1:9 v1alpha1:1
    authorization.k8s.io         17600 v1:15
    autoscaling                  17500 v1:15 v2:30 v2beta1:9 v2beta2:1
    batch                        17400 v1:15 v1beta1:9 v2alpha1:9
    certificates.k8s.io          17300 v1:15 v1beta1:9 v1alpha1:1
    networking.k8s.io            17200 v1:15 v1beta1:9
    policy                       17100 v1:15 v1beta1:9
    rbac.authorization.k8s.io    17000 v1:15
    storage.k8s.io               16800 v1:15 v1beta1:9 v1alpha1:1
    apiextensions.k8s.io         16700 v1:15
    admissionregistration.k8s.io 16700 v1:15 v1beta1:12 v1alpha1:9
    scheduling.k8s.io            16600 v1:15 v1alpha2:2
    coordination.k8s.io          16500 v1:15 v1beta1:13 v1alpha2:12
    node.k8s.io                  16300 v1:15 v1alpha1:1 v1beta1:9
    resource.k8s.io              16200 v1:21 v1beta2:15 v1beta1:9 v1alpha3:1
    discovery.k8s.io             16200 v1:15 v1beta1:12
    flowcontrol.apiserver.k8s.io 16100 v1:21 v1beta3:18 v1beta2:15 v1beta1:12 v1alpha1:9
    internal.apiserver.k8s.io    16000 v1alpha1:9
    storagemigration.k8s.io      15800 v1:15 v1beta1:9
"""

Priority = tuple[int, int]
"""Of the group and of the version in it: the higher comes first."""


def _read(text: str) -> dict[tuple[str, str], Priority]:
    out: dict[tuple[str, str], Priority] = {}
    for line in text.split("\n"):
        if not line.strip():
            continue
        group, first, *versions = line.split()
        for each in versions:
            version, _, second = each.partition(":")
            out["" if group == "-" else group, version] = int(first), int(second)
    return out


BUILT_IN = _read(_GROUPS)
CUSTOM: Priority = (1000, 100)
"""Of groups that CustomResourceDefinitions define."""
