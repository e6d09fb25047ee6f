"""What a pod or a template of pods is warned of: allowed, but deprecated, without effect or a likely mistake.

Owns the texts of the Warning headers that creates and updates of pods and of workloads answer with. Called by the kinds
that hold pod specs. Pure. Source: pkg/api/pod/warnings.go, pkg/api/node/util.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from steersman.api import names, pods, quantity
from steersman.api.kinds.podspec import alike
from steersman.api.validation import quote

Found = list[str]
Spec = Mapping[str, Any]

NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}
_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
_VOLUMES = {
    "photonPersistentDisk": ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    "gitRepo": ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    "scaleIO": ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    "flocker": ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    "storageos": ("storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    "quobyte": ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    "glusterfs": ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    "cephfs": ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    "rbd": ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
}
_NULL = "a null labelSelector results in matching no pod"
_FRACTION = "is invalid, must be an integer"
_SECCOMP, _SECCOMP_OF = "seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/"
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"


def template(path: str, found: Spec) -> Found:
    """Warnings about the template of pods at `path`."""
    return pod(found.get("metadata") or {}, found.get("spec") or {}, f"{path}.")


def pod(metadata: Spec, spec: Spec, above: str = "") -> Found:
    """Warnings about a pod; `above` is where it is, with a point after it. A spec of which there are none is known."""
    annotations = metadata.get("annotations") or {}
    told = [f"{above}metadata.annotations[{key}]: {text}" for key, text in _ANNOTATIONS.items() if key in annotations]
    profiles = _profiles(above, annotations, spec) if annotations else []
    text, here = alike.text(spec), f"{above}spec"
    if text is not None and _silent(text):
        return told + profiles
    return _placed(here, spec) + told + _around(here, spec) + profiles + _within(here, spec)


@lru_cache(maxsize=1024)
def _silent(text: bytes) -> bool:
    spec = msgspec.json.decode(text)
    return not (_placed("", spec) or _around("", spec) or _within("", spec))


def _around(here: str, spec: Spec) -> Found:
    """What containers share."""
    out: Found = []
    for i, volume in enumerate(spec.get("volumes") or ()):
        out += _volume(f"{here}.volumes[{i}]", volume)
    out += _twice(f"{here}.hostAliases", spec.get("hostAliases") or (), "ip")
    secrets = spec.get("imagePullSecrets") or ()
    out += _twice(f"{here}.imagePullSecrets", secrets, "name")
    for i, each in enumerate(secrets):
        out += [] if each.get("name") else [f'{here}.imagePullSecrets[{i}].name: invalid empty name ""']
    return out + _fractions(f"{here}.overhead", spec.get("overhead"))


def _within(here: str, spec: Spec) -> Found:
    """Containers, and the rest."""
    out: Found = []
    for below, container in pods.every_container(spec):
        out += _container(f"{here}.{below}", container)
    out += _ports(here, spec)
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        out.append(f"{here}.terminationGracePeriodSeconds: {text}")
    out += _affinity(f"{here}.affinity", spec.get("affinity") or {})
    for i, server in enumerate((spec.get("dnsConfig") or {}).get("nameservers") or ()):
        out += address(f"{here}.dnsConfig.nameservers[{i}]", server)
    for i, alias in enumerate(spec.get("hostAliases") or ()):
        out += address(f"{here}.hostAliases[{i}].ip", alias.get("ip") or "")
    return out


def address(path: str, text: str) -> Found:
    """An address that is written in an odd way."""
    parsed = names.parse_ip(text)
    if parsed is None:
        return []
    plain = str(parsed)
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None or (parsed.version == 4 and plain != text):
        return [f'{path}: non-standard IP address "{text}" is invalid: use "{mapped or plain}"']
    if parsed.version == 6 and plain != text:
        return [f'{path}: IPv6 address "{text}" should be in RFC 5952 canonical format ("{plain}")']
    return []


def _placed(here: str, spec: Spec) -> Found:
    """Labels of nodes that had their day."""
    out = [
        f"{here}.nodeSelector[{key}]: {NODE_LABELS[key]}"
        for key in spec.get("nodeSelector") or ()
        if key in NODE_LABELS
    ]
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    path = f"{here}.affinity.nodeAffinity"
    needed = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for i, term in enumerate(needed.get("nodeSelectorTerms") or ()):
        below = f"requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[{i}]"
        out += _term(f"{path}.{below}", term, values=False)
    for i, liked in enumerate(affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        below = f"preferredDuringSchedulingIgnoredDuringExecution[{i}].preference"
        out += _term(f"{path}.{below}", liked.get("preference") or {}, values=True)
    for i, spread in enumerate(spec.get("topologySpreadConstraints") or ()):
        at, key = f"{here}.topologySpreadConstraints[{i}]", spread.get("topologyKey") or ""
        out += [f"{at}.topologyKey: {key} is {NODE_LABELS[key]}"] if key in NODE_LABELS else []
        out += [] if "labelSelector" in spread else [f"{at}.labelSelector: {_NULL}"]
    return out


def _term(path: str, term: Spec, *, values: bool) -> Found:
    out: Found = []
    for i, each in enumerate(term.get("matchExpressions") or ()):
        key, here = each.get("key") or "", f"{path}.matchExpressions[{i}]"
        out += [f"{here}.key: {key} is {NODE_LABELS[key]}"] if key in NODE_LABELS else []
        for j, value in enumerate(each.get("values") or () if values else ()):
            out += [f"{here}.values[{j}]: {value} is invalid, {text}" for text in names.label_value(value)]
    return out


def _volume(path: str, volume: Spec) -> Found:
    out = [f"{path}.{shown}: {text}" for key, (shown, text) in _VOLUMES.items() if key in volume]
    claim = ((volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}).get("spec") or {}
    out += _overlaps(volume)
    return out + claim_size(f"{path}.ephemeral.volumeClaimTemplate.spec", claim)


def _overlaps(volume: Spec) -> Found:
    """Files of one volume whose paths are equal or lie one in another."""
    name = volume.get("name") or ""
    out: Found = []
    for key, told in (("configMap", "ConfigMap"), ("secret", "Secret"), ("downwardAPI", "DownwardAPI")):
        found = volume.get(key) or {}
        called = found.get("secretName" if key == "secret" else "name") or ""
        whose = told if key == "downwardAPI" else f"{told} {quote(called)}"
        paths = _Paths()
        for item in found.get("items") or ():
            out += [f"volume {quote(name)} ({whose}): overlapping paths: {text}" for text in paths.add(item, "")]
    projected = volume.get("projected") or {}
    paths = _Paths()
    for each in projected.get("sources") or ():
        if not each:
            out.append(f"volume {quote(name)} (Projected) has no sources provided")
        for item, whose in _projected(each):
            out += [f"volume {quote(name)} (Projected): overlapping paths: {text}" for text in paths.add(item, whose)]
    return out


def _projected(source: Spec) -> Iterator[tuple[Spec, str]]:
    for key, told in (("configMap", "ConfigMap"), ("secret", "Secret")):
        for item in (source.get(key) or {}).get("items") or ():
            yield item, f"{told} {quote(source[key].get('name') or '')}"
    for item in (source.get("downwardAPI") or {}).get("items") or ():
        yield item, "DownwardAPI"
    if token := source.get("serviceAccountToken"):
        yield token, "ServiceAccountToken"


class _Paths:
    """The paths so far, each with where it comes from."""

    def __init__(self) -> None:
        self._known: list[tuple[str, str]] = []

    def add(self, item: Spec, whose: str) -> Found:
        """The overlaps of one more path with those before it."""
        path = (item.get("path") or "").rstrip("/")
        out = [
            f"{_told(path, whose)} with {_told(other, theirs)}"
            for other, theirs in self._known
            if f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/")
        ]
        self._known.append((path, whose))
        return out


def _told(path: str, whose: str) -> str:
    return f"{quote(path)} ({whose})" if whose else quote(path)


def claim_size(path: str, spec: Spec) -> Found:
    """A size of a claim that is no whole number of bytes."""
    resources = spec.get("resources") or {}
    return [
        text
        for which in ("requests", "limits")
        for text in _fractions(f"{path}.resources.{which}", resources.get(which), ("storage",))
    ]


def _fractions(
    path: str, amounts: Mapping[str, str] | None, which: Sequence[str] = ("memory", "ephemeral-storage")
) -> Found:
    return [
        f'{path}[{name}]: fractional byte value "{amounts[name]}" {_FRACTION}'
        for name in which
        if amounts and name in amounts and quantity.parse(amounts[name]).nanos % 10**9
    ]


def _twice(path: str, items: Sequence[Spec], key: str) -> Found:
    values = [each.get(key) or "" for each in items]
    return [
        f"{path}[{i}].{key}: duplicate {key} {quote(value)}" for i, value in enumerate(values) if value in values[:i]
    ]


def _profiles(above: str, annotations: Mapping[str, str], spec: Spec) -> Found:
    """Annotations in whose place there are fields."""
    context, out = spec.get("securityContext") or {}, list[str]()
    told = 'non-functional in v1.27+; use the "seccompProfile" field instead'
    if _SECCOMP in annotations and "seccompProfile" not in context:
        out.append(f"{above}metadata.annotations[{_SECCOMP}]: {told}")
    for _, container in pods.every_container(spec):
        own, name = container.get("securityContext") or {}, container.get("name") or ""
        key = _SECCOMP_OF + name
        out += (
            [f"{above}metadata.annotations[{key}]: {told}"]
            if key in annotations and "seccompProfile" not in own
            else []
        )
        key = _APP_ARMOR + name
        if above and key in annotations and "appArmorProfile" not in own and "appArmorProfile" not in context:
            text = 'deprecated since v1.30; use the "appArmorProfile" field instead'
            out.append(f"{above}metadata.annotations[{key}]: {text}")
    return out


def _container(path: str, container: Spec) -> Found:
    resources = container.get("resources") or {}
    out = [
        text
        for name in ("memory", "ephemeral-storage")
        for which in ("limits", "requests")
        for text in _fractions(f"{path}.resources.{which}", resources.get(which), (name,))
    ]
    seen: set[str] = set()
    for i, variable in enumerate(container.get("env") or ()):
        name, value = variable.get("name") or "", variable.get("value") or ""
        reference = f"$({name})"
        if name not in seen:
            seen.add(name)
        elif "valueFrom" in variable or value == reference or reference not in value:
            text = f"hides previous definition of {quote(name)}, which may be dropped when using apply"
            out.append(f"{path}.env[{i}]: {text}")
    return out


def _every_port(here: str, spec: Spec) -> Iterator[tuple[str, Spec]]:
    for below, container in pods.every_container(spec):
        for i, port in enumerate(container.get("ports") or ()):
            yield f"{here}.{below}.ports[{i}]", port


def _ports(here: str, spec: Spec) -> Found:
    out: Found = []
    known: dict[tuple[int, str], list[tuple[str, str, int]]] = {}
    for path, port in _every_port(here, spec):
        address, on_host = port.get("hostIP") or "", port.get("hostPort") or 0
        if address and not on_host:
            out.append(f"{path}: hostIP set without hostPort: {_shown(port)}")
        others = known.setdefault((port.get("containerPort") or 0, port.get("protocol") or ""), [])
        for other, their_address, their_port in others:
            if (address, on_host) == (their_address, their_port):
                out.append(f"{path}: duplicate port definition with {other}")
            elif not on_host or not their_port:
                out.append(f"{path}: overlapping port definition with {other}")
            elif on_host == their_port and bool(address) != bool(their_address):
                out.append(f"{path}: dangerously ambiguous port definition with {other}")
        others.append((path, address, on_host))
    named: dict[str, str] = {}
    for path, port in _every_port(here, spec):
        name = port.get("name") or ""
        if name and name in named:
            first = named[name]
            text = f"services and probes that select ports by name will use {first}"
            out.append(f"{path}: duplicate port name {quote(name)} with {first}, {text}")
        named.setdefault(name, path)
    return out


def _shown(port: Spec) -> str:
    """A port as Go's %+v has it."""
    number, on_host = port.get("containerPort") or 0, port.get("hostPort") or 0
    rest = f"Protocol:{port.get('protocol') or ''} HostIP:{port.get('hostIP') or ''}"
    return f"{{Name:{port.get('name') or ''} HostPort:{on_host} ContainerPort:{number} {rest}}}"


def _affinity(path: str, affinity: Spec) -> Found:
    out: Found = []
    for key in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(key) or {}
        for i, term in enumerate(found.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            if "labelSelector" not in term:
                below = f"requiredDuringSchedulingIgnoredDuringExecution[{i}].labelSelector"
                out.append(f"{path}.{key}.{below}: {_NULL}")
        for i, liked in enumerate(found.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            if "labelSelector" not in (liked.get("podAffinityTerm") or {}):
                below = f"preferredDuringSchedulingIgnoredDuringExecution[{i}].podAffinityTerm.labelSelector"
                out.append(f"{path}.{key}.{below}: {_NULL}")
    return out
