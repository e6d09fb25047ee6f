"""What our own OpenAPI documents allow, and some of what they do not, has an answer: no failure of our own, no hang."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from steersman.api.openapi import OpenApi
from steersman.api.registry import Registry
from steersman.lib.http.messages import Request, Response
from tests.fuzz.test_requests import Target, target  # noqa: F401  (a fixture)

pytestmark = pytest.mark.slow
_GROUPS = (  # not apps and the core group: there are many more bodies of pods to draw
    "admissionregistration.k8s.io/v1",
    "apiextensions.k8s.io/v1",
    "authentication.k8s.io/v1",
    "authorization.k8s.io/v1",
    "autoscaling/v1",
    "autoscaling/v2",
    "batch/v1",
    "certificates.k8s.io/v1",
    "coordination.k8s.io/v1",
    "discovery.k8s.io/v1",
    "events.k8s.io/v1",
    "flowcontrol.apiserver.k8s.io/v1",
    "networking.k8s.io/v1",
    "node.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
    "resource.k8s.io/v1",
    "scheduling.k8s.io/v1",
    "storage.k8s.io/v1",
)
_DOCUMENTS = OpenApi(Registry())
_FEW = settings(max_examples=4, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("group", _GROUPS)
def test_whatever_the_document_allows_has_an_answer(target: Target, group: str) -> None:  # noqa: F811
    found = _DOCUMENTS.answer(f"/openapi/v3/apis/{group}", "application/json", "")
    assert found is not None
    asked = 0
    for result in schemathesis.openapi.from_dict(json.loads(found.body)).get_all_operations():
        operation = result.ok()

        @_FEW
        @given(case=operation.as_strategy(GenerationMode.POSITIVE) | operation.as_strategy(GenerationMode.NEGATIVE))
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            answer = target.answer(_request(case))
            body = answer.body if isinstance(answer, Response) else b""
            whole = body if isinstance(body, bytes) else b"".join(body)
            assert answer.status < 500 or b"InternalError" not in whole, whole

        ask()
    assert asked > 5


def _request(case: Any) -> Request:
    sent = case.as_transport_kwargs()
    body = sent["data"] if "data" in sent else json.dumps(sent["json"]) if "json" in sent else b""
    if not isinstance(body, str | bytes):
        body = json.dumps(body, default=str)
    data = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
    path = sent["url"].encode("utf-8", "surrogatepass")
    query = urlencode(sent.get("params") or {}, doseq=True, errors="surrogatepass", encoding="utf-8")
    headers = [("content-type", case.media_type or "application/json")]
    return Request(case.method.upper(), quote(path, safe="/%"), query, headers, data)
