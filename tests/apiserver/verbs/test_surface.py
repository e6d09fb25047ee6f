"""What kube-apiserver 1.36 answers to requests that are about the server: paths, headers, media, words."""

from __future__ import annotations

import json

import pytest

from steersman.api import protobuf, yamlform
from steersman.api.resource import CONFIGMAPS
from steersman.apiserver import paths
from steersman.client.discovery import discover
from steersman.lib.http.messages import Headers
from steersman.testing.cluster import ApiCluster
from tests.apiserver.guarded import Guarded

PRIVATE = ("cache-control", "no-cache, private")
NOSNIFF = ("x-content-type-options", "nosniff")
TEXT = ("content-type", "text/plain; charset=utf-8")
JSON = ("content-type", "application/json")
BUILT_IN = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
LIST = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def ask(
    cluster: ApiCluster, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, set[tuple[str, str]], bytes]:
    given: Headers = [(name.replace("_", "-"), value) for name, value in headers.items()]
    response = await cluster.transport.request(method, path, given)
    return response.status, set(response.headers), await response.read()


@pytest.mark.parametrize("path", ["/nope", "/apis/nope", "/apis/x/y/z", "/openapi", "/readyz/nope", "/logs"])
async def test_what_is_nowhere_is_text(cluster: ApiCluster, path: str) -> None:
    status, headers, body = await ask(cluster, path)
    assert (status, body) == (404, b"404 page not found\n")
    assert headers >= {PRIVATE, NOSNIFF, TEXT}


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/api", "POST", 405), ("/api/v1", "HEAD", 405), ("/apis/apps/v1", "DELETE", 405), ("/apis/apps", "DELETE", 200),
     ("/apis", "PUT", 200)],
)  # fmt: skip
async def test_methods_of_discovery(cluster: ApiCluster, path: str, method: str, status: int) -> None:
    found, headers, body = await ask(cluster, path, method=method)
    assert found == status and headers >= {PRIVATE, JSON} and body.endswith(b"}\n")


