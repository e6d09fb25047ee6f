"""Job: generated labels and selector, completion modes, failure and success policies.

`prepare_create` needs the uid. Source: SetDefaults_Job, ValidateJob, pkg/registry/batch/job/strategy.go, printJob.
"""

from __future__ import annotations

from typing import Any

from steersman.api import labels, names, pods
from steersman.api.errors import FieldError
from steersman.api.fields import number_at
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.batch import jobspec
from steersman.api.kinds.podspec import defaults
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, dig, human, of_template, seconds, selector_text, wide
from steersman.api.validation import immutable, invalid, required

Complaints = list[FieldError]

UID = "batch.kubernetes.io/controller-uid"
JOB = "batch.kubernetes.io/job-name"
OLD_UID = "controller-uid"
OLD_JOB = "job-name"

_SCHEDULING = ("nodeSelector", "tolerations", "schedulingGates")
_FIXED = ("completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy")
_TERMINAL = ("Failed", "Complete", "FailureTarget")


def default(job: Object) -> None:
    """One completion, six retries; labels from the template."""
    spec = job.setdefault("spec", {})
    default_spec(spec)
    labels = dig(spec, "template", "metadata", "labels")
    if labels and not job["metadata"].get("labels"):
        job["metadata"]["labels"] = dict(labels)
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
    labels = metadata["labels"] = dict(metadata.get("labels") or {})
    name, uid = job["metadata"].get("name", ""), job["metadata"].get("uid", "")
    for key, value in ((OLD_JOB, name), (JOB, name), (OLD_UID, uid), (UID, uid)):
        labels.setdefault(key, value)
    selector = spec["selector"] = dict(spec.get("selector") or {})
    selector["matchLabels"] = {UID: uid, **(selector.get("matchLabels") or {})}
    if not job["metadata"].get("labels") and not names.label_value(name):
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
    labels = dig(spec, "template", "metadata", "labels") or {}
    path = "spec.template.metadata.labels"
    out = [] if uid else [required("metadata.uid")]
    for key, value in ((OLD_UID, uid), (OLD_JOB, name), (UID, uid), (JOB, name)):
        if key not in labels:
            out.append(required(f"{path}[{key}]", f"must be '{value}'"))
        elif labels[key] != value:
            out.append(invalid(f"{path}[{key}]", labels[key], f"must be '{value}'"))
    wanted = {UID: uid, JOB: name, OLD_UID: uid, OLD_JOB: name}
    given = spec["selector"].get("matchLabels") or {}
    if any(wanted.get(key) != value for key, value in given.items()):
        out.append(invalid("spec.selector", spec["selector"], "`selector` not auto-generated"))
    return out


def validate_update(new: Object, old: Object) -> Complaints:
    """Most of the spec never changes; what decides about nodes may while a suspended job has not begun."""
    fresh, before = new["spec"], old["spec"]
    out = _completions(fresh, before)
    out += immutable("spec.selector", labels.shown(fresh.get("selector")), labels.shown(before.get("selector")))
    template, former = fresh.get("template") or {}, before.get("template") or {}
    if before.get("suspend") and not dig(old, "status", "startTime"):
        former = _with_scheduling(former, template)
    if strategy.differs(template, former):
        out += immutable("spec.template", template, former)
    for field in _FIXED:
        out += immutable(f"spec.{field}", fresh.get(field), before.get(field))
    return out


def _completions(fresh: Object, before: Object) -> Complaints:
    now, former = fresh.get("completions"), before.get("completions")
    if fresh.get("completionMode") != "Indexed":
        return immutable("spec.completions", now, former)
    if now is None or now == former or now == fresh.get("parallelism"):
        return []
    return [invalid("spec.completions", now, "can only be modified in tandem with spec.parallelism")]


def _with_scheduling(former: Object, template: Object) -> Object:
    """The old template with the new one's ideas about nodes, labels and resources (KEP-2926)."""
    out: dict[str, Any] = {**former, "spec": {**former.get("spec", {})}, "metadata": {**former.get("metadata", {})}}
    for key in _SCHEDULING:
        strategy.copy_field(key, out["spec"], template.get("spec") or {})
    for key in ("labels", "annotations"):
        strategy.copy_field(key, out["metadata"], template.get("metadata") or {})
    affinity = dict(out["spec"].get("affinity") or {})
    strategy.copy_field("nodeAffinity", affinity, (template.get("spec") or {}).get("affinity") or {})
    out["spec"]["affinity"] = affinity
    if not affinity:
        strategy.copy_field("affinity", out["spec"], template.get("spec") or {})
    for field in ("containers", "initContainers"):
        fresh, before = (template.get("spec") or {}).get(field) or [], out["spec"].get(field) or []
        if before and len(fresh) == len(before):
            pairs = zip(before, fresh, strict=True)
            out["spec"][field] = [{**each, "resources": other.get("resources", {})} for each, other in pairs]
    return out


def validate_status(new: Object, old: Object) -> Complaints:
    """Counters do not fall, what has ended stays ended."""
    status, before = new.get("status") or {}, old.get("status") or {}
    out: Complaints = []
    for kind in _TERMINAL:
        if _true(old, kind) and not _true(new, kind):
            text = f"Invalid value: cannot disable the terminal {kind}=True condition"
            out.append(FieldError("FieldValueInvalid", "status.conditions", text))
    for field in ("failed", "succeeded"):
        if (status.get(field) or 0) < (before.get(field) or 0):
            text = f"cannot decrease the {field} counter"
            out.append(invalid(f"status.{field}", status.get(field) or 0, text))
    if status.get("completionTime") and before.get("completionTime"):
        out += immutable("status.completionTime", status["completionTime"], before["completionTime"])
    started = before.get("startTime")
    if started and started != status.get("startTime") and not new["spec"].get("suspend"):
        text = "field is immutable for unsuspended job once set"
        out.append(invalid("status.startTime", status.get("startTime"), text))
    return out


def _true(job: Object, kind: str) -> bool:
    return (pods.condition(job, kind) or {}).get("status") == "True"


def _status(job: Object, now: float) -> str:
    for kind in ("Complete", "Failed"):
        if _true(job, kind):
            return kind
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    kinds = ("Suspended", "FailureTarget", "SuccessCriteriaMet")
    return next((kind for kind in kinds if _true(job, kind)), "Running")


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
    default=default,
    warnings=lambda job: jobspec.warnings("spec", job["metadata"], job["spec"]),
    validate=validate,
    validate_update=validate_update,
    prepare_create=prepare_create,
    updates={"status": Update(strategy.keep("spec"), validate_status)},
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
