"""A cluster whose state is in an etcd of the user's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from steersman.lib.clock import SystemClock
from steersman.testing.etcd import Etcd, free_ports
from tests.e2e.conftest import Steer

pytestmark = pytest.mark.slow


async def test_a_cluster_on_etcd_outlives_its_processes(make_steer: Callable[[], Steer], tmp_path: Path) -> None:
    def steer(home: Steer, *words: str) -> str:
        return home(*words)

    async with Etcd(tmp_path) as etcd:
        home = make_steer()
        url = etcd.servers.urls[0]
        await asyncio.to_thread(steer, home, "up", "--nodes", "0", f"--extra-config=apiserver.etcd-servers={url}")
        kubectl = home.kubectl()
        await asyncio.to_thread(kubectl, "create", "configmap", "kept", "--from-literal=a=b")
        await asyncio.to_thread(steer, home, "stop")
        etcd.members[0].kill()
        etcd.members[0].start()
        await etcd.members[0].ready(SystemClock())
        await asyncio.to_thread(steer, home, "up")
        assert await asyncio.to_thread(kubectl, "get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"
        await asyncio.to_thread(steer, home, "delete")


def test_an_etcd_that_is_not_there_is_told(make_steer: Callable[[], Steer]) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    done = make_steer().run("up", "--nodes", "0", f"--store=etcd={url}")
    assert done.returncode != 0
    assert f"cannot reach etcd: {url.removeprefix('http://')}" in done.stderr


@pytest.mark.parametrize("store", ["etcd=", "mysql", "etcd=ftp://127.0.0.1:1"])
def test_what_is_no_store_is_refused(make_steer: Callable[[], Steer], store: str) -> None:
    done = make_steer().run("up", "--nodes", "0", f"--store={store}")
    assert done.returncode != 0
    assert ("invalid value for --store" in done.stderr) or ("is not the URL of an etcd server" in done.stderr)
