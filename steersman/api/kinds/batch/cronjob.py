"""CronJob.

Source: SetDefaults_CronJob, validateCronJobSpec, printCronJob; the syntax of schedules is robfig/cron's.
"""

from __future__ import annotations

import re

from steersman.api import labels
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.batch import job, jobspec
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, dig, field, length, of_template, selector_text, since, wide
from steersman.api.validation import invalid, not_negative, not_supported, quote, required

_POLICIES = ("Allow", "Forbid", "Replace")
_NICKNAMES = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
_EVERY = re.compile(r"@every [-+]?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+")
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: i + 1 for i, name in enumerate(_MONTH_NAMES)}
_DAYS = {name: i for i, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, _MONTHS),
    (0, 6, _DAYS),
)
_ZONE = re.compile(r"[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13}")


def default(cron: Object) -> None:
    """Jobs may overlap; three good and one failed are kept."""
    spec = cron.setdefault("spec", {})
    spec["concurrencyPolicy"] = spec.get("concurrencyPolicy") or "Allow"
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    template = spec.setdefault("jobTemplate", {})
    template.setdefault("metadata", {})
    job.template_spec(template.setdefault("spec", {}))
    cron.setdefault("status", {})


def validate(cron: Object) -> list[FieldError]:
    """Schedule, zone, policy, template."""
    spec, name = cron["spec"], cron["metadata"].get("name") or ""
    schedule = spec.get("schedule") or ""
    out: list[FieldError] = []
    if not schedule:
        out.append(required("spec.schedule"))
    else:
        if problem := schedule_problem(schedule):
            out.append(invalid("spec.schedule", schedule, problem))
        if "TZ" in schedule:
            text = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            out.append(invalid("spec.schedule", schedule, text))
    for key in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        out += not_negative(f"spec.{key}", spec.get(key))
    out += _zone(spec.get("timeZone"))
    policy = spec.get("concurrencyPolicy") or ""
    if policy not in _POLICIES:
        out.append(not_supported("spec.concurrencyPolicy", policy, _POLICIES))
    inner = spec["jobTemplate"].get("spec") or {}
    out += jobspec.validate("spec.jobTemplate.spec", inner)
    if inner.get("selector") is not None:
        text = "`selector` will be auto-generated"
        out.append(invalid("spec.jobTemplate.spec.selector", labels.shown(inner["selector"]), text))
    if inner.get("manualSelector"):
        out.append(not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false")))
    if not cron["metadata"].get("resourceVersion") and len(name) > 52:
        out.append(invalid("metadata.name", name, "must be no more than 52 characters"))
    return out


def _zone(zone: str | None) -> list[FieldError]:
    if zone is None:
        return []
    if not zone:
        return [invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")]
    unknown = invalid("spec.timeZone", zone, f"unknown time zone {zone}")
    if any(part in (".", "..") or not _ZONE.fullmatch(part) for part in zone.split("/")):
        return [unknown]
    if zone.lower() == "local":
        text = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        return [invalid("spec.timeZone", zone, text)]
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # here: few objects have a zone

    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return [unknown]
    return []


def schedule_problem(schedule: str) -> str:
    """What is wrong with a schedule, in the parser's words; empty when nothing is."""
    text = schedule.strip()
    if text.startswith(("TZ=", "CRON_TZ=")):
        text = text.partition(" ")[2].strip()
    if text.startswith("@"):
        known = text in _NICKNAMES or _EVERY.fullmatch(text)
        return "" if known else f"unrecognized descriptor: {text}"
    parts = text.split()
    if len(parts) != 5:
        return f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]"
    for part, (low, high, words) in zip(parts, _FIELDS, strict=True):
        for item in part.split(","):
            if problem := _item_problem(item, low, high, words):
                return problem
    return ""


def _item_problem(item: str, low: int, high: int, words: dict[str, int]) -> str:
    span, slash, step = item.partition("/")
    if "/" in step:
        return f"too many slashes: {item}"
    first, dash, last = span.partition("-")
    if "-" in last:
        return f"too many hyphens: {item}"
    if first in ("*", "?"):
        start, end = low, high
    else:
        bounds = [_number(text, words) for text in ((first, last) if dash else (first,))]
        if None in bounds:
            wrong = first if bounds[0] is None else last
            return f"failed to parse int from {wrong}: strconv.Atoi: parsing {quote(wrong)}: invalid syntax"
        start = bounds[0] or 0
        end = (bounds[-1] or 0) if dash else (high if slash else start)
    if start < low:
        return f"beginning of range ({start}) below minimum ({low}): {item}"
    if end > high:
        return f"end of range ({end}) above maximum ({high}): {item}"
    if start > end:
        return f"beginning of range ({start}) beyond end of range ({end}): {item}"
    if slash and not step.isdigit():
        return f"failed to parse int from {step}: strconv.Atoi: parsing {quote(step)}: invalid syntax"
    return f"step of range should be a positive number: {item}" if slash and int(step) == 0 else ""


def _number(text: str, words: dict[str, int]) -> int | None:
    known = words.get(text.lower())
    if known is not None:
        return known
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else None


def _last(cron: Object, now: float) -> str:
    stamp = dig(cron, "status", "lastScheduleTime")
    return since(stamp, now) if stamp else NONE


def _suspend(cron: Object, now: float) -> str:
    value = dig(cron, "spec", "suspend")
    return "<unset>" if value is None else str(value)


def _warnings(cronjob: Object) -> list[str]:
    return jobspec.warnings(
        "spec.jobTemplate.spec", cronjob["metadata"], dig(cronjob, "spec", "jobTemplate", "spec") or {}
    )


CRONJOB = Behavior(
    "batch",
    "CronJob",
    order="mv",
    default=default,
    warnings=_warnings,
    validate=validate,
    prepare_create=strategy.begin({}, generations=True),
    updates={"status": Update(strategy.keep("spec"), order="")},
    columns=(
        NAME,
        field("Schedule", "spec", "schedule"),
        field("Timezone", "spec", "timeZone", empty=NONE),
        Column("Suspend", _suspend, "boolean"),
        length("Active", "status", "active"),
        Column("Last Schedule", _last),
        AGE,
        *of_template("spec", "jobTemplate", "spec", "template"),
        wide("Selector", lambda cron, now: selector_text(dig(cron, "spec", "jobTemplate", "spec", "selector"))),
    ),
)
