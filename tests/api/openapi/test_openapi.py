"""OpenAPI documents: whole, consistent, quick to build, and true to what is served."""

from __future__ import annotations

import json
from time import perf_counter
from typing import Any

import pytest

from steersman.api import openapi_protobuf, published
from steersman.api.kind import Kind, Subresource, Version
from steersman.api.openapi import OpenApi, speaks
from steersman.api.protobuf.decode import varint
from steersman.api.registry import Registry
from steersman.api.schema import load

PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
REGISTRY = Registry(behaviors=())
OPENAPI = OpenApi(REGISTRY)
DEPLOYMENT = "/apis/apps/v1/namespaces/{namespace}/deployments/{name}"


def get(path: str, openapi: OpenApi = OPENAPI) -> dict[str, Any]:
    answer = openapi.answer(path)
    assert answer is not None
    assert answer.content_type == ("text/plain; charset=utf-8" if path == "/openapi/v3" else "application/json")
    return json.loads(answer.body)


def widget(text: str = "", **more: Any) -> Kind:
    schema = {
        "type": "object",
        "description": text,
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"type": "integer", "minimum": 1},
                    "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                    "maybe": {"type": "string", "nullable": True},
                },
            }
        },
        **more,
    }
    return Kind(
        "example.com",
        "Widget",
        "widgets",
        "widget",
        (Version("v1", schema, storage=True),),
        verbs=("create", "delete", "get", "list", "patch", "update"),
        subresources=(Subresource("status", ("get", "patch", "update")),),
        list_kind="WidgetList",
        custom=True,
    )


def with_widget(text: str = "", **more: Any) -> OpenApi:
    registry = Registry(behaviors=())
    registry.add(widget(text, **more))
    return OpenApi(registry)


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_the_index_names_every_group_and_version() -> None:
    paths = get("/openapi/v3")["paths"]
    assert {"api/v1", "apis/apps/v1", "apis/autoscaling/v1", "apis/autoscaling/v2"} <= paths.keys()
    assert paths["apis/apps/v1"]["serverRelativeURL"].startswith("/openapi/v3/apis/apps/v1?hash=")


@pytest.mark.parametrize("place", sorted(get("/openapi/v3")["paths"]))
def test_every_document_is_whole(place: str) -> None:
    document = get(f"/openapi/v3/{place}")
    known = {f"#/components/schemas/{name}" for name in document["components"].get("schemas", {})}
    assert references(document) <= known
    ids = [op["operationId"] for item in document["paths"].values() for key, op in item.items() if key != "parameters"]
    assert ids and len(ids) == len(set(ids))
    for path, item in document["paths"].items():
        named = {parameter["name"] for parameter in item.get("parameters", ()) if parameter["in"] == "path"}
        assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_paths_that_are_no_resource_have_documents() -> None:
    paths = get("/openapi/v3")["paths"]
    alone = {".well-known/openid-configuration", "api", "apis", "apis/apps", "openid/v1/jwks", "version"}
    assert alone <= paths.keys() and list(paths) == sorted(paths)
    whole = get("/openapi/v2")["paths"]
    for place in alone | {"apis/apps/v1", "api/v1"}:
        url = paths[place]["serverRelativeURL"]
        answer = OPENAPI.answer(f"/openapi/v3/{place}", hash=url.partition("?hash=")[2])
        assert answer is not None and answer.immutable and len(answer.etag) == 130
        operation = json.loads(answer.body)["paths"][f"/{place}/"]["get"]
        assert operation["operationId"] == whole[f"/{place}/"]["get"]["operationId"]
    assert get("/openapi/v3/apis/apps")["paths"]["/apis/apps/"]["get"]["operationId"] == "getAppsAPIGroup"
    assert OPENAPI.answer("/openapi/v3/") is None and OPENAPI.answer("/openapi/v3/apis/nope") is None
    custom = with_widget()
    assert "apis/example.com" not in get("/openapi/v3", custom)["paths"]
    assert "/apis/example.com/v1/" not in get("/openapi/v3/apis/example.com/v1", custom)["paths"]


