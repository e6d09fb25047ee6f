"""ResourceQuota when what is there already changes, through the whole server."""

from __future__ import annotations

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import PERSISTENTVOLUMECLAIMS, PODS, SERVICEACCOUNTS, Object
from steersman.client.client import Client
from steersman.controllers.resourcequota import RESOURCEQUOTAS
from tests.apiserver.admission.test_plugins import claim, storage_class
from tests.apiserver.guarded import Guarded


def pod(name: str) -> Object:
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}}
    return {"metadata": {"name": name}, "spec": {"containers": [container]}}


async def limit(admin: Client, name: str, scope: Object | None = None, **hard: str) -> None:
    spec: Object = {"hard": hard}
    if scope is not None:
        spec["scopeSelector"] = {"matchExpressions": [scope]}
    await admin.create(RESOURCEQUOTAS, {"metadata": {"name": name}, "spec": spec}, "default")


async def used(admin: Client, name: str) -> Object:
    quota = await admin.get(RESOURCEQUOTAS, name, "default")
    return (quota.get("status") or {}).get("used") or {}


@pytest.fixture
async def admin(guarded: Guarded) -> Client:
    client = guarded.client("admin")
    await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    return client


async def test_a_pod_that_gets_a_deadline_is_charged_where_such_pods_count(admin: Client) -> None:
    await limit(admin, "ending", {"scopeName": "Terminating", "operator": "Exists"}, pods="1")
    for name in ("a", "b"):
        await admin.create(PODS, pod(name), "default")
    assert await used(admin, "ending") == {}
    await admin.patch(PODS, "a", "default", {"metadata": {"labels": {"x": "y"}}})
    assert await used(admin, "ending") == {}
    await admin.patch(PODS, "a", "default", {"spec": {"activeDeadlineSeconds": 60}})
    assert await used(admin, "ending") == {"pods": "1"}
    with pytest.raises(ApiError, match=r"exceeded quota: ending, requested: pods=1, used: pods=1, limited: pods=1"):
        await admin.patch(PODS, "b", "default", {"spec": {"activeDeadlineSeconds": 60}})


async def test_a_pod_that_grows_is_charged_the_difference(admin: Client) -> None:
    await limit(admin, "all", pods="2", **{"requests.cpu": "250m"})
    await admin.create(PODS, pod("a"), "default")
    assert await used(admin, "all") == {"pods": "1", "requests.cpu": "100m"}

    async def resize(request: str) -> None:
        change = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": request}}}]}}
        await admin.patch(PODS, "a", "default", change, type="strategic", subresource="resize")

    await resize("150m")
    assert await used(admin, "all") == {"pods": "1", "requests.cpu": "150m"}
    await limit(admin, "tight", **{"requests.cpu": "10m"})
    with pytest.raises(ApiError, match=r"exceeded quota: tight, requested: requests\.cpu=50m"):
        await resize("200m")


async def test_a_claim_counts_for_the_classes_that_it_has_and_wants(guarded: Guarded, admin: Client) -> None:
    await storage_class(guarded, "fast")
    for name in ("gold", "silver"):
        term = {"scopeName": "VolumeAttributesClass", "operator": "In", "values": [name]}
        await limit(admin, name, term, persistentvolumeclaims="1", **{"requests.storage": "2Gi"})
    await admin.create(PERSISTENTVOLUMECLAIMS, claim("a", volumeAttributesClassName="gold"), "default")
    bound = {"spec": {"volumeName": "v"}}
    await admin.patch(PERSISTENTVOLUMECLAIMS, "a", "default", bound, type="merge")
    status = {"status": {"phase": "Bound", "currentVolumeAttributesClassName": "gold"}}
    await admin.patch(PERSISTENTVOLUMECLAIMS, "a", "default", status, type="merge", subresource="status")
    assert await used(admin, "gold") == {"persistentvolumeclaims": "1", "requests.storage": "1Gi"}
    assert await used(admin, "silver") == {}
    wanted = {"spec": {"volumeAttributesClassName": "silver"}}
    await admin.patch(PERSISTENTVOLUMECLAIMS, "a", "default", wanted, type="merge")
    assert await used(admin, "silver") == {"persistentvolumeclaims": "1", "requests.storage": "1Gi"}
    assert await used(admin, "gold") == {"persistentvolumeclaims": "1", "requests.storage": "1Gi"}


async def test_what_a_driver_allocated_is_counted_and_never_refused(guarded: Guarded, admin: Client) -> None:
    await storage_class(guarded, "fast", expand=True)
    await limit(admin, "small", **{"requests.storage": "2Gi"})
    await admin.create(PERSISTENTVOLUMECLAIMS, claim("a", "1Gi"), "default")
    allocated = {"status": {"allocatedResources": {"storage": "5Gi"}}}
    await admin.patch(PERSISTENTVOLUMECLAIMS, "a", "default", allocated, type="merge", subresource="status")
    assert await used(admin, "small") == {"requests.storage": "5Gi"}
    with pytest.raises(ApiError, match="exceeded quota: small"):
        await admin.create(PERSISTENTVOLUMECLAIMS, claim("b", "1Gi"), "default")
