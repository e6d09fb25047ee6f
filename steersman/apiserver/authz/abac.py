"""Attribute-based access control: a file with one policy a line.

Owns the file's form and its matching. Read once at start. Source: kubernetes' pkg/auth/authorizer/abac.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from steersman.api.resource import Object
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo

_VERSION = "abac.authorization.kubernetes.io/v1beta1"
_TEXTS = ("user", "group", "apiGroup", "resource", "namespace", "nonResourcePath")
_READING = ("get", "list", "watch")


def read(path: Path) -> list[Object]:
    """The policies of a file. Raises OSError, and ValueError naming the line that cannot be read."""
    out = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.strip().startswith("#"):
            continue
        try:
            policy = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise ValueError(f"error reading policy file {path}, line {number}: {line}: {error}") from None
        problem = _problem(policy)
        if problem:
            raise ValueError(f"error reading policy file {path}, line {number}: {line}: {problem}")
        out.append(policy["spec"])
    return out


def _problem(policy: object) -> str:
    if not isinstance(policy, dict) or not isinstance(policy.get("spec"), dict):
        return "a policy is an object with a spec"
    if policy.get("apiVersion") != _VERSION or policy.get("kind") != "Policy":
        return f'no kind "{policy.get("kind", "")}" is registered for version "{policy.get("apiVersion", "")}"'
    spec = policy["spec"]
    if any(not isinstance(spec.get(key, ""), str) for key in _TEXTS) or not isinstance(
        spec.get("readonly", False), bool
    ):
        return "a field has the wrong type"
    return ""


class Abac:
    """Implements `app.Authorizer`."""

    def __init__(self, policies: Sequence[Object]) -> None:
        self._policies = policies

    def __call__(self, user: User, info: RequestInfo) -> str | None:
        """None when one policy allows it."""
        allowed = any(_means(policy, user) and _allows(policy, info) for policy in self._policies)
        return None if allowed else "No policy matched."

    def rules(self, user: User, namespace: str) -> tuple[list[Object], list[Object]]:
        """Everything that the policies allow a user in a namespace."""
        resources: list[Object] = []
        paths: list[Object] = []
        for policy in self._policies:
            if not _means(policy, user) or policy.get("namespace", "") not in ("*", namespace):
                continue
            verbs = list(_READING) if policy.get("readonly") else ["*"]
            if policy.get("resource"):
                rule = {"apiGroups": [policy.get("apiGroup", "")], "resources": [policy["resource"]]}
                resources.append({"verbs": verbs, **rule})
            if policy.get("nonResourcePath"):
                paths.append({"verbs": verbs, "nonResourceURLs": [policy["nonResourcePath"]]})
        return resources, paths


def _means(policy: Object, user: User) -> bool:
    name, group = policy.get("user", ""), policy.get("group", "")
    if not name and not group:
        return False
    by_name = not name or name in ("*", user.name)
    if name == "*" and not group:
        return "system:authenticated" in user.groups
    if group == "*":
        return by_name and "system:authenticated" in user.groups
    return by_name and (not group or group in user.groups)


def _allows(policy: Object, info: RequestInfo) -> bool:
    if policy.get("readonly") and info.verb not in _READING:
        return False
    if not info.is_resource:
        path = policy.get("nonResourcePath", "")
        return path in ("*", info.path) or (path.endswith("*") and info.path.startswith(path[:-1]))
    pairs = ((policy.get("namespace", ""), info.namespace), (policy.get("resource", ""), info.resource))
    return all(said in ("*", asked) for said, asked in (*pairs, (policy.get("apiGroup", ""), info.group)))
