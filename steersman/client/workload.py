"""Rules that the controllers of pods share: templates and their hashes, availability, whom to delete first, conditions.

Owns pure functions on JSON objects. Called by workload controllers, which do not know each other.
Source: kubernetes' pkg/controller (controller_utils) for behaviour.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import msgspec

from steersman.api import pods
from steersman.api.resource import Object, Resource
from steersman.lib.clock import parse_rfc3339, rfc3339

Conditions = list[Object]

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # no vowels, no look-alikes: never a word, always a valid label
_HASH_LENGTH = 10
_encode = msgspec.json.Encoder(order="deterministic").encode
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}


def controller_of(obj: Object) -> Object | None:
    """The owner reference of the object's controller."""
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((each for each in owners if each.get("controller")), None)


def is_controlled_by(obj: Object, owner: Object) -> bool:
    """Whether `owner` is the object's controller, this very one and not one of the same name."""
    reference = controller_of(obj)
    return reference is not None and reference["uid"] == owner["metadata"]["uid"]


def owner_reference(owner: Object, resource: Resource) -> Object:
    """What a controller writes on its children."""
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def pod_from_template(template: Object, owner: Object, resource: Resource) -> Object:
    """A pod that `owner` may create: the template with a generated name and the owner's reference."""
    meta = template.get("metadata") or {}
    pod_meta: Object = {
        "generateName": f"{owner['metadata']['name']}-",
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [owner_reference(owner, resource)],
    }
    for field in ("labels", "annotations", "finalizers"):
        if meta.get(field):
            pod_meta[field] = meta[field].copy()
    return {"apiVersion": "v1", "kind": "Pod", "metadata": pod_meta, "spec": template["spec"]}


def safe_hash(value: object, salt: int | None = None) -> str:
    """A short text for a JSON value, valid in names and labels; the same in every process and release."""
    digest = hashlib.blake2b(_encode([value, salt] if salt else value), digest_size=8).digest()
    number = int.from_bytes(digest)
    out = ""
    for _ in range(_HASH_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        out += _ALPHABET[digit]
    return out


def without_label(template: Object, label: str) -> Object:
    """A pod template without one label; templates that differ in nothing else compare equal."""
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value}
    meta.pop("creationTimestamp", None)
    if label in meta.get("labels", {}):
        meta["labels"] = {key: value for key, value in meta["labels"].items() if key != label}
        if not meta["labels"]:
            del meta["labels"]
    return {"metadata": meta, "spec": template.get("spec")}


def scaled(value: int | str | None, total: int, *, up: bool) -> int:
    """An IntOrString of `total`: a number, or a percentage rounded up or down. Raises ValueError."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    if not value.endswith("%"):
        raise ValueError(f"invalid value for IntOrString: {value!r}")
    share = int(value[:-1]) * total
    return -(-share // 100) if up else share // 100


def created_at(obj: Object) -> float:
    """Unix seconds of creation; 0 when it is not known."""
    stamp = obj["metadata"].get("creationTimestamp")
    return parse_rfc3339(stamp) if stamp else 0.0


def ready_since(pod: Object) -> float | None:
    """Unix seconds since when the pod is ready; None when it is not."""
    ready = pods.condition(pod, "Ready")
    if ready is None or ready.get("status") != "True":
        return None
    stamp = ready.get("lastTransitionTime")
    return parse_rfc3339(stamp) if stamp else 0.0


def is_available(pod: Object, min_ready_seconds: int, now: float) -> bool:
    """Whether the pod has been ready for long enough."""
    return available_in(pod, min_ready_seconds, now) == 0


def available_in(pod: Object, min_ready_seconds: int, now: float) -> float | None:
    """Seconds until the pod counts as available; None when it is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    return max(since + min_ready_seconds - now, 0.0) if min_ready_seconds else 0.0


def soonest_available(found: Iterable[Object], min_ready_seconds: int, now: float) -> float:
    """Seconds until the next of these pods becomes available; 0 when none is on the way."""
    waits = [available_in(pod, min_ready_seconds, now) for pod in found] if min_ready_seconds else []
    return min((wait for wait in waits if wait), default=0.0)


def to_delete(active: Sequence[Object], count: int, related: Iterable[Object], now: float) -> list[Object]:
    """The pods that are missed least; `related` are all that share the purpose, to spread what stays over nodes."""
    if count >= len(active):
        return list(active)
    crowd: dict[str, int] = {}
    for pod in related:
        node = pod["spec"].get("nodeName") or ""
        crowd[node] = crowd.get(node, 0) + 1
    return sorted(active, key=lambda pod: _regret(pod, crowd, now))[:count]


def _regret(pod: Object, crowd: dict[str, int], now: float) -> tuple[object, ...]:
    """Small for pods that should go first. Ages count by powers of two, as the original's do since 1.22."""
    node = pod["spec"].get("nodeName") or ""
    since = ready_since(pod)
    return (
        bool(node),
        _PHASES.get((pod.get("status") or {}).get("phase", ""), 1),
        since is not None,
        _cost(pod),
        -crowd.get(node, 0),
        _log_age(since, now) if since is not None else 0,
        -_restarts(pod),
        _log_age(created_at(pod), now),
        pod["metadata"]["uid"],
    )


def _cost(pod: Object) -> int:
    try:
        return int((pod["metadata"].get("annotations") or {}).get(_DELETION_COST, "0"))
    except ValueError:
        return 0


def _restarts(pod: Object) -> int:
    return max(
        (each.get("restartCount", 0) for each in (pod.get("status") or {}).get("containerStatuses") or ()), default=0
    )


def _log_age(stamp: float, now: float) -> int:
    age = now - stamp
    return int(math.log2(age)) if age >= 1 else -1


def condition(conditions: Iterable[Object], type: str) -> Object | None:
    """The condition of a type."""
    return next((each for each in conditions if each["type"] == type), None)


def set_condition(
    conditions: Conditions,
    type: str,
    status: str,
    reason: str,
    message: str,
    now: float,
    *,
    updated: bool = False,
    generation: int = 0,
) -> None:
    """Put a condition in place; the same status and reason again change nothing. `updated` adds lastUpdateTime.

    `generation` is the one that was seen, for conditions that tell; 0 for others.
    """
    stamp = rfc3339(now)
    old = condition(conditions, type)
    if old is not None and old["status"] == status and old.get("reason", "") == reason:
        return
    new: Object = {"type": type, "status": status}
    if updated:
        new["lastUpdateTime"] = stamp
    new["lastTransitionTime"] = old["lastTransitionTime"] if old is not None and old["status"] == status else stamp
    new |= {key: value for key, value in (("reason", reason), ("message", message)) if value}
    if generation:
        new["observedGeneration"] = generation
    drop_condition(conditions, type)
    conditions.append(new)


def drop_condition(conditions: Conditions, type: str) -> None:
    """Remove the condition of a type."""
    conditions[:] = [each for each in conditions if each["type"] != type]


def counts(values: dict[str, int | None], *, always: Iterable[str] = ()) -> Object:
    """Numbers of a status as they are written: zeros are left out, except those named in `always`."""
    kept = set(always)
    return {key: value for key, value in values.items() if value or (key in kept and value is not None)}