def test_watches_and_proxies_have_their_older_and_longer_paths() -> None:
    paths = get("/openapi/v3/api/v1")["paths"]
    watched = paths["/api/v1/watch/namespaces/{namespace}/pods/{name}"]["get"]
    assert (watched["operationId"], watched["x-kubernetes-action"]) == ("watchCoreV1NamespacedPod", "watch")
    assert "application/json;stream=watch" in watched["responses"]["200"]["content"]
    assert paths["/api/v1/watch/pods"]["get"]["operationId"] == "watchCoreV1PodListForAllNamespaces"
    proxied = paths["/api/v1/namespaces/{namespace}/services/{name}/proxy/{path}"]
    assert {"get", "put", "post", "delete", "options", "head", "patch", "parameters"} == set(proxied)
    assert proxied["head"]["operationId"] == "connectCoreV1HeadNamespacedServiceProxyWithPath"


@pytest.mark.parametrize(("release", "version"), [("1.30", "v1.30.0"), ("1.36", "1.36")])
def test_documents_name_the_release(release: str, version: str) -> None:
    assert OpenApi(Registry(release, behaviors=()))._info() == {"title": "Kubernetes", "version": version}


@pytest.mark.parametrize(("accept", "spoken"), [("", True), ("*/*", True), ("text/html", False), (PROTOBUF, True)])
def test_who_reads_none_of_its_media(accept: str, spoken: bool) -> None:
    assert speaks(accept) is spoken


def test_patch_says_what_kubectl_looks_for() -> None:
    patch = get("/openapi/v3/apis/apps/v1")["paths"][DEPLOYMENT]["patch"]
    names = {parameter["name"] for parameter in patch["parameters"]}
    assert {"dryRun", "fieldManager", "fieldValidation", "force"} == names
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert patch["x-kubernetes-action"] == "patch"
    assert patch["operationId"] == "patchAppsV1NamespacedDeployment"
    assert "application/apply-patch+yaml" in patch["requestBody"]["content"]


def test_schemas_are_described_and_keep_their_extensions() -> None:
    schemas = get("/openapi/v3/api/v1")["components"]["schemas"]
    container = schemas["io.k8s.api.core.v1.Container"]
    assert container["properties"]["ports"]["x-kubernetes-patch-merge-key"] == "containerPort"
    assert "single application container" in container["description"]
    resources = container["properties"]["resources"]
    assert resources["allOf"] == [{"$ref": "#/components/schemas/io.k8s.api.core.v1.ResourceRequirements"}]
    assert resources["description"]
    int_or_string = schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]
    assert int_or_string["oneOf"] == [{"type": "integer"}, {"type": "string"}]


def test_enumerations_and_defaults_are_those_of_the_original() -> None:
    schemas = get("/openapi/v3/api/v1")["components"]["schemas"]
    policy = schemas["io.k8s.api.core.v1.Container"]["properties"]["imagePullPolicy"]
    assert policy["enum"] == ["Always", "IfNotPresent", "Never"] and "default" not in policy
    assert policy["description"].endswith('Possible enum values:\n - `"Always"`\n - `"IfNotPresent"`\n - `"Never"`')
    service = schemas["io.k8s.api.core.v1.ServiceSpec"]["properties"]
    assert service["ipFamilies"]["items"] == {"type": "string", "default": "", "enum": ["", "IPv4", "IPv6"]}
    assert service["ports"]["items"] == {
        "allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.ServicePort"}],
        "default": {},
    }
    port = schemas["io.k8s.api.core.v1.ServicePort"]["properties"]
    assert port["port"]["default"] == 0 and "default" not in port["nodePort"] and port["protocol"]["default"] == "TCP"
    claim = schemas["io.k8s.api.core.v1.PersistentVolumeSpec"]["properties"]["claimRef"]  # beside the reference
    assert claim["x-kubernetes-map-type"] == "granular" and set(claim["allOf"][0]) == {"$ref"}
    older = get("/openapi/v2")["definitions"]["io.k8s.api.core.v1.ServicePort"]["properties"]["protocol"]
    assert older["enum"] == ["SCTP", "TCP", "UDP"] and "default" not in older


