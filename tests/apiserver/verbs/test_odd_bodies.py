"""Bodies that are nearly right: refused in words, not by a failure. Found by `tests/fuzz`."""

from __future__ import annotations

import base64

import msgspec
import pytest

from steersman.api import protobuf
from steersman.api.resource import CONFIGMAPS, Resource
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
