"""Job: generated labels and selector, completion modes, failure and success policies.

`prepare_create` needs the uid. Source: SetDefaults_Job, ValidateJob, pkg/registry/batch/job/strategy.go, printJob.
"""

from __future__ import annotations

from typing import Any

from steersman.api import labels, names
from steersman.api.errors import FieldError
from steersman.api.fields import number_at
from steersman.api.godump import dump
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.batch import jobspec, jobstatus
from steersman.api.kinds.podspec import defaults
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, dig, human, of_template, seconds, selector_text, wide
from steersman.api.validation import IMMUTABLE, alike, immutable, invalid, required

Complaints = list[FieldError]

UID = "batch.kubernetes.io/controller-uid"
JOB = "batch.kubernetes.io/job-name"
OLD_UID = "controller-uid"
OLD_JOB = "job-name"

_SCHEDULING = ("nodeSelector", "tolerations", "schedulingGates")
_FIXED = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
_SHOWN = {"podFailurePolicy": "batch/v1:PodFailurePolicy", "successPolicy": "batch/v1:SuccessPolicy"}


def default(job: Object) -> None:
    """One completion, six retries; labels from the template."""
    spec = job.setdefault("spec", {})
    default_spec(spec)
    labels = dig(spec, "template", "metadata", "labels")
    if labels and not job["metadata"].get("labels"):
        job["metadata"]["labels"] = labels  # the same, as in the original: what is generated later is in both
    job.setdefault("status", {})


def default_spec(spec: Object) -> None:
    """What a Job gets, and a CronJob's template only in part (`template_spec`)."""
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 2**31 - 1 if "backoffLimitPerIndex" in spec else 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    spec.setdefault("manualSelector", False)
    template_spec(spec)


def template_spec(spec: Object) -> None:
    """The parts that a Job's spec inside a CronJob is defaulted in too."""
    if spec.get("podFailurePolicy") is not None:
        spec["podFailurePolicy"].setdefault("rules", None)
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern["status"] = pattern.get("status") or "True"
    defaults.template(spec)


def prepare_create(job: Object) -> None:
    """Its pods are told from others by its uid.

    A Job without labels takes its pods', generated ones too: the original defaults again when it reads what it stored.
    """
    job["status"] = {}
    job["metadata"]["generation"] = 1
    spec = job["spec"]
    if spec.get("manualSelector"):
        return
    metadata = spec["template"].setdefault("metadata", {})
    given = metadata.get("labels")
    labels = metadata["labels"] = dict(given or {})
    name, uid = job["metadata"].get("name", ""), job["metadata"].get("uid", "")
    for key, value in ((OLD_JOB, name), (JOB, name), (OLD_UID, uid), (UID, uid)):
        labels.setdefault(key, value)
    selector = spec["selector"] = dict(spec.get("selector") or {})
    selector["matchLabels"] = {UID: uid, **(selector.get("matchLabels") or {})}
    shared = given is not None and job["metadata"].get("labels") is given
    if shared or (not job["metadata"].get("labels") and not names.label_value(name)):
        job["metadata"]["labels"] = dict(labels)


def validate(job: Object) -> Complaints:
    """The generated selector, the spec, the names of its pods."""
    spec, metadata = job["spec"], job["metadata"]
    out = _generated(spec, metadata)
    out += jobspec.validate("spec", spec)
    out += jobspec.selector("spec", spec)
    completions = spec.get("completions") or 0
    if spec.get("completionMode") == "Indexed" and completions > 0:
        host = f"{metadata.get('name', '')}-{completions - 1}"
        if names.dns_label(host):
            text = f"will not able to create pod with invalid DNS label: {host}"
            out.append(invalid("metadata.name", metadata.get("name") or "", text))
    return out


def _generated(spec: Object, metadata: Object) -> Complaints:
    if spec.get("manualSelector") or spec.get("selector") is None:
        return []
    name, uid = metadata.get("name", ""), metadata.get("uid", "")
    own = dig(spec, "template", "metadata", "labels") or {}
    path = "spec.template.metadata.labels"
    out = [] if uid else [required("metadata.uid")]
    for key, value in ((OLD_UID, uid), (OLD_JOB, name), (UID, uid), (JOB, name)):
        if key not in own:
            out.append(required(f"{path}[{key}]", f"must be '{value}'"))
        elif own[key] != value:
            out.append(invalid(f"{path}[{key}]", own, f"must be '{value}'"))
    wanted = {UID: uid, JOB: name, OLD_UID: uid, OLD_JOB: name}
    try:
        if not labels.from_object(spec["selector"]).matches(wanted):
            out.append(invalid("spec.selector", labels.shown(spec["selector"]), "`selector` not auto-generated"))
    except ValueError:
        pass  # said of the selector itself
    return out


