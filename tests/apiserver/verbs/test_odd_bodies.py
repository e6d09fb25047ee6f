"""Bodies that are nearly right: refused in words, not by a failure. Found by `tests/fuzz`."""

from __future__ import annotations

import base64

import msgspec
import pytest

from steersman.api import protobuf
from steersman.api.resource import CONFIGMAPS, DEPLOYMENTS, Resource
from steersman.testing.cluster import ApiCluster

PODTEMPLATES = Resource("", "v1", "podtemplates", "PodTemplate", True)
_PATH = "/api/v1/namespaces/default/configmaps"


async def answer(cluster: ApiCluster, method: str, path: str, body: bytes, media: str) -> tuple[int, str]:
    response, said = await cluster.client.raw(method, path, body, [("content-type", media)])
    return response.status, str(msgspec.json.decode(said).get("message", ""))


async def test_bytes_that_are_no_text_in_the_name_of_a_field(cluster: ApiCluster) -> None:
    body = b'{"metadata":{"name":"a"},"da\xbata":{"a":"b"}}'
    assert (await answer(cluster, "POST", _PATH, body, "application/json"))[0] == 201
    status, text = await answer(cluster, "POST", f"{_PATH}?fieldValidation=Strict", body, "application/json")
    assert (status, 'unknown field "da\ufffdta"' in text) == (400, True)


async def test_a_quantity_in_protobuf_that_is_none(cluster: ApiCluster) -> None:
    limits = [{"type": "Pod", "max": {"cpu": "[1]"}}]
    made = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "a"}, "spec": {"limits": limits}}
    body, media = protobuf.encode(made), "application/vnd.kubernetes.protobuf"
    status, text = await answer(cluster, "POST", "/api/v1/namespaces/default/limitranges", body, media)
    assert (status, "quantities must match the regular expression" in text) == (400, True)


@pytest.mark.parametrize(
    ("value", "words"),
    [(b"[1]", "json: cannot unmarshal array into Go value of type struct"), (b"1", "the server rejected our request")],
)
async def test_a_patch_that_leaves_no_object(cluster: ApiCluster, value: bytes, words: str) -> None:
    await cluster.client.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "default"}})
    body = b'[{"op":"replace","path":"","value":%b}]' % value
    status, text = await answer(cluster, "PATCH", f"{_PATH}/a", body, "application/json-patch+json")
    assert (status, words in text) == (422, True)


async def test_a_patch_with_items_of_two_sorts(cluster: ApiCluster) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await cluster.client.create(
        PODTEMPLATES, {"metadata": {"name": "a", "namespace": "default"}, "template": {"spec": spec}}
    )
    body = b'{"template":{"spec":{"containers":[{"name":"c"},1]}}}'
    path = "/api/v1/namespaces/default/podtemplates/a"
    found = await answer(cluster, "PATCH", path, body, "application/strategic-merge-patch+json")
    assert found == (400, "list element types are not identical")


async def test_a_certificate_request_without_a_spec(cluster: ApiCluster) -> None:
    body = b'{"metadata":{"name":"a"}}'
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    assert (await answer(cluster, "POST", path, body, "application/json"))[0] == 422


async def test_a_document_of_many_levels_inside_another(cluster: ApiCluster) -> None:
    deep = '{"a":' * 50_000
    token = base64.urlsafe_b64encode(deep.encode()[:50_000]).decode()
    response, said = await cluster.client.raw("GET", f"{_PATH}?limit=1&continue={token}")
    assert (response.status, b"continue key is not valid" in said) == (400, True)
    last = {"kubectl.kubernetes.io/last-applied-configuration": deep[:200_000]}
    mine = {"metadata": {"name": "a", "namespace": "default", "annotations": last}, "data": {"k": "v"}}
    await cluster.client.create(CONFIGMAPS, mine)
    applied = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"w"}}'
    path = f"{_PATH}/a?fieldManager=kubectl"
    assert (await answer(cluster, "PATCH", path, applied, "application/apply-patch+yaml"))[0] == 409
    scale = "/apis/apps/v1/namespaces/default/deployments/a/scale"
    selector = {"matchLabels": {"a": "b"}}
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    made = {"metadata": {"name": "a"}, "spec": {"selector": selector, "template": pod}}
    await cluster.client.raw("POST", scale.removesuffix("/a/scale"), msgspec.json.encode(made))
    status, text = await answer(cluster, "PATCH", scale, deep.encode(), "application/merge-patch+json")
    assert (status, "exceeded max depth" in text) == (400, True)


SCALED = "/apis/apps/v1/namespaces/default/deployments/d/scale"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


