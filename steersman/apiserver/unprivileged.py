"""No privileged containers, in pods and in what pods are made of: `allow-privileged=false`.

Owns where each kind has its pod's spec, and the refusal. Called by `cluster` before a server starts. Source:
kubernetes' pkg/capabilities and ValidateSecurityContext in pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from steersman.api.errors import FieldError
from steersman.api.kind import Kind
from steersman.api.registry import Registry
from steersman.api.resource import Object
from steersman.api.validation import forbidden

_SPECS = {
    ("", "pods"): "spec",
    ("", "podtemplates"): "template.spec",
    ("batch", "cronjobs"): "spec.jobTemplate.spec.template.spec",
    **dict.fromkeys(
        [("", "replicationcontrollers"), ("batch", "jobs"),
         *(("apps", name) for name in ("daemonsets", "deployments", "replicasets", "statefulsets"))],
        "spec.template.spec",
    ),
}  # fmt: skip
_LISTS = ("initContainers", "containers", "ephemeralContainers")


def refuse(registry: Registry) -> None:
    """Let no container of any kind be privileged."""
    for where, path in _SPECS.items():
        if (kind := registry.find(*where)) is not None:
            registry.add(_refusing(kind, path))


def _refusing(kind: Kind, path: str) -> Kind:
    def validate(obj: Object) -> list[FieldError]:
        return [*kind.validate(obj), *_privileged(obj, path)]

    return replace(kind, validate=validate)


def _privileged(obj: Object, path: str) -> Iterator[FieldError]:
    spec: Any = obj
    for step in path.split("."):
        spec = (spec or {}).get(step)
    for name in _LISTS:
        for at, container in enumerate((spec or {}).get(name) or ()):
            if (container.get("securityContext") or {}).get("privileged"):
                where = f"{path}.{name}[{at}].securityContext.privileged"
                yield forbidden(where, "disallowed by cluster policy")
