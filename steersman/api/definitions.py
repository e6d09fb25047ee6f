"""What the status of a CustomResourceDefinition says: whose names are whose, and what its conditions are.

Owns the decisions of apiextensions-apiserver's naming, establishing and API approval controllers. Called by the API
server, which serves what is accepted. Pure: time is an argument.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from steersman.api.errors import FieldError
from steersman.api.resource import Object
from steersman.api.validation import invalid, required

APPROVED = "api-approved.kubernetes.io"
_MUST = f'protected groups must have approval annotation "{APPROVED}"'
_SEE = "see https://github.com/kubernetes/enhancements/pull/1111"
_KEYS = (("plural", "Plural"), ("singular", "Singular"), ("shortNames", "ShortNames"), ("kind", "Kind"),
         ("listKind", "ListKind"))  # fmt: skip

PENDING: Object = {
    "type": "Terminating",
    "status": "True",
    "reason": "InstanceDeletionPending",
    "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
}
TERMINATING: Object = {
    "type": "Terminating",
    "status": "True",
    "reason": "InstanceDeletionInProgress",
    "message": "CustomResource deletion is in progress",
}


def condition(definition: Mapping[str, Any], type: str) -> str:
    """The status of a condition; empty when there is none."""
    found = (definition.get("status") or {}).get("conditions") or ()
    return next((str(each.get("status")) for each in found if each.get("type") == type), "")


def set_condition(status: Object, wanted: Object, now: str) -> None:
    """Put a condition into a status; its time is that of the last change of its status."""
    conditions = status.setdefault("conditions", None) or []
    status["conditions"] = conditions
    for at, each in enumerate(conditions):
        if each.get("type") == wanted["type"]:
            same = each.get("status") == wanted["status"] and each.get("lastTransitionTime")
            conditions[at] = {**wanted, "lastTransitionTime": same or now}
            return
    conditions.append({**wanted, "lastTransitionTime": now})


def accept(definition: Object, others: Iterable[Object]) -> tuple[Object, Object]:
    """The names that a definition may have beside the others' accepted ones, and the condition NamesAccepted."""
    wanted, had = definition["spec"]["names"], (definition.get("status") or {}).get("acceptedNames") or {}
    resources: set[str] = set()
    kinds: set[str] = set()
    for each in others:
        if each["spec"]["group"] != definition["spec"]["group"]:
            continue
        theirs = (each.get("status") or {}).get("acceptedNames") or {}
        resources |= {theirs.get("plural") or "", theirs.get("singular") or "", *(theirs.get("shortNames") or ())}
        kinds |= {theirs.get("kind") or "", theirs.get("listKind") or ""}
    names: Object = {key: value for key, value in had.items() if key != "categories"}
    found: Object = {"reason": "NoConflicts", "message": "no conflicts found"}
    for key, word in _KEYS:
        used = kinds if key in ("kind", "listKind") else resources
        if problem := _conflict(wanted.get(key), had.get(key), used):
            found = {"reason": f"{word}Conflict", "message": problem}
        elif key in wanted:
            names[key] = wanted[key]
        else:
            names.pop(key, None)
    if "categories" in wanted:
        names["categories"] = wanted["categories"]
    status = "True" if found["reason"] == "NoConflicts" else "False"
    return names, {"type": "NamesAccepted", "status": status, **found}


def _conflict(wanted: Any, had: Any, used: set[str]) -> str:
    if isinstance(wanted, list):
        texts = [_conflict(each, None, used) for each in wanted if each not in (had or ())]
        texts = list(dict.fromkeys(filter(None, texts)))
        return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]" if texts else ""
    return f"{json.dumps(wanted)} is already in use" if wanted and wanted != had and wanted in used else ""


def established(names_accepted: Object) -> Object:
    """The condition Established of a definition that is not established yet."""
    if names_accepted["status"] == "True":
        good = {"reason": "InitialNamesAccepted", "message": "the initial names have been accepted"}
        return {"type": "Established", "status": "True", **good}
    return {"type": "Established", "status": "False", "reason": "NotAccepted", "message": "not all names are accepted"}


def ended(definition: Object) -> Object:
    """The condition Terminating once nothing is left to delete."""
    if condition(definition, "Established") == "True":
        why = {"reason": "InstanceDeletionCompleted", "message": "removed all instances"}
    else:
        why = {"reason": "NeverEstablished", "message": "resource was never established"}
    return {"type": "Terminating", "status": "False", **why}


def approval(definition: Object) -> Object | None:
    """The condition KubernetesAPIApprovalPolicyConformant; None outside the groups of Kubernetes itself."""
    group = definition["spec"].get("group") or ""
    if not f".{group}".endswith((".k8s.io", ".kubernetes.io")):
        return None
    text = ((definition["metadata"].get("annotations") or {}).get(APPROVED)) or ""
    status = "False"
    if not text:
        reason, message = "MissingAnnotation", f"{_MUST}, {_SEE}"
    elif text.startswith("unapproved"):
        reason, message = "UnapprovedAnnotation", f"not approved: {json.dumps(text)}"
    elif _is_url(text):
        status, reason, message = "True", "ApprovedAnnotation", f"approved in {text}"
    else:
        how = 'with either a URL or a reason starting with "unapproved"'
        reason, message = "InvalidAnnotation", f"{_MUST} {how}, {_SEE}"
    return {"type": "KubernetesAPIApprovalPolicyConformant", "status": status, "reason": reason, "message": message}


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and parts.netloc)


def check_approval(new: Object, old: Object | None = None) -> list[FieldError]:
    """Complaints about the annotation of a definition in a group of Kubernetes; what was there before may stay."""
    found, before = approval(new), approval(old) if old is not None else None
    if found is None or (before is not None and before["reason"] == found["reason"]):
        return []
    path = f"metadata.annotations[{APPROVED}]"
    if found["reason"] == "MissingAnnotation":
        return [required(path, found["message"])]
    if found["reason"] == "InvalidAnnotation":
        return [invalid(path, new["metadata"]["annotations"][APPROVED], found["message"])]
    return []
