"""Reading a Pod: its containers in order, restart policies, identity, grace periods.

Owns the small questions that plan, status and steps all ask of a Pod object. Pure; never changes the object.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from steersman.api.resource import Object

_ALL = "RestartAllContainers"  # an action
MINIMUM_GRACE = 1
"""Seconds: no container is killed with less notice than this."""


def uid(pod: Object) -> str:
    """metadata.uid; a static pod's mirror carries its own uid in an annotation."""
    return str(pod["metadata"].get("uid", ""))


def key(pod: Object) -> tuple[str, str]:
    """(namespace, name)."""
    meta = pod["metadata"]
    return meta.get("namespace", ""), meta["name"]


def full_name(pod: Object) -> str:
    """`name_namespace(uid)`, as the kubelet names pods in messages."""
    namespace, name = key(pod)
    return f"{name}_{namespace}({uid(pod)})"


def containers(pod: Object) -> Sequence[Object]:
    """spec.containers."""
    return pod["spec"].get("containers") or ()


def init_containers(pod: Object) -> Sequence[Object]:
    """spec.initContainers, sidecars included."""
    return pod["spec"].get("initContainers") or ()


def ephemeral_containers(pod: Object) -> Sequence[Object]:
    """spec.ephemeralContainers."""
    return pod["spec"].get("ephemeralContainers") or ()


def every_container(pod: Object) -> Iterator[tuple[str, Object]]:
    """(field name, container) for init, regular and ephemeral containers, in that order."""
    for container in init_containers(pod):
        yield "initContainers", container
    for container in containers(pod):
        yield "containers", container
    for container in ephemeral_containers(pod):
        yield "ephemeralContainers", container


def container_named(pod: Object, name: str) -> tuple[str, Object] | None:
    """(field name, container), or None."""
    return next(((field, each) for field, each in every_container(pod) if each["name"] == name), None)


def is_sidecar(container: Object) -> bool:
    """A restartable init container (KEP-753)."""
    return container.get("restartPolicy") == "Always"


def restart_policy(pod: Object) -> str:
    """spec.restartPolicy."""
    return str(pod["spec"].get("restartPolicy") or "Always")


def should_restart(pod: Object, container: Object, exit_code: int, *, is_init: bool = False) -> bool:
    """Whether a container that ended with `exit_code` runs again.

    Container-level rules win over the container's policy, which wins over the pod's (KEP-5307). An init container of a
    pod with policy Always is retried on failure only.
    """
    if _action(container, exit_code) in ("Restart", _ALL):
        return True
    policy = container.get("restartPolicy") or restart_policy(pod)
    if policy == "Always":
        return True if not is_init or is_sidecar(container) else exit_code != 0
    return bool(policy == "OnFailure" and exit_code != 0)


def restarts_all(container: Object, exit_code: int) -> bool:
    """Whether the end of this container restarts every container of its pod (KEP-5532)."""
    return _action(container, exit_code) == _ALL


def may_restart_all(pod: Object) -> bool:
    """Whether some container's end may do so."""
    return any(
        rule.get("action") == _ALL
        for each in (*init_containers(pod), *containers(pod))
        for rule in each.get("restartPolicyRules") or ()
    )


def _action(container: Object, exit_code: int) -> str:
    """What the first rule that matches says; empty where none does."""
    rules = container.get("restartPolicyRules") or ()
    return next((str(rule.get("action")) for rule in rules if _rule_matches(rule, exit_code)), "")


def _rule_matches(rule: Object, exit_code: int) -> bool:
    on = rule.get("exitCodes") or {}
    values = on.get("values") or ()
    if on.get("operator") == "In":
        return exit_code in values
    return bool(on.get("operator") == "NotIn" and exit_code not in values)


def host_network(pod: Object) -> bool:
    """spec.hostNetwork."""
    return bool(pod["spec"].get("hostNetwork"))


def deleting(pod: Object) -> bool:
    """Whether graceful deletion was asked for."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def grace_period(pod: Object) -> int:
    """Seconds between the stop signal and KILL, by deletion or else by the spec."""
    asked: Any = pod["metadata"].get("deletionGracePeriodSeconds") if deleting(pod) else None
    if asked is None:
        asked = pod["spec"].get("terminationGracePeriodSeconds")
    return MINIMUM_GRACE if asked is None else int(asked)


def finished(pod: Object) -> bool:
    """Whether the API shows a phase that can not be left."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def container_hash(container: Object) -> str:
    """Changes when the container must be replaced: its name or image changed."""
    text = f"{container['name']} {container.get('image', '')}"
    return f"{zlib.crc32(text.encode()):x}"


def hostname_and_domain(pod: Object, cluster_domain: str) -> tuple[str, str]:
    """The pod's host name (at most 63 characters) and its domain in the cluster's DNS, or ""."""
    spec = pod["spec"]
    if spec.get("hostnameOverride"):
        return _fit(spec["hostnameOverride"]), ""
    host = _fit(spec.get("hostname") or pod["metadata"]["name"])
    subdomain = spec.get("subdomain")
    return host, f"{subdomain}.{key(pod)[0]}.svc.{cluster_domain}" if subdomain else ""


def _fit(name: str) -> str:
    return name if len(name) <= 63 else name[:63].rstrip("-.")
