"""Claims and volumes in use, and tokens in Secrets."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import (
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    SECRETS,
    SERVICEACCOUNTS,
    Object,
)
from steersman.cluster import certs
from steersman.controllers.pvcprotection import claims_of
from steersman.controllers.vacprotection import CLASSES
from steersman.lib.jwt import SigningKey

from .conftest import World
from .objects import pod

CLAIM: Object = {
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
}


def test_which_claims_a_pod_uses() -> None:
    volumes = [
        {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "b", "ephemeral": {"volumeClaimTemplate": {}}},
        {"name": "c", "emptyDir": {}},
    ]
    assert list(claims_of(pod("p", volumes=volumes))) == ["data", "p-b"]


async def test_a_claim_waits_for_its_pods(world: World) -> None:
    world.start("persistentvolumeclaim-protection-controller")
    await world.client.create(PERSISTENTVOLUMECLAIMS, CLAIM, "default")
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
    await world.make_ready(await world.client.create(PODS, pod("user", volumes=[volume]), "default"))
    await world.settle()
    assert "kubernetes.io/pvc-protection" in (await world.get(PERSISTENTVOLUMECLAIMS, "data"))["metadata"]["finalizers"]
    await world.client.delete(PERSISTENTVOLUMECLAIMS, "data", "default")
    await world.settle()
    assert await world.names(PERSISTENTVOLUMECLAIMS) == ["data"]
    await world.client.delete(PODS, "user", "default", grace_seconds=0)
    await world.settle()
    assert await world.names(PERSISTENTVOLUMECLAIMS) == []


async def test_a_class_of_attributes_waits_for_those_that_name_it(world: World) -> None:
    world.start("volumeattributesclass-protection-controller")
    finalizers = ["kubernetes.io/vac-protection"]  # as admission puts it on
    for name in ("gold", "free"):
        meta = {"name": name, "finalizers": finalizers}
        await world.client.create(CLASSES, {"metadata": meta, "driverName": "d", "parameters": {"iops": "1"}})
    spec = {**CLAIM["spec"], "volumeAttributesClassName": "gold"}
    await world.client.create(PERSISTENTVOLUMECLAIMS, {**CLAIM, "spec": spec}, "default")
    await world.settle()
    for name in ("gold", "free"):
        await world.client.delete(CLASSES, name)
    await world.settle()
    assert await world.names(CLASSES) == ["gold"]
    await world.client.delete(PERSISTENTVOLUMECLAIMS, "data", "default")
    await world.settle()
    assert await world.names(CLASSES) == []


async def test_a_volume_waits_for_its_claim(world: World) -> None:
    world.start("persistentvolume-protection-controller")
    body = {
        "metadata": {"name": "disk"},
        "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/tmp/x"}},
    }
    made = await world.client.create(PERSISTENTVOLUMES, body)
    await world.set_status(PERSISTENTVOLUMES, made, phase="Bound")
    await world.settle()
    await world.client.delete(PERSISTENTVOLUMES, "disk")
    await world.settle()
    kept = await world.get(PERSISTENTVOLUMES, "disk")
    await world.set_status(PERSISTENTVOLUMES, kept, phase="Released")
    await world.settle()
    assert await world.names(PERSISTENTVOLUMES) == []


async def test_a_token_secret_goes_with_its_account(world: World) -> None:
    account = await world.client.create(SERVICEACCOUNTS, {"metadata": {"name": "robot"}}, "default")
    annotations = {
        "kubernetes.io/service-account.name": "robot",
        "kubernetes.io/service-account.uid": account["metadata"]["uid"],
    }
    body = {
        "metadata": {"name": "token", "annotations": annotations},
        "type": "kubernetes.io/service-account-token",
        "data": {"token": "c2lnbmVk", "namespace": "ZGVmYXVsdA==", "ca.crt": ""},
    }
    await world.client.create(SECRETS, body, "default")
    await world.client.create(SECRETS, {"metadata": {"name": "other"}}, "default")
    world.start("serviceaccount-token-controller", **{"root-ca": "PEM", "service-account-private-key": "PEM"})
    await world.settle()
    assert (await world.get(SECRETS, "token"))["data"] == {
        "token": "c2lnbmVk",
        "namespace": "ZGVmYXVsdA==",
        "ca.crt": "UEVN",
    }
    await world.client.delete(SERVICEACCOUNTS, "robot", "default")
    await world.settle()
    with pytest.raises(ApiError, match="not found"):
        await world.get(SECRETS, "token")
    assert await world.names(SECRETS) == ["other"]


async def test_a_token_secret_is_filled_with_a_token_of_the_older_form(world: World, tmp_path: Path) -> None:
    certs.ensure(tmp_path, [], world.clock.now())
    key = (tmp_path / "sa.key").read_text()
    account = await world.client.create(SERVICEACCOUNTS, {"metadata": {"name": "robot"}}, "default")
    meta = {"name": "token", "annotations": {"kubernetes.io/service-account.name": "robot"}}
    body = {"metadata": meta, "type": "kubernetes.io/service-account-token"}
    await world.client.create(SECRETS, body, "default")
    world.start("serviceaccount-token-controller", **{"root-ca": "PEM", "service-account-private-key": key})
    await world.settle()
    found = await world.get(SECRETS, "token")
    assert SigningKey(key.encode()).verify(base64.b64decode(found["data"]["token"]).decode()) == {
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": "default",
        "kubernetes.io/serviceaccount/secret.name": "token",
        "kubernetes.io/serviceaccount/service-account.name": "robot",
        "kubernetes.io/serviceaccount/service-account.uid": account["metadata"]["uid"],
        "sub": "system:serviceaccount:default:robot",
    }
    assert found["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == account["metadata"]["uid"]
