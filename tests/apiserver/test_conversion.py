"""Conversion webhooks: a real HTTPS server converts, and misbehaves, for a real API server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CUSTOMRESOURCEDEFINITIONS, Object, Resource
from steersman.cluster import certs
from steersman.cluster.plane import ControlPlane
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Answer, Request, Response
from steersman.lib.http.server import Server, server_tls

V1 = Resource("sea.example.com", "v1", "ports", "Port")
V2 = Resource("sea.example.com", "v2", "ports", "Port")


class Webhook:
    """Splits `hostPort` of v1 into `host` and `port` of v2, and joins them again; `twist` spoils its answers."""

    def __init__(self) -> None:
        self.calls = 0
        self.twist = ""

    def answer(self, request: Request) -> Answer:
        self.calls += 1
        review = json.loads(request.body)
        asked = review["request"]
        made = [self._converted(obj, asked["desiredAPIVersion"]) for obj in asked["objects"]]
        response: Object = {"uid": asked["uid"], "convertedObjects": made, "result": {"status": "Success"}}
        match self.twist:
            case "failure":
                response["result"] = {"status": "Failure", "message": "no wind"}
            case "fewer":
                response["convertedObjects"] = []
            case "version":
                made[0]["apiVersion"] = "sea.example.com/v9"
            case "name":
                made[0]["metadata"]["name"] = "other"
            case "uid of the review":
                response["uid"] = "other"
            case "garbage":
                return Response(200, [], b"\x00garbage")
            case "nothing" | "500":
                return Response(200 if self.twist == "nothing" else 500, [], b"")
            case "no metadata":
                del made[0]["metadata"]
            case "no words":
                response["result"] = {"status": "Failure"}
            case "no response" | "another kind":
                kind = "Foo" if self.twist == "another kind" else review["kind"]
                return Response(200, [], json.dumps({"apiVersion": review["apiVersion"], "kind": kind}).encode())
        return Response(200, [], json.dumps({**review, "response": response}).encode())

    def _converted(self, obj: Object, wanted: str) -> Object:
        made: Object = {**obj, "apiVersion": wanted, "metadata": {**obj["metadata"], "annotations": {"by": "webhook"}}}
        if wanted.endswith("v2") and "hostPort" in obj:
            del made["hostPort"]
            made["host"], made["port"] = obj["hostPort"].split(":")
        elif wanted.endswith("v1") and "host" in obj:
            made["hostPort"] = f"{made.pop('host')}:{made.pop('port')}"
        made["metadata"]["finalizers"] = ["a webhook must not add this"]
        return made


def definition(url: str, bundle: bytes, storage: str) -> Object:
    def version(name: str, *fields: str) -> Object:
        properties = {field: {"type": "string"} for field in fields}
        schema = {"openAPIV3Schema": {"type": "object", "properties": properties}}
        selectable = [{"jsonPath": f".{field}"} for field in fields]
        return {
            "name": name,
            "served": True,
            "storage": name == storage,
            "schema": schema,
            "selectableFields": selectable,
        }

    client = {"url": url, "caBundle": base64.b64encode(bundle).decode()}
    webhook = {"clientConfig": client, "conversionReviewVersions": ["v1"]}
    spec = {
        "group": "sea.example.com",
        "scope": "Namespaced",
        "names": {"plural": "ports", "singular": "port", "kind": "Port", "listKind": "PortList"},
        "versions": [version("v1", "hostPort"), version("v2", "host", "port")],
        "conversion": {"strategy": "Webhook", "webhook": webhook},
    }
    return {"metadata": {"name": "ports.sea.example.com"}, "spec": spec}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[tuple[Any, Webhook]]:
    webhook, pki = Webhook(), tmp_path / "webhook"
    certs.ensure(pki, certs.identities([], ["127.0.0.1"], "cluster.local"), SystemClock().now())
    tls = server_tls(pki / "apiserver.crt", pki / "apiserver.key", [])
    async with (
        Server(webhook.answer, SystemClock(), tls=tls) as server,
        ControlPlane(tmp_path, controllers=(), listen=None) as plane,
    ):
        url = f"https://127.0.0.1:{await server.listen('127.0.0.1', 0)}/convert"
        made = definition(url, (pki / "ca.crt").read_bytes(), "v1")
        await plane.client.create(CUSTOMRESOURCEDEFINITIONS, made)
        async with asyncio.timeout(10):
            while True:  # served a moment after it is defined
                try:
                    await plane.client.list(V2, "default")
                    break
                except ApiError as error:
                    assert error.code == 404
                    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        yield plane.client, webhook


def shown(obj: Object) -> Object:
    return {key: obj[key] for key in ("apiVersion", "hostPort", "host", "port") if key in obj}


async def test_every_verb_in_the_version_that_is_not_stored(world: tuple[Any, Webhook]) -> None:
    client, _ = world
    made = await client.create(V2, {"metadata": {"name": "a"}, "host": "h", "port": "1"}, "default")
    assert shown(made) == {"apiVersion": "sea.example.com/v2", "host": "h", "port": "1"}
    assert "finalizers" not in made["metadata"]
    assert shown(await client.get(V1, "a", "default")) == {"apiVersion": "sea.example.com/v1", "hostPort": "h:1"}
    assert shown(await client.get(V2, "a", "default")) == shown(made)
    fresh = await client.get(V2, "a", "default")
    fresh["port"] = "2"
    assert shown(await client.update(V2, fresh))["port"] == "2"
    assert shown(await client.patch(V2, "a", "default", {"host": "g"}))["host"] == "g"
    await client.create(V1, {"metadata": {"name": "b"}, "hostPort": "i:3"}, "default")
    assert [shown(each)["port"] for each in (await client.list(V2, "default")).items] == ["2", "3"]
    assert shown(await client.get(V1, "a", "default"))["hostPort"] == "g:2"
    await client.delete(V2, "a", "default")
    assert [each["metadata"]["name"] for each in (await client.list(V1, "default")).items] == ["b"]


async def test_what_is_made_is_judged_in_the_version_of_the_request(world: tuple[Any, Webhook]) -> None:
    """A policy sees it with its uid, which has to be the same when the verb runs again with what was converted."""
    client, webhook = world
    group = "admissionregistration.k8s.io"
    rule = {"apiGroups": ["sea.example.com"], "apiVersions": ["v2"], "resources": ["ports"], "operations": ["CREATE"]}
    spec = {
        "matchConstraints": {"resourceRules": [rule], "matchPolicy": "Exact"},
        "validations": [{"expression": "object.port != '9' && object.metadata.uid != ''"}],
    }
    policies = Resource(group, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
    bindings = Resource(
        group, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False
    )
    await client.create(policies, {"metadata": {"name": "p"}, "spec": spec})
    bound = {"policyName": "p", "validationActions": ["Deny"]}
    await client.create(bindings, {"metadata": {"name": "p"}, "spec": bound})
    before = webhook.calls
    made = await client.create(V2, {"metadata": {"generateName": "a"}, "host": "h", "port": "1"}, "default")
    assert shown(made) == {"apiVersion": "sea.example.com/v2", "host": "h", "port": "1"}
    assert webhook.calls - before <= 3  # to what is stored, for the policy, for the answer
    with pytest.raises(ApiError, match="denied request"):
        await client.create(V2, {"metadata": {"generateName": "a"}, "host": "h", "port": "9"}, "default")


async def test_what_is_stored_needs_no_webhook(world: tuple[Any, Webhook]) -> None:
    client, webhook = world
    before = webhook.calls
    await client.create(V1, {"metadata": {"name": "a"}, "hostPort": "h:1"}, "default")
    await client.get(V1, "a", "default")
    await client.list(V1, "default")
    assert webhook.calls == before


async def test_a_watch_is_told_in_its_version(world: tuple[Any, Webhook]) -> None:
    client, _ = world
    await client.create(V1, {"metadata": {"name": "a"}, "hostPort": "h:1"}, "default")
    version = (await client.list(V2, "default")).resource_version
    seen = []
    async with asyncio.timeout(10), aclosing(client.watch(V2, "default", resource_version=version)) as events:
        await client.patch(V1, "a", "default", {"hostPort": "h:2"})
        await client.delete(V1, "a", "default")
        async for event in events:
            seen.append((event.type, event.object["apiVersion"], event.object["port"]))
            if event.type == "DELETED":
                break
    assert seen == [("MODIFIED", "sea.example.com/v2", "2"), ("DELETED", "sea.example.com/v2", "2")]
    await client.create(V1, {"metadata": {"name": "b"}, "hostPort": "h:3"}, "default")
    async with asyncio.timeout(10), aclosing(client.watch(V2, "default", resource_version="0")) as events:
        first = await anext(events)
        assert (first.type, first.object["port"]) == ("ADDED", "3")


async def test_a_list_of_both_storage_versions(world: tuple[Any, Webhook]) -> None:
    client, _ = world
    await client.create(V1, {"metadata": {"name": "a"}, "hostPort": "h:1"}, "default")
    crd = await client.get(CUSTOMRESOURCEDEFINITIONS, "ports.sea.example.com")
    for version in crd["spec"]["versions"]:
        version["storage"] = version["name"] == "v2"
    await client.update(CUSTOMRESOURCEDEFINITIONS, crd)
    async with asyncio.timeout(10):
        while (await client.get(CUSTOMRESOURCEDEFINITIONS, crd["metadata"]["name"]))["status"]["storedVersions"] == [
            "v1"
        ]:
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)
    await client.create(V1, {"metadata": {"name": "b"}, "hostPort": "h:2"}, "default")
    assert [shown(each)["hostPort"] for each in (await client.list(V1, "default")).items] == ["h:1", "h:2"]
    assert [shown(each)["port"] for each in (await client.list(V2, "default")).items] == ["1", "2"]


async def test_fields_are_selected_as_the_version_has_them(world: tuple[Any, Webhook]) -> None:
    client, _ = world
    for name, place in (("a", "h:1"), ("b", "i:1"), ("c", "i:2")):
        await client.create(V1, {"metadata": {"name": name}, "hostPort": place}, "default")

    async def names(resource: Resource, fields: str) -> list[str]:
        return [each["metadata"]["name"] for each in (await client.list(resource, "default", fields=fields)).items]

    assert await names(V2, "host=i") == ["b", "c"]
    assert await names(V2, "host=i,port!=2") == ["b"]
    assert await names(V1, "hostPort=i:2") == ["c"]
    for resource, fields in ((V1, "host=i"), (V2, "hostPort=i:2")):
        with pytest.raises(ApiError, match="field label not supported"):
            await names(resource, fields)
    version = (await client.list(V2, "default")).resource_version
    seen = []
    async with (
        asyncio.timeout(10),
        aclosing(client.watch(V2, "default", resource_version=version, fields="host=h")) as events,
    ):
        await client.patch(V1, "b", "default", {"hostPort": "h:9"})
        await client.patch(V1, "c", "default", {"hostPort": "i:9"})
        await client.patch(V1, "a", "default", {"hostPort": "i:9"})
        async for event in events:
            seen.append((event.type, event.object["metadata"]["name"]))
            if len(seen) == 2:
                break
    assert seen == [("ADDED", "b"), ("DELETED", "a")]


@pytest.mark.parametrize(
    ("twist", "complaint"),
    [
        ("failure", "failed: no wind"),
        ("fewer", "returned 0 objects, expected 1"),
        ("version", "invalid groupVersion (expected sea.example.com/v2, received sea.example.com/v9)"),
        ("name", "returned invalid object: must have the same name: a != other"),
        ("uid of the review", "failed: expected response.uid="),
        ("garbage", "failed: couldn't get version/kind; json parse error: "),
        ("nothing", "failed: 0-length response with status code: 200"),
        ("no metadata", "returned invalid object: must have the same name: a != "),
        ("no words", "failed: response.result.status was 'Failure', not 'Success'"),
        ("no response", "failed: no response provided"),
        ("another kind", 'failed: no kind "Foo" is registered for version "apiextensions.k8s.io/v1" in scheme'),
        ("500", 'failed: an error on the server ("") has prevented the request from succeeding'),
    ],
)
async def test_a_webhook_that_misbehaves_is_named(world: tuple[Any, Webhook], twist: str, complaint: str) -> None:
    client, webhook = world
    await client.create(V1, {"metadata": {"name": "a"}, "hostPort": "h:1"}, "default")
    webhook.twist = twist
    with pytest.raises(ApiError) as refused:
        await client.get(V2, "a", "default")
    assert refused.value.code == 500
    assert refused.value.message.startswith("conversion webhook for sea.example.com/v1, Kind=Port ")
    assert complaint in refused.value.message
    webhook.twist = ""
    assert shown(await client.get(V2, "a", "default"))["port"] == "1"


async def test_a_younger_default_is_seen_in_older_objects(tmp_path: Path) -> None:
    kinds = Resource("sea.example.com", "v1", "sails", "Sail")
    schema: Object = {"type": "object", "properties": {"colour": {"type": "string"}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "sails", "singular": "sail", "kind": "Sail", "listKind": "SailList"}
    spec = {"group": "sea.example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    async with ControlPlane(tmp_path, controllers=(), listen=None) as plane:
        client = plane.client
        await client.create(CUSTOMRESOURCEDEFINITIONS, {"metadata": {"name": "sails.sea.example.com"}, "spec": spec})
        async with asyncio.timeout(10):
            while True:
                try:
                    await client.create(kinds, {"metadata": {"name": "main"}}, "default")
                    break
                except ApiError as error:
                    assert error.code == 404
                    await asyncio.get_running_loop().run_in_executor(None, lambda: None)
            crd = await client.get(CUSTOMRESOURCEDEFINITIONS, "sails.sea.example.com")
            crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["colour"]["default"] = "white"
            await client.update(CUSTOMRESOURCEDEFINITIONS, crd)
            while (await client.get(kinds, "main", "default")).get("colour") != "white":
                await asyncio.get_running_loop().run_in_executor(None, lambda: None)
