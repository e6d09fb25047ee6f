"""What every cluster has from its first second."""

from __future__ import annotations

import pytest

from steersman.api.resource import NAMESPACES, PRIORITYCLASSES, SERVICES, Resource
from steersman.apiserver.bootstrap import SERVICECIDRS
from tests.apiserver.guarded import Guarded


async def test_namespaces(guarded: Guarded) -> None:
    page = await guarded.client("admin").list(NAMESPACES)
    names = {item["metadata"]["name"] for item in page.items}
    assert {"default", "kube-system", "kube-public", "kube-node-lease"} <= names


@pytest.mark.parametrize(
    ("resource", "name"), [(PRIORITYCLASSES, "system-node-critical"), (PRIORITYCLASSES, "system-cluster-critical")]
)
async def test_classes(guarded: Guarded, resource: Resource, name: str) -> None:
    found = await guarded.client("admin").get(resource, name)
    assert found["value"] >= 2_000_000_000


async def test_the_range_of_services(guarded: Guarded) -> None:
    found = await guarded.client("admin").get(SERVICECIDRS, "kubernetes")
    assert found["spec"]["cidrs"] == ["10.96.0.0/24"]
    (ready,) = found["status"]["conditions"]
    assert (ready["type"], ready["status"]) == ("Ready", "True")


async def test_the_kubernetes_service(guarded: Guarded) -> None:
    service = await guarded.client("admin").get(SERVICES, "kubernetes", "default")
    assert service["spec"]["clusterIP"] == "10.96.0.1"
    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
