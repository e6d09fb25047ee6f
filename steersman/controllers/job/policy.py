"""What a Job's policies say of a failed pod, and of the indexes that succeeded.

Pure; messages are the original's. Source: KEP-3329 (pod failure policy), KEP-3998 (success policy).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from steersman.api.resource import Object
from steersman.controllers.job.indexes import parse


class Verdict(NamedTuple):
    """`fails_job` is the message when the Job fails; `counts` whether the failure counts; `action` the rule's."""

    fails_job: str | None = None
    counts: bool = True
    action: str = ""


def on_failure(policy: Object | None, pod: Object) -> Verdict:
    """The first rule that matches a failed pod."""
    for number, rule in enumerate((policy or {}).get("rules") or ()):
        why = _matches(rule, pod)
        if why is None:
            continue
        action = rule["action"]
        text = f"{why} matching {action} rule at index {number}" if action == "FailJob" else None
        return Verdict(text, action != "Ignore", action)
    return Verdict()


def _matches(rule: Object, pod: Object) -> str | None:
    status, meta = pod.get("status") or {}, pod["metadata"]
    who = f"{meta.get('namespace', '')}/{meta['name']}"
    if (wanted := rule.get("onExitCodes")) is not None:
        for container in [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]:
            code = ((container.get("state") or {}).get("terminated") or {}).get("exitCode", 0)
            if code and wanted.get("containerName") in (None, container["name"]) and _code_matches(wanted, code):
                return f"Container {container['name']} for pod {who} failed with exit code {code}"
        return None
    for condition in status.get("conditions") or ():
        for pattern in rule.get("onPodConditions") or ():
            if (condition["type"], condition["status"]) == (pattern["type"], pattern.get("status", "True")):
                return f"Pod {who} has condition {condition['type']}"
    return None


def _code_matches(wanted: Object, code: int) -> bool:
    listed = code in (wanted.get("values") or ())
    return listed if wanted["operator"] == "In" else not listed


def on_success(policy: Object | None, succeeded: Iterable[int], completions: int) -> str | None:
    """The message of the first success rule that is fulfilled."""
    done = set(succeeded)
    for number, rule in enumerate((policy or {}).get("rules") or () if done else ()):
        count = rule.get("succeededCount")
        if rule.get("succeededIndexes") is not None:
            wanted = parse(rule["succeededIndexes"], completions)
            have = len(wanted & done)
            met = bool(wanted) and (have == len(wanted) or (count is not None and have >= count))
        else:
            met = count is not None and len(done) >= count
        if met:
            return f"Matched rules at index {number}"
    return None
