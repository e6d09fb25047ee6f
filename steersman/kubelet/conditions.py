"""The conditions of a pod that the kubelet owns.

Owns PodReadyToStartContainers, Initialized, ContainersReady, Ready and PodScheduled, with the original's reasons and
messages. Pure: called by `status`. Source: Pod lifecycle documentation, KEP-580 (readiness gates), KEP-3085.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steersman.api.resource import Object
from steersman.kubelet import podspec
from steersman.lib.clock import rfc3339

OWNED = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
    "AllContainersRestarting",
)


def conditions(
    pod: Object,
    old: Sequence[Object],
    statuses: Mapping[str, Object],
    phase: str,
    now: float,
    *,
    sandbox_ready: bool,
    resize: Sequence[Object] = (),
    restarting: bool = False,
) -> list[Object]:
    """Every condition of the pod: others' as they are, ours made anew; times kept where nothing changed.

    `statuses`: container status by name, init containers included. `old`: what is on the pod now. `resize`: the
    conditions of a resize under way. `restarting`: all containers are on their way out because of one.
    """
    api = (pod.get("status") or {}).get("conditions") or ()
    out = [each for each in api if each["type"] not in OWNED]
    containers_ready = _containers_ready(pod, statuses, phase)
    mine = [
        *({**each} for each in resize),
        _condition("PodReadyToStartContainers", sandbox_ready),
        _initialized(pod, statuses, phase),
        _ready(pod, containers_ready, out),
        containers_ready,
        _condition("PodScheduled", True),
    ]
    if podspec.may_restart_all(pod):
        mine.append(_all_restarting(phase, restarting=restarting))
    before = {each["type"]: each for each in (*api, *old)}
    generation = pod["metadata"].get("generation")
    if (before.get("Initialized") or {}).get("status") == "True":  # once is for ever, whatever starts again
        kept = _condition("Initialized", True)
        mine = [kept if (each["type"], each["status"]) == ("Initialized", "False") else each for each in mine]
    for each in mine:
        previous = before.get(each["type"])
        changed = previous is None or previous.get("status") != each["status"]
        each["lastTransitionTime"] = (
            rfc3339(now) if changed or previous is None else previous.get("lastTransitionTime", rfc3339(now))
        )
        if generation:
            each["observedGeneration"] = generation
    return out + mine


def _all_restarting(phase: str, *, restarting: bool) -> Object:
    kind = "AllContainersRestarting"
    if phase in ("Succeeded", "Failed"):
        return _condition(kind, False, "PodCompleted" if phase == "Succeeded" else "PodFailed")
    if not restarting:
        return _condition(kind, False)
    return _condition(kind, True, "RestartAllContainersStarted", "container exited with restart policy rule")


def _condition(kind: str, true: bool, reason: str = "", message: str = "") -> Object:
    out: Object = {"type": kind, "status": "True" if true else "False"}
    if reason:
        out["reason"] = reason
    if message:
        out["message"] = message
    return out


def _listed(names: Sequence[str]) -> str:
    return "[" + " ".join(names) + "]"


def _containers_ready(pod: Object, statuses: Mapping[str, Object], phase: str) -> Object:
    kind = "ContainersReady"
    wanted = [each for each in podspec.init_containers(pod) if podspec.is_sidecar(each)] + list(podspec.containers(pod))
    unknown = [each["name"] for each in wanted if each["name"] not in statuses]
    unready = [each["name"] for each in wanted if each["name"] in statuses and not statuses[each["name"]].get("ready")]
    if phase == "Succeeded" and not unknown:
        return _condition(kind, False, "PodCompleted")
    if phase == "Failed":
        return _condition(kind, False, "PodFailed")
    parts = [f"containers with unknown status: {_listed(unknown)}"] if unknown else []
    if unready:
        parts.append(f"containers with unready status: {_listed(unready)}")
    return _condition(kind, not parts, "ContainersNotReady" if parts else "", ", ".join(parts))


def _ready(pod: Object, containers_ready: Object, others: Sequence[Object]) -> Object:
    if containers_ready["status"] != "True":
        return {**containers_ready, "type": "Ready"}
    known = {each["type"]: each for each in others}
    messages = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        found = known.get(kind)
        if found is None:
            messages.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif found.get("status") != "True":
            messages.append(f'the status of pod readiness gate "{kind}" is not "True", but {found.get("status")}')
    return _condition("Ready", not messages, "ReadinessGatesNotReady" if messages else "", ", ".join(messages))


def _initialized(pod: Object, statuses: Mapping[str, Object], phase: str) -> Object:
    kind = "Initialized"
    unknown: list[str] = []
    incomplete: list[str] = []
    for each in podspec.init_containers(pod):
        status = statuses.get(each["name"])
        if status is None:
            unknown.append(each["name"])
        elif not status.get("started" if podspec.is_sidecar(each) else "ready"):
            incomplete.append(each["name"])
    if phase == "Succeeded" and not unknown:
        return _condition(kind, True, "PodCompleted")
    if any(_has_started(statuses.get(each["name"])) for each in podspec.containers(pod)):
        return _condition(kind, True)
    parts = [f"containers with unknown status: {_listed(unknown)}"] if unknown else []
    if incomplete:
        parts.append(f"containers with incomplete status: {_listed(incomplete)}")
    return _condition(kind, not parts, "ContainersNotInitialized" if parts else "", ", ".join(parts))


def _has_started(status: Object | None) -> bool:
    if status is None:
        return False
    state, last = status.get("state") or {}, status.get("lastState") or {}
    return "running" in state or "terminated" in state or "terminated" in last
