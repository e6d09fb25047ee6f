"""Rules that all kinds with a pod template share: selector and template agree, counters make sense.

Owns `selected_template`, `counters` and `int_or_percent`. Called by apps, batch and ReplicationController. Source:
ValidatePodTemplateSpecForReplicaSet and its neighbours in pkg/apis/apps/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from steersman.api import labels, names
from steersman.api.errors import FieldError
from steersman.api.kinds.podspec import validate
from steersman.api.kinds.podspec import warnings as podwarnings
from steersman.api.resource import Object
from steersman.api.validation import forbidden, invalid, not_negative, not_supported, required

Complaints = list[FieldError]

_NO_MATCH = "`selector` does not match template `labels`"
_TOO_MANY = "cannot be greater than status.replicas"


def selected_template(spec: Object, kind: str, *, empty: str) -> Complaints:
    """spec.selector selects spec.template's pods, which restart always. `empty` names the kind in one message."""
    selector, path = spec.get("selector"), "spec"
    out: Complaints = []
    if selector is None:
        out.append(required(f"{path}.selector"))
    else:
        out += labels.validate(selector, f"{path}.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            text = f"empty selector is invalid for {empty}"
            out.append(invalid(f"{path}.selector", labels.shown(selector), text))
    try:
        chosen = labels.from_object(selector)
    except ValueError:
        return [*out, invalid(f"{path}.selector", labels.shown(selector), "invalid label selector")]
    return out + matched_template(spec, chosen, kind)


def matched_template(spec: Object, selector: labels.Selector, kind: str) -> Complaints:
    """spec.template is right, has the labels, and restarts always."""
    found = spec.get("template")
    path = "spec.template"
    if found is None:
        return [required(path)]
    own = (found.get("metadata") or {}).get("labels") or None
    out: Complaints = []
    if not selector.everything and not selector.matches(own):
        out.append(invalid(f"{path}.metadata.labels", own, _NO_MATCH))
    out += validate.template(path, found)
    return out + always(spec, kind)


def always(spec: Object, kind: str) -> Complaints:
    """spec.template's pods restart always and have no deadline."""
    inner = spec["template"].get("spec") or {}
    path = "spec.template.spec"
    out: Complaints = []
    if inner.get("restartPolicy") != "Always":
        out.append(not_supported(f"{path}.restartPolicy", inner.get("restartPolicy") or "", ("Always",)))
    if inner.get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {kind} is not Supported"
        out.append(forbidden(f"{path}.activeDeadlineSeconds", text))
    return out


def counters(status: Mapping[str, Any], fields: tuple[str, ...], *, of_ready: str) -> Complaints:
    """No counter is negative; none of `fields` is above replicas, available is not above ready."""
    path = "status"
    more = ("observedGeneration", "unavailableReplicas", "terminatingReplicas", "collisionCount")
    numbers = ("replicas", *fields, *more)
    out = [error for name in numbers for error in not_negative(f"{path}.{name}", status.get(name))]
    total = status.get("replicas") or 0
    above = [name for name in fields if (status.get(name) or 0) > total]
    out += [invalid(f"{path}.{name}", status.get(name) or 0, _TOO_MANY) for name in above]
    available = status.get("availableReplicas") or 0
    if available > (status.get("readyReplicas") or 0):
        out.append(invalid(f"{path}.availableReplicas", available, f"cannot be greater than {of_ready}"))
    return out


def collisions(new: Object, old: Object) -> Complaints:
    """status.collisionCount only grows."""
    now = (new.get("status") or {}).get("collisionCount")
    before = (old.get("status") or {}).get("collisionCount")
    if before is None or (now is not None and now >= before):
        return []
    return [invalid("status.collisionCount", now or 0, "cannot be decremented")]


def int_or_percent(path: str, value: int | str) -> Complaints:
    """A number of at least zero, or a percentage."""
    if isinstance(value, str):
        return [invalid(path, value, text) for text in names.percent(value)]
    return not_negative(path, value)


def amount(value: int | str | None) -> int:
    """The number, of items or of percent; zero for what is neither."""
    if isinstance(value, str):
        return int(value[:-1]) if not names.percent(value) else 0
    return value or 0


def at_most_all(path: str, value: int | str) -> Complaints:
    """Not above 100%."""
    too_much = isinstance(value, str) and amount(value) > 100
    return [invalid(path, value, "must not be greater than 100%")] if too_much else []


def hostname(metadata: Mapping[str, Any]) -> list[str]:
    """A warning about a name that pods' names are made of and that is no DNS label."""
    texts = names.dns_label(metadata.get("name") or "")
    text = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "
    return [f"{text}a DNS label is recommended: [{' '.join(texts)}]"] if texts else []


def warnings(*path: str, named: bool = False) -> Callable[[Object], list[str]]:
    """The warnings about the template of pods at a path."""

    def told(holder: Object) -> list[str]:
        found: Any = holder
        for step in path:
            found = (found or {}).get(step)
        out = hostname(holder["metadata"]) if named else []
        return out + podwarnings.template(".".join(path), found) if found else out

    return told
