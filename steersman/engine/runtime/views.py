"""Records as the values that the outside sees. Pure."""

from __future__ import annotations

from steersman.engine.interface import Container, ContainerState, Sandbox, SandboxState
from steersman.engine.runtime.records import ContainerRecord, SandboxRecord

_STATES = {
    "creating": ContainerState.UNKNOWN,
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "exited": ContainerState.EXITED,
}


def sandbox_view(record: SandboxRecord) -> Sandbox:
    """A sandbox as it is."""
    state = SandboxState.READY if record.phase == "ready" else SandboxState.NOTREADY
    return Sandbox(record.id, record.config, state, record.created_at, tuple(record.ips))


def container_view(record: ContainerRecord) -> Container:
    """A container as it is; one with an unreadable record is unknown."""
    return Container(
        id=record.id,
        sandbox_id=record.sandbox_id,
        config=record.config,
        state=ContainerState.UNKNOWN if record.lost else _STATES[record.phase],
        image_id=record.image_id,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        reason=record.reason,
        message=record.message,
        pid=record.init.pid if record.phase in ("created", "running") else 0,
        log_path=record.log_path,
        user=record.user,
    )
