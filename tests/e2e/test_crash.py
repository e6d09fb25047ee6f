"""SIGKILL to each part while it works: what was acknowledged is there, what ran goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS
from steersman.client.client import Client
from steersman.client.transport import Credentials, connect
from steersman.cluster.supervisor import processes
from steersman.lib.clock import SystemClock
from tests.e2e.conftest import Steer
from tests.e2e.test_lifecycle import run_pod

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]


def running(steer: Steer) -> dict[str, int]:
    return processes(steer.home / "profiles" / "steer" / "run")


def client(steer: Steer) -> Client:
    pki = steer.home / "profiles" / "steer" / "pki"
    port = json.loads((steer.home / "profiles" / "steer" / "profile.json").read_text())["api_port"]
    credentials = Credentials(f"https://127.0.0.1:{port}", pki / "ca.crt", pki / "admin.crt", pki / "admin.key")
    return Client(connect(credentials), clock=SystemClock(), user_agent="tests")


async def test_a_killed_api_server_loses_nothing_acknowledged(make_steer: Callable[[], Steer]) -> None:
    steer = make_steer()
    steer("up", "--nodes", "0")
    acknowledged: dict[str, str] = {}
    seen: set[str] = set()
    everything, under_way = asyncio.Event(), asyncio.Event()
    api = client(steer)
    begun = await api.list(CONFIGMAPS, "default")

    async def follow(version: str) -> None:
        while True:
            try:
                async for event in api.watch(CONFIGMAPS, "default", resource_version=version, bookmarks=False):
                    version = event.object["metadata"]["resourceVersion"]
                    if event.type == "ADDED":
                        assert event.object["metadata"]["name"] not in seen
                        seen.add(event.object["metadata"]["name"])
                        if len(seen) >= 10 * 32 * 7:
                            everything.set()
            except OSError:
                continue  # the supervisor holds the listening socket: connecting waits for the next server

    async def create(worker: int, round_: int) -> None:
        for number in range(7):
            name = f"c-{round_}-{worker}-{number}"
            while True:
                try:
                    made = await api.create(CONFIGMAPS, {"metadata": {"name": name}}, "default")
                except (OSError, TimeoutError):
                    continue
                except ApiError as error:
                    if error.reason == "AlreadyExists":  # made by a try whose answer was lost
                        break
                    if error.code == 503:
                        continue
                    raise
                acknowledged[name] = made["metadata"]["uid"]
                if number == 2:
                    under_way.set()
                break

    follower = asyncio.ensure_future(follow(begun.resource_version))
    for round_ in range(10):
        work = asyncio.gather(*(create(worker, round_) for worker in range(32)))
        under_way.clear()
        await under_way.wait()
        os.kill(running(steer)["apiserver"], signal.SIGKILL)
        await work
    page = await api.list(CONFIGMAPS, "default")
    found = {item["metadata"]["name"]: item["metadata"]["uid"] for item in page.items}
    assert acknowledged.items() <= found.items()
    assert sum(name.startswith("c-") for name in found) == 10 * 32 * 7
    async with asyncio.timeout(30):
        await everything.wait()
    follower.cancel()
    await api.transport.close()
    steer("delete")


def test_a_killed_node_agent_leaves_containers_running(make_steer: Callable[[], Steer], registry: str) -> None:
    steer = make_steer()
    steer("up", "--registry-mirror", f"http://{registry}")
    run_pod(steer)
    kubectl = steer.kubectl()
    before = json.loads(kubectl("get", "pod", "web", "-o", "json"))["status"]
    container = before["containerStatuses"][0]["containerID"]
    pid = kubectl("exec", "web", "--", "sh", "-c", "cat /proc/1/stat").split()[21]
    agent = running(steer)["node-0"]
    os.kill(agent, signal.SIGKILL)
    subprocess.run(["curl", "-s", "-m", "5", f"http://{before['podIP']}/meanwhile"], check=True, capture_output=True)
    assert "meanwhile" in _log_when(kubectl, "meanwhile")
    after = json.loads(kubectl("get", "pod", "web", "-o", "json"))["status"]
    assert after["containerStatuses"][0]["containerID"] == container
    assert after["containerStatuses"][0]["restartCount"] == 0
    assert kubectl("exec", "web", "--", "sh", "-c", "cat /proc/1/stat").split()[21] == pid
    assert running(steer)["node-0"] != agent
    steer("delete")


def _log_when(kubectl: Callable[..., str], word: str) -> str:
    follower = kubectl.start("logs", "-f", "web")  # type: ignore[attr-defined]
    try:
        for _ in range(200):
            line = follower.stdout.readline()
            if word in line:
                return str(line)
            if not line:
                follower.communicate()
                follower = kubectl.start("logs", "-f", "web")  # type: ignore[attr-defined]
    finally:
        follower.kill()
        follower.communicate()
    return ""


def test_the_plug_is_pulled_and_the_cluster_comes_back(make_steer: Callable[[], Steer], registry: str) -> None:
    steer = make_steer()
    steer("up", "--registry-mirror", f"http://{registry}")
    run_pod(steer)
    for pid in running(steer).values():
        os.kill(pid, signal.SIGKILL)
    for monitor in _monitors(steer.home):
        os.kill(monitor, signal.SIGKILL)
    steer("up")
    kubectl = steer.kubectl()
    kubectl("wait", "--for=condition=Ready", "node", "--all", "--timeout=30s")
    kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
    address = kubectl("get", "pod", "web", "-o", "jsonpath={.status.podIP}")
    subprocess.run(["curl", "-sf", "-m", "5", f"http://{address}/"], check=True, capture_output=True)
    steer("delete")


def _monitors(home: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "conmon" in words.split("\0")[0] and str(home) in words:
            found.append(int(path.parent.name))
    return found