def test_what_is_published_is_in_the_schemas() -> None:
    fields: set[str] = set()
    for release in ("1.36", "1.37"):
        for name, found in load(release).definitions.items():
            if name.count(".") > 1:
                fields |= {f"{published.short(name)}.{prop}" for prop in found.get("properties", ())}
    enums, defaults = published.facts()
    assert enums and {place.rstrip("/") for place in (*enums, *defaults)} <= fields


def test_delete_answers_what_the_server_does() -> None:
    paths = get("/openapi/v3/api/v1")["paths"]

    def answer(path: str) -> str:
        return paths[path]["delete"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"]

    assert answer("/api/v1/namespaces/{namespace}/pods/{name}").endswith(".Pod")
    assert answer("/api/v1/namespaces/{namespace}/configmaps/{name}").endswith(".Status")


def test_subresources_have_their_own_kinds() -> None:
    paths = get("/openapi/v3/api/v1")["paths"]
    eviction = paths["/api/v1/namespaces/{namespace}/pods/{name}/eviction"]["post"]
    assert eviction["x-kubernetes-group-version-kind"] == {"group": "policy", "version": "v1", "kind": "Eviction"}
    connect = paths["/api/v1/namespaces/{namespace}/pods/{name}/exec"]["get"]
    assert (connect["operationId"], connect["x-kubernetes-action"]) == ("connectCoreV1GetNamespacedPodExec", "connect")
    assert paths["/api/v1/pods"]["get"]["operationId"] == "listCoreV1PodForAllNamespaces"


def test_v2_is_whole() -> None:
    document = get("/openapi/v2")
    assert document["swagger"] == "2.0"
    assert references(document) <= {f"#/definitions/{name}" for name in document["definitions"]}
    assert document["paths"][DEPLOYMENT]["patch"]["consumes"][0] == "application/json-patch+json"


def _fields(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at < len(data):
        tag, at = varint(data, at)
        if tag & 7 == 0:
            _, at = varint(data, at)
            continue
        assert tag & 7 == 2
        size, at = varint(data, at)
        found.append((tag >> 3, data[at : at + size]))
        at += size
    assert at == len(data)
    return found


def _names(entries: list[tuple[int, bytes]], number: int) -> dict[str, bytes]:
    parts = [dict(_fields(entry)) for key, entry in entries if key == number]
    return {part[1].decode(): part[2] for part in parts}


def test_v2_as_protobuf_has_the_same_definitions_and_paths() -> None:
    answer = OPENAPI.answer("/openapi/v2", f"{PROTOBUF}, application/json")
    assert answer is not None and answer.content_type == PROTOBUF.replace("@", ".")
    document = dict(_fields(answer.body))
    plain = get("/openapi/v2")
    definitions = _names(_fields(document[9]), 1)
    assert definitions.keys() == plain["definitions"].keys()
    assert _names(_fields(document[8]), 2).keys() == plain["paths"].keys()
    pod_spec = dict(_fields(definitions["io.k8s.api.core.v1.PodSpec"]))
    containers = _names(_fields(pod_spec[25]), 1)["containers"]
    extensions = {name: dict(_fields(value))[2] for name, value in _names(_fields(containers), 31).items()}
    assert extensions["x-kubernetes-patch-merge-key"] == b'"name"\n'


def test_protobuf_of_a_small_document_byte_by_byte() -> None:
    document = {
        "swagger": "2.0",
        "info": {"title": "T", "version": "v"},
        "paths": {},
        "definitions": {"a": {"type": "object", "required": ["b"], "properties": {"b": {"$ref": "#/c"}}}},
    }
    assert openapi_protobuf.encode(document) == (
        b"\x0a\x032.0\x12\x06\x0a\x01T\x12\x01v\x42\x00"
        b"\x4a\x25\x0a\x23\x0a\x01a\x12\x1e"
        b"\x9a\x01\x01b\xb2\x01\x08\x0a\x06object\xca\x01\x0c\x0a\x0a\x0a\x01b\x12\x05\x0a\x03#/c"
    )


@pytest.mark.parametrize(
    ("accept", "protobuf"),
    [
        (PROTOBUF, True),
        ("application/com.github.googleapis.gnostic.openapiv2@v1.0+protobuf", False),
        (f"application/json, {PROTOBUF}", False),
        (PROTOBUF.replace("@", "."), True),
        ("*/*", False),
        ("", False),
        (f"text/html,{PROTOBUF};q=0.5", True),
    ],
)
def test_v2_is_negotiated(accept: str, protobuf: bool) -> None:
    answer = OPENAPI.answer("/openapi/v2", accept)
    assert answer is not None and (answer.content_type == PROTOBUF.replace("@", ".")) == protobuf


@pytest.mark.parametrize(
    "path", ["/openapi", "/openapi/v4", "/openapi/v3/apis/apps/v9", "/openapi/v3/apps/v1", "/openapi/v3/../v2", "/x"]
)
def test_what_is_not_there_is_none(path: str) -> None:
    assert OPENAPI.answer(path) is None


def test_custom_kinds_are_published() -> None:
    openapi = with_widget("A widget.")
    document = get("/openapi/v3/apis/example.com/v1", openapi)
    schema = document["components"]["schemas"]["com.example.v1.Widget"]
    assert schema["x-kubernetes-group-version-kind"] == [{"group": "example.com", "version": "v1", "kind": "Widget"}]
    assert schema["properties"].keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert schema["description"] == "A widget."
    known = {f"#/components/schemas/{name}" for name in document["components"].get("schemas", {})}
    assert references(document) <= known
    item = document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]
    assert item["patch"]["operationId"] == "patchExampleComV1NamespacedWidget"


def test_v2_leaves_out_what_it_cannot_say() -> None:
    spec = get("/openapi/v2", with_widget())["definitions"]["com.example.v1.Widget"]["properties"]["spec"]["properties"]
    assert spec == {
        "size": {"type": "integer", "minimum": 1},
        "port": {"x-kubernetes-int-or-string": True},
        "maybe": {},
    }


def test_a_custom_kind_that_takes_anything_says_so() -> None:
    openapi = with_widget(**{"x-kubernetes-preserve-unknown-fields": True})
    schema = get("/openapi/v2", openapi)["definitions"]["com.example.v1.Widget"]
    assert schema == {"type": "object", "x-kubernetes-group-version-kind": schema["x-kubernetes-group-version-kind"]}


def test_the_hash_follows_the_schema() -> None:
    one, other = with_widget("one"), with_widget("other")
    assert one.hash("example.com", "v1") != other.hash("example.com", "v1")
    assert one.hash("apps", "v1") == other.hash("apps", "v1")
    current = one.hash("example.com", "v1")
    fresh = one.answer("/openapi/v3/apis/example.com/v1", "", current)
    stale = one.answer("/openapi/v3/apis/example.com/v1", "", "OLD")
    assert fresh and stale and fresh.immutable and not stale.immutable and fresh.etag == f'"{current}"'


def test_documents_are_kept_until_the_registry_changes() -> None:
    registry = Registry(behaviors=())
    openapi = OpenApi(registry)
    first = openapi.answer("/openapi/v3/apis/apps/v1")
    again = openapi.answer("/openapi/v3/apis/apps/v1")
    assert first and again and first.body is again.body
    registry.add(widget())
    assert "apis/example.com/v1" in get("/openapi/v3", openapi)["paths"]
    for place in get("/openapi/v3", openapi)["paths"]:
        openapi.answer(f"/openapi/v3/{place}")
    assert len(openapi._kept) <= 6


def test_a_document_is_built_quickly() -> None:
    best = min(_seconds() for _ in range(3))
    assert best < 0.25


def _seconds() -> float:
    start = perf_counter()
    OpenApi(REGISTRY).answer("/openapi/v3/api/v1")
    return perf_counter() - start
