"""The runtime's contract, as functions: every implementation of `engine.interface.Runtime` passes all of them.

Called once per implementation: `for check in CHECKS: await check(runtime, programs)`, with a runtime that is started
and empty. What containers do is the implementation's to say (`Programs`), so that a runtime without processes can
pass too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from steersman.engine.interface import (
    Container,
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    NoSuchContainer,
    Runtime,
    RuntimeFailure,
    Sandbox,
    SandboxConfig,
    SandboxState,
    Session,
)

_PATIENCE = 30.0  # seconds for anything that must happen


@dataclass(frozen=True, slots=True)
class Programs:
    """An image that is present, and commands for it. The defaults suit an image with a POSIX shell."""

    image: str
    log_directory: str
    forever: Sequence[str] = ("sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait")
    stubborn: Sequence[str] = ("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    exits: Callable[[int], Sequence[str]] = lambda code: ("sh", "-c", f"exit {code}")
    prints: Callable[[str, str], Sequence[str]] = lambda out, err: ("sh", "-c", f"printf {out}; printf {err} >&2")
    echoes: Sequence[str] = ("cat",)


async def _raises(expected: type[Exception], call: Awaitable[Any]) -> None:
    try:
        await call
    except expected:
        return
    raise AssertionError(f"{expected.__name__} was not raised")


async def _sandbox(runtime: Runtime, programs: Programs, name: str = "pod") -> Sandbox:
    return await runtime.run_sandbox(
        SandboxConfig(name, "default", f"uid-{name}", hostname=name, log_directory=programs.log_directory)
    )


def _config(programs: Programs, command: Sequence[str], name: str = "main") -> ContainerConfig:
    return ContainerConfig(name, programs.image, command=command, log_path=f"{name}/0.log", labels={"name": name})


async def _run(runtime: Runtime, programs: Programs, command: Sequence[str]) -> Container:
    sandbox = await _sandbox(runtime, programs)
    container = await runtime.create_container(sandbox.id, _config(programs, command))
    await runtime.start_container(container.id)
    return runtime.container(container.id)


async def _until(events: AsyncIterator[ContainerEvent], kind: str, container_id: str) -> list[str]:
    """Wait for an event; returns the kinds of that container's events up to it."""
    seen: list[str] = []
    async with asyncio.timeout(_PATIENCE):
        async for event in events:
            if event.container_id == container_id:
                seen.append(event.kind)
                if event.kind == kind:
                    return seen
    raise AssertionError(f"events ended before {kind}")


async def sandbox_lives(runtime: Runtime, programs: Programs) -> None:
    """A sandbox is ready with an address until stopped, is then still listed, and is gone once removed."""
    assert list(runtime.sandboxes()) == []
    sandbox = await _sandbox(runtime, programs)
    assert sandbox.state == SandboxState.READY
    assert len(sandbox.ips) >= 1
    assert sandbox.created_at > 0
    assert [found.id for found in runtime.sandboxes()] == [sandbox.id]
    await runtime.stop_sandbox(sandbox.id)
    await runtime.stop_sandbox(sandbox.id)
    assert [found.state for found in runtime.sandboxes()] == [SandboxState.NOTREADY]
    await runtime.remove_sandbox(sandbox.id)
    await runtime.remove_sandbox(sandbox.id)
    assert list(runtime.sandboxes()) == []


async def sandboxes_are_apart(runtime: Runtime, programs: Programs) -> None:
    """Two sandboxes never share an id or an address; one with the host's network has none of its own."""
    one, two = await asyncio.gather(_sandbox(runtime, programs, "one"), _sandbox(runtime, programs, "two"))
    assert one.id != two.id
    assert set(one.ips).isdisjoint(two.ips)
    host = await runtime.run_sandbox(SandboxConfig("host", "default", "uid-host", host_network=True))
    assert list(host.ips) == []


