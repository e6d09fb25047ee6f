"""A pod's status from what the engine has: container statuses, phase, addresses.

Owns the whole of `Pod.status` except what others put there. Pure: called by `worker` with everything it needs, and
compared with the last value to see whether there is something to write. Source: Pod lifecycle documentation; the
order of container statuses and the texts are the original's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from steersman.api.resource import Object
from steersman.engine.interface import ContainerState
from steersman.kubelet import conditions, podspec, resources
from steersman.kubelet.observed import Observed, Run
from steersman.kubelet.plan import restarts_all
from steersman.lib.clock import rfc3339

_RESTARTING = "RestartingAllContainers"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run: a reason such as ErrImagePull, and a message."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Final:
    """The pod was ended by the kubelet: a failed phase with its reason."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Known:
    """What status needs besides the pod and the engine. Probe results are by container id; missing: no probe."""

    host_ips: Sequence[str] = ()
    ready: Mapping[str, bool] = field(default_factory=dict)
    started: Mapping[str, bool] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    final: Final | None = None
    resize: Sequence[Object] = ()  # conditions of a resize under way
    actuated: Mapping[str, Object] = field(default_factory=dict)  # resources that containers have, by name
    ending: bool = False  # the pod's containers will not run again
    name_image: Callable[[Run], tuple[str, str]] = lambda run: (run.container.config.image, run.container.image_id)
    runtime_name: str = "steersman"


def pod_status(pod: Object, old: Object, seen: Observed, known: Known, now: float) -> Object:
    """The status to write. `old`: the last status that was made, or the API's."""
    again = _restarting(pod, old, seen)
    statuses = {
        name: _container_statuses(pod, old.get(name) or (), containers, seen, known, again=again)
        for name, containers in (
            ("initContainerStatuses", podspec.init_containers(pod)),
            ("containerStatuses", podspec.containers(pod)),
            ("ephemeralContainerStatuses", podspec.ephemeral_containers(pod)),
        )
    }
    by_name = {each["name"]: each for each in statuses["initContainerStatuses"] + statuses["containerStatuses"]}
    phase = _phase_to_show(pod, old, by_name, seen, known)
    out: Object = {}
    generation = pod["metadata"].get("generation")
    if generation:
        out["observedGeneration"] = generation
    out["phase"] = phase
    sandbox_ready = seen.sandbox is not None
    out["conditions"] = conditions.conditions(
        pod,
        old.get("conditions") or (),
        by_name,
        phase,
        now,
        sandbox_ready=sandbox_ready,
        resize=known.resize,
        restarting=again and any(seen.runs.values()),
    )
    if known.final is not None:
        out["reason"], out["message"] = known.final.reason, known.final.message
    elif phase == old.get("phase"):
        out.update({key: old[key] for key in ("reason", "message") if old.get(key)})
    out.update(_addresses(pod, old, seen, known))
    out["startTime"] = old.get("startTime") or rfc3339(now)
    out.update({key: value for key, value in statuses.items() if value})
    out["qosClass"] = old.get("qosClass") or resources.qos_class(pod)
    for key in ("nominatedNodeName", "resourceClaimStatuses", "extendedResourceClaimStatus"):
        if old.get(key):
            out[key] = old[key]
    return out


def restarts(pod: Object, old: Object, seen: Observed) -> dict[str, int]:
    """The restart counts of containers of which the engine has no run. `old`: as in `pod_status`."""
    again = _restarting(pod, old, seen)
    shown = (*(old.get("initContainerStatuses") or ()), *(old.get("containerStatuses") or ()))
    return {each["name"]: _count(pod, each, again=again) for each in shown if not seen.runs.get(each["name"])}


def _restarting(pod: Object, old: Object, seen: Observed) -> bool:
    """Whether all containers are being restarted because one has ended, or was seen to have before it was removed."""
    if restarts_all(pod, seen):
        return True
    shown = {
        each["name"]: ((each.get("state") or {}).get("terminated") or {}).get("exitCode")
        for each in (*(old.get("initContainerStatuses") or ()), *(old.get("containerStatuses") or ()))
    }
    return any(
        not seen.runs.get(each["name"])
        and (code := shown.get(each["name"])) is not None
        and podspec.restarts_all(each, code)
        for each in (*podspec.init_containers(pod), *podspec.containers(pod))
    )


def _count(pod: Object, old: Object, *, again: bool) -> int:
    """How often a container was restarted of which the engine has no run any more."""
    count, state = int(old.get("restartCount", 0)), old.get("state") or {}
    if again:
        return count + ("waiting" not in state)
    lost = "running" in state and "terminated" not in (old.get("lastState") or {})
    return count + (lost and not podspec.deleting(pod))


def rejected(pod: Object, reason: str, message: str, now: float) -> Object:
    """The status of a pod that this node refuses to run."""
    out: Object = dict(pod.get("status") or {})
    out.update(phase="Failed", reason=reason, message=message)
    out.setdefault("startTime", rfc3339(now))
    if pod["metadata"].get("generation"):
        out["observedGeneration"] = pod["metadata"]["generation"]
    return out


