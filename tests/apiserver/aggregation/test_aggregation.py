"""Groups that another API server serves: a real one, over TLS, and everything a client does with them."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import APISERVICES, CUSTOMRESOURCEDEFINITIONS, SERVICES, Object, Resource
from steersman.apiserver.aggregation.backend import Patience
from steersman.client.client import WatchEvent
from steersman.lib.http.client import Address, HttpClient
from steersman.lib.http.server import Server
from steersman.lib.tasks import Tasks
from tests.apiserver.aggregation.extension import FLUNDERS, GROUP, PREFIX, Aggregated, aggregated

FLUNDER = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "Flunder", "metadata": {"name": "one"}}


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Aggregated]:
    async with aggregated(tmp_path, Patience()) as made:
        yield made


async def test_objects_of_the_other_server(both: Aggregated) -> None:
    await both.register()
    condition = await both.condition("Passed")
    assert (condition["status"], condition["message"]) == ("True", "all checks passed")
    status, body = await both.ask("POST", FLUNDERS, FLUNDER)
    assert (status, json.loads(body)) == (201, FLUNDER)
    status, body = await both.ask("GET", f"{FLUNDERS}?limit=500")
    assert (status, json.loads(body)["items"]) == (200, [FLUNDER])
    assert (await both.ask("DELETE", f"{FLUNDERS}/one"))[0] == 200
    status, body = await both.ask("GET", f"{FLUNDERS}/one")
    assert (status, json.loads(body)) == (404, {"kind": "Status", "code": 404})


async def test_the_other_server_is_told_who_asks(both: Aggregated) -> None:
    await both.register()
    await both.condition("Passed")
    sent = {"x-remote-user": "mallory", "x-remote-extra-x": "y", "authorization": "Bearer secret", "x-mine": "1"}
    await both.client.raw("GET", FLUNDERS, headers=list(sent.items()))
    asked = both.extension.asked[-1]
    assert asked.header_all("x-remote-user") == ["kubernetes-admin"]
    assert asked.header_all("x-remote-group") == ["system:masters", "system:authenticated"]
    assert (asked.header("x-remote-extra-x"), asked.header("authorization")) == (None, None)
    assert (asked.header("x-mine"), asked.header("x-forwarded-for")) == ("1", "127.0.0.1")


async def test_a_watch_is_passed_on_as_it_comes(both: Aggregated) -> None:
    await both.register()
    await both.condition("Passed")
    resource = Resource(GROUP, "v1alpha1", "flunders", "Flunder")
    async with aclosing(both.client.watch(resource, "default", resource_version="0")) as events, Tasks() as tasks:
        first = tasks.spawn(_first(events), "first")
        await both.watched()
        await both.ask("POST", FLUNDERS, FLUNDER)
        event = await first
    assert (event.type, event.object) == ("ADDED", FLUNDER)
    await both.watched(0)


async def _first(events: AsyncGenerator[WatchEvent, None]) -> WatchEvent:
    return await anext(events)


async def test_an_upgrade_is_passed_on(both: Aggregated) -> None:
    await both.register()
    await both.condition("Passed")
    async with Server(both.cluster.server.handle, both.cluster.clock) as web:
        client = HttpClient(Address("127.0.0.1", await web.listen("127.0.0.1", 0)))
        headers = [("connection", "Upgrade"), ("upgrade", "shout")]
        response, duplex = await client.upgrade("GET", f"{FLUNDERS}/one/exec", headers)
        assert response.status == 101
        assert duplex is not None
        duplex.write(b"ahoy")
        assert await duplex.read() == b"AHOY"
        duplex.close()
        await client.close()


@pytest.mark.parametrize("twist", ["", "aggregated"])
async def test_discovery_holds_both_servers(both: Aggregated, twist: str) -> None:
    both.extension.twist = twist
    await both.register()
    version = await both.freshness("Current")
    row = version["resources"][0]
    assert (row["resource"], row["scope"], row["singularResource"]) == ("flunders", "Namespaced", "flunder")
    if not twist:
        assert (row["responseKind"]["kind"], row["shortNames"]) == ("Flunder", ["fl"])
        assert [each["subresource"] for each in row["subresources"]] == ["exec"]
    await both.condition("Passed")
    groups = json.loads((await both.ask("GET", "/apis"))[1])["groups"]
    head = {"kind": "APIGroup", "apiVersion": "v1"}
    assert {**head, **groups[1]} == json.loads((await both.ask("GET", f"/apis/{groups[1]['name']}"))[1])
    assert groups[-1]["name"] == GROUP
    assert [each["name"] for each in groups][:2] == ["apiregistration.k8s.io", "apps"]
    assert json.loads((await both.ask("GET", PREFIX))[1])["groupVersion"] == f"{GROUP}/v1alpha1"
    assert next(each for each in (await both.discovery())["items"] if each["metadata"]["name"] == "apps")["versions"]


async def test_priorities_decide_the_order(both: Aggregated) -> None:
    await both.register(groupPriorityMinimum=17810)
    names = [each["name"] for each in json.loads((await both.ask("GET", "/apis"))[1])["groups"]]
    assert names[:3] == ["apiregistration.k8s.io", GROUP, "apps"]
    second = both.extension.service(group=GROUP, version="v1beta1", versionPriority=100, groupPriorityMinimum=10)
    second["metadata"]["name"] = f"v1beta1.{GROUP}"
    await both.client.create(APISERVICES, second)
    group = json.loads((await both.ask("GET", f"/apis/{GROUP}"))[1])
    assert [each["version"] for each in group["versions"]] == ["v1alpha1", "v1beta1"]
    await both.client.patch(APISERVICES, f"v1beta1.{GROUP}", "", {"spec": {"versionPriority": 300}})
    group = json.loads((await both.ask("GET", f"/apis/{GROUP}"))[1])
    assert group["preferredVersion"]["version"] == "v1beta1"


async def test_without_its_service_nothing_is_there(both: Aggregated) -> None:
    await both.client.create(APISERVICES, both.extension.service())
    condition = await both.condition("ServiceNotFound")
    assert (condition["status"], condition["message"]) == ("False", 'service/wardle in "default" is not present')
    assert await both.ask("GET", FLUNDERS) == (503, b"service unavailable\n")
    assert await both.ask("GET", PREFIX) == (503, b"service unavailable\n")
    assert "resources" not in await both.freshness("Stale")
    await both.client.create(
        SERVICES,
        {
            "metadata": {"name": "wardle", "namespace": "default"},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
    )
    await both.condition("Passed")
    await both.client.delete(SERVICES, "wardle", "default")
    await both.condition("ServiceNotFound")
    await both.freshness("Stale")


async def test_what_a_cluster_service_lacks_is_said(both: Aggregated) -> None:
    port = {"name": "https", "port": 444}
    spec = {"clusterIP": "10.96.0.9", "ports": [port]}
    service = {"metadata": {"name": "wardle", "namespace": "default"}, "spec": spec}
    await both.client.create(SERVICES, service)
    registered = both.extension.service()
    registered["spec"]["service"].pop("port")
    await both.client.create(APISERVICES, registered)
    where = 'service/wardle in "default"'
    assert (await both.condition("ServicePortError"))["message"] == f"{where} is not listening on port 443"
    await both.client.patch(SERVICES, "wardle", "default", {"spec": {"ports": [{**port, "port": 443}]}})
    found = await both.condition("EndpointsNotFound")
    assert found["message"] == f"cannot find endpointslices for {where}"
    slices = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
    slice_: Object = {
        "metadata": {"name": "wardle-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "wardle"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.0.9"], "conditions": {"ready": False}}],
        "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
    }
    await both.client.create(slices, slice_)
    found = await both.condition("MissingEndpoints")
    assert found["message"] == f'endpointslices for {where} have no addresses with port name "https"'


async def test_when_the_object_goes_so_does_the_group(both: Aggregated) -> None:
    await both.register()
    await both.condition("Passed")
    await both.client.delete(APISERVICES, f"v1alpha1.{GROUP}")
    assert (await both.ask("GET", FLUNDERS))[0] == 404
    assert GROUP not in (await both.ask("GET", "/apis"))[1].decode()


async def test_whom_to_believe_must_be_known(both: Aggregated) -> None:
    await both.register(caBundle=None)
    condition = await both.condition("FailedDiscoveryCheck")
    assert "certificate" in condition["message"]
    await both.client.patch(APISERVICES, f"v1alpha1.{GROUP}", "", {"spec": {"insecureSkipTLSVerify": True}})
    await both.condition("Passed")


async def test_what_is_served_here_has_objects_too(both: Aggregated) -> None:
    found = {each["metadata"]["name"]: each for each in (await both.client.list(APISERVICES)).items}
    apps = found["v1.apps"]
    assert apps["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "onstart"}
    assert apps["spec"] == {"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15}
    condition = apps["status"]["conditions"][0]
    assert condition["lastTransitionTime"] == apps["metadata"]["creationTimestamp"]
    assert (condition["reason"], condition["message"]) == ("Local", "Local APIServices are always available")
    assert found["v1."]["spec"] == {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}
    assert "v1.apiregistration.k8s.io" not in found
    table = {"accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    _, body = await both.client.raw("GET", APISERVICES.path(name="v1.apps"), accept=table["accept"])
    assert msgspec.json.decode(body)["rows"][0]["cells"][:3] == ["v1.apps", "Local", "True"]


async def test_custom_groups_have_objects_that_come_back(both: Aggregated) -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "ports", "kind": "Port", "singular": "port", "listKind": "PortList"}
    spec = {"group": "sea.example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    await both.client.create(CUSTOMRESOURCEDEFINITIONS, {"metadata": {"name": "ports.sea.example.com"}, "spec": spec})
    first = await both.automanaged("v1.sea.example.com")
    assert first["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    assert (first["spec"]["groupPriorityMinimum"], first["spec"]["versionPriority"]) == (1000, 100)
    await both.client.delete(APISERVICES, "v1.sea.example.com")
    second = await both.automanaged("v1.sea.example.com")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    await both.client.delete(CUSTOMRESOURCEDEFINITIONS, "ports.sea.example.com")
    await both.gone("v1.sea.example.com")


async def test_conditions_have_three_states(both: Aggregated) -> None:
    await both.register()
    await both.condition("Passed")
    name = f"v1alpha1.{GROUP}"
    found = await both.client.get(APISERVICES, name)
    found["status"]["conditions"].append({"type": "Mine", "status": "Maybe"})
    with pytest.raises(ApiError, match=r'status\.conditions\[1\]\.status: Unsupported value: "Maybe"'):
        await both.client.update(APISERVICES, found, subresource="status")
    found["status"]["conditions"][1]["status"] = "Unknown"
    found["spec"]["versionPriority"] = 7
    updated = await both.client.update(APISERVICES, found, subresource="status")
    assert (len(updated["status"]["conditions"]), updated["spec"]["versionPriority"]) == (2, 200)
