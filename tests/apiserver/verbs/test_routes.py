"""Which methods a path takes, and what kube-apiserver 1.36 answered where there is none."""

from __future__ import annotations

import pytest

from steersman.testing.cluster import ApiCluster
from tests.apiserver.verbs.test_fidelity import POD, PODS, ask

NO_METHOD = "the server does not allow this method on the requested resource"
UNKNOWN = "the server could not find the requested resource"


@pytest.mark.parametrize(
    ("method", "path", "code", "message"),
    [
        ("PUT", PODS, 405, NO_METHOD),
        ("POST", f"{PODS}/p", 405, NO_METHOD),
        ("POST", "/api/v1/pods", 405, NO_METHOD),
        ("PATCH", "/api/v1/pods", 405, NO_METHOD),
        ("DELETE", "/api/v1/pods", 405, NO_METHOD),
        ("POST", "/api/v1/watch/pods", 405, NO_METHOD),
        ("DELETE", "/api/v1/namespaces", 405, NO_METHOD),
        ("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews", 405, NO_METHOD),
        ("GET", f"{PODS}/p/binding", 405, NO_METHOD),
        ("GET", f"{PODS}/p/eviction", 405, NO_METHOD),
        ("POST", f"{PODS}/p/log", 405, NO_METHOD),
        ("POST", f"{PODS}/p/status", 405, NO_METHOD),
        ("POST", "/apis/apps/v1/namespaces/default/deployments/d/scale", 405, NO_METHOD),
        ("GET", "/api/v1/namespaces/default/serviceaccounts/x/token", 405, NO_METHOD),
        ("GET", "/api/v2", 404, UNKNOWN),
        ("GET", "/apis/apps/v9", 404, UNKNOWN),
        ("GET", "/apis/apps/v9/deployments", 404, UNKNOWN),
        ("GET", "/apis/autoscaling/v2beta2/namespaces/a/horizontalpodautoscalers", 404, UNKNOWN),
    ],
)
async def test_what_there_is_no_route_for(cluster: ApiCluster, method: str, path: str, code: int, message: str) -> None:
    status, answer, _ = await ask(cluster, method, path, {} if method in ("POST", "PUT", "PATCH") else None)
    assert (status, answer["message"], answer["details"]) == (code, message, {})


async def test_no_pod_is_deleted_across_namespaces(cluster: ApiCluster) -> None:
    assert (await ask(cluster, "POST", PODS, POD))[0] == 201
    assert (await ask(cluster, "DELETE", "/api/v1/pods"))[0] == 405
    assert (await ask(cluster, "GET", f"{PODS}/p"))[0] == 200


async def test_heads_are_refused_of_objects(cluster: ApiCluster) -> None:
    response = await cluster.transport.request("HEAD", PODS, [], b"")
    assert response.status == 405


async def test_initial_events_are_no_business_of_lists(cluster: ApiCluster) -> None:
    status, answer, _ = await ask(cluster, "GET", f"{PODS}?sendInitialEvents=true")
    text = (
        'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list'
    )
    assert (status, answer["message"]) == (422, text)


async def test_a_request_for_a_certificate_that_is_none(cluster: ApiCluster) -> None:
    spec = {"request": "eA==", "signerName": "a", "usages": ["client auth"]}
    path = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    _, answer, _ = await ask(cluster, "POST", path, {"metadata": {"name": "x"}, "spec": spec})
    assert [each["message"] for each in answer["details"]["causes"]] == [
        'Invalid value: "eA==": PEM block type must be CERTIFICATE REQUEST',
        "Invalid value: \"a\": must be a fully qualified domain and path of the form 'example.com/signer-name'",
    ]
