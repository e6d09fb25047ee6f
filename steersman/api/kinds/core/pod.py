"""Pod: first status, generation, what each subresource may change, and the columns of `kubectl get pods`.

Source: pkg/registry/core/pod/strategy.go and printPod.
"""

from __future__ import annotations

from typing import Any

from steersman.api import names, pods
from steersman.api.fields import flag_at, text_at
from steersman.api.kind import Behavior, Column, Update
from steersman.api.kinds import strategy
from steersman.api.kinds.podspec import apparmor, defaults, validate
from steersman.api.kinds.podspec import update as changes
from steersman.api.kinds.podspec import warnings as podwarnings
from steersman.api.kinds.podspec.resize import resize
from steersman.api.kinds.podspec.status import status
from steersman.api.resource import Object
from steersman.api.table import AGE, NAME, NONE, dig, field, since, wide

_GATED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
    "lastProbeTime": None,
    "lastTransitionTime": None,
}


def prepare_create(pod: Object) -> None:
    """Pending, QoS class, generation 1; a gated pod says so; matchLabelKeys become part of the selectors."""
    status: Object = {"phase": "Pending", "qosClass": pods.qos_class(pod)}
    if pod["spec"].get("schedulingGates"):
        status["conditions"] = [{**_GATED, "lastTransitionTime": pod["metadata"].get("creationTimestamp")}]
    pod["status"] = status
    pod["metadata"]["generation"] = 1
    _expand_label_keys(pod)
    apparmor.apply(pod)


def prepare_update(new: Object, old: Object) -> None:
    """The spec may change (a little), the status not."""
    strategy.copy_field("status", new, old)
    _count(new, old)


def prepare_status(new: Object, old: Object) -> None:
    """The status may change; owners and deletion not."""
    new["spec"] = old["spec"]
    for key in ("generation", "deletionTimestamp", "ownerReferences"):
        strategy.copy_field(key, new["metadata"], old["metadata"])
    status, before = new.setdefault("status", {}), old.get("status") or {}
    status.pop("nodeAllocatableResourceClaimStatuses", None)  # behind a gate that is off
    if not status.get("qosClass") and before.get("qosClass"):
        status["qosClass"] = before["qosClass"]
    if not status.get("observedGeneration") and before.get("observedGeneration"):
        status["observedGeneration"] = before["observedGeneration"]
    observed = {each.get("type"): each.get("observedGeneration") for each in before.get("conditions") or ()}
    for condition in status.get("conditions") or ():
        if not condition.get("observedGeneration") and observed.get(condition.get("type")):
            condition["observedGeneration"] = observed[condition["type"]]


def prepare_ephemeral(new: Object, old: Object) -> None:
    """Only spec.ephemeralContainers may change."""
    wanted = new["spec"].get("ephemeralContainers")
    _only_spec(new, old)
    new["spec"] = {**old["spec"]}
    if wanted is None:
        new["spec"].pop("ephemeralContainers", None)
    else:
        new["spec"]["ephemeralContainers"] = wanted
    _count(new, old)


def prepare_resize(new: Object, old: Object) -> None:
    """Only the containers' resources and resizePolicy, and the pod's resources, may change."""
    wanted = new["spec"]
    fields = ("containers", "initContainers")
    if any(len(wanted.get(key) or ()) != len(old["spec"].get(key) or ()) for key in fields):
        _count(new, old)
        return
    _only_spec(new, old)
    spec = {**old["spec"]}
    strategy.copy_field("resources", spec, wanted)
    for key in fields:
        if old["spec"].get(key):
            spec[key] = _resized(wanted[key], old["spec"][key])
    new["spec"] = spec
    _count(new, old)


def _resized(new: list[Object], old: list[Object]) -> list[Object]:
    out: list[Object] = []
    for container, before in zip(new, old, strict=True):
        if container.get("name") != before.get("name"):
            return new
        merged = {**before}
        for key in ("resources", "resizePolicy"):
            strategy.copy_field(key, merged, container)
        out.append(merged)
    return out


def _only_spec(new: Object, old: Object) -> None:
    strategy.copy_field("status", new, old)
    for key in ("labels", "annotations", "finalizers", "ownerReferences", "deletionTimestamp"):
        strategy.copy_field(key, new["metadata"], old["metadata"])


def _count(new: Object, old: Object) -> None:
    strategy.count(new, old, changed=strategy.differs(new["spec"], old["spec"]))


def _expand_label_keys(pod: Object) -> None:
    """matchLabelKeys and mismatchLabelKeys (KEP-3243, KEP-3633)."""
    own = pod["metadata"].get("labels") or {}
    affinity = pod["spec"].get("affinity") or {}
    terms: list[Object] = list(pod["spec"].get("topologySpreadConstraints") or ())
    for key in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(key) or {}
        terms += found.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred = found.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [each.get("podAffinityTerm") or {} for each in preferred]
    for term in terms:
        selector = term.get("labelSelector")
        if selector is None:
            continue
        for field_name, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            for key in term.get(field_name) or ():
                if key in own:
                    wanted = {"key": key, "operator": operator, "values": [own[key]]}
                    selector.setdefault("matchExpressions", []).append(wanted)


def warnings(pod: Object) -> list[str]:
    """What is allowed but unwise."""
    name = pod["metadata"].get("name") or ""
    texts = names.dns_label(name) if name else []
    found = podwarnings.pod(pod["metadata"], pod["spec"])
    if not texts:
        return found
    return [
        "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; "
        f"a DNS label is recommended: [{' '.join(texts)}]",
        *found,
    ]


# What `kubectl get pods` shows


