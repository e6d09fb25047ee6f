"""What survives the agent's death, what is cleaned up after it, and that nothing is left in the end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import steersman
from steersman.engine.interface import ContainerState, NoSuchContainer, RuntimeFailure, SandboxState
from steersman.engine.runtime import kernel, purge, share_mounts
from steersman.engine.runtime.network import node_interface
from steersman.lib.failpoint import arm
from tests.engine.runtime import agent
from tests.engine.runtime.conftest import CGROUP, BusyboxImages, Pods, eventually, make_runtime, until

pytestmark = pytest.mark.node

FAILPOINTS = [
    "sandbox.after_record",
    "sandbox.after_files",
    "sandbox.after_address",
    "sandbox.after_namespaces",
    "container.after_record",
    "container.after_overlay",
    "container.before_monitor",
    "container.after_monitor",
]

REMOVING = ["container.before_forget", "sandbox.before_release"]

_SEEN: dict[Path, set[str]] = {}


def _interfaces(root: Path) -> set[str]:
    """Names of every interface that sandboxes of `root` had whenever this was asked."""
    seen = _SEEN.setdefault(root, set())
    for part in ("sandboxes", "ns"):
        if (root / "run" / part).exists():
            seen |= {node_interface(name) for name in os.listdir(root / "run" / part)}
    return seen


def traces(root: Path) -> dict[str, set[str]]:
    """Everything on this machine that belongs to the engine of a state directory."""
    commands = set()
    for entry in Path("/proc").iterdir():
        try:
            text = (entry / "cmdline").read_bytes().decode(errors="replace") if entry.name.isdigit() else ""
        except OSError:
            continue
        if str(root) in text and "pytest" not in text:
            commands.add(text)
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    cgroups = {str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{CGROUP}")}
    return {
        "processes": commands,
        "mounts": {path for path in mounts if path.startswith(str(root))},
        "cgroups": cgroups,
        "interfaces": {name for name in _interfaces(root) if Path("/sys/class/net", name).exists()},
        "files": {str(root)} if root.exists() else set(),
    }


class Agent:
    """The process of `agent.py`."""

    def __init__(self, state: Path, images: BusyboxImages, logs: Path, *actions: str, failpoints: str = "") -> None:
        repository = Path(__file__).parents[3]
        self.process = subprocess.Popen(
            [sys.executable, agent.__file__, state, images.directory / "base", logs, *actions],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(repository), "STEER_FAILPOINTS": failpoints},
        )

    async def line(self) -> list[Any]:
        assert self.process.stdout is not None
        return json.loads(await asyncio.to_thread(self.process.stdout.readline))

    async def end(self) -> int:
        code = await asyncio.to_thread(self.process.wait, 30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.end()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    before = traces(tmp_path / "state")
    yield tmp_path / "state"
    traces(tmp_path / "state")
    purge(tmp_path / "state", CGROUP)
    assert traces(tmp_path / "state") == before


async def test_containers_survive_the_agent(state: Path, images: BusyboxImages, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    first = Agent(state, images, logs, "pod", "created", "short", "wait")
    pod, created, short = [await first.line() for _ in range(3)]
    await first.kill()
    log = logs / "pod/main.log"
    size = log.stat().st_size
    await eventually(lambda: log.stat().st_size > size)  # it goes on logging without an agent
    (logs / "go").touch()
    await eventually((state / "run/exits" / short[1]).exists)
    second = make_runtime(state, images)
    await second.start()
    try:
        running = second.container(pod[1])
        assert (running.state, running.pid, running.started_at) == (ContainerState.RUNNING, pod[2], pod[3])
        assert {sandbox.id for sandbox in second.sandboxes()} == {pod[0], created[0], short[0]}
        assert all(sandbox.state == SandboxState.READY for sandbox in second.sandboxes())
        await eventually(lambda: second.container(short[1]).state == ContainerState.EXITED)
        assert second.container(short[1]).exit_code == 23
        assert second.container(created[1]).state == ContainerState.CREATED
        events = second.events()
        await second.start_container(created[1])
        await until(events, created[1], "exited")
        assert second.container(created[1]).exit_code == 4
        said = await second.exec_sync(pod[1], ["sh", "-c", "echo still here"], 10)
        assert said.stdout == b"still here\n"
        pods = Pods(second, logs)
        assert (await pods.sandbox("new")).ips[0] not in {pod[4][0], created[4][0], short[4][0]}
        await second.stop_container(pod[1], 0)
        assert second.container(pod[1]).exit_code == 137
    finally:
        await second.close()


@pytest.mark.parametrize("name", [*FAILPOINTS, "container.after_start"])
async def test_a_crash_at_any_step_is_recovered(state: Path, images: BusyboxImages, tmp_path: Path, name: str) -> None:
    crashed = Agent(state, images, tmp_path / "logs", "pod", failpoints=f"{name}=exit")
    assert await crashed.end() == 86
    traces(state)
    runtime = make_runtime(state, images)
    await runtime.start()
    try:
        assert [one.state for one in runtime.containers()] == (
            [ContainerState.RUNNING] if name == "container.after_start" else []
        )
        assert len(traces(state)["interfaces"]) == len(runtime.sandboxes())
        assert len(runtime.sandboxes()) == (1 if name.startswith("container") else 0)
        pods = Pods(runtime, tmp_path / "logs")
        code, _ = await pods.result("exit 3")
        assert code == 3
        for sandbox in runtime.sandboxes():
            await runtime.remove_sandbox(sandbox.id)
        assert [
            list((state / "run" / part).iterdir()) for part in ("containers", "sandboxes", "ns", "addresses", "oci")
        ] == [*([[]] * 5)]
        assert traces(state)["interfaces"] == set()
    finally:
        await runtime.close()


@pytest.mark.parametrize("name", REMOVING)
async def test_a_crash_while_a_pod_is_removed_leaves_nothing(
    state: Path, images: BusyboxImages, tmp_path: Path, name: str
) -> None:
    crashed = Agent(state, images, tmp_path / "logs", "pod", "remove", failpoints=f"{name}=exit")
    sandbox_id, *_ = await crashed.line()
    assert await crashed.end() == 86
    traces(state)
    runtime = make_runtime(state, images)
    await runtime.start()
    try:
        if any(one.id == sandbox_id for one in runtime.sandboxes()):
            await runtime.remove_sandbox(sandbox_id)
        kept = [
            list((state / "run" / part).iterdir()) for part in ("containers", "sandboxes", "ns", "addresses", "oci")
        ]
        assert kept == [[]] * 5
        assert traces(state)["interfaces"] == set()
    finally:
        await runtime.close()


def test_every_failpoint_of_the_engine_is_tried() -> None:
    sources = [path.read_text() for path in Path(steersman.__file__).parent.rglob("engine/runtime/*.py")]
    named = {name for text in sources for name in re.findall(r'failpoint\("([a-z_.]+)"\)', text)}
    assert named == {*FAILPOINTS, *REMOVING, "container.after_start"}


@pytest.mark.parametrize("name", FAILPOINTS)
async def test_a_failure_at_any_step_leaves_nothing(
    state: Path, images: BusyboxImages, tmp_path: Path, name: str
) -> None:
    runtime = make_runtime(state, images)
    await runtime.start()
    pods = Pods(runtime, tmp_path / "logs")
    sandbox = await pods.sandbox("kept")
    before = traces(state)

    def fail() -> None:
        raise OSError("planted")

    disarm: Callable[[], None] = arm(name, fail)
    try:
        with pytest.raises(RuntimeFailure, match="planted"):
            await pods.start("sleep 1", sandbox if name.startswith("container") else None)
        after = traces(state)
        assert after.keys() == before.keys()
        assert all(after[kind] == before[kind] for kind in before if kind != "cgroups")  # the sandbox has one by now
        assert list((state / "run/containers").iterdir()) == []
        assert len(list((state / "run/addresses").iterdir())) == 1
    finally:
        disarm()
        await runtime.close()


async def test_purge_leaves_nothing(state: Path, images: BusyboxImages, tmp_path: Path) -> None:
    before = traces(state)
    busy = Agent(state, images, tmp_path / "logs", "pod", "created", "wait")
    await busy.line()
    [sandbox_id, *_] = await busy.line()
    with pytest.raises(RuntimeFailure, match="another process"):
        purge(state, CGROUP)
    await busy.kill()
    (state / "run/sandboxes" / sandbox_id / "sandbox.json").write_text("{")
    assert len(traces(state)["interfaces"]) == 2
    purge(state, CGROUP)
    purge(state, CGROUP)
    assert traces(state) == before


async def test_one_owner(state: Path, images: BusyboxImages) -> None:
    first, second = make_runtime(state, images), make_runtime(state, images)
    await first.start()
    with pytest.raises(RuntimeFailure, match="another process"):
        await second.start()
    await first.close()
    await second.start()
    await second.close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id": 5}', b"\xff\xfe\x00", b"null"])
async def test_corrupt_records(
    state: Path, images: BusyboxImages, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    runtime = make_runtime(state, images)
    await runtime.start()
    pods = Pods(runtime, tmp_path / "logs")
    bad, good = await pods.start("sleep 1000", name="bad"), await pods.start("sleep 1000", name="good")
    await runtime.close()
    (state / "run/containers" / bad.id / "container.json").write_bytes(content)
    (state / "run/containers/nonsense").mkdir()
    runtime = make_runtime(state, images)
    with caplog.at_level(logging.ERROR):
        await runtime.start()
    try:
        assert bad.id in caplog.text
        assert runtime.container(bad.id).state == ContainerState.UNKNOWN
        assert runtime.container(good.id).state == ContainerState.RUNNING
        await runtime.remove_container(bad.id)
        with pytest.raises(NoSuchContainer):
            runtime.container(bad.id)
        assert kernel.process_start(bad.pid) == 0
    finally:
        await runtime.close()


async def test_a_killed_monitor_ends_its_container(state: Path, images: BusyboxImages, tmp_path: Path) -> None:
    runtime = make_runtime(state, images)
    await runtime.start()
    container = await Pods(runtime, tmp_path / "logs").start("sleep 1000")
    events = runtime.events()
    os.kill(int((state / "run/containers" / container.id / "monitor.pid").read_text()), signal.SIGKILL)
    await until(events, container.id, "exited")
    ended = runtime.container(container.id)
    assert (ended.exit_code, ended.reason) == (255, "Error")
    assert "monitor" in ended.message
    await runtime.close()


async def test_a_sandbox_whose_namespaces_are_gone_is_not_ready(
    state: Path, images: BusyboxImages, tmp_path: Path
) -> None:
    runtime = make_runtime(state, images)
    await runtime.start()
    sandbox = await Pods(runtime, tmp_path / "logs").sandbox()
    await runtime.close()
    for name in ("net", "uts", "ipc"):
        subprocess.run(["umount", state / "run/ns" / sandbox.id / name], check=True)
    runtime = make_runtime(state, images)
    await runtime.start()
    assert [one.state for one in runtime.sandboxes()] == [SandboxState.NOTREADY]
    assert list((state / "run/addresses").iterdir()) == []
    await runtime.close()


async def test_the_cgroup_mount_is_as_before(state: Path, images: BusyboxImages) -> None:
    def options() -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " cgroup2 " in line]

    before = options()
    runtime = make_runtime(state, images)
    await runtime.start()
    assert all("favordynmods" in line for line in options())
    await runtime.close()
    purge(state, CGROUP)
    assert options() == before


async def test_a_state_directory_behind_a_link(images: BusyboxImages, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    state = tmp_path / "link/state"
    try:
        for _ in range(2):
            runtime = make_runtime(state, images)
            await runtime.start()
            code, _ = await Pods(runtime, tmp_path / "logs").result("exit 3")
            await runtime.close()
            assert code == 3
        assert len([path for path in traces(tmp_path / "real/state")["mounts"] if path.endswith("/run")]) == 1
    finally:
        purge(state, CGROUP)
    assert not (tmp_path / "real/state").exists()


async def test_a_reboot_leaves_no_layers_held(state: Path, images: BusyboxImages, tmp_path: Path) -> None:
    runtime = make_runtime(state, images)
    await runtime.start()
    container = await Pods(runtime, tmp_path / "logs").start("sleep 1000")
    await runtime.close()
    traces(state)
    written = state / "writable" / container.id
    saved = tmp_path / "saved"
    written.rename(saved)
    purge(state, CGROUP)  # the nearest to a reboot: all but the disk is gone
    images.held.add(container.id)
    written.parent.mkdir(parents=True)
    saved.rename(written)
    runtime = make_runtime(state, images)
    await runtime.start()
    assert list(runtime.containers()) == []
    assert not written.exists()
    assert container.id not in images.held
    await runtime.close()


async def test_shared_mounts_are_made_once(tmp_path: Path) -> None:
    directory = tmp_path / "volumes"
    directory.mkdir()
    try:
        share_mounts(directory)
        share_mounts(directory)
        lines = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {directory} " in line]
        assert len(lines) == 1
        assert " shared:" in lines[0]
    finally:
        subprocess.run(["umount", directory], check=True)
