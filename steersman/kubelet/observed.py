"""One pod as the engine has it: sandboxes and runs of containers, newest first.

Owns the `Observed` value and how to sort what the engine lists into one value per pod. Pure: the caller hands over the
lists. Plan and status read nothing else about the engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from steersman.engine.interface import Container, ContainerState, Sandbox, SandboxState
from steersman.kubelet import labels


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a container, with what the kubelet wrote on it."""

    container: Container
    restart_count: int
    hash: str
    message: str = ""  # the termination message, read from its file or the log

    @property
    def id(self) -> str:
        """The engine's id."""
        return self.container.id

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.container.state is ContainerState.RUNNING

    @property
    def exited(self) -> bool:
        """Whether its process was there and has ended."""
        return self.container.state is ContainerState.EXITED

    @property
    def exit_code(self) -> int:
        """Of an ended run."""
        return self.container.exit_code


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything the engine has for one pod."""

    sandboxes: Sequence[Sandbox] = ()  # newest first
    runs: Mapping[str, Sequence[Run]] = field(default_factory=dict)  # by container name, newest first

    def latest(self, name: str) -> Run | None:
        """The newest run of a container."""
        runs = self.runs.get(name)
        return runs[0] if runs else None

    @property
    def sandbox(self) -> Sandbox | None:
        """The newest sandbox when it is ready, else None."""
        first = self.sandboxes[0] if self.sandboxes else None
        return first if first is not None and first.state is SandboxState.READY else None

    @property
    def next_attempt(self) -> int:
        """The attempt number of the next sandbox."""
        return self.sandboxes[0].config.attempt + 1 if self.sandboxes else 0

    def running(self) -> list[Run]:
        """Every run whose process is there."""
        return [run for runs in self.runs.values() for run in runs if run.running]

    @property
    def empty(self) -> bool:
        """Whether the engine has forgotten the pod."""
        return not self.sandboxes and not self.runs


def observe(
    uid: str,
    sandboxes: Iterable[Sandbox],
    containers: Iterable[Container],
    messages: Mapping[str, str],
) -> Observed:
    """The part of the engine's lists that belongs to pod `uid`; `messages`: termination message by container id."""
    mine = [each for each in sandboxes if each.config.labels.get(labels.POD_UID) == uid]
    mine.sort(key=lambda each: (each.created_at, each.config.attempt), reverse=True)
    runs: dict[str, list[Run]] = {}
    for each in containers:
        if each.config.labels.get(labels.POD_UID) != uid:
            continue
        annotations = each.config.annotations
        run = Run(each, labels.restart_count(annotations), annotations.get(labels.HASH, ""), messages.get(each.id, ""))
        runs.setdefault(each.config.labels.get(labels.CONTAINER_NAME, ""), []).append(run)
    for group in runs.values():
        group.sort(key=lambda run: (run.container.created_at, run.restart_count), reverse=True)
    return Observed(mine, runs)