def validate_update(new: Object, old: Object) -> Complaints:
    """Most of the spec never changes; what decides about nodes may while a suspended job has not begun."""
    fresh, before = new["spec"], old["spec"]
    out = jobspec.validate("spec", fresh) + jobspec.selector("spec", fresh)
    out += _completions(fresh, before)
    out += immutable("spec.selector", labels.shown(fresh.get("selector")), labels.shown(before.get("selector")))
    out += _template(new, old)
    for field in _FIXED:
        out += _kept(field, fresh, before)
    return out


def _kept(field: str, fresh: Object, before: Object) -> Complaints:
    value, message = fresh.get(field), _SHOWN.get(field)
    if not strategy.differs(value, before.get(field)):
        return []
    return [invalid(f"spec.{field}", dump(value, message) if message and value is not None else value, IMMUTABLE)]


def _template(new: Object, old: Object) -> Complaints:
    """The template stays; before a suspended job's pods come, their resources and ways to nodes may change."""
    template, former = new["spec"].get("template") or {}, old["spec"].get("template") or {}
    if not _may_change(old):
        shown = [dump(each, "v1:PodTemplateSpec") for each in (template, former)]
        return [invalid("spec.template", shown[0], IMMUTABLE)] if not alike(*shown) else []
    former = _with_scheduling(former, template)
    shown = [dump(each.get("spec"), "v1:PodSpec") for each in (template, former)]
    return [invalid("spec.template.spec", shown[0], IMMUTABLE)] if not alike(*shown) else []


def _may_change(old: Object) -> bool:
    status = old.get("status") or {}
    begun = status.get("startTime") and not jobstatus.true(old, "Suspended")
    return bool(old["spec"].get("suspend")) and not begun and not status.get("active")


def _completions(fresh: Object, before: Object) -> Complaints:
    now, former = fresh.get("completions"), before.get("completions")
    if fresh.get("completionMode") != "Indexed":
        return [] if now == former else [invalid("spec.completions", now, IMMUTABLE)]
    if now is None or now == former or now == fresh.get("parallelism"):
        return []
    return [invalid("spec.completions", now, "can only be modified in tandem with spec.parallelism")]


def _with_scheduling(former: Object, template: Object) -> Object:
    """The old template with the new one's ideas about nodes and resources (KEP-2926, KEP-5440)."""
    fresh: Object = template.get("spec") or {}
    spec: dict[str, Any] = {**(former.get("spec") or {})}
    for key in _SCHEDULING:
        strategy.copy_field(key, spec, fresh)
    affinity = {**(spec.get("affinity") or {})}
    strategy.copy_field("nodeAffinity", affinity, fresh.get("affinity") or {})
    spec["affinity"] = affinity if affinity or "affinity" in fresh else None
    for field in ("containers", "initContainers"):
        wanted, before = fresh.get(field) or [], spec.get(field) or []
        if len(wanted) == len(before):
            pairs = list(zip(before, wanted, strict=True))
            spec[field] = [_with_resources(each, other) for each, other in pairs] or spec.get(field)
    return {**former, "spec": spec}


def _with_resources(container: Object, other: Object) -> Object:
    same = container.get("name") == other.get("name")
    return {**container, "resources": other.get("resources", {})} if same else container


def _status(job: Object, now: float) -> str:
    for kind in ("Complete", "Failed"):
        if jobstatus.true(job, kind):
            return kind
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    kinds = ("Suspended", "FailureTarget", "SuccessCriteriaMet")
    return next((kind for kind in kinds if jobstatus.true(job, kind)), "Running")


def _done(job: Object, now: float) -> str:
    succeeded, completions = dig(job, "status", "succeeded") or 0, dig(job, "spec", "completions")
    if completions is not None:
        return f"{succeeded}/{completions}"
    parallel = dig(job, "spec", "parallelism") or 0
    return f"{succeeded}/1 of {parallel}" if parallel > 1 else f"{succeeded}/1"


def _duration(job: Object, now: float) -> str:
    start, end = dig(job, "status", "startTime"), dig(job, "status", "completionTime")
    return human((seconds(end) if end else now) - seconds(start)) if start else ""


JOB_KIND = Behavior(
    "batch",
    "Job",
    order="nvmu",
    default=default,
    warnings=lambda job: jobspec.warnings("spec", job["metadata"], job["spec"]),
    validate=validate,
    validate_update=validate_update,
    prepare_create=prepare_create,
    updates={"status": Update(strategy.keep("spec"), jobstatus.validate)},
    columns=(
        NAME,
        Column("Status", _status),
        Column("Completions", _done),
        Column("Duration", _duration),
        AGE,
        *of_template("spec", "template"),
        wide("Selector", lambda job, now: selector_text(job["spec"].get("selector"))),
    ),
    fields={"status.successful": number_at("status", "succeeded")},
)
