"""PodTolerationRestriction: what a namespace's pods tolerate without asking, and what they may tolerate at all.

Owns the two annotations, the settings' form, and when one toleration includes another. Source:
plugin/pkg/admission/podtolerationrestriction; pkg/util/tolerations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from steersman.api import pods
from steersman.api.errors import ApiError
from steersman.api.kinds.podspec import scheduling
from steersman.api.resource import Object
from steersman.apiserver.admission import matching
from steersman.apiserver.call import Call

NAME = "PodTolerationRestriction"
_DEFAULTS = "scheduler.alpha.kubernetes.io/defaultTolerations"
_ALLOWED = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"
_PRESSURE = {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}

Tolerations = Sequence[Object]


@dataclass(frozen=True)
class Configuration:
    """What holds where a namespace says nothing."""

    defaults: Tolerations = ()
    allowed: Tolerations = ()


def configuration(given: Any) -> Configuration:
    """Read podtolerationrestriction.admission.k8s.io/v1alpha1. Raises ValueError."""
    given = given or {}
    found = Configuration(given.get("default") or [], given.get("whitelist") or [])
    problems = scheduling.tolerations("podtolerationrestriction.default", found.defaults)
    problems += scheduling.tolerations("podtolerationrestriction.whitelist", found.allowed)
    if problems:
        raise ValueError(f"invalid config: [{', '.join(map(str, problems))}]")
    return found


def mutate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Give a pod its namespace's tolerations. Raises ApiError."""
    if obj is None or not _concerned(call):
        return
    extra: list[Object] = []
    if call.operation == "CREATE":
        stated = _stated(call, _DEFAULTS)
        extra += _settings(call).defaults if stated is None else stated
    if pods.qos_class(obj) != pods.BEST_EFFORT:
        extra.append(dict(_PRESSURE))
    if extra:
        obj["spec"]["tolerations"] = merged([*(obj["spec"].get("tolerations") or ()), *extra])
    validate(call, obj, old)


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse tolerations that are not allowed. Raises ApiError."""
    if obj is None or not _concerned(call) or not obj["spec"].get("tolerations"):
        return
    allowed, scope = _stated(call, _ALLOWED), "namespace"
    if allowed is None:
        allowed, scope = list(_settings(call).allowed), "cluster"
    if allowed and not all(any(_includes(each, one) for each in allowed) for one in obj["spec"]["tolerations"]):
        said = "pod tolerations (possibly merged with namespace default tolerations) conflict with its"
        raise ApiError(500, "", f"{said} {scope} whitelist")


def _concerned(call: Call) -> bool:
    if (call.kind.group, call.kind.plural) != ("", "pods") or call.info.subresource:
        return False
    return call.operation in ("CREATE", "UPDATE")


def _settings(call: Call) -> Configuration:
    found: Configuration = call.services.extras.get(NAME) or Configuration()
    return found


def _stated(call: Call, annotation: str) -> list[Object] | None:
    """What the namespace's annotation says; None when it says nothing."""
    namespace = matching.namespace(call) or {"metadata": {}}
    text = (namespace["metadata"].get("annotations") or {}).get(annotation)
    if text is None or text == "":
        return None if text is None else []
    try:
        return msgspec.json.decode(text, type=list[dict[str, Any]])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ApiError(500, "", f"{annotation}: {error}") from None


def merged(every: Tolerations) -> list[Object]:
    """Without those that another one includes; of equal ones the first."""
    out: list[Object] = []
    for at, one in enumerate(every):
        later = (each for each in every[at + 1 :] if _plain(each) != _plain(one))
        if not any(_includes(each, one) for each in (*out, *later)):
            out.append(one)
    return out


def _plain(toleration: Object) -> Object:
    return {key: value for key, value in toleration.items() if value not in ("", None)}


def _includes(wide: Object, one: Object) -> bool:
    """Whether `wide` tolerates all that `one` does."""
    wide, one = _plain(wide), _plain(one)
    if wide == one:
        return True
    operator = wide.get("operator", "")
    if one.get("key") != wide.get("key") and ("key" in wide or operator != "Exists"):
        return False
    if one.get("effect") != wide.get("effect") and "effect" in wide:
        return False
    longest = wide.get("tolerationSeconds")
    if (
        wide.get("effect") == "NoExecute"
        and longest is not None
        and one.get("tolerationSeconds", longest + 1) > longest
    ):
        return False
    if operator in ("Equal", ""):
        return one.get("operator") == "Equal" and one.get("value") == wide.get("value")
    return operator == "Exists"
