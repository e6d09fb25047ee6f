"""Rules of a Job's status: what is about a job that ended, and what never goes back.

Most rules are asked only where what they are about changed, so that a status which was wrong before may be written
again. Called for the `status` endpoint, with (new, old). Source: validateJobStatus, ValidateJobStatusUpdate, and
getStatusValidationOptions of pkg/registry/batch/job (KEP-4368).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from steersman.api import pods
from steersman.api.errors import FieldError
from steersman.api.godump import dump
from steersman.api.kinds.batch.jobspec import interval, parsed_indexes
from steersman.api.resource import Object
from steersman.api.validation import NOT_NEGATIVE, duplicate, invalid, required

Complaints = list[FieldError]

_TERMINAL = ("Failed", "Complete", "FailureTarget")
_MET = "SuccessCriteriaMet"


def true(job: Object, kind: str) -> bool:
    """Whether the condition of that type is True."""
    return (pods.condition(job, kind) or {}).get("status") == "True"


def _finished(job: Object) -> bool:
    return true(job, "Complete") or true(job, "Failed")


class _Change:
    """A status that takes another's place."""

    def __init__(self, new: Object, old: Object) -> None:
        self.new, self.old = new, old
        self.spec: Object = new["spec"]
        self.status: Object = new.get("status") or {}
        self.before: Object = old.get("status") or {}
        self.finished = _finished(new)
        self.ended = self.finished != _finished(old)
        self.complete, self.failed = (self._is(kind) for kind in ("Complete", "Failed"))
        self.completed = self._turned("Complete")

    def _is(self, kind: str) -> bool:
        return true(self.new, kind)

    def _turned(self, kind: str) -> bool:
        return true(self.new, kind) != true(self.old, kind)

    def _moved(self, *fields: str) -> bool:
        return any((self.status.get(key) or None) != (self.before.get(key) or None) for key in fields)

    def _pointer_moved(self, *fields: str) -> bool:
        return any(self.status.get(key) != self.before.get(key) for key in fields)

    def numbers(self) -> Complaints:
        status = self.status
        fields = ("active", "succeeded", "failed", "ready", "terminating")
        out = [invalid(f"status.{key}", status[key], NOT_NEGATIVE) for key in fields if (status.get(key) or 0) < 0]
        return out + _uncounted(status.get("uncountedTerminatedPods") or {})

    def outcome(self) -> Complaints:
        """Complete, failed and their times."""
        status, out = self.status, []
        completion, start = status.get("completionTime"), status.get("startTime")
        if (self.completed or self._turned("Failed")) and self.complete and self.failed:
            out.append(_conditions("cannot set Complete=True and Failed=true conditions"))
        aimed = self._is("FailureTarget")
        if (self.completed or self._turned("FailureTarget")) and self.complete and aimed:
            out.append(_conditions("cannot set Complete=True and FailureTarget=true conditions"))
        timed = self.completed or self._pointer_moved("completionTime")
        if timed and completion is not None and not self.complete:
            text = "cannot set completionTime when there is no Complete=True condition"
            out.append(invalid("status.completionTime", completion, text))
        if timed and completion is None and self.complete:
            out.append(required("status.completionTime", "completionTime is required for Complete jobs"))
        if self._pointer_moved("startTime", "completionTime") and start and completion and completion < start:
            out.append(invalid("status.completionTime", completion, "must be equal to or after `startTime`"))
        if (self._turned("Failed") or self._pointer_moved("failedIndexes")) and self.failed and not aimed:
            out.append(_conditions("cannot set Failed=True condition without the FailureTarget=true condition"))
        if (self.completed or self._turned(_MET)) and self.complete and not self._is(_MET):
            out.append(_conditions("cannot set Complete=True condition without the SuccessCriteriaMet=true condition"))
        return out

    def pods(self) -> Complaints:
        """No pods are left of a job that ended."""
        status, out = self.status, []
        active = status.get("active") or 0
        if (self.ended or self._moved("active")) and active > 0 and self.finished:
            out.append(invalid("status.active", active, "active>0 is invalid for finished job"))
        none_wanted = self.spec.get("suspend") and self.spec.get("completions") == 0
        asked = (self.ended or self._pointer_moved("startTime")) and not none_wanted
        if asked and status.get("startTime") is None and self.finished:
            out.append(required("status.startTime", "startTime is required for finished job"))
        uncounted = status.get("uncountedTerminatedPods")
        left = uncounted and any(uncounted.get(key) for key in ("failed", "succeeded"))
        if (self.ended or self._moved("uncountedTerminatedPods")) and self.finished and left:
            shown = dump(uncounted, "batch/v1:UncountedTerminatedPods")
            out.append(invalid("status.uncountedTerminatedPods", shown, "must be empty for finished job"))
        return out

    def indexes(self) -> Complaints:
        spec, status, out = self.spec, self.status, []
        completed, failed = status.get("completedIndexes") or "", status.get("failedIndexes")
        completions = spec.get("completions")
        came, fell = self._moved("completedIndexes"), self._pointer_moved("failedIndexes")
        per_index = spec.get("backoffLimitPerIndex") is not None
        if came and completions is not None and (why := parsed_indexes(completed, completions)[1]):
            out.append(invalid("status.completedIndexes", completed, f"error parsing completedIndexes: {why}"))
        known = completions is not None and per_index and failed is not None
        if fell and known and (why := parsed_indexes(failed, completions)[1]):
            out.append(invalid("status.failedIndexes", failed, f"error parsing failedIndexes: {why}"))
        if came and completed and spec.get("completionMode") != "Indexed":
            text = "cannot set non-empty completedIndexes when non-indexed completion mode"
            out.append(invalid("status.completedIndexes", completed, text))
        if fell and not per_index and failed is not None:
            text = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
            out.append(invalid("status.failedIndexes", failed, text))
        if (came or fell) and completions is not None and failed is not None:
            at = _overlap(_intervals(completed, completions), _intervals(failed, completions))
            text = f"failedIndexes and completedIndexes overlap at index: {at}"
            out += [invalid("status.failedIndexes", failed, text)] if at is not None else []
        return out

    def rest(self) -> Complaints:
        status, out = self.status, []
        terminating, active, ready = status.get("terminating") or 0, status.get("active") or 0, status.get("ready")
        if (self.ended or self._pointer_moved("terminating")) and terminating > 0 and self.finished:
            out.append(invalid("status.terminating", terminating, "terminating>0 is invalid for finished job"))
        if (self._pointer_moved("ready") or self._moved("active")) and ready is not None and ready > active:
            out.append(invalid("status.ready", ready, "cannot set more ready pods than active"))
        met = self._is(_MET)
        if met and self.failed:
            out.append(_conditions("cannot set SuccessCriteriaMet=True and Failed=true conditions"))
        if met and self._is("FailureTarget"):
            out.append(_conditions("cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"))
        if self.spec.get("successPolicy") is not None and not met and self.complete:
            why = "unless SuccessCriteriaMet=True"
            out.append(_conditions(f"cannot set Complete=True for Job with SuccessPolicy {why}"))
        return out

    def forward(self) -> Complaints:
        """What never goes back."""
        spec, status, before = self.spec, self.status, self.before
        lost = [kind for kind in _TERMINAL if true(self.old, kind) and not self._is(kind)]
        out = [_conditions(f"cannot disable the terminal {kind}=True condition") for kind in lost]
        scaled = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")
        fields = ("failed",) if scaled else ("failed", "succeeded")
        less = [key for key in fields if (status.get(key) or 0) < (before.get(key) or 0)]
        out += [invalid(f"status.{key}", status.get(key) or 0, f"cannot decrease the {key} counter") for key in less]
        now, then = status.get("completionTime"), before.get("completionTime")
        if now and then and now != then:
            out.append(invalid("status.completionTime", now, "field is immutable"))
        start, started = status.get("startTime"), before.get("startTime")
        resumed = true(self.old, "Suspended") and (pods.condition(self.new, "Suspended") or {}).get("status") == "False"
        if started and started != start and not spec.get("suspend") and not resumed:
            out.append(invalid("status.startTime", start, "field is immutable for unsuspended job once set"))
        if true(self.old, _MET) and not self._is(_MET):
            out.append(_conditions("cannot disable the SuccessCriteriaMet=True condition"))
        if true(self.old, "Complete") and not true(self.old, _MET) and self._is(_MET):
            text = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"
            out.append(_conditions(text))
        return out


