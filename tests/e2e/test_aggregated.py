"""Another API server beside a real cluster, behind a ClusterIP: what every kubectl makes of it, and of its absence."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from steersman.cluster import certs
from steersman.lib.clock import SystemClock
from tests.apiserver.aggregation.extension import GROUP, OPENAPI, Extension, identities
from tests.e2e.conftest import Steer
from tests.e2e.kubectl import Kubectl

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]

FLUNDER = f"""
apiVersion: {GROUP}/v1alpha1
kind: Flunder
metadata: {{name: one, namespace: default}}
"""
Run = Callable[..., Awaitable[str]]


def beside(extension: Extension, address: str) -> str:
    """The Service without a selector, its slice, and the APIService."""
    port = {"name": "https", "port": extension.port, "protocol": "TCP"}
    service = {"metadata": {"name": "wardle", "namespace": "default"}, "spec": {"ports": [port]}}
    slice_ = {
        "metadata": {"name": "wardle", "namespace": "default", "labels": {"kubernetes.io/service-name": "wardle"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]}],
        "ports": [port],
    }
    items = [
        {"apiVersion": "v1", "kind": "Service", **service},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **slice_},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", **extension.service()},
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


@pytest.fixture
async def extension(steer: Steer, tmp_path: Path) -> AsyncIterator[Extension]:
    """Listens on the node's own address, and believes this cluster's front proxy alone."""
    certs.ensure(tmp_path, identities(), SystemClock().now())
    (pki,) = steer.home.glob("profiles/*/pki")
    shutil.copy(pki / "front-proxy-ca.crt", tmp_path)
    made = Extension(tmp_path, "0.0.0.0")
    made.openapi = {"/openapi/v2": msgspec.json.encode(OPENAPI)}
    await made.start()
    yield made
    await made.stop()


async def test_every_kubectl(extension: Extension, kubectl: Kubectl) -> None:
    async def run(*words: str, given: str = "") -> str:
        return await asyncio.to_thread(kubectl, *words, given=given)

    node = json.loads(await run("get", "nodes", "-o", "json"))["items"][0]
    await run("create", "-f", "-", given=beside(extension, node["status"]["addresses"][0]["address"]))
    service = f"apiservice/v1alpha1.{GROUP}"
    try:
        await run("wait", service, "--for=condition=Available", "--timeout=30s")
        await _story(run)
        await extension.stop()
        await run("annotate", "endpointslice/wardle", "something=changed")  # so it is looked at now, not after 30 s
        await run("wait", service, "--for=condition=Available=False", "--timeout=60s")
        await _without(run, kubectl)
    finally:
        await run("delete", service, "service/wardle", "endpointslice/wardle")


async def _story(run: Run) -> None:
    await run("create", "--validate=false", "-f", "-", given=FLUNDER)
    assert (await run("get", "flunders", "-o", "name")).split() == [f"flunder.{GROUP}/one"]
    assert (await run("get", "fl")).split()[:2] == ["NAME", "AGE"]
    assert "flunders" in await run("api-resources", f"--api-group={GROUP}")
    assert f"{GROUP}/v1alpha1" in await run("api-versions")
    explained = await run("explain", "flunders")
    assert "Flunder" in explained
    assert "metadata" in explained
    await run("delete", "flunder", "one", "--wait=false")
    assert (await run("get", "flunders", "-o", "name")) == ""


async def _without(run: Run, kubectl: Kubectl) -> None:
    """What is served here is as before; what is not is said to be unavailable."""
    assert "kubernetes" in await run("get", "services")
    assert f"v1alpha1.{GROUP}" in await run("get", "apiservices")
    failed = await asyncio.to_thread(kubectl.run, "get", f"flunders.v1alpha1.{GROUP}")
    assert failed.returncode == 1
    told = await asyncio.to_thread(kubectl.run, "get", "--raw", f"/apis/{GROUP}/v1alpha1")
    assert "the server is currently unable to handle the request" in told.stderr
