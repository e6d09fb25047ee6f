"""Unmodified Python clients take their first steps: create, list, watch, delete; exec where they have it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import kr8s.asyncio
import pytest
from kr8s.asyncio.objects import ConfigMap as Kr8sConfigMap
from kr8s.asyncio.objects import Pod as Kr8sPod
from kubernetes import client, config, watch
from kubernetes.stream import stream
from lightkube import ApiError, Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap, Pod

from tests.e2e.conftest import Steer
from tests.e2e.test_lifecycle import POD

pytestmark = [pytest.mark.node, pytest.mark.timeout(180), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def pod(steer: Steer, request: pytest.FixtureRequest) -> Iterator[str]:
    """A running pod's name."""
    kubectl = steer.kubectl()
    name = request.node.name.replace("_", "-")[:50]
    kubectl("wait", "--for=create", "serviceaccount/default", "--timeout=20s")
    body: dict[str, Any] = {**POD, "metadata": {"name": name}}
    kubectl("create", "-f", "-", given=json.dumps(body))
    kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    yield name
    kubectl("delete", "pod", name, "--now")


def test_official_client(steer: Steer, pod: str) -> None:
    api = client.CoreV1Api(config.new_client_from_config(str(steer.kubeconfig)))
    assert pod in [item.metadata.name for item in api.list_namespaced_pod("default").items]
    made = api.create_namespaced_config_map("default", {"metadata": {"name": "official"}, "data": {"a": "b"}})
    assert made.data == {"a": "b"}
    events = watch.Watch().stream(api.list_namespaced_config_map, "default", timeout_seconds=5)
    assert any(event["object"].metadata.name == "official" for event in events)
    said = stream(api.connect_get_namespaced_pod_exec, pod, "default", command=["echo", "hello"],
                  stdout=True, stderr=True, stdin=False, tty=False)  # fmt: skip
    assert said == "hello\n"
    api.delete_namespaced_config_map("official", "default")
    with pytest.raises(client.ApiException) as refused:
        api.read_namespaced_config_map("official", "default")
    assert refused.value.status == 404


async def test_kr8s(steer: Steer, pod: str) -> None:
    api = await kr8s.asyncio.api(kubeconfig=str(steer.kubeconfig))
    made = await Kr8sConfigMap({"metadata": {"name": "kr8s", "namespace": "default"}, "data": {"a": "b"}}, api=api)
    await made.create()
    assert "kr8s" in [item.name async for item in api.get("configmaps", namespace="default")]
    running = await Kr8sPod.get(pod, namespace="default", api=api)
    done = await running.exec(["echo", "hello"])
    assert done.stdout == b"hello\n"
    async for event, obj in api.watch("configmaps", namespace="default"):
        assert event == "ADDED"
        if obj.name == "kr8s":
            break
    await made.delete()
    assert not await made.exists()


def test_lightkube(steer: Steer, pod: str) -> None:
    light = Client(config=KubeConfig.from_file(str(steer.kubeconfig)), namespace="default")
    light.create(ConfigMap(metadata=ObjectMeta(name="light"), data={"a": "b"}))
    assert "light" in [item.metadata.name for item in light.list(ConfigMap)]
    assert light.get(Pod, pod).status.phase == "Running"
    operation, found = next(iter(light.watch(ConfigMap, fields={"metadata.name": "light"})))
    assert (operation, found.metadata.name) == ("ADDED", "light")
    light.delete(ConfigMap, "light")
    with pytest.raises(ApiError, match="not found"):
        light.get(ConfigMap, "light")