class _Seen:
    """Ready, total, reason and restarts of one pod, as printPod works them out."""

    __slots__ = ("_last", "_last_sidecar", "ready", "reason", "restarts", "total")

    def __init__(self, pod: Object) -> None:
        status = pod.get("status") or {}
        self.ready = self.restarts = 0
        self._last = self._last_sidecar = ""
        self.reason = status.get("reason") or status.get("phase") or ""
        for condition in status.get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
                self.reason = "SchedulingGated"
        sidecars = {each["name"] for each in pods.init_containers(pod) if pods.is_sidecar(each)}
        self.total = len(pods.containers(pod)) + len(sidecars)
        initializing, of_sidecars = self._init(pod, status, sidecars)
        if not initializing or (pods.condition(pod, "Initialized") or {}).get("status") == "True":
            self.restarts, self._last = of_sidecars, self._last_sidecar
            self._main(status)
        if pod["metadata"].get("deletionTimestamp"):
            if status.get("reason") == "NodeLost":
                self.reason = "Unknown"
            elif not pods.is_terminal(pod):
                self.reason = "Terminating"

    def _init(self, pod: Object, status: Object, sidecars: set[str]) -> tuple[bool, int]:
        """Whether the pod is still initializing, and the restarts of its sidecars."""
        of_sidecars = 0
        for i, container in enumerate(status.get("initContainerStatuses") or ()):
            self._restarted(container)
            if container["name"] in sidecars:
                of_sidecars += container.get("restartCount", 0)
                self._last_sidecar = max(self._last_sidecar, _ended(container))
            state = container.get("state") or {}
            ended, waiting = state.get("terminated"), (state.get("waiting") or {}).get("reason")
            if ended and not ended.get("exitCode"):
                continue
            if container["name"] in sidecars and container.get("started"):
                self.ready += bool(container.get("ready"))
                continue
            if ended:
                self.reason = f"Init:{_why(ended)}"
            elif waiting and waiting != "PodInitializing":
                self.reason = f"Init:{waiting}"
            else:
                self.reason = f"Init:{i}/{len(pods.init_containers(pod))}"
            return True, of_sidecars
        return False, of_sidecars

    def _main(self, status: Object) -> None:
        running, error = False, ""
        for container in reversed(status.get("containerStatuses") or ()):
            self._restarted(container)
            state = container.get("state") or {}
            ended = state.get("terminated")
            if waiting := (state.get("waiting") or {}).get("reason"):
                self.reason = waiting
            elif ended:
                self.reason = _why(ended)
                if ended.get("exitCode"):
                    error = self.reason
            elif container.get("ready") and "running" in state:
                running = True
                self.ready += 1
        if self.reason == "Completed":
            ready = any(
                each.get("type") == "Ready" and each.get("status") == "True" for each in status.get("conditions") or ()
            )
            if running and ready:
                self.reason = "Running"
            elif error:
                self.reason = error
            elif running:
                self.reason = "NotReady"

    def _restarted(self, container: Object) -> None:
        self.restarts += container.get("restartCount", 0)
        self._last = max(self._last, _ended(container))

    def restart_text(self, now: float) -> str:
        """The number, and how long ago the last was."""
        return f"{self.restarts} ({since(self._last, now)} ago)" if self.restarts and self._last else str(self.restarts)


def _ended(container: Object) -> str:
    return dig(container, "lastState", "terminated", "finishedAt") or ""


def _why(ended: Object) -> str:
    if ended.get("reason"):
        return ended["reason"]
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _ready(pod: Object, now: float) -> str:
    seen = _Seen(pod)
    return f"{seen.ready}/{seen.total}"


def _gates(pod: Object, now: float) -> str:
    gates = pod["spec"].get("readinessGates") or ()
    if not gates:
        return NONE
    true = [gate for gate in gates if (pods.condition(pod, gate["conditionType"]) or {}).get("status") == "True"]
    return f"{len(true)}/{len(gates)}"


COLUMNS = (
    NAME,
    Column("Ready", _ready),
    Column("Status", lambda pod, now: _Seen(pod).reason),
    Column("Restarts", lambda pod, now: _Seen(pod).restart_text(now)),
    AGE,
    field("IP", "status", "podIPs", 0, "ip", empty=NONE, priority=1),
    field("Node", "spec", "nodeName", empty=NONE, priority=1),
    field("Nominated Node", "status", "nominatedNodeName", empty=NONE, priority=1),
    wide("Readiness Gates", _gates),
)


def _address(pod: Object) -> str:
    return dig(pod, "status", "podIPs", 0, "ip") or ""


FIELDS: dict[str, Any] = {
    "spec.nodeName": text_at("spec", "nodeName"),
    "spec.restartPolicy": text_at("spec", "restartPolicy"),
    "spec.schedulerName": text_at("spec", "schedulerName"),
    "spec.serviceAccountName": text_at("spec", "serviceAccountName"),
    "spec.hostNetwork": flag_at("spec", "hostNetwork"),
    "status.phase": text_at("status", "phase"),
    "status.podIP": _address,
    "status.podIPs": lambda pod: "",
    "status.nominatedNodeName": text_at("status", "nominatedNodeName"),
}

POD = Behavior(
    "",
    "Pod",
    order="mnvu",
    default=defaults.pod,
    validate=validate.pod,
    validate_update=changes.pod,
    prepare_create=prepare_create,
    prepare_update=prepare_update,
    updates={
        "status": Update(prepare_status, status),
        "ephemeralcontainers": Update(prepare_ephemeral, changes.ephemeral, "u"),
        "resize": Update(prepare_resize, resize, "u"),
    },
    columns=COLUMNS,
    fields=FIELDS,
    warnings=warnings,
)