def _addresses(pod: Object, old: Object, seen: Observed, known: Known) -> Object:
    out: Object = {}
    if known.host_ips:
        out["hostIP"] = known.host_ips[0]
        out["hostIPs"] = [{"ip": each} for each in known.host_ips]
    if podspec.host_network(pod):
        ips = list(known.host_ips)
    elif seen.sandbox is not None and seen.sandbox.ips:
        ips = list(seen.sandbox.ips)
    else:  # a stopped pod keeps the address that it had
        ips = [each["ip"] for each in old.get("podIPs") or ()]
    if ips:
        out["podIP"] = ips[0]
        out["podIPs"] = [{"ip": each} for each in ips]
    return out


def _container_statuses(
    pod: Object, old: Sequence[Object], containers: Sequence[Object], seen: Observed, known: Known, *, again: bool
) -> list[Object]:
    before = {each["name"]: each for each in old}
    out = [_container_status(pod, each, before.get(each["name"]), seen, known, again=again) for each in containers]
    is_init = containers is podspec.init_containers(pod)
    return out if is_init else sorted(out, key=lambda each: str(each["name"]))


def _container_status(
    pod: Object, container: Object, old: Object | None, seen: Observed, known: Known, *, again: bool
) -> Object:
    name = container["name"]
    is_init = any(each is container for each in podspec.init_containers(pod))
    runs = seen.runs.get(name) or ()
    if runs:
        status = _of_run(container, runs[0], known)
        if len(runs) > 1:
            status["lastState"] = _state(runs[1], known)
        elif old is not None and (old.get("containerID") == status["containerID"] or podspec.may_restart_all(pod)):
            status["lastState"] = old.get("lastState") or {}
    elif again and old is not None:
        status = _of_removed(pod, container, old)
    else:
        status = _of_nothing(pod, container, old, seen, is_init=is_init)
    waiting = known.waiting.get(name)
    run = runs[0] if runs else None
    runs_again = run is None or not run.exited or podspec.should_restart(pod, container, run.exit_code, is_init=is_init)
    if waiting is not None and "running" not in status["state"] and runs_again and not known.ending:
        if "terminated" in status["state"]:
            status["lastState"] = status["state"]
        status["state"] = {"waiting": _without_empty({"reason": waiting.reason, "message": waiting.message})}
    _readiness(container, status, run, known, is_init=is_init)
    return _with_spec(container, status, known)


def _of_run(container: Object, run: Run, known: Known) -> Object:
    image, image_id = known.name_image(run)
    status: Object = {
        "name": container["name"],
        "state": _state(run, known),
        "lastState": {},
        "ready": False,
        "restartCount": run.restart_count,
        "image": image,
        "imageID": image_id,
        "containerID": f"{known.runtime_name}://{run.id}",
    }
    if run.container.user is not None:
        user, group, groups = run.container.user
        status["user"] = {"linux": {"uid": user, "gid": group, "supplementalGroups": list(groups) or [group]}}
    return status


def _state(run: Run, known: Known) -> Object:
    container = run.container
    if container.state is ContainerState.RUNNING:
        return {"running": {"startedAt": rfc3339(container.started_at)}}
    if container.state is ContainerState.EXITED:
        message = ": ".join(filter(None, (container.message, run.message)))
        ended: Object = {
            "exitCode": container.exit_code,
            "reason": container.reason or ("Completed" if container.exit_code == 0 else "Error"),
            "message": message,
            "startedAt": rfc3339(container.started_at) if container.started_at else None,
            "finishedAt": rfc3339(container.finished_at) if container.finished_at else None,
            "containerID": f"{known.runtime_name}://{run.id}",
        }
        return {"terminated": _without_empty(ended)}
    return {"waiting": {}}


def _of_removed(pod: Object, container: Object, old: Object) -> Object:
    """Its runs were removed, because all containers start again."""
    message = "The container is removed because RestartAllContainers in place"
    why = {"reason": _RESTARTING, "message": message}
    ended = (old.get("state") or {}).get("terminated") or {"exitCode": 137, **why}
    waits = "waiting" in (old.get("state") or {})
    return {
        "name": container["name"],
        "state": {"waiting": why},
        "lastState": old.get("lastState") or {} if waits else {"terminated": ended},
        "ready": False,
        "restartCount": _count(pod, old, again=True),
        "image": container.get("image", ""),
        "imageID": "",
    }


