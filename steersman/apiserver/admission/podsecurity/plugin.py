"""The PodSecurity plugin: enforce, audit and warn, by a namespace's labels.

Owns the labels, the modes, exemptions, and the warnings about pods that are there already. Called by the admission
chain. Source: KEP-2579; pod-security-admission's admission package.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from steersman.api import errors, validation
from steersman.api.errors import FieldError
from steersman.api.resource import Object
from steersman.apiserver.admission.podsecurity import checks
from steersman.apiserver.call import Call

LEVELS = ("privileged", "baseline", "restricted")
_LABEL = "pod-security.kubernetes.io/"
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]{0,5})")
_IGNORED = frozenset(("exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"))
_TEMPLATED = frozenset(
    {("", "replicationcontrollers"), ("", "podtemplates"), ("batch", "jobs"), ("batch", "cronjobs")}
    | {("apps", name) for name in ("replicasets", "deployments", "statefulsets", "daemonsets")}
)
_MOST_PODS = 3000
EVALUATIONS = "pod security evaluations"
"""Where evaluations are counted in `Services.extras`: by decision, mode, level, version, operation, resource and
subresource, as the original's metric has them."""
EXEMPTIONS = "pod security exemptions"
"""The same of those that were let through unseen: by operation, resource and subresource."""