async def container_goes_through_its_states(runtime: Runtime, programs: Programs) -> None:
    """created, running, exited, with times in order, and gone once removed."""
    sandbox = await _sandbox(runtime, programs)
    created = await runtime.create_container(sandbox.id, _config(programs, programs.forever))
    assert created.state == ContainerState.CREATED
    assert (created.sandbox_id, created.started_at, created.finished_at) == (sandbox.id, 0, 0)
    assert created.config.labels == {"name": "main"}
    await runtime.start_container(created.id)
    running = runtime.container(created.id)
    assert running.state == ContainerState.RUNNING
    assert running.started_at >= created.created_at
    await runtime.stop_container(created.id, 10)
    ended = runtime.container(created.id)
    assert ended.state == ContainerState.EXITED
    assert ended.finished_at > 0
    await runtime.remove_container(created.id)
    await runtime.remove_container(created.id)
    assert list(runtime.containers()) == []


async def exit_codes_are_told(runtime: Runtime, programs: Programs) -> None:
    """A container that ends by itself has its exit code, and Completed or Error as the reason."""
    events = runtime.events()
    fine = await _run(runtime, programs, programs.exits(0))
    await _until(events, "exited", fine.id)
    broken = await _run(runtime, programs, programs.exits(42))
    await _until(events, "exited", broken.id)
    ends = [runtime.container(one.id) for one in (fine, broken)]
    assert [(end.state, end.exit_code, end.reason) for end in ends] == [
        (ContainerState.EXITED, 0, "Completed"),
        (ContainerState.EXITED, 42, "Error"),
    ]


async def events_come_in_order(runtime: Runtime, programs: Programs) -> None:
    """Every subscriber hears created, started, exited, deleted, in this order."""
    feeds = [runtime.events(), runtime.events()]
    container = await _run(runtime, programs, programs.exits(0))
    for feed in feeds:
        assert await _until(feed, "exited", container.id) == ["created", "started", "exited"]
    await runtime.remove_container(container.id)
    for feed in feeds:
        assert await _until(feed, "deleted", container.id) == ["deleted"]


async def stopping_kills_in_the_end(runtime: Runtime, programs: Programs) -> None:
    """A process that ignores TERM is killed after the timeout: 137. Stopping again changes nothing."""
    container = await _run(runtime, programs, programs.stubborn)
    await runtime.stop_container(container.id, 0.2)
    ended = runtime.container(container.id)
    assert (ended.state, ended.exit_code, ended.reason) == (ContainerState.EXITED, 137, "Error")
    await runtime.stop_container(container.id, 0.2)
    assert runtime.container(container.id) == ended


async def removal_kills(runtime: Runtime, programs: Programs) -> None:
    """A running container is killed by its removal, and by its sandbox's."""
    container = await _run(runtime, programs, programs.forever)
    await runtime.remove_container(container.id)
    other = await runtime.create_container(container.sandbox_id, _config(programs, programs.forever))
    await runtime.start_container(other.id)
    await runtime.remove_sandbox(other.sandbox_id)
    assert list(runtime.containers()) == []
    assert list(runtime.sandboxes()) == []


async def stopping_a_sandbox_stops_containers(runtime: Runtime, programs: Programs) -> None:
    """Containers of a stopped sandbox have ended, and no new one can be made in it."""
    container = await _run(runtime, programs, programs.forever)
    await runtime.stop_sandbox(container.sandbox_id)
    assert runtime.container(container.id).state == ContainerState.EXITED
    await _raises(
        RuntimeFailure, runtime.create_container(container.sandbox_id, _config(programs, programs.forever, "late"))
    )


async def unknown_ids_are_refused(runtime: Runtime, programs: Programs) -> None:
    """Unknown and hostile ids: refused where something is asked, ignored where it should be gone."""
    for bad in ("f" * 64, "../../etc", "", "a/b", "\0"):
        await _raises(NoSuchContainer, runtime.start_container(bad))
        await _raises(NoSuchContainer, runtime.exec_sync(bad, ["true"], 1))
        await _raises(RuntimeFailure, runtime.create_container(bad, _config(programs, programs.forever)))
        await _raises(RuntimeFailure, runtime.port_forward(bad, 80))
        await runtime.remove_container(bad)
        await runtime.remove_sandbox(bad)
        await runtime.stop_sandbox(bad)
    assert list(runtime.containers()) == []


async def failed_creation_leaves_nothing(runtime: Runtime, programs: Programs) -> None:
    """A missing image is refused and no container remains."""
    sandbox = await _sandbox(runtime, programs)
    missing = replace(_config(programs, programs.forever), image="no.such/image:1")
    await _raises(RuntimeFailure, runtime.create_container(sandbox.id, missing))
    assert list(runtime.containers()) == []


