"""PodNodeSelector: a namespace's pods run only on the nodes that its annotation, or the cluster's settings, choose.

Owns the annotation and the settings' form. Source: plugin/pkg/admission/podnodeselector.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from steersman.api import errors, names
from steersman.api.errors import ApiError
from steersman.api.resource import Object
from steersman.api.validation import invalid
from steersman.apiserver.admission import matching
from steersman.apiserver.call import Call

NAME = "PodNodeSelector"
_ANNOTATION = "scheduler.alpha.kubernetes.io/node-selector"
_DEFAULT = "clusterDefaultNodeSelector"

Selectors = Mapping[str, str]


def configuration(given: Any) -> Selectors:
    """Selectors by namespace, and the cluster's default. Raises ValueError."""
    found = (given or {}).get("podNodeSelectorPluginConfig") or {}
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise ValueError("podNodeSelectorPluginConfig: not a map of strings")
    return found


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Add the namespace's selector to a new pod's. Raises ApiError where they contradict each other."""
    if obj is None or not _concerned(call):
        return
    wanted = _wanted(call, obj)
    if wanted:
        obj["spec"]["nodeSelector"] = {**wanted, **(obj["spec"].get("nodeSelector") or {})}
    _listed(call, obj)


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse what came to contradict the namespace. Raises ApiError."""
    if obj is not None and _concerned(call):
        _wanted(call, obj)
        _listed(call, obj)


def _concerned(call: Call) -> bool:
    return (
        (call.kind.group, call.kind.plural) == ("", "pods")
        and not call.info.subresource
        and (call.operation == "CREATE")
    )


def _settings(call: Call) -> Selectors:
    found: Selectors = call.services.extras.get(NAME) or {}
    return found


def _wanted(call: Call, pod: Object) -> dict[str, str]:
    """The selector of the pod's namespace, which the pod's own does not contradict."""
    namespace = matching.namespace(call)
    if namespace is None:
        raise ApiError(500, "", f"namespace {call.info.namespace} does not exist")
    stated = (namespace["metadata"].get("annotations") or {}).get(_ANNOTATION)
    wanted = parse(_settings(call).get(_DEFAULT, "") if stated is None else stated)
    own = pod["spec"].get("nodeSelector") or {}
    if any(own.get(key, value) != value for key, value in wanted.items()):
        raise _refused(pod, "pod node label selector conflicts with its namespace node label selector")
    return wanted


def _listed(call: Call, pod: Object) -> None:
    allowed = parse(_settings(call).get(call.info.namespace, ""))
    own = pod["spec"].get("nodeSelector") or {}
    if allowed and any(allowed.get(key) != value for key, value in own.items()):
        raise _refused(pod, "pod node label selector labels conflict with its namespace whitelist")


def _refused(pod: Object, why: str) -> ApiError:
    return errors.forbidden("", "pods", pod["metadata"].get("name", ""), why)


def parse(text: str) -> dict[str, str]:
    """`key=value` pairs. Raises ApiError 500, as apimachinery's ConvertSelectorToLabelsMap complains."""
    found: dict[str, str] = {}
    for pair in text.split(",") if text else ():
        parts = pair.split("=")
        if len(parts) != 2:
            raise ApiError(500, "", f"invalid selector: [{' '.join(parts)}]")
        key, value = (part.strip() for part in parts)
        for wrong, texts in ((key, names.qualified(key)), (value, names.label_value(value))):
            if texts:
                place = "<nil>" if wrong is key else f"[{key}]"
                raise ApiError(500, "", str(invalid(place, wrong, "; ".join(texts))))
        found[key] = value
    return found
