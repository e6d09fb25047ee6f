"""Events about pods and their containers.

Owns the reference that says which container an event is about. Called by everything in the kubelet that tells people
something. The texts are with whoever knows what happened.
"""

from __future__ import annotations

from typing import Literal, Protocol

from steersman.api.resource import Object
from steersman.kubelet import podspec

EventType = Literal["Normal", "Warning"]


class Recorder(Protocol):
    """What writes events (`client.events.EventRecorder`)."""

    def event(self, regarding: Object, type: EventType, reason: str, message: str) -> None:
        """Record one event; never waits, never fails."""
        ...


class Teller:
    """Events about one pod."""

    def __init__(self, recorder: Recorder, pod: Object) -> None:
        self._recorder = recorder
        self._reference = reference(pod)
        self._pod = pod

    def pod(self, type: EventType, reason: str, message: str) -> None:
        """An event about the pod itself."""
        self._recorder.event(self._reference, type, reason, message)

    def container(self, name: str, type: EventType, reason: str, message: str) -> None:
        """An event about one of its containers."""
        found = podspec.container_named(self._pod, name)
        field = f"spec.{found[0] if found else 'containers'}{{{name}}}"
        self._recorder.event({**self._reference, "fieldPath": field}, type, reason, message)


def reference(pod: Object) -> Object:
    """An ObjectReference to a pod."""
    meta = pod["metadata"]
    known = {key: meta[key] for key in ("name", "namespace", "uid") if meta.get(key)}
    return {"apiVersion": "v1", "kind": "Pod", **known}
