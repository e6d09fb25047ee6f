"""Services and slices in few words."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def service(name: str = "web", ip: str = "10.96.0.7", ports: list[Object] | None = None, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": ports or [{"port": 80, "protocol": "TCP"}], **spec},
    }


def endpoint(ip: str, *, node: str = "here", ready: bool = True, **more: Any) -> Object:
    return {"addresses": [ip], "nodeName": node, "conditions": {"ready": ready, **more.pop("conditions", {})}, **more}


def slice_of(name: str, *endpoints: Object, port: int = 8080, protocol: str = "TCP", **more: Any) -> Object:
    made: Object = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{more.pop('suffix', 'a')}",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"port": port, "protocol": protocol, "name": more.pop("port_name", "")}],
        "endpoints": list(endpoints),
    }
    return made | more
