from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from steersman.api.resource import CONFIGMAPS, PODS, SECRETS
from steersman.kubelet import mounts

from .pods import container, pod
from .realnode import real_node

pytestmark = pytest.mark.node

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; echo up; while :; do sleep 0.1; done"]


def busybox(name: str = "main", script: str = "", **more: Any) -> dict[str, Any]:
    return container(name, image="busybox", command=["sh", "-c", script] if script else SLEEP, **more)


async def sh(node: Any, container_id: str, script: str) -> str:
    found = await node.runtime.exec_sync(container_id, ["sh", "-c", script], 10)
    return (found.stdout + found.stderr).decode()


async def test_a_real_pod_sees_what_its_spec_says(tmp_path: Path) -> None:
    async with real_node(tmp_path) as node, node.kubelet() as kubelet:
        secret = {"key": base64.b64encode(b"word").decode()}
        node.api.put(CONFIGMAPS, {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "v"}})
        node.api.put(SECRETS, {"metadata": {"name": "s", "namespace": "default"}, "data": secret})
        mounted = [
            {"name": "c", "mountPath": "/conf"},
            {"name": "c", "mountPath": "/one", "subPath": "k"},
            {"name": "e", "mountPath": "/room"},
            {"name": "m", "mountPath": "/mem"},
            {"name": "t", "mountPath": "/token"},
        ]
        volumes = [
            {"name": "c", "configMap": {"name": "c"}},
            {"name": "e", "emptyDir": {}},
            {"name": "m", "emptyDir": {"medium": "Memory"}},
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
        ]
        env = [
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        ]
        main = busybox(volumeMounts=mounted, env=env)
        node.api.put(PODS, pod("web", main, volumes=volumes, securityContext={"fsGroup": 77}))
        found: Any = await node.until_phase("web", "Running")
        running = kubelet.container_id("default", "web", "main")
        ip = found["status"]["podIP"]
        assert (await sh(node, running, "cat /conf/k /one; echo; echo $IP $S; hostname")).split() == [
            "vv",
            ip,
            "word",
            "web",
        ]
        assert f"{ip}\tweb" in await sh(node, running, "cat /etc/hosts")
        assert (await sh(node, running, "cat /token/token")) == "token-1"
        assert (await sh(node, running, "id -G")).split()[-1] == "77"
        assert (await sh(node, running, "touch /room/a /mem/b && stat -c '%g %a' /room")).split() == ["77", "2777"]
        assert await sh(node, running, "touch /conf/x") != ""
        assert Path(kubelet.log_path("default", "web", "main")).read_text().endswith("stdout F up\n")
        node.api.put(CONFIGMAPS, {"metadata": {"name": "c", "namespace": "default"}, "data": {"k": "new"}})
        while await sh(node, running, "cat /conf/k") != "new":
            await node.clock.sleep(0.01)
        node.api.delete_gracefully("web", 10)
        await node.api.until(lambda: node.api.pod("web") is None, 15)
        assert mounts.mounted_under(str(node.settings.root)) == []
        assert not node.runtime.sandboxes()


async def test_a_real_container_is_restarted_and_tells_why_it_ended(tmp_path: Path) -> None:
    script = "test -e /room/once && exec sleep 100; touch /room/once; echo -n bye > /dev/termination-log; exit 3"
    main = busybox(script=script, volumeMounts=[{"name": "e", "mountPath": "/room"}])
    async with real_node(tmp_path) as node, node.kubelet():
        node.api.put(PODS, pod("web", main, volumes=[{"name": "e", "emptyDir": {}}]))
        await node.api.until(
            lambda: (node.api.pod("web")["status"].get("containerStatuses") or [{}])[0].get("restartCount") == 1, 20
        )
        status = node.api.pod("web")["status"]["containerStatuses"][0]
        ended = status["lastState"]["terminated"]
        assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "bye")
        node.api.delete_gracefully("web", 1)
        await node.api.until(lambda: node.api.pod("web") is None, 15)


async def test_a_kubelet_that_comes_back_finds_everything(tmp_path: Path) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    async with real_node(tmp_path) as node:
        async with node.kubelet():
            node.api.put(PODS, pod("web", busybox(readinessProbe=probe)))
            node.api.put(PODS, pod("job", busybox(script="sleep 1; exit 7"), restartPolicy="Never"))
            node.api.put(PODS, pod("gone", busybox()))
            for name in ("web", "job", "gone"):
                await node.until_phase(name, "Running")
            await node.api.until(lambda: node.api.pod("web")["status"]["containerStatuses"][0]["ready"], 10)
            pids = {each.pid for each in node.runtime.containers()}
        node.api.remove(PODS, "default", "gone")
        await node.clock.sleep(1.2)
        node.api.statuses.clear()
        async with node.kubelet() as kubelet:
            found: Any = await node.until_phase("job", "Failed")
            assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
            await node.api.until(lambda: len(node.runtime.sandboxes()) == 2, 15)
            running = node.runtime.container(kubelet.container_id("default", "web", "main"))
            assert running.pid in pids
            assert node.api.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 0
            assert all(each["phase"] == "Failed" or each["containerStatuses"][0]["ready"] for each in node.api.statuses)
            for name in ("web", "job"):
                node.api.delete_gracefully(name, 1)
            await node.api.until(lambda: not node.runtime.sandboxes(), 15)