def validate(new: Object, old: Object) -> Complaints:
    """Complaints about a new status."""
    change = _Change(new, old)
    parts = (change.numbers, change.outcome, change.pods, change.indexes, change.rest, change.forward)
    return [error for part in parts for error in part()]


def _conditions(text: str) -> FieldError:
    return FieldError("FieldValueInvalid", "status.conditions", f"Invalid value: {text}")


def _uncounted(found: Object) -> Complaints:
    out: Complaints = []
    seen: set[str] = set()
    for key in ("succeeded", "failed"):
        for i, uid in enumerate(found.get(key) or ()):
            here = f"status.uncountedTerminatedPods.{key}[{i}]"
            if not uid:
                out.append(invalid(here, uid, "must not be empty"))
            elif uid in seen:
                out.append(duplicate(here, uid))
            seen.add(uid)
    return out


def _intervals(text: str, completions: int) -> Sequence[tuple[int, int]]:
    if not text:
        return ()
    found: Iterable[Any] = (interval(each, completions) for each in text.split(","))
    return [each for each in found if not isinstance(each, str)]


def _overlap(one: Sequence[tuple[int, int]], other: Sequence[tuple[int, int]]) -> int | None:
    """The first index in both, walked as the original does, whatever their order."""
    at, where = 0, 0
    while at < len(one) and where < len(other):
        (first, last), (start, end) = one[at], other[where]
        if first <= end and start <= last:
            return max(first, start)
        if first <= start:
            at += 1
        else:
            where += 1
    return None
