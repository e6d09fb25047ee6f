"""DaemonSet.

The count of template changes, a field of old versions, lives on as an annotation. Source: SetDefaults_DaemonSet,
ValidateDaemonSet, pkg/registry/apps/daemonset/strategy.go, the apps/v1 conversion, printDaemonSet.
"""

from __future__ import annotations

import re

from steersman.api import errors, labels
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy, workload
from steersman.api.kinds.podspec import defaults
from steersman.api.kinds.podspec import validate as podspec
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, dig, label_text, number, of_template, selector_text, wide
from steersman.api.validation import Struct, immutable, invalid, not_negative, not_supported, quote, required, struct

GENERATION = "deprecated.daemonset.template.generation"

_STATUS = {
    "currentNumberScheduled": 0,
    "numberMisscheduled": 0,
    "desiredNumberScheduled": 0,
    "numberReady": 0,
}
_COUNTERS = (
    *_STATUS,
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
)


_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


def default(daemonset: Object) -> None:
    """One pod at a time is replaced, none beside it."""
    _check_generation(daemonset)
    spec = daemonset.setdefault("spec", {})
    how = spec.setdefault("updateStrategy", {})
    how["type"] = how.get("type") or "RollingUpdate"
    if how["type"] == "RollingUpdate":
        how.setdefault("rollingUpdate", {}).setdefault("maxUnavailable", 1)
    for key in ("maxUnavailable", "maxSurge"):
        if how.get("rollingUpdate") is not None:
            how["rollingUpdate"].setdefault(key, 0)
    spec.setdefault("revisionHistoryLimit", 10)
    defaults.template(spec)
    status = daemonset.setdefault("status", {})
    for key, value in _STATUS.items():
        status.setdefault(key, value)


def prepare_create(daemonset: Object) -> None:
    """The first template."""
    daemonset["status"] = dict(_STATUS)
    daemonset["metadata"]["generation"] = 1
    _set(daemonset, max(_generation(daemonset), 1))


def prepare_update(new: Object, old: Object) -> None:
    """Changes of the template are counted apart from those of the spec."""
    strategy.copy_field("status", new, old)
    changed = strategy.differs(new["spec"].get("template"), old["spec"].get("template"))
    _set(new, max(_generation(old), 1) + changed)
    strategy.count(new, old, changed=changed or strategy.differs(new["spec"], old["spec"]))


def _check_generation(daemonset: Object) -> None:
    """An annotation that is no number cannot be converted. Raises ApiError."""
    text = (daemonset["metadata"].get("annotations") or {}).get(GENERATION)
    if text is None or (_INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**63):
        return
    why = "value out of range" if _INTEGER.fullmatch(text) else "invalid syntax"
    text = f"strconv.ParseInt: parsing {quote(text)}: {why}"
    raise errors.bad_request(f'DaemonSet in version "v1" cannot be handled as a DaemonSet: {text}')


def _generation(daemonset: Object) -> int:
    text = (daemonset["metadata"].get("annotations") or {}).get(GENERATION, "")
    return int(text) if text.isdigit() and len(text) < 19 else 0


def _set(daemonset: Object, generation: int) -> None:
    annotations = daemonset["metadata"].get("annotations") or {}
    daemonset["metadata"]["annotations"] = {**annotations, GENERATION: str(generation)}


def validate(daemonset: Object) -> list[FieldError]:
    """Selector, template, strategy, numbers."""
    spec = daemonset["spec"]
    out = _selected(spec)
    out += not_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    how = spec.get("updateStrategy") or {}
    path = "spec.updateStrategy"
    if how.get("type") not in ("OnDelete", "RollingUpdate"):
        shown = struct(how, Type="", RollingUpdate=None)
        inner = struct(how.get("rollingUpdate"), MaxUnavailable=0, MaxSurge=0)
        out.append(
            not_supported(path, Struct({**(shown or {}), "RollingUpdate": inner}), ("RollingUpdate", "OnDelete"))
        )
    elif how["type"] == "RollingUpdate":
        rolling = how.get("rollingUpdate")
        out += [required(f"{path}.rollingUpdate")] if rolling is None else _rolling(f"{path}.rollingUpdate", rolling)
    return out + not_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))


def _selected(spec: Object) -> list[FieldError]:
    """A selector that is not there selects nothing; one that cannot be read is told of once."""
    selector = spec.get("selector")
    out = [] if selector is None else labels.validate(selector, "spec.selector")
    own = (spec["template"].get("metadata") or {}).get("labels")
    if not out and (selector is None or not labels.from_object(selector).matches(own or {})):
        text = "`selector` does not match template `labels`"
        out.append(invalid("spec.template.metadata.labels", own, text))
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        out.append(invalid("spec.selector", labels.shown(selector), "empty selector is invalid for daemonset"))
    return out + podspec.template("spec.template", spec["template"]) + workload.always(spec, "DaemonSet")


def _rolling(path: str, rolling: Object) -> list[FieldError]:
    pairs = [(f"{path}.{key}", rolling.get(key, 0)) for key in ("maxUnavailable", "maxSurge")]
    out = [error for where, value in pairs for error in workload.int_or_percent(where, value)]
    out += [error for where, value in pairs for error in workload.at_most_all(where, value)]
    less, more = (workload.amount(value) for _, value in pairs)
    if less and more:
        out.append(invalid(f"{path}.maxSurge", rolling["maxSurge"], "may not be set when maxUnavailable is non-zero"))
    elif not less and not more:
        out.append(required(f"{path}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return out


def validate_update(new: Object, old: Object) -> list[FieldError]:
    """The selector never changes."""
    before, after = labels.shown(old["spec"].get("selector")), labels.shown(new["spec"].get("selector"))
    return immutable("spec.selector", after, before)


def validate_status(new: Object, old: Object) -> list[FieldError]:
    """Counters."""
    status = new.get("status") or {}
    out = [error for name in _COUNTERS for error in not_negative(f"status.{name}", status.get(name))]
    return out + workload.collisions(new, old)


def _node_selector(daemonset: Object, now: float) -> str:
    return label_text(dig(daemonset, "spec", "template", "spec", "nodeSelector"))


DAEMONSET = Behavior(
    "apps",
    "DaemonSet",
    order="muv",
    default=default,
    warnings=workload.warnings("spec", "template"),
    validate=validate,
    validate_update=validate_update,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    updates={"status": Update(strategy.keep("spec"), validate_status)},
    columns=(
        NAME,
        number("Desired", "status", "desiredNumberScheduled"),
        number("Current", "status", "currentNumberScheduled"),
        number("Ready", "status", "numberReady"),
        number("Up-to-date", "status", "updatedNumberScheduled"),
        number("Available", "status", "numberAvailable"),
        Column("Node Selector", _node_selector),
        AGE,
        *of_template("spec", "template"),
        wide("Selector", lambda daemonset, now: selector_text(daemonset["spec"].get("selector"))),
    ),
)
