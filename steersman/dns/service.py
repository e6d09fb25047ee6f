"""The Service by which pods reach the name servers: plain manifests, for whoever sets a cluster up.

Owns their content. Pure. The name servers run on the nodes, not in pods, so the Service has no selector and its
EndpointSlice is written here. Called by `cluster`.
"""

from __future__ import annotations

from collections.abc import Mapping

from steersman.api.resource import Object

NAMESPACE, NAME = "kube-system", "kube-dns"
_LABELS = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
_PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))


def service(cluster_ip: str) -> Object:
    """kube-system/kube-dns at a fixed address."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": dict(_LABELS)},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ports": [{"name": name, "port": 53, "targetPort": 53, "protocol": protocol} for name, protocol in _PORTS],
        },
    }


def endpoint_slice(nodes: Mapping[str, str], port: int = 53) -> Object:
    """Where it leads: node name to the address of its name server. Pods ask their own node's, by hints."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": NAME,
            "namespace": NAMESPACE,
            "labels": {
                **_LABELS,
                "kubernetes.io/service-name": NAME,
                "endpointslice.kubernetes.io/managed-by": "steersman",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": name, "port": port, "protocol": protocol} for name, protocol in _PORTS],
        "endpoints": [
            {
                "addresses": [address],
                "nodeName": node,
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "hints": {"forNodes": [{"name": node}]},
            }
            for node, address in sorted(nodes.items())
        ],
    }
