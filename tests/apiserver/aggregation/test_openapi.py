"""OpenAPI documents of two servers as one: v2 merged, v3 handed on, or made where there is none; and hostile ones."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from steersman.api.openapi_merge import merge, part_of, to_v3
from steersman.api.openapi_protobuf import CONTENT_TYPE
from steersman.api.resource import APISERVICES
from steersman.apiserver.aggregation.backend import Patience
from tests.apiserver.aggregation.extension import GROUP, META, OPENAPI, PREFIX, Aggregated, aggregated

PLACE = f"apis/{GROUP}/v1alpha1"
FLUNDER = "com.example.Flunder"


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Aggregated]:
    async with aggregated(tmp_path, Patience(resync=0.05, refresh=0.0)) as made:
        yield made


async def test_v2_holds_both(both: Aggregated) -> None:
    both.extension.openapi = {"/openapi/v2": msgspec.json.encode(OPENAPI)}
    await both.register()
    document = await both.documented("/openapi/v2", FLUNDER)
    renamed = f"{META}_v2"
    assert document["definitions"][FLUNDER]["properties"] == {"metadata": {"$ref": f"#/definitions/{renamed}"}}
    assert document["definitions"][renamed]["description"] == "an older one"
    assert document["definitions"][META]["properties"]["labels"]
    assert document["paths"][f"{PREFIX}/flunders"]["get"]["operationId"] == "listFlunders"
    assert "com.example.Unused" not in document["definitions"]
    assert document["info"]["title"] == "Kubernetes"
    assert document["paths"]["/apis/apps/v1/"]["get"]["operationId"] == "getAppsV1APIResources"  # our own
    response, body = await both.client.raw("GET", "/openapi/v2", accept=CONTENT_TYPE)
    assert (response.header("content-type"), FLUNDER.encode() in body) == (CONTENT_TYPE, True)
    await both.client.delete(APISERVICES, f"v1alpha1.{GROUP}")
    assert FLUNDER not in (await both.ask("GET", "/openapi/v2"))[1].decode()


async def test_v3_is_the_other_servers(both: Aggregated) -> None:
    url = f"/openapi/v3/{PLACE}?hash=ABC"
    paths = {PLACE: {"serverRelativeURL": url}, "apis/apps/v1": {"serverRelativeURL": "/mine"}}
    both.extension.openapi = {
        "/openapi/v3": msgspec.json.encode({"paths": paths}),
        f"/openapi/v3/{PLACE}": b'{"openapi": "3.0.0"}',
    }
    await both.register()
    index = await both.documented("/openapi/v3", PLACE)
    assert index["paths"][PLACE]["serverRelativeURL"] == url
    assert index["paths"]["apis/apps/v1"]["serverRelativeURL"].startswith("/openapi/v3/apis/apps/v1?hash=")
    await both.condition("Passed")
    assert await both.ask("GET", url) == (200, b'{"openapi": "3.0.0"}')


async def test_v3_is_made_where_there_is_none(both: Aggregated) -> None:
    both.extension.openapi = {"/openapi/v2": msgspec.json.encode(OPENAPI)}
    await both.register()
    index = await both.documented("/openapi/v3", PLACE)
    status, body = await both.ask("GET", index["paths"][PLACE]["serverRelativeURL"])
    document = json.loads(body)
    assert (status, document["openapi"]) == (200, "3.0.0")
    operation = document["paths"][f"{PREFIX}/flunders"]["get"]
    schema = {"schema": {"$ref": f"#/components/schemas/{FLUNDER}"}}
    assert operation["parameters"] == [{"name": "limit", "in": "query", "schema": {"type": "integer"}}]
    assert operation["requestBody"] == {"content": {"*/*": schema}}
    assert operation["responses"]["200"] == {"description": "OK", "content": {"application/json": schema}}
    assert operation["responses"]["401"] == {"description": "Unauthorized"}


@pytest.mark.parametrize(
    "document",
    [
        b"\x00garbage",
        b"[]",
        b'{"paths": 7}',
        b'{"paths": {"%s/x": {"get": {"responses": 7}}}}' % PREFIX.encode(),
        b'{"paths": {"%s/x": {"get": {"parameters": [{"name": 1}]}}}}' % PREFIX.encode(),
        b'{"paths": {"%s/x": {"get": {"tags": [1]}}}}' % PREFIX.encode(),
        b'{"paths": {"%s/x": {"get": {"operationId": {}}}}}' % PREFIX.encode(),
        b'{"paths": {"%s/x": {"get": {"responses": {"200": {"schema": []}}}}}}' % PREFIX.encode(),
        b'{"paths": {"%s/x": {"get": {"responses": {"200": {"schema": {"$ref": "#/no"}}}}}}}' % PREFIX.encode(),
        b'{"paths": {"%s/x": {"x": %s}}}' % (PREFIX.encode(), b'{"a":' * 500 + b"1" + b"}" * 500),
        b'{"paths": {"%s/x": {"x": %s}}}' % (PREFIX.encode(), b"[" * 100_000),
    ],
)
async def test_what_is_no_document_spoils_nothing(both: Aggregated, document: bytes) -> None:
    both.extension.openapi = {"/openapi/v2": document, "/openapi/v3": document}
    await both.register()
    await both.freshness("Current")
    asked = len(both.extension.asked)
    async with both.patience():
        while not any(each.path == "/openapi/v2" for each in both.extension.asked[asked:]):
            await both.changed()
    for accept in ("application/json", CONTENT_TYPE):
        response, body = await both.client.raw("GET", "/openapi/v2", accept=accept)
        assert (response.status, GROUP.encode() in body) == (200, False)
    status, body = await both.ask("GET", "/openapi/v3")
    assert (status, PLACE.encode() in body) == (200, False)


def test_definitions_that_are_the_same_are_shared() -> None:
    document = {"paths": {}, "definitions": {"a": {"type": "string"}, "b": {"type": "object"}, "b_v2": {"x": 1}}}
    responses = {"200": {"schema": {"$ref": "#/definitions/b"}}}
    part = part_of(
        {
            "paths": {"/p/x": {"get": {"responses": responses}}},
            "definitions": {"b": {"properties": {"a": {"$ref": "#/definitions/a"}}}, "a": {"type": "string"}},
        },
        "/p/",
    )
    merge(document, part)
    assert set(document["definitions"]) == {"a", "b", "b_v2", "b_v3"}
    assert document["paths"]["/p/x"]["get"]["responses"]["200"]["schema"] == {"$ref": "#/definitions/b_v3"}
    assert part["paths"]["/p/x"]["get"]["responses"]["200"]["schema"] == {"$ref": "#/definitions/b"}
    assert to_v3(part, {})["components"]["schemas"]["a"] == {"type": "string"}