async def starting_twice_is_one_start(runtime: Runtime, programs: Programs) -> None:
    """A running container is not started again; one that has ended cannot be."""
    container = await _run(runtime, programs, programs.forever)
    await runtime.start_container(container.id)
    assert runtime.container(container.id).started_at == container.started_at
    await runtime.stop_container(container.id, 0)
    await _raises(RuntimeFailure, runtime.start_container(container.id))


async def exec_sync_tells_all(runtime: Runtime, programs: Programs) -> None:
    """Output, errors and the exit code; a command that takes too long is killed."""
    container = await _run(runtime, programs, programs.forever)
    said = await runtime.exec_sync(container.id, programs.prints("out", "err"), 10)
    assert (said.exit_code, said.stdout, said.stderr) == (0, b"out", b"err")
    assert (await runtime.exec_sync(container.id, programs.exits(7), 10)).exit_code == 7
    await _raises(TimeoutError, runtime.exec_sync(container.id, programs.forever, 0.2))


async def exec_needs_a_running_container(runtime: Runtime, programs: Programs) -> None:
    """Nothing runs in a container that has ended."""
    container = await _run(runtime, programs, programs.forever)
    await runtime.stop_container(container.id, 0)
    await _raises(RuntimeFailure, runtime.exec_sync(container.id, programs.exits(0), 1))


async def _read_all(session: Session) -> bytes:
    output = b""
    while data := await session.read_stdout():
        output += data
    return output


async def exec_streams(runtime: Runtime, programs: Programs) -> None:
    """What goes in comes out; the end of input ends the command."""
    container = await _run(runtime, programs, programs.forever)
    session = await runtime.exec(container.id, programs.echoes, tty=False, stdin=True)
    session.write(b"one\n")
    await session.drain()
    session.write(b"two\n")
    session.close_stdin()
    async with asyncio.timeout(_PATIENCE):
        assert await _read_all(session) == b"one\ntwo\n"
        assert await session.wait() == 0
    await session.close()


async def _attached(runtime: Runtime, programs: Programs) -> tuple[Container, Session]:
    """A container that echoes, and a client that has talked with it."""
    sandbox = await _sandbox(runtime, programs)
    config = replace(_config(programs, programs.echoes), stdin=True)
    container = await runtime.create_container(sandbox.id, config)
    session = await runtime.attach(container.id, stdin=True)
    await runtime.start_container(container.id)
    session.write(b"hello\n")
    async with asyncio.timeout(_PATIENCE):
        assert await session.read_stdout() == b"hello\n"
    return container, session


async def attach_streams(runtime: Runtime, programs: Programs) -> None:
    """An attached client talks with the first process, and leaves without ending it."""
    container, session = await _attached(runtime, programs)
    await session.close()
    assert runtime.container(container.id).state == ContainerState.RUNNING


async def attach_ends_with_its_input(runtime: Runtime, programs: Programs) -> None:
    """Input that others may give as well does not end; the session of who ends his own does."""
    container, session = await _attached(runtime, programs)
    session.close_stdin()
    async with asyncio.timeout(_PATIENCE):
        assert await session.read_stdout() == b""
        assert await session.wait() == 0
    await session.close()
    assert runtime.container(container.id).state == ContainerState.RUNNING


async def stats_are_plausible(runtime: Runtime, programs: Programs) -> None:
    """Usage of a running container."""
    container = await _run(runtime, programs, programs.forever)
    stats = await runtime.stats(container.id)
    assert stats.timestamp > 0
    assert stats.pids >= 1
    assert stats.memory_working_set <= stats.memory_usage


CHECKS: Sequence[Callable[[Runtime, Programs], Awaitable[None]]] = (
    sandbox_lives,
    sandboxes_are_apart,
    container_goes_through_its_states,
    exit_codes_are_told,
    events_come_in_order,
    stopping_kills_in_the_end,
    removal_kills,
    stopping_a_sandbox_stops_containers,
    unknown_ids_are_refused,
    failed_creation_leaves_nothing,
    starting_twice_is_one_start,
    exec_sync_tells_all,
    exec_needs_a_running_container,
    exec_streams,
    attach_streams,
    attach_ends_with_its_input,
    stats_are_plausible,
)
"""The whole contract."""
