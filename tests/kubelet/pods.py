"""Pods for the kubelet's tests."""

from __future__ import annotations

from typing import Any

_count = 0


def container(name: str = "main", **more: Any) -> dict[str, Any]:
    out = {
        "name": name,
        "image": "nginx:1.7.9",
        "imagePullPolicy": "IfNotPresent",
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "resources": {},
    }
    out.update(more)
    return out


def pod(name: str = "web", *containers: dict[str, Any], uid: str = "", **spec: Any) -> dict[str, Any]:
    global _count
    _count += 1
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid or f"uid-{name}-{_count}", "generation": 1},
        "spec": {
            "nodeName": "node-1",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "enableServiceLinks": True,
            "containers": list(containers) or [container()],
            **spec,
        },
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    }