@pytest.mark.parametrize(
    ("path", "offered"),
    [
        ("/api/v1/namespaces/default", BUILT_IN),
        (
            "/api/v1/pods",
            f"{BUILT_IN}, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        ),
        ("/api/v1/namespaces/d/pods/x/log", f"text/plain, {BUILT_IN}"),
        ("/apis/apps/v1", BUILT_IN),
    ],
)
@pytest.mark.parametrize("accept", ["text/html", "application/cbor", "application/*"])
async def test_a_route_says_what_it_has(cluster: ApiCluster, path: str, offered: str, accept: str) -> None:
    status, _, body = await ask(cluster, path, accept=accept)
    answer = json.loads(body)
    assert (status, answer["reason"], answer["details"]) == (406, "NotAcceptable", {})
    assert answer["message"] == f"406: Not Acceptable\n\nAvailable representations: {offered}"
    assert body.startswith(b'{\n  "kind"') is (accept != "application/*")  # who reads no JSON gets it indented


async def test_the_answers_of_handlers_say_it_in_other_words(cluster: ApiCluster) -> None:
    for path, accept in (("/apis", "text/html"), ("/api/v1/pods", "application/json;as=Foo;v=v1;g=meta.k8s.io")):
        status, _, body = await ask(cluster, path, accept=accept)
        answer = json.loads(body)
        assert (status, answer["message"]) == (406, f"only the following media types are accepted: {BUILT_IN}")
        assert "details" not in answer
    status, _, body = await ask(cluster, "/apis/apps/v9", accept="text/html")
    assert status == 404 and body.startswith(b'{\n  "kind": "Status"') and not body.endswith(b"\n")


@pytest.mark.parametrize(
    ("query", "agent", "indented"),
    [("", "", False), ("?pretty=true", "", True), ("?pretty=false", "curl/8.5", False), ("?pretty=", "curl/8.5", True),
     ("?pretty=1", "kubectl", True), ("", "Wget/1", True), ("", "Mozilla/5.0 (X11)", True), ("?pretty=x", "", False)],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/api/v1/namespaces/default", "/api/v1/namespaces/none", "/api/v1/pods", "/api/v1"])
async def test_json_for_people(cluster: ApiCluster, path: str, query: str, agent: str, indented: bool) -> None:
    _, _, body = await ask(cluster, path + query, user_agent=agent)
    assert body.startswith(b'{\n  "kind": "') is indented
    assert body.endswith(b"}\n") is not indented


async def test_tables_in_every_medium(cluster: ApiCluster) -> None:
    for media, start in (("application/yaml", b"apiVersion: meta.k8s.io/v1\n"), ("application/json", b'{\n  "kind": ')):
        accept = f"{media};as=Table;v=v1;g=meta.k8s.io"
        for path in ("/api/v1/namespaces", "/api/v1/namespaces/default"):
            status, _, body = await ask(cluster, f"{path}?pretty=true", accept=accept)
            assert status == 200 and body.startswith(start) and b"columnDefinitions" in body


async def test_discovery_in_every_medium(cluster: ApiCluster) -> None:
    for path in ("/api", "/apis", "/apis/apps", "/apis/apps/v1", "/api/v1"):
        _, headers, body = await ask(cluster, path)
        assert headers >= {PRIVATE, JSON} and "vary" not in dict(headers) and body.endswith(b"}\n")
        _, headers, body = await ask(cluster, path, accept="application/yaml")
        assert headers >= {PRIVATE, ("content-type", "application/yaml")} and b"kind: API" in body
        _, headers, body = await ask(cluster, path, accept="application/vnd.kubernetes.protobuf")
        assert ("content-type", "application/vnd.kubernetes.protobuf") in headers and body.startswith(b"k8s\0\n")
    _, headers, body = await ask(cluster, "/apis", accept=LIST)
    assert headers >= {("cache-control", "public"), ("content-type", LIST), ("vary", "Accept")}
    etag = dict(headers)["etag"]
    assert len(etag) == 130
    assert await ask(cluster, "/apis", accept=LIST, if_none_match=etag) == (
        304,
        headers - {("content-length", "")},
        b"",
    )
    _, headers, body = await ask(cluster, "/apis", accept=LIST.replace("json", "yaml", 1))
    assert dict(headers)["content-type"].startswith("application/yaml;g=") and b"\nkind: APIGroupDiscoveryList" in body


async def test_refusals_of_the_authorizer_are_not_to_be_guessed_at(guarded: Guarded) -> None:
    for path in ("/api/v1/pods", "/metrics", "/nope"):
        response, body = await guarded.client("nobody").raw("GET", path)
        assert response.status == 403 and NOSNIFF in response.headers
        assert "details" in json.loads(body)


async def test_the_root_lists_every_path(cluster: ApiCluster) -> None:
    cluster.server.paths.append(paths.Root(cluster.server.discovery, ["/livez/ping"]))
    for path in ("/", "/index.html"):
        _, headers, body = await ask(cluster, path, method="POST")
        found = json.loads(body)["paths"]
        assert found == sorted(found) and body.startswith(b'{\n  "paths": [\n    "/.well-known/openid-configuration"')
        assert {"/apis/apps", "/apis/apps/v1", "/apis/", "/livez/ping", "/openid/v1/jwks"} <= {*found}
        assert headers >= {PRIVATE, JSON}


async def test_the_version_is_for_those_who_read_json(cluster: ApiCluster) -> None:
    cluster.server.paths.append(paths.Version("1.36"))
    assert (await ask(cluster, "/version"))[1] >= {PRIVATE, JSON}
    assert (await ask(cluster, "/version", method="PUT"))[0] == 405
    status, headers, body = await ask(cluster, "/version", accept="application/yaml")
    assert status == 406 and ("content-type", "application/yaml") in headers
    assert b"Available representations: application/json\n" in body
    assert "emulationMajor" in paths.version_info("1.33") and "emulationMajor" not in paths.version_info("1.32")


def test_yaml_has_the_quotes_of_go() -> None:
    document = {"b": "2026-11-21T17:04:15Z", "a": ["yes", "y", "1", "", "plain", "with: colon", "two\nlines"], "c": 1}
    assert yamlform.dump(document).decode() == (
        'a:\n- "yes"\n- "y"\n- "1"\n- ""\n- plain\n- \'with: colon\'\n- |-\n  two\n  lines\n'
        'b: "2026-11-21T17:04:15Z"\nc: 1\n'
    )


async def test_a_watch_from_what_is_still_to_come_is_silent_until_then(cluster: ApiCluster) -> None:
    ahead = cluster.server.storage.revision + 2
    path = f"/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=1&resourceVersion={ahead}"
    assert (await ask(cluster, path + "&allowWatchBookmarks=true"))[2] == b""
    response = await cluster.transport.request("GET", path, [])
    for name in "abc":
        await cluster.client.create(CONFIGMAPS, {"metadata": {"name": name, "namespace": "default"}})
    events = [json.loads(line) for line in (await response.read()).splitlines()]
    assert [(each["type"], each["object"]["metadata"]["name"]) for each in events] == [("ADDED", "c")]
    state = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    status, _, body = await ask(cluster, path.replace(f"={ahead}", "=99999") + state)
    event = json.loads(body)
    assert (status, event["type"], event["object"]["code"]) == (200, "ERROR", 504)
    assert event["object"]["message"].startswith("Timeout: Too large resource version: 99999, current: ")


async def test_reads_of_what_is_still_to_come_may_be_tried_again(cluster: ApiCluster) -> None:
    status, headers, body = await ask(cluster, "/api/v1/configmaps?resourceVersion=99999")
    assert status == 504 and ("retry-after", "1") in headers
    assert json.loads(body)["details"]["retryAfterSeconds"] == 1
    status, headers, body = await ask(cluster, "/api/v1/events?resourceVersion=99999")
    assert status == 504 and "retry-after" not in dict(headers)
    assert "retryAfterSeconds" not in json.loads(body)["details"]


async def test_our_own_clients_read_discovery_that_is_not_aggregated(cluster: ApiCluster) -> None:
    aggregated = await discover(cluster.client)
    cluster.server.discovery._served = frozenset()
    cluster.server.discovery._cache.clear()
    plain = await discover(cluster.client)
    assert {each.resource for each in plain.resources} == {each.resource for each in aggregated.resources}


async def test_what_is_compressed(cluster: ApiCluster) -> None:
    cluster.server.paths.append(paths.OpenApiPaths(cluster.server.registry))
    _, headers, _ = await ask(cluster, "/openapi/v2", accept_encoding="gzip")
    assert headers >= {("content-encoding", "gzip"), ("vary", "Accept"), ("vary", "Accept-Encoding")}
    response = await cluster.transport.request("GET", "/openapi/v2", [("accept-encoding", "gzip")])
    assert [value for name, value in response.headers if name == "vary"] == ["Accept", "Accept-Encoding"]
    _, headers, body = await ask(cluster, "/openapi/v3/api/v1", accept_encoding="gzip")
    assert "content-encoding" not in dict(headers) and len(body) > 500_000
    assert (await ask(cluster, "/openapi/v3/nope"))[::2] == (404, b"")
    assert (await ask(cluster, "/openapi/v2", accept="text/html"))[::2] == (406, b"")


async def test_odds_and_ends_of_answers(cluster: ApiCluster) -> None:
    for path in ("/api/v1/bindings", "/apis/authorization.k8s.io/v1/localsubjectaccessreviews"):
        for method in ("GET", "POST"):
            assert (await ask(cluster, path, method=method))[0] == 404
    accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    assert (await ask(cluster, "/api/v1/pods", accept=accept))[2].endswith(b'"items":null}\n')
    assert (await ask(cluster, "/api/v1/pods"))[2].endswith(b'"items":[]}\n')
    path = "/api/v1/namespaces/default/configmaps?dryRun=All"
    body = b'{"data":{"a":"b"},"metadata":{"name":"x"}}'
    response = await cluster.transport.request("POST", path, [("content-type", "application/json")], body)
    assert (await response.read()).startswith(b'{"kind":"ConfigMap","apiVersion":"v1","')


@pytest.mark.parametrize("path", ["/api", "/apis"])
async def test_aggregated_discovery_in_protobuf(cluster: ApiCluster, path: str) -> None:
    wanted = LIST.replace("json", "vnd.kubernetes.protobuf")
    status, headers, body = await ask(cluster, path, accept=f"{wanted},application/json")
    assert status == 200 and headers >= {("content-type", wanted), ("vary", "Accept")}
    _, _, plain = await ask(cluster, path, accept=LIST)
    assert protobuf.decode(body)[1]["items"] == json.loads(plain)["items"]
