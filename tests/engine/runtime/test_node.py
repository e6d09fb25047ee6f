"""Real containers: what they see, what they may, what is told about them."""

from __future__ import annotations

import asyncio
import os
import re
import select
import socket
import subprocess
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from steersman.engine.interface import (
    ContainerConfig,
    ContainerState,
    Device,
    Mount,
    PortMapping,
    Resources,
    RuntimeFailure,
    Sandbox,
    Security,
)
from steersman.engine.runtime import LocalRuntime, purge
from tests.engine.runtime.conftest import CGROUP, BusyboxImages, Pods, eventually, make_runtime, output

pytestmark = pytest.mark.node


async def test_log_is_in_cri_format(pods: Pods) -> None:
    code, _ = await pods.result("echo out; echo err >&2; printf part")
    log = (pods.logs / "main/0.log").read_text().splitlines()
    pattern = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}(Z|[+-]\d\d:\d\d) (stdout|stderr) (F|P) (.*)$")
    parsed = [match.groups()[1:] for line in log if (match := pattern.match(line))]
    assert code == 0
    assert sorted(parsed) == [("stderr", "F", "err"), ("stdout", "F", "out"), ("stdout", "P", "part")]


async def test_log_is_reopened_after_rotation(runtime: LocalRuntime, pods: Pods) -> None:
    container = await pods.start("echo before; while ! [ -e /go ]; do sleep 0.01; done; echo after; sleep 1000")
    log = Path(container.log_path)
    await eventually(lambda: "before" in log.read_text())
    log.rename(log.with_suffix(".1"))
    await runtime.reopen_log(container.id)
    await pods.sh(container, "touch /go")
    await eventually(lambda: "after" in log.read_text())
    assert "before" not in log.read_text()


async def test_environment_and_command_come_from_image_and_config(pods: Pods) -> None:
    code, said = await pods.result("", image="layered", command=(), args=())
    assert (code, said) == (0, "entry cmd\n")
    code, said = await pods.result("", image="layered", command=(), args=("mine",), name="args")
    assert (code, said) == (0, "entry mine\n")
    _, said = await pods.result(
        "echo $FROM_IMAGE $MINE $HOSTNAME $HOME $PWD", name="env", env=(("MINE", "1"),), working_dir="/new/dir"
    )
    assert said == "yes 1 pod /root /new/dir\n"


async def test_many_layers(pods: Pods) -> None:
    _, said = await pods.result(
        "cat /file0 /file59 /marker", image="layered", command=("sh", "-c", "cat /file0 /file59 /marker")
    )
    assert said == "059top\n"


async def test_oom_kill_is_told(pods: Pods, runtime: LocalRuntime) -> None:
    limits = Resources(memory_limit=16 << 20, memory_swap_limit=16 << 20)
    code, _ = await pods.result("dd if=/dev/zero of=/dev/null bs=64M count=1", resources=limits)
    [container] = runtime.containers()
    assert (code, container.reason) == (137, "OOMKilled")


async def test_exit_by_signal(pods: Pods, runtime: LocalRuntime) -> None:
    code, _ = await pods.result("sh -c 'kill -SEGV $$'; exit $?")
    assert code == 139
    trapped = await pods.start(
        "trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done", name="trap", stop_signal="SIGUSR1"
    )
    await eventually(lambda: output(trapped) == "ready\n")
    await runtime.stop_container(trapped.id, 10)
    assert runtime.container(trapped.id).exit_code == 9


async def test_network_by_routes(pods: Pods) -> None:
    one, two = await asyncio.gather(pods.sandbox("one"), pods.sandbox("two"))
    server = await pods.start("exec nc -ll -p 80 -e echo hello", one)
    client = await pods.start("sleep 1000", two, "client")
    await eventually(lambda: _connects(one.ips[0], 80))
    assert await pods.sh(client, f"nc {one.ips[0]} 80 </dev/null") == "hello\n"  # pod to pod
    listener = socket.create_server(("0.0.0.0", 0))
    with listener:
        port = listener.getsockname()[1]
        async with asyncio.TaskGroup() as group:
            answer = group.create_task(pods.sh(client, f"nc 169.254.1.1 {port} </dev/null"))
            await eventually(lambda: not _pending(listener))
            connection, (address, _) = listener.accept()
            connection.sendall(b"from the node")
            connection.close()
        assert answer.result() == "from the node"  # pod to node
        assert address == two.ips[0]
    assert "127.0.0.1" in await pods.sh(server, "ping -c 1 127.0.0.1")