def _of_nothing(pod: Object, container: Object, old: Object | None, seen: Observed, *, is_init: bool) -> Object:
    """The engine has no run of it: it never ran, or was forgotten."""
    default = "PodInitializing" if podspec.init_containers(pod) else "ContainerCreating"
    status: Object = {
        "name": container["name"],
        "state": {"waiting": {"reason": default}},
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "image": container.get("image", ""),
        "imageID": "",
    }
    later_ran = any(seen.latest(each["name"]) for each in podspec.containers(pod))
    if old is not None:
        if "terminated" in (old.get("state") or {}):
            return {**old, "ready": False}
        status["restartCount"] = _count(pod, old, again=False)
        status["lastState"] = old.get("lastState") or {}
        if "running" in (old.get("state") or {}) and "terminated" not in status["lastState"]:
            message = "The container could not be located when the pod was deleted.  The container used to be Running"
            status["lastState"] = {
                "terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": message}
            }
    if is_init and not podspec.is_sidecar(container) and later_ran:
        message = (
            "Unable to get init container status from container runtime and pod has been initialized, "
            "treat it as exited normally"
        )
        status["state"] = {"terminated": {"exitCode": 0, "reason": "Completed", "message": message}}
    return status


def _readiness(container: Object, status: Object, run: Run | None, known: Known, *, is_init: bool) -> None:
    running = run is not None and "running" in status["state"]
    started = running and run is not None and known.started.get(run.id, True)
    status["started"] = started
    if is_init and not podspec.is_sidecar(container):
        ended = status["state"].get("terminated")
        status["ready"] = ended is not None and ended.get("exitCode") == 0
    else:
        status["ready"] = started and run is not None and known.ready.get(run.id, True)


def _with_spec(container: Object, status: Object, known: Known) -> Object:
    """Parts of the status that repeat the spec."""
    mounts = []
    for mount in container.get("volumeMounts") or ():
        shown: Object = {"name": mount["name"], "mountPath": mount["mountPath"]}
        if mount.get("readOnly"):
            shown["readOnly"] = True
            enabled = mount.get("recursiveReadOnly") in ("IfPossible", "Enabled")
            shown["recursiveReadOnly"] = "Enabled" if enabled else "Disabled"
        mounts.append(shown)
    if mounts:
        status["volumeMounts"] = mounts
    if status.get("containerID"):
        wanted = container.get("resources") or {}
        status["resources"] = known.actuated.get(container["name"], wanted) if "running" in status["state"] else wanted
        if wanted.get("requests"):
            status["allocatedResources"] = wanted["requests"]
    return status


def _without_empty(value: Object) -> Object:
    return {key: each for key, each in value.items() if each not in ("", None)}


def _phase_to_show(pod: Object, old: Object, by_name: Mapping[str, Object], seen: Observed, known: Known) -> str:
    """The phase, never leaving a final one, and never final while a process is there."""
    current = (pod.get("status") or {}).get("phase")
    if current in ("Succeeded", "Failed"):
        return str(current)
    computed = "Failed" if known.final is not None else phase(pod, by_name, ending=known.ending)
    if old.get("phase") in ("Succeeded", "Failed"):
        computed = old["phase"]
    if computed in ("Succeeded", "Failed") and seen.running():
        return str(old.get("phase") or "Pending")
    return computed


def phase(pod: Object, by_name: Mapping[str, Object], *, ending: bool = False) -> str:
    """Pending, Running, Succeeded or Failed, from container statuses (by name, init containers included)."""
    inits = [each for each in podspec.init_containers(pod) if not podspec.is_sidecar(each)]
    pending_init = 0
    for each in inits:
        ended = _last_end(by_name.get(each["name"]))
        if ended is None:
            pending_init += 1
        elif ended.get("exitCode") and not _runs_again(pod, each, ended, is_init=True):
            return "Failed"
        elif ended.get("exitCode"):
            pending_init += 0 if "terminated" in by_name[each["name"]]["state"] else 1
    running = waiting = unknown = stopped = succeeded = again = pending_sidecars = 0
    started_before = False
    for each in podspec.init_containers(pod):
        if podspec.is_sidecar(each):
            status = by_name.get(each["name"])
            state = (status or {}).get("state") or {}
            running += "running" in state
            if not (status or {}).get("started") and _last_end(status) is None:
                pending_sidecars += 1
    for each in podspec.containers(pod):
        status = by_name.get(each["name"])
        state = (status or {}).get("state") or {}
        ended = _last_end(status)
        started_before |= "running" in state or ended is not None
        if status is None:
            unknown += 1
        elif "running" in state:
            running += 1
        elif ended is not None:
            stopped += 1
            succeeded += ended.get("exitCode") == 0
            again += _runs_again(pod, each, ended)
        else:
            waiting += 1
    if pending_init or (pending_sidecars and not started_before) or waiting:
        return "Pending"
    if running and not unknown:
        return "Running"
    if stopped and not unknown:
        if again and not ending:
            return "Running"
        return "Succeeded" if stopped == succeeded else "Failed"
    return "Pending"


def _runs_again(pod: Object, container: Object, ended: Object, *, is_init: bool = False) -> bool:
    if ended.get("reason") == _RESTARTING:
        return True
    return podspec.should_restart(pod, container, ended.get("exitCode", 0), is_init=is_init)


def _last_end(status: Object | None) -> Object | None:
    """How a container that does not run ended last; None when it runs or never ran."""
    if status is None or "running" in (status.get("state") or {}):
        return None
    for part in ("state", "lastState"):
        ended = (status.get(part) or {}).get("terminated")
        if ended is not None:
            return dict(ended)
    return None
