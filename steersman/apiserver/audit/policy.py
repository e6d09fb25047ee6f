"""Audit policies: how much of which request is recorded.

Owns the reading and checking of Policy files, and the first rule that means a request. Pure but for `read`. Source:
apiserver's pkg/audit/policy; audit.k8s.io/v1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steersman.api.resource import Object
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo

LEVELS = ("None", "Metadata", "Request", "RequestResponse")
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")
_RULE = ("level", "users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages",
         "omitManagedFields")  # fmt: skip
_LISTS = ("users", "userGroups", "verbs", "resources", "namespaces", "nonResourceURLs", "omitStages")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is recorded of one request."""

    level: str
    omit_stages: frozenset[str] = frozenset()
    omit_managed: bool = False

    def at_least(self, level: str) -> bool:
        """Whether that much is recorded."""
        return LEVELS.index(self.level) >= LEVELS.index(level)


class Policy:
    """A checked policy."""

    def __init__(self, rules: Sequence[Object], omit_stages: Sequence[str] = (), *, omit_managed: bool = False) -> None:
        self._rules = rules
        self._omit_stages = frozenset(omit_stages)
        self._omit_managed = omit_managed

    def choose(self, user: User | None, info: RequestInfo) -> Chosen:
        """What to record; nothing where no rule means the request."""
        for rule in self._rules:
            if _means(rule, user, info):
                stages = self._omit_stages | frozenset(rule.get("omitStages") or ())
                omit = rule.get("omitManagedFields")
                return Chosen(rule["level"], stages, self._omit_managed if omit is None else omit)
        return Chosen("None")


def _means(rule: Object, user: User | None, info: RequestInfo) -> bool:
    if rule.get("users") and (user is None or user.name not in rule["users"]):
        return False
    if rule.get("userGroups") and (user is None or not set(user.groups) & set(rule["userGroups"])):
        return False
    if rule.get("verbs") and info.verb not in rule["verbs"]:
        return False
    if rule.get("namespaces") or rule.get("resources"):
        if not info.is_resource or (rule.get("namespaces") and info.namespace not in rule["namespaces"]):
            return False
        return not rule.get("resources") or any(_means_resource(each, info) for each in rule["resources"])
    if rule.get("nonResourceURLs"):
        return not info.is_resource and any(_means_path(each, info.path) for each in rule["nonResourceURLs"])
    return True


def _means_resource(wanted: Object, info: RequestInfo) -> bool:
    if wanted.get("group", "") not in (info.group, "*"):
        return False
    if not wanted.get("resources"):
        return True
    if wanted.get("resourceNames") and info.name not in wanted["resourceNames"]:
        return False
    plain = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    fitting = {plain, "*", f"{info.resource}/*"} | ({f"*/{info.subresource}"} if info.subresource else set())
    return bool(fitting & set(wanted["resources"]))


def _means_path(wanted: str, path: str) -> bool:
    return wanted in ("*", path) or (wanted.endswith("*") and path.startswith(wanted.rstrip("*")))


def read(path: Path) -> Policy:
    """The policy of a file. Raises OSError, and ValueError naming what is wrong."""
    import yaml  # here: it costs a start milliseconds

    try:
        given = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(given, dict) or given.get("kind") != "Policy" or given.get("apiVersion") != "audit.k8s.io/v1":
        raise ValueError(f"{path}: not a Policy of audit.k8s.io/v1")
    rules = given.get("rules")
    if not isinstance(rules, list) or not rules:
        raise ValueError(f"{path}: loaded illegal policy with 0 rules")
    _check_stages(given.get("omitStages") or [], "omitStages")
    for at, rule in enumerate(rules):
        _check(rule, f"rules[{at}]")
    return Policy(rules, given.get("omitStages") or (), omit_managed=bool(given.get("omitManagedFields")))


def _check(rule: Any, where: str) -> None:
    if not isinstance(rule, dict):
        raise ValueError(f"{where}: not an object")
    if unknown := sorted(set(rule) - set(_RULE)):
        raise ValueError(f'strict decoding error: unknown field "{where}.{unknown[0]}"')
    if not rule.get("level"):
        raise ValueError(f"{where}.level: Required value")
    if rule["level"] not in LEVELS:
        listed = ", ".join(f'"{level}"' for level in LEVELS)
        raise ValueError(f'{where}.level: Unsupported value: "{rule["level"]}": supported values: {listed}')
    for key in _LISTS:
        if not isinstance(rule.get(key) or [], list):
            raise ValueError(f"{where}.{key}: not a list")
    _check_stages(rule.get("omitStages") or [], f"{where}.omitStages")
    for at, url in enumerate(rule.get("nonResourceURLs") or ()):
        place = f'{where}.nonResourceURLs[{at}]: Invalid value: "{url}": non-resource URL'
        if url != "*" and not str(url).startswith("/"):
            raise ValueError(f"{place} rules must begin with a '/' character")
        if "*" in str(url)[:-1]:
            raise ValueError(f"{place} wildcards '*' must be the final character of the rule")
    if rule.get("nonResourceURLs") and (rule.get("resources") or rule.get("namespaces")):
        text = "rules cannot apply to both regular resources and non-resource URLs"
        raise ValueError(f"{where}.nonResourceURLs: Invalid value: {text}")
    for each in rule.get("resources") or ():
        if not isinstance(each, dict):
            raise ValueError(f"{where}.resources: not objects")
        if each.get("resourceNames") and not each.get("resources"):
            text = "using resourceNames requires at least one resource"
            raise ValueError(f"{where}.resources.resourceNames: Invalid value: {text}")


def _check_stages(stages: Any, where: str) -> None:
    for at, stage in enumerate(stages if isinstance(stages, list) else [stages]):
        if stage not in STAGES:
            raise ValueError(f'{where}[{at}]: Invalid value: "{stage}": allowed stages are {",".join(STAGES)}')
