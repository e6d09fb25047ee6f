"""Who is asked what somebody may do: files of the kind AuthorizationConfiguration.

Owns their reading and checking. Called by `identity.py`. Every mistake is a ValueError that names the field. Source:
KEP-3221; apiserver's pkg/apis/apiserver/validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steersman.api import durations, names, validation
from steersman.api.errors import FieldError
from steersman.api.resource import Object
from steersman.apiserver.authz.conditions import Conditions, compiled
from steersman.cluster.configfile import only, read

_KNOWN = ("ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook")
_FIELDS = ("authorizedTTL", "cacheAuthorizedRequests", "unauthorizedTTL", "cacheUnauthorizedRequests", "timeout",
           "subjectAccessReviewVersion", "matchConditionSubjectAccessReviewVersion", "failurePolicy", "connectionInfo",
           "matchConditions")  # fmt: skip


@dataclass(frozen=True)
class WebhookSettings:
    """One webhook. Times are seconds; an answer is remembered for 0 seconds where it is not to be."""

    kubeconfig: Path
    version: str
    timeout: float
    allowed_for: float
    denied_for: float
    deny_on_error: bool
    conditions: Conditions | None


@dataclass(frozen=True)
class Entry:
    """One authorizer."""

    type: str
    webhook: WebhookSettings | None = None


def of_file(path: Path) -> Sequence[Entry]:
    """The authorizers, in order. Raises OSError, ValueError."""
    config = read(path, "AuthorizationConfiguration")
    only(config, "", "apiVersion", "kind", "authorizers")
    problems: list[FieldError] = []
    entries: list[Entry] = []
    given = config.get("authorizers") or []
    if not given:
        problems.append(validation.required("authorizers", "at least one authorization mode must be defined"))
    seen: tuple[set[str], set[str]] = set(), set()
    for at, each in enumerate(given):
        only(each, f"authorizers[{at}]", "type", "name", "webhook")
        entry, wrong = _entry(f"authorizers[{at}]", each, *seen)
        problems += wrong
        entries += [entry] if entry is not None else []
    if problems:
        texts = [str(problem) for problem in problems]
        raise ValueError(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    return entries


def _entry(path: str, given: Object, types: set[str], taken: set[str]) -> tuple[Entry | None, list[FieldError]]:
    type, name = str(given.get("type") or ""), str(given.get("name") or "")
    if not type:
        return None, [validation.required(f"{path}.type")]
    if type not in _KNOWN:
        return None, [validation.not_supported(f"{path}.type", type, _KNOWN)]
    if type in types and type != "Webhook":
        return None, [validation.duplicate(f"{path}.type", type)]
    types.add(type)
    problems: list[FieldError] = []
    if not name:
        problems.append(validation.required(f"{path}.name"))
    elif name in taken:
        problems.append(validation.duplicate(f"{path}.name", name))
    elif texts := names.dns_subdomain(name):
        problems.append(validation.invalid(f"{path}.name", name, f"authorizer name is invalid: {', '.join(texts)}"))
    taken.add(name)
    webhook = given.get("webhook")
    if type != "Webhook":
        if webhook is not None:
            text = "may only be specified when type=Webhook"
            problems.append(validation.invalid(f"{path}.webhook", "non-null", text))
        return Entry(type), problems
    if webhook is None:
        return None, [*problems, validation.required(f"{path}.webhook", "required when type=Webhook")]
    only(webhook, f"{path}.webhook", *_FIELDS)
    settings, wrong = _webhook(path, webhook)
    return Entry(type, settings), problems + wrong


def _webhook(path: str, given: Object) -> tuple[WebhookSettings, list[FieldError]]:
    problems: list[FieldError] = []
    times: dict[str, float] = {}
    for name, usual in (("timeout", ""), ("authorizedTTL", "5m"), ("unauthorizedTTL", "30s")):
        times[name] = seconds = durations.seconds(str(given.get(name) or usual or "0"))
        text = "must be > 0s and <= 30s" if name == "timeout" else "must be > 0s"
        if not seconds:
            problems.append(validation.required(f"{path}.{name}"))
        elif seconds < 0 or (name == "timeout" and seconds > 30):
            problems.append(validation.invalid(f"{path}.{name}", durations.show(round(seconds * 1e9)), text))
    conditions = given.get("matchConditions") or []
    problems += _one_of(path, given, "subjectAccessReviewVersion", ("v1", "v1beta1"))
    if conditions or given.get("matchConditionSubjectAccessReviewVersion"):
        text = "required if match conditions are specified"
        problems += _one_of(path, given, "matchConditionSubjectAccessReviewVersion", ("v1",), text)
    problems += _one_of(path, given, "failurePolicy", ("NoOpinion", "Deny"))
    problems += _connection(f"{path}.connectionInfo", given.get("connectionInfo") or {})
    ready, wrong = compiled(f"{path}.matchConditions", conditions)
    settings = WebhookSettings(
        Path((given.get("connectionInfo") or {}).get("kubeConfigFile") or ""),
        given.get("subjectAccessReviewVersion") or "v1",
        times["timeout"],
        times["authorizedTTL"] if given.get("cacheAuthorizedRequests") is not False else 0.0,
        times["unauthorizedTTL"] if given.get("cacheUnauthorizedRequests") is not False else 0.0,
        given.get("failurePolicy") == "Deny",
        ready,
    )
    return settings, problems + wrong


def _one_of(path: str, given: Object, name: str, known: Sequence[str], missing: str = "") -> list[FieldError]:
    value = given.get(name)
    if not value:
        return [validation.required(f"{path}.{name}", missing)]
    return [] if value in known else [validation.not_supported(f"{path}.{name}", value, known)]


def _connection(path: str, given: Mapping[str, Any]) -> list[FieldError]:
    type, file = given.get("type"), given.get("kubeConfigFile")
    here = f"{path}.kubeConfigFile"
    if not type:
        return [validation.required(f"{path}.type")]
    if type == "InClusterConfig":
        if file is not None:
            return [validation.invalid(here, file, "can only be set when type=KubeConfigFile")]
        return [validation.invalid(f"{path}.type", type, "the API server runs in no cluster here")]
    if type != "KubeConfigFile":
        return [validation.not_supported(f"{path}.type", type, ("InClusterConfig", "KubeConfigFile"))]
    if not file:
        return [validation.required(here)]
    if not Path(file).is_absolute():
        return [validation.invalid(here, file, "must be an absolute path")]
    if not Path(file).exists():
        text = f"error loading file: stat {file}: no such file or directory"
        return [validation.invalid(here, file, text)]
    return [] if Path(file).is_file() else [validation.invalid(here, file, "must be a regular file")]
