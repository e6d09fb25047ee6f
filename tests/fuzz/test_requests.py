"""Whatever is asked, the answer is an answer: never a failure of our own, never none.

A 500 may only be one that the original gives too, which has words of its own and not the reason InternalError.

Always the same examples; `STEER_FUZZ=20000 python -m pytest tests/fuzz --hypothesis-seed=7` tries so many others.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steersman.api import labels
from steersman.api.errors import ApiError
from steersman.api.fields import parse as parse_fields
from steersman.api.registry import Registry
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Answer, Request, Response, Stream
from steersman.testing.cluster import ApiCluster
from tests.fuzz import grammar

pytestmark = pytest.mark.slow
_REGISTRY = Registry()
_HANG = 10.0  # seconds
FUZZ = settings(
    max_examples=int(os.environ.get("STEER_FUZZ", "1000")),
    derandomize="STEER_FUZZ" not in os.environ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class Target:
    """An API server that lives through all examples."""

    def __init__(self, runner: asyncio.Runner, cluster: ApiCluster) -> None:
        self._runner = runner
        self._cluster = cluster

    def answer(self, request: Request) -> Answer:
        return self._runner.run(self._answer(request))

    async def _answer(self, request: Request) -> Answer:
        async with asyncio.timeout(_HANG):
            answer = self._cluster.server.handle(request)
            return answer if isinstance(answer, Response | Stream) else await answer  # type: ignore[misc]


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with asyncio.Runner() as runner:
        cluster = ApiCluster(clock=SystemClock())
        runner.run(cluster.__aenter__())
        yield Target(runner, cluster)
        runner.run(cluster.__aexit__())


@FUZZ
@given(request=grammar.requests(list(_REGISTRY)))
def test_any_request_has_an_answer(target: Target, request: Request) -> None:
    answer = target.answer(request)
    body = answer.body if isinstance(answer, Response) else b""
    whole = body if isinstance(body, bytes) else b"".join(body)
    assert answer.status < 500 or b"InternalError" not in whole, whole


@FUZZ
@given(
    path=st.text(alphabet="/apis.v1wtch%2f0-é\0", max_size=60), method=st.sampled_from(["GET", "POST", "DELETE", "X"])
)
def test_any_path_has_an_answer(target: Target, path: str, method: str) -> None:
    assert target.answer(Request(method, f"/{path}")).status < 500


@FUZZ
@given(st.text(alphabet="ab,=!()<> innotexists\"'\\.", max_size=30))
def test_any_selector_is_read_or_refused(text: str) -> None:
    for parse in (labels.parse, parse_fields):
        try:
            parse(text)
        except (ApiError, ValueError) as error:
            assert str(error)


@FUZZ
@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_refused(target: Target, data: bytes) -> None:
    for media in ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf"):
        body = b"k8s\0" + data if "protobuf" in media else data
        request = Request("POST", "/api/v1/namespaces/default/pods", "", [("content-type", media)], body)
        answer = target.answer(request)
        assert answer.status in (400, 422), msgspec.json.decode(answer.body)  # type: ignore[arg-type,union-attr]
