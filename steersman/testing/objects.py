"""Builders of objects for tests: the few fields that a test is about, around the least that the API asks for.

Owns nothing but their shapes; what a caller gives goes into `spec` (or the place that the kind has for it) as it is.
Called by tests, ours and our users'. Every builder returns a new dict with apiVersion and kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steersman.api.resource import Object

IMAGE = "busybox"


def _object(api_version: str, kind: str, name: str, labels: Mapping[str, str] | None = None, **parts: Any) -> Object:
    meta: Object = {"name": name} | ({"labels": dict(labels)} if labels else {})
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **parts}


def container(name: str = "main", *command: str, image: str = IMAGE, **fields: Any) -> Object:
    """One container; `fields` such as `env`, `resources`, `volumeMounts`."""
    return {"name": name, "image": image, **({"command": list(command)} if command else {}), **fields}


def pod(name: str, *containers: Object, labels: Mapping[str, str] | None = None, **spec: Any) -> Object:
    """A pod of these containers, or of one; `spec` such as `nodeName`, `volumes`."""
    return _object("v1", "Pod", name, labels, spec={"containers": list(containers) or [container()], **spec})


def _template(labels: Mapping[str, str], containers: Sequence[Object], spec: Mapping[str, Any]) -> Object:
    return {"metadata": {"labels": dict(labels)}, "spec": {"containers": list(containers) or [container()], **spec}}


def deployment(
    name: str, *containers: Object, replicas: int = 1, pod_spec: Mapping[str, Any] = {}, **spec: Any
) -> Object:
    """A Deployment whose pods carry the label `app` with its name."""
    labels = {"app": name}
    own = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": _template(labels, containers, pod_spec),
    }
    return _object("apps/v1", "Deployment", name, labels, spec=own | spec)


def job(name: str, *containers: Object, pod_spec: Mapping[str, Any] = {}, **spec: Any) -> Object:
    """A Job whose pods are not restarted."""
    template = _template({"job": name}, containers, {"restartPolicy": "Never", **(pod_spec or {})})
    return _object("batch/v1", "Job", name, spec={"template": template, **spec})


def service(name: str, port: int = 80, *, app: str = "", **spec: Any) -> Object:
    """A Service in front of the pods with label `app`, by default those called as it is."""
    return _object("v1", "Service", name, spec={"selector": {"app": app or name}, "ports": [{"port": port}], **spec})


def config_map(name: str, **data: str) -> Object:
    """A ConfigMap."""
    return _object("v1", "ConfigMap", name, data=data)


def secret(name: str, **data: str) -> Object:
    """An Opaque Secret; the values are plain text."""
    return _object("v1", "Secret", name, stringData=data)


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Object:
    """A Namespace."""
    return _object("v1", "Namespace", name, labels)


def node(
    name: str, labels: Mapping[str, str] | None = None, *, cpu: str = "4", memory: str = "8Gi", pods: str = "110"
) -> Object:
    """A Node that is Ready and has room; the status must be written by itself."""
    room = {"cpu": cpu, "memory": memory, "pods": pods}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    return _object("v1", "Node", name, labels, status={"capacity": room, "allocatable": room, "conditions": [ready]})