@dataclass(frozen=True, slots=True)
class Standard:
    """A level at a version: `latest`, or `v1.N`."""

    level: str = "privileged"
    version: str = "latest"

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"

    def violations(self, meta: Object, spec: Object) -> list[tuple[str, str]]:
        """What of a pod it forbids: (reason, detail)."""
        minor = checks.NEWEST if self.version == "latest" else int(self.version.removeprefix("v1."))
        return checks.evaluate(self.level, minor, meta, spec)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a namespace wants of its pods."""

    enforce: Standard = Standard()
    audit: Standard = Standard()
    warn: Standard = Standard()

    @property
    def idle(self) -> bool:
        """Whether everything is allowed and nothing is said."""
        return {self.enforce.level, self.audit.level, self.warn.level} == {"privileged"}


@dataclass(frozen=True)
class Configuration:
    """A PodSecurityConfiguration: the policy without labels, and who is exempt."""

    defaults: Policy = Policy()
    users: Sequence[str] = ()
    namespaces: Sequence[str] = ()
    runtime_classes: Sequence[str] = field(default=())


def configuration(given: Any) -> Configuration:
    """Read a PodSecurityConfiguration; None stands for what holds without one. Raises ValueError."""
    if given is None:
        return Configuration()
    if not isinstance(given, dict) or given.get("kind") != "PodSecurityConfiguration":
        raise ValueError("not a PodSecurityConfiguration")
    stated = given.get("defaults") or {}
    labels = {_LABEL + key: value for key, value in stated.items()}
    policy, problems = policy_of(labels, Policy())
    if problems:
        raise ValueError("; ".join(str(problem) for problem in problems))
    exempt = given.get("exemptions") or {}
    lists = [exempt.get(key) or [] for key in ("usernames", "namespaces", "runtimeClasses")]
    if not all(isinstance(each, list) for each in lists):
        raise ValueError("exemptions: not lists")
    return Configuration(policy, *lists)


def policy_of(labels: Mapping[str, str], defaults: Policy) -> tuple[Policy, list[FieldError]]:
    """The policy that labels ask for, and what is wrong with them; unreadable levels fail closed for enforce only."""
    if not any(key.startswith(_LABEL) for key in labels):
        return defaults, []
    found: dict[str, Standard] = {}
    problems: list[FieldError] = []
    for mode, standard in (("enforce", defaults.enforce), ("audit", defaults.audit), ("warn", defaults.warn)):
        level, version = labels.get(_LABEL + mode), labels.get(f"{_LABEL}{mode}-version")
        if level is not None:
            if level not in LEVELS:
                problems.append(_invalid(mode, level, f"must be one of {', '.join(LEVELS)}"))
                level = "restricted" if mode == "enforce" else "privileged"
            standard = replace(standard, level=level)
        if version is not None:
            if version != "latest" and not _VERSION.fullmatch(version):
                problems.append(_invalid(f"{mode}-version", version, 'must be "latest" or "v1.x"'))
                version = "latest"
            standard = replace(standard, version=version)
        found[mode] = standard
    enforce, warn = found["enforce"], found["warn"]
    asked = labels.get(_LABEL + "enforce") in LEVELS
    if asked and _LABEL + "warn" not in labels and LEVELS.index(enforce.level) > LEVELS.index(warn.level):
        version = warn.version if f"{_LABEL}warn-version" in labels else enforce.version
        found["warn"] = Standard(enforce.level, version)
    return Policy(**found), problems


def _invalid(key: str, value: str, text: str) -> FieldError:
    return validation.invalid(f"metadata.labels[{_LABEL}{key}]", value, text)


def validate(call: Call, obj: Object | None, old: Object | None) -> None:
    """Refuse pods that their namespace does not allow, and warn of those it does not like. Raises ApiError."""
    if obj is None or call.operation not in ("CREATE", "UPDATE"):
        return
    group, plural, sub = call.kind.group, call.kind.plural, call.info.subresource
    config: Configuration = call.services.extras.get("PodSecurity") or Configuration()
    if (group, plural) == ("", "namespaces"):
        if not sub:
            _namespace(call, config, obj, old)
    elif (group, plural) == ("", "pods"):
        if sub not in _IGNORED and (old is None or _significant(obj, old)):
            _pod(call, config, obj["metadata"], obj["spec"], enforce=True)
    elif (group, plural) in _TEMPLATED and not sub:
        template = _template(plural, obj)
        if template:
            _pod(call, config, template.get("metadata") or {}, template.get("spec") or {}, enforce=False)


def _template(plural: str, obj: Object) -> Object | None:
    if plural == "podtemplates":
        return obj.get("template")
    spec = obj.get("spec") or {}
    if plural == "cronjobs":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    return spec.get("template")


def _significant(new: Object, old: Object) -> bool:
    """Whether an update changes images or adds containers."""
    for key in ("containers", "initContainers"):
        now, before = new["spec"].get(key) or [], old["spec"].get(key) or []
        if [each.get("image") for each in now] != [each.get("image") for each in before]:
            return True
    images = {each["name"]: each.get("image") for each in old["spec"].get("ephemeralContainers") or ()}
    added = new["spec"].get("ephemeralContainers") or ()
    return any(each["name"] not in images or images[each["name"]] != each.get("image") for each in added)


def _labels(call: Call) -> Mapping[str, str]:
    kind = call.services.registry.find("", "namespaces")
    item = call.storage.find(kind, "", call.info.namespace) if kind is not None else None
    return item.labels if item is not None else {}


def _pod(call: Call, config: Configuration, meta: Object, spec: Object, *, enforce: bool) -> None:
    for exempt, kind in (
        (call.info.namespace in config.namespaces, "namespace"),
        (call.user.name in config.users, "user"),
    ):
        if exempt:
            _exempted(call, enforce=enforce)
            call.annotate(_LABEL + "exempt", kind)
            return
    policy, problems = policy_of(_labels(call), config.defaults)
    if policy.idle and not problems:
        if enforce:
            call.annotate(_LABEL + "enforce-policy", "privileged:latest")
            _count(call, "allow", "enforce", policy.enforce, "pod")
        return
    if (spec.get("runtimeClassName") or "") in config.runtime_classes:
        _exempted(call, enforce=enforce)
        call.annotate(_LABEL + "exempt", "runtimeClass")
        return
    if enforce:
        call.annotate(_LABEL + "enforce-policy", str(policy.enforce))
    what = "pod" if enforce else "controller"
    if found := policy.audit.violations(meta, spec):
        _count(call, "deny", "audit", policy.audit, what)
        call.annotate(_LABEL + "audit-violations", f'would violate PodSecurity "{policy.audit}": {_detail(found)}')
    found = policy.enforce.violations(meta, spec) if enforce else []
    if enforce:
        _count(call, "deny" if found else "allow", "enforce", policy.enforce, what)
    if found:
        text = f'violates PodSecurity "{policy.enforce}": {_detail(found)}'
        raise errors.forbidden("", "pods", meta.get("name") or "", text)
    if found := policy.warn.violations(meta, spec):
        _count(call, "deny", "warn", policy.warn, what)
        call.warnings.append(f'would violate PodSecurity "{policy.warn}": {_detail(found)}')


def _count(call: Call, decision: str, mode: str, standard: Standard, what: str) -> None:
    counted = call.services.extras.setdefault(EVALUATIONS, Counter())
    version = standard.version if standard.level != "privileged" else "latest"
    minor = version.removeprefix("v1.")
    if minor.isdecimal() and int(minor) > checks.NEWEST:
        version = "future"
    sub = call.info.subresource
    counted[decision, mode, standard.level, version, call.operation.lower(), what, sub] += 1


def _exempted(call: Call, *, enforce: bool) -> None:
    counted = call.services.extras.setdefault(EXEMPTIONS, Counter())
    counted[call.operation.lower(), "pod" if enforce else "controller", call.info.subresource] += 1


def _detail(found: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{reason} ({detail})" if detail else reason for reason, detail in found)


# Namespaces ----------------------------------------------------------------------------------------------------------


def _namespace(call: Call, config: Configuration, obj: Object, old: Object | None) -> None:
    name, labels = obj["metadata"].get("name", ""), obj["metadata"].get("labels") or {}
    policy, problems = policy_of(labels, config.defaults)
    before, known = policy_of((old or {}).get("metadata", {}).get("labels") or {}, config.defaults)
    if problems and (old is None or problems != known):
        raise errors.invalid("", "Namespace", name, problems)
    if name in config.namespaces:
        if not policy.idle and policy != config.defaults and (old is None or policy.enforce != before.enforce):
            call.warnings.append(_exempt(name, policy, labels))
        return
    stricter = LEVELS.index(policy.enforce.level) > LEVELS.index(before.enforce.level)
    other = policy.enforce.version != before.enforce.version and policy.enforce.level != "privileged"
    if old is not None and (stricter or other):
        call.warnings += _existing(call, config, name, policy.enforce)


def _exempt(name: str, policy: Policy, labels: Mapping[str, str]) -> str:
    said = [
        f"{mode}={standard}"
        for mode, standard in (("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn))
        if standard.level != "privileged" and {_LABEL + mode, f"{_LABEL}{mode}-version"} & set(labels)
    ]
    return f'namespace "{name}" is exempt from Pod Security, and the policy ({", ".join(said)}) will be ignored'


def _existing(call: Call, config: Configuration, namespace: str, standard: Standard) -> list[str]:
    """Warnings about the pods that a stricter policy would not have let in."""
    kind = call.services.registry.find("", "pods")
    if kind is None:
        return []
    found: dict[str, list[str]] = {}
    pods = [item.obj() for _, item in call.storage.cache(kind).items(call.storage.prefix(kind, namespace))]
    pods = [pod for pod in pods if (pod["spec"].get("runtimeClassName") or "") not in config.runtime_classes]
    for pod in pods[:_MOST_PODS]:
        if violations := standard.violations(pod["metadata"], pod["spec"]):
            found.setdefault(", ".join(reason for reason, _ in violations), []).append(pod["metadata"]["name"])
    out = []
    if len(pods) > _MOST_PODS:
        text = "new PodSecurity enforce level only checked against the first"
        out.append(f"{text} {_MOST_PODS} of {len(pods)} existing pods")
    if found:
        text = f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{standard}"'
        out.append(text)
    return out + sorted(f"{min(names)}{_others(len(names) - 1)}: {why}" for why, names in found.items())


def _others(count: int) -> str:
    if not count:
        return ""
    return f" (and {count} other pod{'s' if count > 1 else ''})"