@pytest.mark.parametrize(
    ("media", "body", "status", "words"),
    [
        ("application/json", b"{}", 415, "415: Unsupported Media Type"),
        (MERGE, b"null", 400, "Invalid JSON Patch"),
        (MERGE, b"1", 400, "json: cannot unmarshal number into Go value of type map[string]interface {}"),
        (MERGE, b'{"kind":"Secret"}', 422, 'no kind "Secret" is registered'),
        ("application/json-patch+json", b"null", 200, ""),
        ("application/json-patch+json", b"[1]", 400, "unmarshal number into Go value of type handlers.jsonPatchOp"),
        (APPLY, b"apiVersion: autoscaling/v1\nkind: Nope\n", 400, "invalid object type: autoscaling/v1, Kind=Nope"),
        (APPLY, b'{"apiVersion":"autoscaling/v1","kind":"Scale","spec":{"replicas":2}}', 409,
         'conflict with "steersman-testing" using autoscaling/v1: .spec.replicas'),
    ],
)  # fmt: skip
async def test_patches_of_a_scale(cluster: ApiCluster, media: str, body: bytes, status: int, words: str) -> None:
    await _deployed(cluster)
    query = "?fieldManager=m" if media == APPLY else ""
    found, text = await answer(cluster, "PATCH", SCALED + query, body, media)
    assert (found, words in text) == (status, True), text


async def test_who_applies_a_scale_owns_the_replicas(cluster: ApiCluster) -> None:
    await _deployed(cluster)
    body = b"apiVersion: autoscaling/v1\nkind: Scale\nspec:\n  replicas: 4\n"
    assert (await answer(cluster, "PATCH", f"{SCALED}?fieldManager=m&force=true", body, APPLY))[0] == 200
    found = await cluster.client.get(DEPLOYMENTS, "d", "default")
    mine = [(one["operation"], one["fieldsV1"]) for one in found["metadata"]["managedFields"] if one["manager"] == "m"]
    assert (found["spec"]["replicas"], mine) == (4, [("Apply", {"f:spec": {"f:replicas": {}}})])
    status, text = await answer(cluster, "PATCH", f"{SCALED}?fieldManager=n", body.replace(b"4", b"5"), APPLY)
    assert (status, 'conflict with "m" with subresource "scale": .spec.replicas' in text) == (409, True)


async def _deployed(cluster: ApiCluster) -> None:
    pod = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": pod}
    await cluster.client.create(DEPLOYMENTS, {"metadata": {"name": "d", "namespace": "default"}, "spec": spec})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "couldn't get version/kind; json parse error: json: cannot unmarshal array into"),
        (b'{"kind":"ConfigMap"}', 'no kind "ConfigMap" is registered for version "meta.k8s.io/v1" in scheme'),
        (b'{"kind":"ListOptions"}', "converting (v1.ListOptions) to (v1.DeleteOptions): unknown conversion"),
        (b'{"gracePeriodSeconds":"x"}',
         "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64"),
        (b"\x00", "couldn't get version/kind; json parse error: invalid character '\\x00' looking for"),
    ],
)  # fmt: skip
async def test_options_of_deletion_that_are_none(cluster: ApiCluster, body: bytes, words: str) -> None:
    status, text = await answer(cluster, "DELETE", f"{_PATH}/a", body, "application/json")
    assert (status, text.startswith(words)) == (400, True), text


async def test_with_a_body_the_query_says_nothing_about_a_deletion(cluster: ApiCluster) -> None:
    await cluster.client.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "default"}})
    assert (await answer(cluster, "DELETE", f"{_PATH}/a?dryRun=All", b"", "application/json"))[0] == 200
    assert (await answer(cluster, "DELETE", f"{_PATH}/a?dryRun=All", b"{}", "application/json"))[0] == 200
    assert (await answer(cluster, "DELETE", f"{_PATH}/a?dryRun=All", b"", "application/json"))[0] == 404


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("abc", "invalid character 'i' looking for beginning of value"),
        ("e30", "server does not recognize this encoded version "),
        ("eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ", "incorrect encoded start resourceVersion (version meta.k8s.io/v1)"),
        ("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6LTEsInN0YXJ0IjoiYS8uLi9iIn0", "a/../b"),
        ("a$b", "illegal base64 data at input byte 1"),
    ],
)
async def test_tokens_that_nobody_gave(cluster: ApiCluster, token: str, words: str) -> None:
    status, text = await answer(cluster, "GET", f"{_PATH}?continue={token}", b"", "application/json")
    assert (status, text) == (400, f"invalid continue token: continue key is not valid: {words}")
