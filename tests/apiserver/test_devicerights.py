"""Rights around claims of devices, beside those that roles give by the request alone."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import NAMESPACES, Object
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.client.deviceclaims import CLAIMS, TEMPLATES
from steersman.lib.http.messages import Request
from steersman.testing.cluster import ApiCluster

SPEC = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}
ADMIN_SPEC = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu", "adminAccess": True}}]}}
LABELLED = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
NO_LABEL = (
    "Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the "
    "containing namespace"
)
DEVICE = {"driver": "gpu.example.com", "pool": "p", "device": "d"}


async def test_administrators_access_takes_a_label() -> None:
    async with ApiCluster() as cluster:
        client = cluster.client
        for resource, body in ((CLAIMS, ADMIN_SPEC), (TEMPLATES, {"spec": ADMIN_SPEC})):
            with pytest.raises(ApiError) as caught:
                await client.create(resource, {"metadata": {"name": "c"}, "spec": body}, "default")
            assert caught.value.message.endswith(f"spec.devices.requests[0].adminAccess: {NO_LABEL}")
        await client.create(CLAIMS, {"metadata": {"name": "c"}, "spec": SPEC}, "default")
        given = {"allocation": {"devices": {"results": [{"request": "r", **DEVICE, "adminAccess": True}]}}}
        with pytest.raises(ApiError, match="label on the containing namespace"):
            await client.patch(CLAIMS, "c", "default", {"status": given}, subresource="status")
        await client.patch(NAMESPACES, "default", "", LABELLED)
        await client.patch(CLAIMS, "c", "default", {"status": given}, subresource="status")
        await client.create(CLAIMS, {"metadata": {"name": "d"}, "spec": ADMIN_SPEC}, "default")


class Someone:
    """A user with some rights, each `verb resource/subresource namespace/name`."""

    def __init__(self, cluster: ApiCluster, *rights: str, node: str = "") -> None:
        extra = {"authentication.kubernetes.io/node-name": (node,)} if node else {}
        user = User("system:serviceaccount:default:driver", (), extra=extra)

        def authenticate(request: Request) -> User:
            return user

        def decide(_: User, info: RequestInfo) -> str | None:
            return None if f"{info.verb} {info.subresource} {info.namespace}/{info.name}" in rights else ""

        cluster.server.authenticators = [authenticate]
        cluster.server.services.extras["decide"] = decide


async def change(cluster: ApiCluster, **status: Any) -> str:
    """Patch the status; what the refusal says, if it is one."""
    try:
        await cluster.client.patch(CLAIMS, "c", "default", {"status": status}, subresource="status")
    except ApiError as error:
        return error.message.partition(" is invalid: ")[2]
    return ""


def on(node: str) -> Object:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    return {"nodeSelectorTerms": [{"matchFields": [field]}]}


async def test_giving_devices_and_reporting_on_them_take_rights_of_their_own() -> None:
    async with ApiCluster() as cluster:
        await cluster.client.create(CLAIMS, {"metadata": {"name": "c"}, "spec": SPEC}, "default")
        given = {"devices": {"results": [{"request": "r", **DEVICE}]}, "nodeSelector": on("n")}
        Someone(cluster)
        assert await change(cluster, allocation=given) == (
            "status.allocation: Forbidden: changing status.allocation or status.reservedFor requires "
            'resource="resourceclaims/binding", verb="patch" permission: resourceclaims.resource.k8s.io is forbidden: '
            'User "system:serviceaccount:default:driver" cannot patch resource "resourceclaims/binding" in API group '
            '"resource.k8s.io" at the cluster scope'
        )
        Someone(cluster, "patch binding /")
        assert await change(cluster, allocation=given) == ""
        assert "resourceclaims/driver" in await change(cluster, devices=[DEVICE])
        Someone(cluster, "associated-node:patch driver default/gpu.example.com", node="other")
        assert await change(cluster, devices=[DEVICE]) == (
            'status.devices: Forbidden: changing status.devices requires resource="resourceclaims/driver", '
            'verb="[arbitrary-node:patch]" permission: resourceclaims.resource.k8s.io "gpu.example.com" is forbidden: '
            'User "system:serviceaccount:default:driver" cannot arbitrary-node:patch resource "resourceclaims/driver" '
            'in API group "resource.k8s.io" in the namespace "default"'
        )
        Someone(cluster, "associated-node:patch driver default/gpu.example.com", node="n")
        assert await change(cluster, devices=[DEVICE]) == ""
        Someone(cluster, "arbitrary-node:patch driver default/gpu.example.com")
        assert await change(cluster, devices=[{**DEVICE, "networkData": {"interfaceName": "eth1"}}]) == ""
        assert await change(cluster) == "", "what does not change asks for nothing"
