"""Rules of containers: main, init, sidecar and ephemeral ones.

Owns `containers`, `init_containers` and `ephemeral_containers`. Source: validateContainers and its neighbours in
pkg/apis/core/validation; KEP-753 (sidecars), KEP-5307 (restart rules).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steersman.api import names
from steersman.api.errors import FieldError
from steersman.api.kinds.podspec import env, probes, resources, security, volumes
from steersman.api.pods import is_sidecar
from steersman.api.validation import duplicate, forbidden, invalid, not_found, not_supported, required, too_many

Complaints = list[FieldError]
Containers = Sequence[Mapping[str, Any]]

_ACTIONS = ("Restart", "RestartAllContainers")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_MESSAGES = ("File", "FallbackToLogsOnError")
_PULL = ("Always", "IfNotPresent", "Never")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_RESTARTS = ("Always", "Never", "OnFailure")
_RESIZES = ("NotRequired", "RestartContainer")
_NO_SIDECAR = "may not be set for init containers without restartPolicy=Always"
_NO_POLICY = "must specify restartPolicy when restart rules are used"
_NOT_EPHEMERAL = "cannot be set for an Ephemeral Container"
_EPHEMERAL = frozenset(
    (
        "name",
        "image",
        "command",
        "args",
        "workingDir",
        "env",
        "envFrom",
        "volumeMounts",
        "volumeDevices",
        "terminationMessagePath",
        "terminationMessagePolicy",
        "imagePullPolicy",
        "securityContext",
        "stdin",
        "stdinOnce",
        "tty",
        "targetContainerName",
    )
)


@dataclass(frozen=True, slots=True)
class Around:
    """What the rules of a container need to know of its pod."""

    volumes: volumes.Volumes
    claims: frozenset[str]
    grace: int | None
    restart: str
    os: str | None
    host_users: bool


def around(spec: Mapping[str, Any], good: volumes.Volumes) -> Around:
    """The surroundings that a pod spec makes; `good` are its valid volumes."""
    return Around(
        volumes=good,
        claims=frozenset(claim.get("name") or "" for claim in spec.get("resourceClaims") or ()) - {""},
        grace=spec.get("terminationGracePeriodSeconds"),
        restart=spec.get("restartPolicy") or "",
        os=(spec.get("os") or {}).get("name"),
        host_users=spec.get("hostUsers") is not False,
    )


def containers(path: str, found: Containers, pod: Around) -> Complaints:
    """spec.containers."""
    if not found:
        return [required(path)]
    out: Complaints = []
    seen: set[str] = set()
    for i, container in enumerate(found):
        here, name = f"{path}[{i}]", container.get("name") or ""
        out += common(here, container, pod)
        if name in seen:
            out.append(duplicate(f"{here}.name", name))
        seen.add(name)
        out += _hooks(here, container, pod)
        out += _restart(here, container)
    return out + _host_ports(path, enumerate(found))


def init_containers(path: str, found: Containers, main: Containers, pod: Around) -> Complaints:
    """spec.initContainers, sidecars among them."""
    out: Complaints = []
    seen = {container.get("name") for container in main}
    for i, container in enumerate(found):
        here, name = f"{path}[{i}]", container.get("name") or ""
        out += common(here, container, pod)
        if container.get("restartPolicy") is not None:
            out += _restart(here, container)
        elif container.get("restartPolicyRules"):
            out.append(required(f"{here}.restartPolicy", _NO_POLICY))
        if name in seen:
            out.append(duplicate(f"{here}.name", name))
        elif name:
            seen.add(name)
        out += _host_ports(path, [(0, container)])
        if is_sidecar(container):
            out += _hooks(here, container, pod)
            continue
        out += [forbidden(f"{here}.{key}", _NO_SIDECAR) for key in ("lifecycle", *_PROBES) if key in container]
        for j, policy in enumerate(container.get("resizePolicy") or ()):
            if policy.get("restartPolicy") == "RestartContainer":
                text = "must not be set to 'RestartContainer' for non-sidecar initContainers"
                out.append(invalid(f"{here}.resizePolicy[{j}].restartPolicy", "RestartContainer", text))
    return out


def ephemeral_containers(path: str, found: Containers, others: Containers, pod: Around) -> Complaints:
    """spec.ephemeralContainers; `others` are all main and init containers."""
    out: Complaints = []
    targets = {container.get("name") for container in others}
    seen = set(targets)
    for i, container in enumerate(found):
        here, name = f"{path}[{i}]", container.get("name") or ""
        out += common(here, container, pod)
        out += image_text(here, container)
        if name in seen:
            out.append(duplicate(f"{here}.name", name))
        seen.add(name)
        target = container.get("targetContainerName")
        if target and target not in targets:
            out.append(not_found(f"{here}.targetContainerName", target))
        out += [
            forbidden(f"{here}.{key}", _NOT_EPHEMERAL)
            for key, value in container.items()
            if key not in _EPHEMERAL and value not in ({}, [], None, "")
        ]
        for j, mount in enumerate(container.get("volumeMounts") or ()):
            for key in ("subPath", "subPathExpr"):
                if mount.get(key):
                    out.append(forbidden(f"{here}.volumeMounts[{j}].{key}", _NOT_EPHEMERAL))
    return out


def common(path: str, container: Mapping[str, Any], pod: Around) -> Complaints:
    """What holds for every container."""
    out: Complaints = []
    name = container.get("name") or ""
    if not name:
        out.append(required(f"{path}.name"))
    else:
        out += [invalid(f"{path}.name", name, text) for text in names.dns_label(name)]
    if not container.get("image"):
        out.append(required(f"{path}.image"))
    out += _choice(f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), _MESSAGES)
    if "ports" in container:
        out += _ports(f"{path}.ports", container["ports"])
    if "env" in container:
        out += env.env(f"{path}.env", container["env"])
    if "envFrom" in container:
        out += env.env_from(f"{path}.envFrom", container["envFrom"])
    if "volumeMounts" in container:
        out += volumes.mounts(f"{path}.volumeMounts", container, pod.volumes)
    if "volumeDevices" in container:
        out += volumes.devices(f"{path}.volumeDevices", container, pod.volumes)
    out += _choice(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL)
    out += resources.requirements(f"{path}.resources", container.get("resources"), pod.claims)
    if "resizePolicy" in container:
        out += _resize(f"{path}.resizePolicy", container["resizePolicy"], pod.restart)
    if "securityContext" in container:
        context = container["securityContext"]
        out += security.of_container(f"{path}.securityContext", context, host_users=pod.host_users)
    return out


def image_text(path: str, container: Mapping[str, Any]) -> Complaints:
    """In a pod, not in a template, an image has no white space around it."""
    image = container.get("image") or ""
    text = "must not have leading or trailing whitespace"
    return [] if image == image.strip() else [invalid(f"{path}.image", image, text)]


def _choice(path: str, value: str | None, choices: tuple[str, ...]) -> Complaints:
    if not value:
        return [required(path)]
    return [] if value in choices else [not_supported(path, value, choices)]


def _ports(path: str, ports: Sequence[Mapping[str, Any]]) -> Complaints:
    out: Complaints = []
    seen: set[str] = set()
    for i, port in enumerate(ports):
        here, name = f"{path}[{i}]", port.get("name")
        if name:
            texts = names.port_name(name)
            out += [invalid(f"{here}.name", name, text) for text in texts]
            if not texts and name in seen:
                out.append(duplicate(f"{here}.name", name))
            seen.add(name)
        number, host = port.get("containerPort") or 0, port.get("hostPort") or 0
        if not number:
            out.append(required(f"{here}.containerPort"))
        else:
            out += [invalid(f"{here}.containerPort", number, text) for text in names.port(number)]
        if host:
            out += [invalid(f"{here}.hostPort", host, text) for text in names.port(host)]
        out += _choice(f"{here}.protocol", port.get("protocol"), _PROTOCOLS)
    return out


def _hooks(path: str, container: Mapping[str, Any], pod: Around) -> Complaints:
    out: Complaints = []
    if "lifecycle" in container:
        out += probes.lifecycle(f"{path}.lifecycle", container["lifecycle"], pod.grace, pod.os)
    for key in _PROBES:
        if key in container:
            out += probes.probe(f"{path}.{key}", key, container[key], pod.grace)
    return out


def _restart(path: str, container: Mapping[str, Any]) -> Complaints:
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or ()
    out: Complaints = []
    if policy is None and rules:
        out.append(required(f"{path}.restartPolicy", _NO_POLICY))
    elif policy is not None and policy not in _RESTARTS:
        out.append(not_supported(f"{path}.restartPolicy", policy, _RESTARTS))
    if len(rules) > 20:
        out.append(too_many(f"{path}.restartPolicyRules", len(rules), 20))
    for i, rule in enumerate(rules):
        here = f"{path}.restartPolicyRules[{i}]"
        if rule.get("action") not in _ACTIONS:
            out.append(not_supported(f"{here}.action", rule.get("action") or "", _ACTIONS))
        codes = rule.get("exitCodes")
        if codes is None:
            out.append(required(f"{here}.exitCodes", "must be specified"))
            continue
        if codes.get("operator") not in ("In", "NotIn"):
            out.append(not_supported(f"{here}.exitCodes.operator", codes.get("operator") or "", ("In", "NotIn")))
        if len(codes.get("values") or ()) > 255:
            out.append(too_many(f"{here}.exitCodes.values", len(codes["values"]), 255))
    return out


def _resize(path: str, policies: Sequence[Mapping[str, Any]], pod_restart: str) -> Complaints:
    out: Complaints = []
    seen: set[str] = set()
    for i, policy in enumerate(policies):
        name, restart = policy.get("resourceName") or "", policy.get("restartPolicy") or ""
        if name in seen:
            out.append(duplicate(f"{path}[{i}]", name))
        seen.add(name)
        out += _choice(path, name, resources.POD)
        out += _choice(path, restart, _RESIZES)
        if pod_restart == "Never" and restart != "NotRequired":
            out.append(invalid(path, restart, "must be 'NotRequired' when pod `restartPolicy` is 'Never'"))
    return out


def _host_ports(path: str, found: Iterable[tuple[int, Mapping[str, Any]]]) -> Complaints:
    out: Complaints = []
    seen: set[str] = set()
    for i, container in found:
        for j, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            key = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if key in seen:
                out.append(duplicate(f"{path}[{i}].ports[{j}].hostPort", key))
            seen.add(key)
    return out
