"""What the kubelet writes on sandboxes and containers so that it can find everything again after its own death.

Owns the names of the labels and annotations and the way from a pod to them and back. Pure. The names are the
original's, since log collectors and `crictl` users look for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steersman.api.resource import Object
from steersman.kubelet import podspec

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
HASH = "io.kubernetes.container.hash"
RESTART_COUNT = "io.kubernetes.container.restartCount"
MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"
MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy"
PRE_STOP = "io.kubernetes.container.preStopHandler"
GRACE_PERIOD = "io.kubernetes.pod.terminationGracePeriod"
IMAGE = "io.kubernetes.container.image"
MESSAGE_FILE = "io.steersman.termination-log"
"""The host's file behind the termination message path."""


def pod_labels(pod: Object) -> dict[str, str]:
    """Who a sandbox belongs to."""
    namespace, name = podspec.key(pod)
    return {POD_NAME: name, POD_NAMESPACE: namespace, POD_UID: podspec.uid(pod)}


def container_labels(pod: Object, container: Object) -> dict[str, str]:
    """Who a container belongs to."""
    return {**pod_labels(pod), CONTAINER_NAME: container["name"]}


def container_annotations(pod: Object, container: Object, restart_count: int, message_file: str) -> dict[str, str]:
    """What is needed to report on a container, and to end it well, when its pod is no longer known."""
    out = {
        HASH: podspec.container_hash(container),
        RESTART_COUNT: str(restart_count),
        MESSAGE_PATH: container.get("terminationMessagePath", ""),
        MESSAGE_POLICY: container.get("terminationMessagePolicy", ""),
        IMAGE: container.get("image", ""),
    }
    if message_file:
        out[MESSAGE_FILE] = message_file
    grace = pod["spec"].get("terminationGracePeriodSeconds")
    if grace is not None:
        out[GRACE_PERIOD] = str(grace)
    pre_stop = (container.get("lifecycle") or {}).get("preStop")
    if pre_stop:
        out[PRE_STOP] = json.dumps(pre_stop)
    return out


@dataclass(frozen=True, slots=True)
class Owner:
    """The pod that a sandbox or container says it belongs to."""

    namespace: str
    name: str
    uid: str


def owner(labels: Mapping[str, str]) -> Owner | None:
    """None for something that the kubelet did not make."""
    uid = labels.get(POD_UID)
    return Owner(labels.get(POD_NAMESPACE, ""), labels.get(POD_NAME, ""), uid) if uid else None


def restart_count(annotations: Mapping[str, str]) -> int:
    """0 when it is missing or not a number."""
    text = annotations.get(RESTART_COUNT, "0")
    return int(text) if text.isdigit() else 0


def remembered_pod(who: Owner, annotations: Mapping[str, str], container_name: str) -> tuple[Object, Object]:
    """A pod and container with just what killing needs, for a pod that the API has forgotten."""
    spec: dict[str, Any] = {}
    if annotations.get(GRACE_PERIOD, "").isdigit():
        spec["terminationGracePeriodSeconds"] = int(annotations[GRACE_PERIOD])
    container: dict[str, Any] = {"name": container_name}
    try:
        hook = json.loads(annotations.get(PRE_STOP, "null"))
    except ValueError:
        hook = None
    if isinstance(hook, dict):
        container["lifecycle"] = {"preStop": hook}
    spec["containers"] = [container]
    meta = {"namespace": who.namespace, "name": who.name, "uid": who.uid}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, container
