"""Whose a pod is: the selector of the Services that mean it and of the controller that owns it.

Owns what default spreading needs of Services, ReplicationControllers, ReplicaSets and StatefulSets. The loop tells,
PodTopologySpread asks. Pods of one namespace with the same labels and owner share an answer, kept until something
in that namespace changes. Source: kube-scheduler's framework/plugins/helper/spread.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import labels
from steersman.api.labels import EVERYTHING, Selector
from steersman.api.resource import Object
from steersman.scheduler.podinfo import PodInfo

_KINDS = {("v1", "ReplicationController"), ("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet")}
_ANSWERS = 4096  # remembered in one namespace
_Key = tuple[frozenset[tuple[str, str]], tuple[str, str] | None]


class Owners:
    """See the module."""

    def __init__(self) -> None:
        self._services: dict[str, dict[str, Mapping[str, str]]] = {}
        self._controllers: dict[tuple[str, str, str], Selector] = {}  # kind, namespace, name
        self._answers: dict[str, dict[_Key, Selector]] = {}

    def set_service(self, namespace: str, name: str, spec: Mapping[str, Any] | None) -> None:
        """A Service's spec; None when it is gone. One without a selector means nobody."""
        known = self._services.setdefault(namespace, {})
        selector = None if spec is None else spec.get("selector")
        if known.get(name) == selector:
            return
        if selector is None:
            known.pop(name, None)
        else:
            known[name] = selector
        self._answers.pop(namespace, None)

    def set_controller(self, kind: str, namespace: str, name: str, spec: Mapping[str, Any] | None) -> None:
        """A controller's spec; None when it is gone."""
        at = (kind, namespace, name)
        chosen = None
        if spec is not None:
            given = spec.get("selector")
            chosen = labels.from_set(given) if kind == "ReplicationController" else labels.from_object(given)
        if self._controllers.get(at) == chosen:
            return
        if chosen is None:
            del self._controllers[at]
        else:
            self._controllers[at] = chosen
        self._answers.pop(namespace, None)

    def selector(self, pod: PodInfo) -> Selector:
        """What selects the pods that belong together with this one; everything where nobody claims it."""
        if pod.namespace not in self._services and not self._controllers:
            return EVERYTHING
        key = (frozenset(pod.labels.items()), _controller(pod.pod))
        answers = self._answers.setdefault(pod.namespace, {})
        found = answers.get(key)
        if found is None:
            if len(answers) >= _ANSWERS:
                answers.clear()
            found = answers[key] = self._find(pod, key[1])
        return found

    def _find(self, pod: PodInfo, owner: tuple[str, str] | None) -> Selector:
        merged: dict[str, str] = {}
        for wanted in self._services.get(pod.namespace, {}).values():
            if wanted.items() <= pod.labels.items():
                merged |= wanted
        found = list(labels.from_set(merged).requirements or ())
        if owner is not None and (chosen := self._controllers.get((owner[0], pod.namespace, owner[1]))) is not None:
            found += chosen.requirements or ()
        return Selector(dict.fromkeys(found))


def _controller(pod: Object) -> tuple[str, str] | None:
    """Kind and name of the controller, where it is one that has a selector."""
    for reference in pod["metadata"].get("ownerReferences") or ():
        if reference.get("controller") and (reference["apiVersion"], reference["kind"]) in _KINDS:
            return reference["kind"], reference["name"]
    return None
