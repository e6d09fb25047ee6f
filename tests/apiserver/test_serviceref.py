"""Where references to Services lead: to ClusterIPs, or to what is behind them where nothing carries traffic there."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from steersman.api.resource import SERVICES, Object, Resource
from steersman.apiserver.serviceref import ROUTES, Unroutable, resolve
from steersman.testing.cluster import ApiCluster

SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")


@pytest.fixture
async def cluster() -> AsyncIterator[ApiCluster]:
    async with ApiCluster() as made:
        yield made


async def service(cluster: ApiCluster, **spec: object) -> None:
    given = {"clusterIP": "10.96.0.7", "ports": [{"name": "https", "port": 443}], **spec}
    await cluster.client.create(SERVICES, {"metadata": {"name": "s", "namespace": "default"}, "spec": given})


async def endpoints(cluster: ApiCluster, name: str, port: Object, *addresses: str, ready: bool | None = True) -> None:
    made: Object = {
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "ports": [{"protocol": "TCP", **port}],
        "endpoints": [{"addresses": [each], "conditions": {"ready": ready}} for each in addresses],
    }
    await cluster.client.create(SLICES, made)


def found(cluster: ApiCluster, port: int = 443) -> tuple[str, int]:
    return resolve(cluster.server.services, "default", "s", port)


@pytest.mark.parametrize("direct", [False, True])
async def test_names_and_cluster_addresses(cluster: ApiCluster, direct: bool) -> None:
    cluster.server.services.extras[ROUTES] = direct
    with pytest.raises(Unroutable, match=r'^service "s" not found$'):
        found(cluster)
    await service(cluster)
    with pytest.raises(Unroutable, match=r'^no service port 444 found for service "s"$'):
        found(cluster, 444)
    if direct:
        with pytest.raises(Unroutable, match=r'^no endpoints available for service "s"$'):
            found(cluster)
    else:
        assert found(cluster) == ("10.96.0.7", 443)
    await cluster.client.delete(SERVICES, "s", "default")
    await service(cluster, type="ExternalName", externalName="elsewhere.example.com", clusterIP="", ports=[])
    assert found(cluster, 8443) == ("elsewhere.example.com", 8443)


async def test_a_headless_service_has_no_address(cluster: ApiCluster) -> None:
    await service(cluster, clusterIP="None")
    with pytest.raises(Unroutable, match=r'^cannot route to service with ClusterIP "None"$'):
        found(cluster)


async def test_endpoints_that_are_ready_and_have_the_port(cluster: ApiCluster) -> None:
    cluster.server.services.extras[ROUTES] = True
    await service(cluster)
    await endpoints(cluster, "not-ready", {"name": "https", "port": 1}, "10.1.0.1", ready=False)
    await endpoints(cluster, "other-port", {"name": "http", "port": 2}, "10.1.0.2")
    await endpoints(cluster, "good", {"name": "https", "port": 6443}, "10.1.0.3", "10.1.0.4")
    await endpoints(cluster, "silent", {"name": "https", "port": 7443}, "10.1.0.5", ready=None)
    seen = {found(cluster) for _ in range(200)}
    assert seen == {("10.1.0.3", 6443), ("10.1.0.4", 6443), ("10.1.0.5", 7443)}