def _connects(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def _pending(listener: socket.socket) -> bool:
    return not select.select([listener], [], [], 0)[0]


async def test_port_forward(pods: Pods, runtime: LocalRuntime) -> None:
    sandbox = await pods.sandbox()
    container = await pods.start("exec nc -ll -p 8080 -e cat", sandbox)
    for _ in range(200):
        if ":1F90 " in await pods.sh(container, "cat /proc/net/tcp*"):
            break
    connection = await runtime.port_forward(sandbox.id, 8080)
    connection.write(b"ping")
    await connection.drain()
    assert await connection.read() == b"ping"
    connection.close()
    with pytest.raises(RuntimeFailure, match="failed to connect to localhost:81"):
        await runtime.port_forward(sandbox.id, 81)
    with pytest.raises(RuntimeFailure, match="not a port"):
        await runtime.port_forward(sandbox.id, 70000)


async def test_sandbox_settings_reach_containers(pods: Pods) -> None:
    sandbox = await pods.sandbox(
        "settings",
        dns_servers=("10.96.0.10",),
        dns_searches=("a.local", "b.local"),
        dns_options=("ndots:5",),
        sysctls={"net.ipv4.ip_local_port_range": "1024 2048", "kernel.shm_rmid_forced": "1"},
    )
    container = await pods.start("sleep 1000", sandbox)
    assert await pods.sh(container, "hostname; cat /etc/hostname") == "settings\nsettings\n"
    resolver = "search a.local b.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    assert await pods.sh(container, "cat /etc/resolv.conf") == resolver
    values = await pods.sh(container, "cd /proc/sys; cat net/ipv4/ip_local_port_range kernel/shm_rmid_forced")
    assert values.split() == ["1024", "2048", "1"]
    assert Path("/proc/sys/kernel/shm_rmid_forced").read_text().strip() == "0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sysctls": {"vm.swappiness": "1"}}, "not namespaced"),
        ({"sysctls": {"net./../vm.swappiness": "1"}}, "not namespaced"),
        ({"sysctls": {"net.nothing": "1"}}, "cannot set sysctl"),
        ({"sysctls": {"net.ipv4.ip_forward": "1"}, "host_network": True}, "host's namespace"),
        ({"dns_searches": ("a\nnameserver 6.6.6.6",)}, "resolv.conf"),
        ({"cgroup_parent": "../../escape"}, "cgroup parent"),
        ({"user_namespace": True}, "user namespaces"),
    ],
)
async def test_bad_sandboxes_are_refused_and_leave_nothing(
    pods: Pods, runtime: LocalRuntime, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RuntimeFailure, match=message):
        await pods.sandbox(**options)
    state = tmp_path / "state/run"
    assert [list((state / name).iterdir()) for name in ("sandboxes", "ns", "addresses")] == [[], [], []]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"log_path": "../../escape.log"}, "log path"),
        ({"log_path": "/etc/escape.log"}, "log path"),
        ({"command": ("/no/such/program",)}, "no such file|not found|No such file"),
        ({"working_dir": "relative"}, "not absolute"),
        ({"mounts": (Mount("/a/../../b", "/tmp"),)}, "mount path"),
        ({"mounts": (Mount("relative", "/tmp"),)}, "mount path"),
        ({"mounts": (Mount("/a", "relative"),)}, "host path"),
        ({"mounts": (Mount("/a", image="data", image_sub_path="../../../etc/nothing"),)}, "no path"),
        ({"devices": (Device("/dev/x", "/dev/no-such-device"),)}, "no device"),
        ({"devices": (Device("/dev/x", "/dev/null", "rwx"),)}, "permissions"),
        ({"security": Security(username="nobody-here")}, "unable to find user"),
        ({"security": Security(add_capabilities=("NONSENSE",))}, "unknown capability"),
        ({"security": Security(seccomp="/no/such/profile.json")}, "no seccomp profile"),
        ({"env": (("A=B", "c"),)}, "environment"),
        ({"target_container": "f" * 64}, "no container"),
    ],
)
async def test_bad_containers_are_refused_and_leave_nothing(
    pods: Pods, runtime: LocalRuntime, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(RuntimeFailure, match=message) as caught:
        await pods.start("sleep 1", **options)
    assert caught.value.reason == "CreateContainerError" or "no container" in message
    assert list((tmp_path / "state/run/containers").iterdir()) == []
    assert list((tmp_path / "state/run/oci").iterdir()) == []
    assert list(runtime.containers()) == []


async def test_confinement_by_default(pods: Pods) -> None:
    container = await pods.start("sleep 1000")
    status = dict(line.split(":\t") for line in (await pods.sh(container, "cat /proc/self/status")).splitlines())
    assert status["Seccomp"] == "2"
    assert status["CapEff"] == "00000000a80425fb"
    assert "permi" in await pods.sh(container, "mount -t tmpfs none /tmp")  # by seccomp or by capability
    assert "Read-only" in await pods.sh(container, "echo 1 > /proc/sys/kernel/panic")
    assert await pods.sh(container, "cat /proc/keys") == ""
    assert "permitted" in await pods.sh(container, "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg")


async def test_security_settings(pods: Pods, runtime: LocalRuntime) -> None:
    sandbox = await pods.sandbox()
    security = Security(
        run_as_user=1000,
        run_as_group=3000,
        supplemental_groups=(60000,),
        readonly_rootfs=True,
        no_new_privs=True,
        drop_capabilities=("ALL",),
        add_capabilities=("NET_BIND_SERVICE",),
    )
    container = await pods.start("sleep 1000", sandbox, security=security)
    assert container.user == (1000, 3000, (3000, 50000, 60000))
    assert (await pods.sh(container, "id -u; id -g; id -G")).split("\n")[:3] == ["1000", "3000", "3000 50000 60000"]
    assert "Read-only file system" in await pods.sh(container, "touch /x")
    status = await pods.sh(container, "cat /proc/1/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000400" in status
    strict = Security(run_as_user=1000, supplemental_groups=(60000,), supplemental_groups_policy="Strict")
    other = await pods.start("sleep 1000", sandbox, "strict", security=strict)
    assert other.user == (1000, 1000, (1000, 60000))


async def test_privileged(pods: Pods) -> None:
    container = await pods.start("sleep 1000", security=Security(privileged=True))
    assert "ok" in await pods.sh(container, "mount -t tmpfs none /tmp && echo ok")
    status = await pods.sh(container, "cat /proc/1/status")
    assert "Seccomp:\t0" in status
    assert "ok" in await pods.sh(container, "[ -c /dev/kmsg ] && echo ok")


async def test_devices(pods: Pods) -> None:
    container = await pods.start("sleep 1000", devices=(Device("/dev/mine", "/dev/kmsg", "r"),))
    assert "ok" in await pods.sh(container, "[ -c /dev/mine ] && echo ok")
    assert "not permitted" in await pods.sh(container, "echo x > /dev/mine")


async def test_mounts(pods: Pods, tmp_path: Path) -> None:
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro/file").write_text("content\n")
    mounts = (
        Mount("/ro", str(tmp_path / "ro"), readonly=True),
        Mount("/rw", str(tmp_path / "made")),
        Mount("/rw/nested", str(tmp_path / "ro")),
        Mount("/etc/hosts", str(tmp_path / "ro/file")),
        Mount("/image", image="data", image_sub_path="sub"),
    )
    container = await pods.start("sleep 1000", mounts=mounts)
    assert await pods.sh(container, "cat /ro/file /rw/nested/file /etc/hosts") == "content\n" * 3
    assert "Read-only" in await pods.sh(container, "touch /ro/x")
    await pods.sh(container, "touch /rw/x")
    assert (tmp_path / "made/x").exists()
    assert await pods.sh(container, "cat /image/file") == "below\n"
    assert "Read-only" in await pods.sh(container, "touch /image/x")


async def test_images_are_held_while_containers_use_them(
    pods: Pods, runtime: LocalRuntime, images: BusyboxImages, tmp_path: Path
) -> None:
    images.held.clear()
    container = await pods.start("sleep 1000", mounts=(Mount("/image", image="data"),))
    assert images.held == {container.id, f"{container.id}-image0"}
    with pytest.raises(RuntimeFailure):
        await pods.start("sleep 1000", name="bad", mounts=(Mount("/image", image="no-such-image"),))
    await runtime.remove_container(container.id)
    assert images.held == set()
    assert list((tmp_path / "state/writable").iterdir()) == []


async def test_image_volumes_are_the_containers_own(pods: Pods) -> None:
    container = await pods.start("sleep 1000", image="volume", security=Security(run_as_user=0))
    assert await pods.sh(container, "cat /data/seed; touch /data/x /empty/y && echo ok") == "from the image\nok\n"


async def test_mounts_of_the_container_reach_the_node_when_shared(pods: Pods, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    subprocess.run(["mount", "--make-shared", shared], check=True)
    try:
        mounts = (Mount("/shared", str(shared), propagation="rshared"),)
        container = await pods.start("sleep 1000", mounts=mounts, security=Security(privileged=True))
        await pods.sh(container, "mkdir /shared/sub; mount -t tmpfs none /shared/sub; touch /shared/sub/seen")
        assert (shared / "sub/seen").exists()
        overlays = subprocess.run(["mount"], capture_output=True, text=True, check=True).stdout
        assert "/rootfs" not in overlays
    finally:
        subprocess.run(["umount", "-R", shared], check=True)


async def test_mounts_of_the_node_arrive(pods: Pods, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    subprocess.run(["mount", "--make-shared", shared], check=True)
    try:
        mounts = (Mount("/shared", str(shared), propagation="rslave"),)
        container = await pods.start("sleep 1000", mounts=mounts)
        (shared / "sub").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", shared / "sub"], check=True)
        (shared / "sub/seen").touch()
        assert await pods.sh(container, "ls /shared/sub") == "seen\n"
    finally:
        subprocess.run(["umount", "-R", shared], check=True)


async def test_limits_and_their_change(pods: Pods, runtime: LocalRuntime) -> None:
    sandbox = await pods.sandbox(cgroup_parent="burstable/pod1", resources=Resources(memory_limit=256 << 20))
    container = await pods.start("sleep 1000", sandbox, resources=Resources(memory_limit=64 << 20, cpu_shares=512))
    where = "/sys/fs/cgroup/memory/steertest/burstable/pod1"
    inside = await pods.sh(container, "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/cpu/cpu.shares")
    assert inside.split() == [str(64 << 20), "512"]
    assert Path(where, "memory.limit_in_bytes").read_text() == f"{256 << 20}\n"
    await runtime.update_resources(container.id, Resources(memory_limit=96 << 20, cpu_quota=20000, cpu_period=100000))
    assert Path(where, container.id, "memory.limit_in_bytes").read_text() == f"{96 << 20}\n"
    await runtime.remove_sandbox(sandbox.id)
    assert not Path(where).exists()


async def test_shared_and_host_pid_namespaces(pods: Pods, runtime: LocalRuntime) -> None:
    sandbox = await pods.sandbox(share_pid=True)
    first = await pods.start("exec sleep 1111", sandbox, "first")
    second = await pods.start("exec sleep 2222", sandbox, "second")
    assert "sleep 1111" in await pods.sh(second, "ps")
    await runtime.stop_container(first.id, 0)
    assert "sleep 2222" in await pods.sh(second, "ps")
    own = await pods.start("exec sleep 3333", name="own")
    assert "sleep 1111" not in await pods.sh(own, "ps")
    beside = await pods.start(
        "exec sleep 4444", await _sandbox_of(runtime, own.sandbox_id), "beside", target_container=own.id
    )
    assert "sleep 3333" in await pods.sh(beside, "ps")
    host = await pods.sandbox("host", host_pid=True, host_network=True, host_ipc=True)
    seeing = await pods.start("sleep 1000", host, "host")
    assert f"{os.getpid()} " in await pods.sh(seeing, "ps")
    assert await pods.sh(seeing, "stat -L -c %i /proc/self/ns/net") == f"{os.stat('/proc/self/ns/net').st_ino}\n"
    assert host.ips == ()


async def _sandbox_of(runtime: LocalRuntime, sandbox_id: str) -> Sandbox:
    return next(sandbox for sandbox in runtime.sandboxes() if sandbox.id == sandbox_id)


async def test_exec_with_a_terminal(pods: Pods, runtime: LocalRuntime) -> None:
    container = await pods.start("sleep 1000")
    session = await runtime.exec(container.id, ["sh"], tty=True, stdin=True)
    session.resize(101, 37)
    session.write(b"stty size; [ -t 0 ] && echo terminal; exit 5\n")
    said = b""
    while data := await session.read_stdout():
        said += data
    assert b"37 101" in said
    assert b"terminal\r\n" in said
    assert await session.read_stderr() == b""
    assert await session.wait() == 5
    await session.close()


async def test_exec_that_cannot_start(pods: Pods, runtime: LocalRuntime) -> None:
    container = await pods.start("sleep 1000")
    with pytest.raises(RuntimeFailure, match="nosuch"):
        await runtime.exec_sync(container.id, ["nosuch"], 10)
    session = await runtime.exec(container.id, ["nosuch"], tty=True, stdin=True)
    with pytest.raises(RuntimeFailure, match="nosuch"):
        await session.wait()
    await session.close()
    with pytest.raises(RuntimeFailure, match="no command"):
        await runtime.exec_sync(container.id, [], 10)


async def test_closing_an_exec_kills_it(pods: Pods, runtime: LocalRuntime, tmp_path: Path) -> None:
    container = await pods.start("sleep 1000")
    session = await runtime.exec(container.id, ["sh", "-c", "echo ready; exec sleep 7777"], tty=False, stdin=False)
    assert await session.read_stdout() == b"ready\n"
    await session.close()
    await session.close()
    assert "7777" not in await pods.sh(container, "ps")
    assert list((tmp_path / "state/run/containers" / container.id / "execs").iterdir()) == []


async def test_closing_an_exec_kills_what_its_runtime_has_not_told_of_yet(
    pods: Pods, runtime: LocalRuntime, tmp_path: Path
) -> None:
    container = await pods.start("sleep 1000")
    execs = tmp_path / "state/run/containers" / container.id / "execs"
    for command in ("echo ready; exec sleep 7777", "echo ready; sleep 7778"):
        session = await runtime.exec(container.id, ["sh", "-c", command], tty=False, stdin=False)
        assert await session.read_stdout() == b"ready\n"
        for told in execs.glob("*/pid"):
            told.unlink()
        await session.close()
    assert "sleep 777" not in await pods.sh(container, "ps")
    assert list(execs.iterdir()) == []


async def test_attach_with_a_terminal(pods: Pods, runtime: LocalRuntime) -> None:
    container = await pods.start("read line; stty size; echo got $line; sleep 1000", tty=True, stdin=True)
    session = await runtime.attach(container.id, stdin=True)
    session.resize(90, 30)
    session.write(b"word\n")
    said = b""
    while b"got word" not in said:
        said += await session.read_stdout()
    assert b"30 90" in said
    await session.close()
    assert runtime.container(container.id).state == ContainerState.RUNNING


async def test_end_of_input_reaches_a_container_made_for_it(pods: Pods, runtime: LocalRuntime) -> None:
    container = await pods.start("cat; echo over", stdin=True, stdin_once=True)
    session = await runtime.attach(container.id, stdin=True)
    session.write(b"x" * 100_000 + b"\n")
    session.close_stdin()
    said = b""
    while data := await session.read_stdout():
        said += data
    assert said == b"x" * 100_000 + b"\nover\n"
    assert await session.wait() == 0
    await session.close()


async def test_output_and_errors_are_told_apart_in_attach(pods: Pods, runtime: LocalRuntime) -> None:
    sandbox = await pods.sandbox()
    config = ContainerConfig("main", "busybox", command=("sh", "-c", "echo out; echo err >&2"))
    container = await runtime.create_container(sandbox.id, config)
    session = await runtime.attach(container.id, stdin=False)
    await runtime.start_container(container.id)

    async def all_of(read: object) -> bytes:
        said = b""
        while data := await read():  # type: ignore[operator]
            said += data
        return said

    said = await asyncio.gather(all_of(session.read_stdout), all_of(session.read_stderr))
    assert said == [b"out\n", b"err\n"]
    await session.close()


async def test_stats(pods: Pods, runtime: LocalRuntime) -> None:
    container = await pods.start("dd if=/dev/zero of=/big bs=1M count=3; echo done; sleep 1000")
    await eventually(lambda: "done" in output(container))
    stats = await runtime.stats(container.id)
    assert stats.rootfs_used >= 3 << 20
    assert stats.cpu_ns > 0
    assert stats.memory_usage > 0
    assert stats.pids == 1


async def test_host_ports_are_told(pods: Pods, runtime: LocalRuntime) -> None:
    mapping = PortMapping(80, 8080)
    sandbox = await pods.sandbox(ports=(mapping, PortMapping(81, 0)))
    assert list(runtime.port_mappings()) == [(sandbox.id, sandbox.ips[0], mapping)]
    await runtime.stop_sandbox(sandbox.id)
    assert list(runtime.port_mappings()) == []


async def test_a_cancelled_caller_leaves_nothing_unlisted(pods: Pods, runtime: LocalRuntime, tmp_path: Path) -> None:
    async def cancelled(work: Coroutine[Any, Any, Any]) -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(work)
            await asyncio.to_thread(lambda: None)  # let it begin
            task.cancel()

    state = tmp_path / "state/run"
    await cancelled(pods.sandbox("cut"))
    assert {one.id for one in runtime.sandboxes()} == set(os.listdir(state / "sandboxes"))
    sandbox = await pods.sandbox()
    config = ContainerConfig("main", "busybox", command=("sleep", "1000"))
    await cancelled(runtime.create_container(sandbox.id, config))
    assert {one.id for one in runtime.containers()} == set(os.listdir(state / "containers"))
    container = await runtime.create_container(sandbox.id, config)
    await cancelled(runtime.start_container(container.id))
    await runtime.start_container(container.id)
    assert runtime.container(container.id).state == ContainerState.RUNNING
    await cancelled(runtime.exec(container.id, ["sleep", "5555"], tty=False, stdin=False))
    assert "5555" not in await pods.sh(runtime.container(container.id), "ps")
    await cancelled(runtime.remove_container(container.id))
    await runtime.remove_container(container.id)
    await runtime.remove_sandbox(sandbox.id)
    assert {one.id for one in runtime.containers()} == set(os.listdir(state / "containers"))


async def test_thirty_pods_at_once(pods: Pods, runtime: LocalRuntime) -> None:
    async def one(number: int) -> str:
        sandbox = await pods.sandbox(f"pod{number}")
        await pods.start("sleep 1000", sandbox, f"c{number}")
        return sandbox.ips[0]

    addresses = await asyncio.gather(*(one(number) for number in range(30)))
    assert len(set(addresses)) == 30
    assert all(container.state == ContainerState.RUNNING for container in runtime.containers())


async def test_runc_is_accepted(tmp_path: Path, images: BusyboxImages) -> None:
    runtime = make_runtime(tmp_path / "state", images, runtime="runc")
    await runtime.start()
    try:
        pods = Pods(runtime, tmp_path / "logs")
        code, said = await pods.result("echo hello; cat /proc/self/status; exit 3")
        assert (code, said.split("\n")[0]) == (3, "hello")
        assert "Seccomp:\t2" in said
        container = await pods.start("sleep 1000", name="second")
        assert await pods.sh(container, "echo in") == "in\n"
        session = await runtime.exec(container.id, ["sh"], tty=True, stdin=True)
        session.resize(101, 37)
        session.write(b"sleep 0.1; stty size; exit 5\n")
        printed = b""
        while data := await session.read_stdout():
            printed += data
        assert b"37 101" in printed
        assert await session.wait() == 5
        await session.close()
        with pytest.raises(RuntimeFailure, match="nosuch"):
            await runtime.exec_sync(container.id, ["nosuch"], 10)
    finally:
        await runtime.close()
        purge(tmp_path / "state", CGROUP)
