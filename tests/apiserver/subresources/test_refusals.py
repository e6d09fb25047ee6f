"""What the subresources of pods and service accounts, and the reviews, refuse; recorded from kube-apiserver 1.36."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from steersman.api.errors import ApiError
from steersman.api.resource import DEPLOYMENTS, PODS, SERVICEACCOUNTS, Object
from steersman.apiserver.authn.serviceaccount import Tokens
from steersman.testing import objects
from steersman.testing.cluster import ApiCluster

LOG = "/api/v1/namespaces/default/pods/web/log"
TOKEN = "/api/v1/namespaces/default/serviceaccounts/default/token"
REVIEWS = "/apis/authorization.k8s.io/v1"
ASKED = {"verb": "get", "resource": "pods"}
ALONE = "cannot be specified in combination with resourceAttributes"
NEITHER = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
FIELDS = "spec.resourceAttributes.fieldSelector"


@pytest.fixture
async def cluster() -> AsyncIterator[ApiCluster]:
    async with ApiCluster() as made:
        await made.client.create(PODS, objects.pod("web", nodeName="nowhere"), "default")
        yield made


async def refused(cluster: ApiCluster, method: str, path: str, body: Object | None = None, **more: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await cluster.client.call(method, path, body, **more)
    return caught.value


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("tailLines=-1", "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ("limitBytes=0", "limitBytes: Invalid value: 0: must be greater than 0"),
        ("sinceSeconds=0", "sinceSeconds: Invalid value: 0: must be greater than 0"),
        ("stream=Stdout", "stream: Forbidden: may not be specified"),
        (
            "sinceSeconds=5&sinceTime=2020-01-01T00:00:00Z",
            "[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
        ),
    ],
)
async def test_options_of_a_log_that_are_wrong(cluster: ApiCluster, query: str, message: str) -> None:
    error = await refused(cluster, "GET", f"{LOG}?{query}")
    assert (error.code, error.message) == (422, f'PodLogOptions "web" is invalid: {message}')


async def test_a_log_is_looked_for_once_its_options_are_right(cluster: ApiCluster) -> None:
    error = await refused(cluster, "GET", f"{LOG}?tailLines=1&sinceTime=2020-01-01T00:00:00Z")
    assert (error.code, error.message) == (404, 'pods "nowhere" not found')
    error = await refused(cluster, "GET", f"{LOG}?sinceTime=x")
    layout = "2006-01-02T15:04:05Z07:00"
    assert (error.code, error.message) == (400, f'parsing time "x" as "{layout}": cannot parse "x" as "2006"')
    error = await refused(cluster, "GET", f"{LOG}?container=other")
    assert (error.code, error.message) == (400, "container other is not valid for pod web")


async def test_a_port_that_is_no_number(cluster: ApiCluster) -> None:
    path = "/api/v1/namespaces/default/pods/web/portforward"
    error = await refused(cluster, "POST", f"{path}?ports=x")
    text = 'cannot convert to []int32: strconv.ParseUint: parsing "x": invalid syntax'
    assert (error.code, error.message) == (400, text)
    assert (await refused(cluster, "POST", f"{path}?ports=80")).code == 404  # its node is not there


def review(kind: str, spec: Object) -> Object:
    return {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "complaints"),
    [
        ({"user": "a"}, [f"spec.resourceAttributes: Invalid value: null: {NEITHER}"]),
        (
            {"resourceAttributes": ASKED, "nonResourceAttributes": {"path": "/x", "verb": "get"}},
            [
                f'spec.nonResourceAttributes: Invalid value: {{"Path":"/x","Verb":"get"}}: {ALONE}',
                'spec.user: Invalid value: "": at least one of user or group must be specified',
            ],
        ),
        (
            {"user": "a", "resourceAttributes": {**ASKED, "fieldSelector": {"rawSelector": ""}}},
            [
                f"{FIELDS}.requirements: Required value: when {FIELDS} is specified, "
                "requirements or rawSelector is required"
            ],
        ),
        (
            {"user": "a", "resourceAttributes": {**ASKED, "fieldSelector": {"requirements": [{"operator": "In"}]}}},
            [
                f"{FIELDS}.requirements[0].key: Required value: must be specified",
                f"{FIELDS}.requirements[0].values: Required value: "
                "must be specified when `operator` is 'In' or 'NotIn'",
            ],
        ),
    ],
)
async def test_a_review_that_asks_nothing_or_too_much(cluster: ApiCluster, spec: Object, complaints: list[str]) -> None:
    error = await refused(cluster, "POST", f"{REVIEWS}/subjectaccessreviews", review("SubjectAccessReview", spec))
    text = complaints[0] if len(complaints) == 1 else f"[{', '.join(complaints)}]"
    assert (error.code, error.message) == (422, f'.authorization.k8s.io "" is invalid: {text}')


async def test_a_review_that_asks_one_thing(cluster: ApiCluster) -> None:
    selector = {"requirements": [{"key": "a", "operator": "NewerThanThis"}]}
    spec = {"user": "a", "resourceAttributes": {**ASKED, "fieldSelector": selector}}
    made = await cluster.client.call("POST", f"{REVIEWS}/subjectaccessreviews", review("SubjectAccessReview", spec))
    assert "allowed" in made["status"]


async def test_a_local_review_stays_in_its_namespace(cluster: ApiCluster) -> None:
    path, kind = f"{REVIEWS}/namespaces/default/localsubjectaccessreviews", "LocalSubjectAccessReview"
    asked = {**ASKED, "namespace": "default"}
    assert await cluster.client.call("POST", path, review(kind, {"user": "a", "resourceAttributes": asked}))
    error = await refused(cluster, "POST", path, review(kind, {"user": "a", "resourceAttributes": ASKED}))
    assert error.message.endswith('spec.resourceAttributes.namespace: Invalid value: "": must match metadata.namespace')
    error = await refused(cluster, "POST", path, review(kind, {"user": "a", "nonResourceAttributes": {"path": "/"}}))
    assert error.message.endswith("disallowed on this kind of request")


async def test_what_a_token_may_not_be_asked_for(cluster: ApiCluster) -> None:
    def asked(spec: Object, **metadata: str) -> Object:
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        return {**kind, "metadata": metadata, "spec": spec}

    await cluster.client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    cluster.server.services.extras["tokens"] = Tokens(key, "https://issuer", ["https://issuer"])
    bound = {"boundObjectRef": {"kind": "Foo", "apiVersion": "v1", "name": "x"}}
    error = await refused(cluster, "POST", TOKEN, asked(bound))
    assert (error.code, error.message) == (400, "cannot bind token to object of type /v1, Kind=Foo")
    error = await refused(cluster, "POST", TOKEN, asked({}, name="other"))
    assert (error.code, error.message) == (
        422,
        'TokenRequest.authentication.k8s.io "default" is invalid: metadata.name: Invalid value: "other": '
        "must match the service account name if specified",
    )
    assert (await refused(cluster, "POST", TOKEN, asked({}, namespace="other"))).code == 400
    made = await cluster.client.call("POST", TOKEN, asked({}, name="default", namespace="default"))
    assert made["status"]["token"]


async def test_what_a_binding_lacks_is_a_500_as_in_the_original(cluster: ApiCluster) -> None:
    path = "/api/v1/namespaces/default/pods/web/binding"
    body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "web"}}
    error = await refused(cluster, "POST", path, {**body, "target": {}})
    assert (error.code, error.message) == (500, "target.name: Required value")
    error = await refused(cluster, "POST", path, {**body, "target": {"kind": "Node", "name": "n"}})
    assert error.code == 409  # it is bound already


async def test_a_scale_of_another_name_or_of_no_number(cluster: ApiCluster) -> None:
    made = await cluster.client.create(DEPLOYMENTS, objects.deployment("web"), "default")
    path = "/apis/apps/v1/namespaces/default/deployments/web/scale"
    scale = await cluster.client.call("GET", path)
    assert scale["spec"].get("replicas", 0) == made["spec"]["replicas"]
    other = {**scale, "metadata": {**scale["metadata"], "name": "other"}}
    error = await refused(cluster, "PUT", path, other)
    assert (error.code, error.message) == (
        400,
        "the name of the object (other) does not match the name on the URL (web)",
    )
    made = await cluster.client.call("PUT", path, {**scale, "spec": {"replicas": 7}})
    assert made["spec"]["replicas"] == 7


async def test_an_eviction_whose_delete_options_are_wrong(cluster: ApiCluster) -> None:
    path = "/api/v1/namespaces/default/pods/web/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
    error = await refused(cluster, "POST", path, {**body, "deleteOptions": {"propagationPolicy": "X"}})
    assert error.message.startswith('DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value')
    await cluster.client.call("POST", path, {**body, "deleteOptions": {"propagationPolicy": "Background"}})
