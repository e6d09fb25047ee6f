"""What the builders build, the API server takes."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.registry import Registry
from steersman.testing import objects
from steersman.testing.cluster import ApiCluster


@pytest.mark.parametrize(
    "built",
    [
        objects.pod(
            "p", objects.container("c", "sleep", "1", image="i", env=[{"name": "A", "value": "b"}]), nodeName="n"
        ),
        objects.pod("p", labels={"a": "b"}),
        objects.deployment("d", replicas=3, minReadySeconds=5, pod_spec={"hostNetwork": True}),
        objects.job("j", objects.container("c", "true"), completions=2),
        objects.service("s", 8080, app="d", type="NodePort"),
        objects.config_map("c", key="value"),
        objects.secret("s", key="value"),
        objects.namespace("n", {"team": "a"}),
        objects.node("n", {"zone": "a"}),
    ],
    ids=lambda built: built["kind"],
)
async def test_the_server_takes_it(built: dict[str, Any]) -> None:
    group, _, version = built["apiVersion"].rpartition("/")
    kind = Registry().by_kind(group, version, built["kind"])
    assert kind is not None
    async with ApiCluster() as cluster:
        resource = kind.resource(version)
        made = await cluster.client.create(resource, built, "default" if resource.namespaced else "")
    assert made["metadata"]["name"] == built["metadata"]["name"]
    assert made["metadata"].get("labels", {}).items() >= built["metadata"].get("labels", {}).items()
    assert made.get("spec", {}).keys() >= built.get("spec", {}).keys()
    assert made.get("data", {}) == (
        built.get("data") or {"key": "dmFsdWU="} if built["kind"] in ("ConfigMap", "Secret") else {}
    )
