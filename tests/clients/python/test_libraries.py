"""Other people's Python clients, beyond first steps, against a control plane without nodes."""

from __future__ import annotations

import threading
from typing import Any

import kubernetes_asyncio
import kubernetes_asyncio.client
import kubernetes_asyncio.config
import kubernetes_asyncio.watch
import pykube
import pytest
import yaml
from kubernetes import client, config, dynamic, watch
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError as LightkubeError
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60), pytest.mark.filterwarnings("ignore")]

CONFIG_MAP: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "y"}}}
DEPLOYMENT = yaml.safe_load("""
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: "i:1"}]}}
""")


def official(cluster: Any) -> client.ApiClient:
    return config.new_client_from_config(str(cluster.kubeconfig))


def test_the_dynamic_client(cluster: Any, namespace: str) -> None:
    found = dynamic.DynamicClient(official(cluster))
    deployments = found.resources.get(api_version="apps/v1", kind="Deployment")
    made = deployments.create(body=DEPLOYMENT, namespace=namespace)
    assert made.spec.strategy.type == "RollingUpdate"
    patch = {"spec": {"replicas": 3}}
    deployments.patch(name="web", namespace=namespace, body=patch, content_type="application/merge-patch+json")
    assert deployments.scale.get(name="web", namespace=namespace).spec.replicas == 3
    applied = deployments.server_side_apply(
        body={**DEPLOYMENT, "spec": {**DEPLOYMENT["spec"], "replicas": 2}},
        namespace=namespace, field_manager="tests", force_conflicts=True,
    )  # fmt: skip
    assert applied.spec.replicas == 2
    names = [each.metadata.name for each in deployments.get(namespace=namespace).items]
    assert names == ["web"]
    for event in deployments.watch(namespace=namespace, timeout=5):
        assert (event["type"], event["object"].metadata.name) == ("ADDED", "web")
        break
    deployments.delete(name="web", namespace=namespace)
    with pytest.raises(dynamic.exceptions.NotFoundError):
        deployments.get(name="web", namespace=namespace)


def test_a_watch_goes_on_where_it_was(cluster: Any, namespace: str) -> None:
    api = client.CoreV1Api(official(cluster))
    first = api.list_namespaced_config_map(namespace).metadata.resource_version
    api.create_namespaced_config_map(namespace, CONFIG_MAP)
    api.patch_namespaced_config_map("a", namespace, {"data": {"b": "c"}})
    api.delete_namespaced_config_map("a", namespace)
    seen = watch.Watch()
    stream = seen.stream(api.list_namespaced_config_map, namespace, resource_version=first, label_selector="x=y")
    types = [next(stream)["type"] for _ in range(2)]
    assert types == ["ADDED", "MODIFIED"]
    resumed = watch.Watch().stream(
        api.list_namespaced_config_map, namespace, resource_version=seen.resource_version, label_selector="x=y"
    )
    assert next(resumed)["type"] == "DELETED"
    expired = watch.Watch().stream(api.list_namespaced_config_map, namespace, resource_version="not a number")
    with pytest.raises(client.ApiException, match="Invalid value"):
        next(expired)


def test_one_of_two_is_elected(cluster: Any, namespace: str) -> None:
    leading, ended = threading.Event(), threading.Event()
    config.load_kube_config(str(cluster.kubeconfig))
    lock = ConfigMapLock("leader", namespace, "candidate-1")
    election = electionconfig.Config(
        lock, lease_duration=4, renew_deadline=3, retry_period=1,
        onstarted_leading=leading.set, onstopped_leading=ended.set,
    )  # fmt: skip
    threading.Thread(target=leaderelection.LeaderElection(election).run, daemon=True).start()
    assert leading.wait(10)
    found = cluster.client.get("configmap", "leader", namespace)
    assert "candidate-1" in found["metadata"]["annotations"]["control-plane.alpha.kubernetes.io/leader"]
    cluster.client.patch(  # somebody else takes it: the first must notice
        "configmap", "leader", {"metadata": {"annotations": {
            "control-plane.alpha.kubernetes.io/leader":
            found["metadata"]["annotations"]["control-plane.alpha.kubernetes.io/leader"].replace("-1", "-2"),
        }}}, namespace,
    )  # fmt: skip
    assert ended.wait(20)


async def test_kubernetes_asyncio(cluster: Any, namespace: str) -> None:
    await kubernetes_asyncio.config.load_kube_config(str(cluster.kubeconfig))
    async with kubernetes_asyncio.client.ApiClient() as connection:
        api = kubernetes_asyncio.client.CoreV1Api(connection)
        first = (await api.list_namespaced_config_map(namespace)).metadata.resource_version
        made = await api.create_namespaced_config_map(namespace, CONFIG_MAP)
        assert made.metadata.labels == {"x": "y"}
        async with kubernetes_asyncio.watch.Watch() as seen:
            async for event in seen.stream(api.list_namespaced_config_map, namespace, resource_version=first):
                if event["object"].metadata.name == "a":
                    assert event["type"] == "ADDED"
                    break
        patched = await api.patch_namespaced_config_map(
            "a", namespace, [{"op": "add", "path": "/data", "value": {"k": "v"}}]
        )
        assert patched.data == {"k": "v"}
        await api.delete_namespaced_config_map("a", namespace)
        with pytest.raises(kubernetes_asyncio.client.ApiException) as refused:
            await api.read_namespaced_config_map("a", namespace)
        assert refused.value.status == 404


def test_pykube(cluster: Any, namespace: str) -> None:
    api = pykube.HTTPClient(pykube.KubeConfig.from_file(str(cluster.kubeconfig)))
    where = {"namespace": namespace}
    pykube.ConfigMap(api, {**CONFIG_MAP, "metadata": {**CONFIG_MAP["metadata"], **where}}).create()
    found = pykube.ConfigMap.objects(api).filter(**where).get_by_name("a")
    found.obj["data"] = {"k": "v"}
    found.annotations["note"] = "seen"
    found.update()
    found.reload()
    assert (found.obj["data"], found.annotations["note"]) == ({"k": "v"}, "seen")
    assert not list(pykube.ConfigMap.objects(api).filter(**where, selector={"x": "other"}))
    event = next(iter(pykube.ConfigMap.objects(api).filter(**where, selector={"x": "y"}).watch()))
    assert (event.type, event.object.name) == ("ADDED", "a")
    found.delete()
    with pytest.raises(pykube.exceptions.ObjectDoesNotExist):
        pykube.ConfigMap.objects(api).filter(**where).get_by_name("a")


def test_lightkube_applies_and_patches(cluster: Any, namespace: str) -> None:
    light = Client(config=KubeConfig.from_file(str(cluster.kubeconfig)), namespace=namespace, field_manager="light")
    wanted = ConfigMap(metadata=ObjectMeta(name="a", namespace=namespace), data={"x": "1"})
    assert light.apply(wanted).data == {"x": "1"}
    with pytest.raises(LightkubeError, match="conflict"):
        light.apply(ConfigMap(metadata=wanted.metadata, data={"x": "2"}), field_manager="other")
    assert light.apply(ConfigMap(metadata=wanted.metadata, data={"x": "2"}), field_manager="other", force=True)
    patched = light.patch(ConfigMap, "a", {"data": {"y": "3"}}, patch_type=PatchType.MERGE)
    assert patched.data == {"x": "2", "y": "3"}
    assert [each.metadata.name for each in light.list(ConfigMap, fields={"metadata.name": "a"}, chunk_size=1)] == ["a"]
    light.deletecollection(ConfigMap)
    assert "a" not in [each.metadata.name for each in light.list(ConfigMap)]
