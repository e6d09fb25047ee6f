"""Finds again what an earlier life of the agent left: one scan of the state directory, and the only way to recover.

Owns the judgement of each record: adopt it, finish cleaning what was half made, or show it as unreadable. Blocks;
runs in a worker before anything else does. `runtime.py` keeps what comes back.
"""

from __future__ import annotations

import logging
from pathlib import Path

from steersman.engine.interface import ContainerConfig, SandboxConfig
from steersman.engine.runtime import container, kernel, sandbox
from steersman.engine.runtime.container import Factory
from steersman.engine.runtime.records import ContainerRecord, Corrupt, SandboxRecord, is_id, load, save
from steersman.engine.runtime.sandbox import Machine

log = logging.getLogger(__name__)


def sandboxes(machine: Machine, now: float) -> list[SandboxRecord]:
    """Every sandbox, ready or stopped; addresses that none of them owns are free again. `now`: Unix seconds."""
    found = [_sandbox(machine, directory, now) for directory in sorted(machine.layout.sandboxes.iterdir())]
    kept = [record for record in found if record is not None]
    machine.addresses.sweep({record.id for record in kept if record.phase == "ready"})
    return kept


def _sandbox(machine: Machine, directory: Path, now: float) -> SandboxRecord | None:
    if not is_id(directory.name):
        log.error("not a sandbox, left alone: %s", directory)
        return None
    try:
        record = load(directory / "sandbox.json", SandboxRecord)
    except Corrupt as error:
        log.error("sandbox %s cannot be read and is shown as stopped: %s", directory.name, error)
        record = SandboxRecord(directory.name, SandboxConfig("", "", ""), kernel.boot_id(), now, "stopped")
        sandbox.tear_down(machine, record)
        return record
    if record.phase == "creating":
        sandbox.tear_down(machine, record)
        sandbox.remove(machine, record)
        return None
    if record.phase == "ready" and not sandbox.is_intact(machine, record):
        log.warning("sandbox %s lost its namespaces (a reboot?) and is stopped", record.id)
        sandbox.tear_down(machine, record)
        record.phase = "stopped"
        save(directory / "sandbox.json", record)
    return record


def containers(factory: Factory, now: float) -> list[ContainerRecord]:
    """Every container but the half-made; those that were started without a note of it are marked running."""
    layout = factory.machine.layout
    for path in layout.writable.iterdir():
        if (
            is_id(path.name) and not (layout.containers / path.name).exists()
        ):  # the machine went down, and the container with it
            container.release(factory.images, layout, path.name)
    found = [_container(factory, directory, now) for directory in sorted(layout.containers.iterdir())]
    return [record for record in found if record is not None]


def _container(factory: Factory, directory: Path, now: float) -> ContainerRecord | None:
    if not is_id(directory.name):
        log.error("not a container, left alone: %s", directory)
        return None
    try:
        record = load(directory / "container.json", ContainerRecord)
    except Corrupt as error:
        log.error("container %s cannot be read and is shown as unknown: %s", directory.name, error)
        config = ContainerConfig("", "")
        return ContainerRecord(directory.name, "", config, kernel.boot_id(), now, message=str(error), lost=True)
    if record.phase == "creating":
        container.clean(factory, record)
        container.forget(factory, record)
        return None
    if record.phase == "created" and factory.oci.was_started(record.id):
        record.phase, record.started_at = "running", now
        save(directory / "container.json", record)
    return record
