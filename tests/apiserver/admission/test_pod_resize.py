"""NodeDeclaredFeatureValidator and PodResizeValidator, through the whole server: what nodes cannot do is not asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import NODES, PODS, SERVICEACCOUNTS, Object
from steersman.apiserver.admission.pod_resize import needs
from steersman.client.client import Client
from tests.apiserver.guarded import Guarded

POD_LEVEL, INIT = "InPlacePodLevelResourcesVerticalScaling", "InPlacePodVerticalScalingInitContainers"


def amounts(cpu: str, memory: str = "") -> Object:
    return {"requests": {"cpu": cpu, "memory": memory} if memory else {"cpu": cpu}}


async def ready(guarded: Guarded, *features: str, os: str = "linux", cpu: str = "2") -> Client:
    admin = guarded.client("admin")
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    await admin.create(NODES, {"metadata": {"name": "n", "labels": {"kubernetes.io/os": os}}})
    has = {"allocatable": {"cpu": cpu, "memory": "1Gi"}, "declaredFeatures": list(features)}
    await admin.patch(NODES, "n", "", {"status": has}, type="merge", subresource="status")
    return admin


async def made(admin: Client, node: str = "n", **spec: Any) -> Object:
    containers = [{"name": "c", "image": "i", "resources": amounts("1", "64Mi")}]
    body = {"nodeName": node, "containers": containers, **spec} if node else {"containers": containers, **spec}
    return await admin.create(PODS, {"metadata": {"name": "p"}, "spec": body}, "default")


async def resize(admin: Client, **spec: Any) -> ApiError | None:
    try:
        await admin.patch(PODS, "p", "default", {"spec": spec}, type="strategic", subresource="resize")
    except ApiError as error:
        return error
    return None


def of(resources: Object, name: str = "c") -> list[Object]:
    return [{"name": name, "resources": resources}]


async def test_no_more_than_the_node_could_give(guarded: Guarded) -> None:
    admin = await ready(guarded)
    await made(admin, initContainers=[{"name": "i", "image": "i", "resources": amounts("2")}])
    assert await resize(admin, containers=of(amounts("2", "1Gi"))) is None
    error = await resize(admin, containers=of(amounts("2001m", "1025Mi")))
    assert error is not None
    assert (error.code, error.message) == (
        403,
        'pods "p" is forbidden: node didn\'t have enough allocatable resources: cpu, requested: 2001, allocatable: '
        "2000; memory, requested: 1074790400, allocatable: 1073741824",
    )
    assert error.details["causes"] == [{"reason": "NodeCapacity"}]


async def test_only_on_linux_and_on_nodes_that_are_there(guarded: Guarded) -> None:
    admin = await ready(guarded, os="windows")
    await made(admin)
    error = await resize(admin, containers=of(amounts("2", "64Mi")))
    assert error is not None and error.details["causes"] == [{"reason": "UnsupportedPlatform"}]
    assert 'pod resize is only supported on linux nodes, node "n" is "windows"' in error.message
    assert await resize(admin, containers=of(amounts("1", "64Mi"))) is None  # which changes nothing
    await admin.delete(NODES, "n")
    error = await resize(admin, containers=of(amounts("2", "64Mi")))
    assert error is not None and error.message == 'pods "p" is forbidden: node "n" not found'


async def test_who_waits_may_ask_for_anything(guarded: Guarded) -> None:
    admin = await ready(guarded)
    await made(admin, node="")
    assert await resize(admin, containers=of(amounts("2000", "64Mi"))) is None


@pytest.mark.parametrize(
    ("feature", "spec", "change"),
    [
        (POD_LEVEL, {"resources": amounts("1")}, {"resources": amounts("1500m")}),
        (
            INIT,
            {"initContainers": [{"name": "i", "image": "i", "resources": amounts("1")}]},
            {"initContainers": of(amounts("1500m"), "i")},
        ),
    ],
)
async def test_what_the_kubelet_must_know(tmp_path: Path, feature: str, spec: Object, change: Object) -> None:
    async with Guarded(tmp_path) as guarded:
        admin = await ready(guarded, "Another")
        await made(admin, **spec)
        error = await resize(admin, **change)
        assert error is not None
        text = f'pod update requires features {feature} which are not available on node "n"'
        assert (error.code, error.message) == (403, f'pods "p" is forbidden: {text}')
        has = {"status": {"declaredFeatures": [feature]}}
        await admin.patch(NODES, "n", "", has, type="merge", subresource="status")
        assert await resize(admin, **change) is None


def test_needs() -> None:
    def pod(own: Object | None = None, init: Object | None = None, policy: str = "") -> Object:
        first: Object = {"name": "i", "restartPolicy": policy} if policy else {"name": "i"}
        spec: Object = {"initContainers": [{**first, "resources": init} if init is not None else first]}
        return {"spec": {**spec, "resources": own} if own is not None else spec}

    one, two = amounts("1"), amounts("2")
    assert needs(pod(one, one), pod(two, two)) == [POD_LEVEL, INIT]
    assert needs(pod(one, {}), pod(amounts("1000m"))) == []
    assert needs(pod(init=one, policy="Always"), pod(init=two, policy="Always")) == []
    assert needs(pod(one), pod()) == [POD_LEVEL]


async def test_older_releases_leave_it_to_the_kubelet(tmp_path: Path) -> None:
    async with Guarded(tmp_path, release="1.35") as guarded:
        admin = await ready(guarded)
        await made(admin)
        assert await resize(admin, containers=of(amounts("20", "64Mi"))) is None
