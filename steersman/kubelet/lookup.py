"""Finding a container of a pod by name, for logs and streams.

Pure. Owns which run of a container a request means, and the original's texts for when there is none. Called by `agent`
for the HTTPS server.
"""

from __future__ import annotations

from collections.abc import Iterator

from steersman.api.errors import ApiError, bad_request
from steersman.api.resource import Object


def log_container(pod: str, container: str, status: Object, *, previous: bool) -> str:
    """The engine's id of the container whose log is meant. Raises ApiError (400)."""
    found = next((each for each in _statuses(status) if each["name"] == container), None)
    if found is None:
        raise bad_request(f'container "{container}" in pod "{pod}" is not available')
    state, last = found.get("state") or {}, (found.get("lastState") or {}).get("terminated") or {}
    if previous:
        if not last.get("containerID"):
            raise bad_request(f'previous terminated container "{container}" in pod "{pod}" not found')
        return _id(last["containerID"])
    if "running" in state:
        return _id(found["containerID"])
    ended = state.get("terminated")
    for candidate in (ended, last) if ended is not None else (last,):
        if candidate.get("containerID"):
            return _id(candidate["containerID"])
    if ended is not None or last:
        raise bad_request(f'container "{container}" in pod "{pod}" is terminated')
    raise bad_request(f'container "{container}" in pod "{pod}" is waiting to start{_why(state)}')


def _why(state: Object) -> str:
    if "waiting" not in state:
        return " - no logs yet"
    reason = (state["waiting"] or {}).get("reason", "")
    if reason == "ErrImagePull":
        return ": image can't be pulled"
    if reason == "ImagePullBackOff":
        return ": trying and failing to pull image"
    return f": {reason}"


def running_container(container: str, status: Object) -> str:
    """The engine's id of a running container. Raises ApiError (404)."""
    found = next((each for each in _statuses(status) if each["name"] == container), None)
    if found is None or "running" not in (found.get("state") or {}):
        raise ApiError(404, "NotFound", f'container not found ("{container}")')
    return _id(found["containerID"])


def _statuses(status: Object) -> Iterator[Object]:
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        yield from status.get(field) or ()


def _id(reference: str) -> str:
    return reference.rpartition("://")[2]
