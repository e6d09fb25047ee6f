"""How long a request may take: what the client says, and what happens then."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api import durations
from steersman.api.resource import CONFIGMAPS, NAMESPACES, Object
from steersman.apiserver.call import Call
from steersman.testing.cluster import ApiCluster
from tests.apiserver.guarded import status

_PATH = "/api/v1/namespaces/default/configmaps"
_INVALID = "invalid timeout specified in the request URL - time: "


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("foo", 'invalid duration "foo"'),
        ("5", 'missing unit in duration "5"'),
        ("5x", 'unknown unit "x" in duration "5x"'),
        (".s", 'invalid duration ".s"'),
        ("-", 'invalid duration "-"'),
        ("1e3s", 'unknown unit "e" in duration "1e3s"'),
        ("9" * 30 + "h", f'invalid duration "{"9" * 30}h"'),
    ],
)
async def test_a_timeout_that_is_none(cluster: ApiCluster, text: str, problem: str) -> None:
    assert await status(cluster.client, "GET", f"{_PATH}?timeout={text}") == (400, _INVALID + problem)


@pytest.mark.parametrize("text", ["", "5s", "1m30s", "-1s", "0", "%2B1.5h", "100000h"])
async def test_a_timeout_that_is_one(cluster: ApiCluster, text: str) -> None:
    assert (await status(cluster.client, "GET", f"{_PATH}?timeout={text}"))[0] == 200


async def test_what_does_not_come_in_time(cluster: ApiCluster) -> None:
    async def for_ever(call: Call, obj: Object) -> None:
        await asyncio.Event().wait()

    cluster.server.services.extras.setdefault("before_create", {})["", "ConfigMap"] = [for_ever]
    body = {"metadata": {"name": "a"}}
    assert await status(cluster.client, "POST", f"{_PATH}?timeout=20ms", body) == (
        504,
        "Timeout: request did not complete within the allotted timeout",
    )
    assert (await cluster.client.list(CONFIGMAPS)).items == []
    assert (await status(cluster.client, "GET", _PATH))[0] == 200


async def test_a_watch_has_no_deadline(cluster: ApiCluster) -> None:
    response, events = await cluster.client.raw("GET", "/api/v1/namespaces?watch=true&timeout=no&timeoutSeconds=1")
    assert (response.status, events.count(b"ADDED")) == (200, len((await cluster.client.list(NAMESPACES)).items))


@given(st.integers(-(10**8), 10**8), st.sampled_from(["ns", "us", "µs", "ms", "s", "m"]))
def test_durations(number: int, unit: str) -> None:
    seconds = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]
    assert durations.seconds(f"{number}{unit}") == pytest.approx(number * seconds)


@given(st.text(alphabet="0123456789.+-hmsnuµ", max_size=12))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    try:
        assert isinstance(durations.seconds(text), float)
    except ValueError as error:
        assert str(error).startswith("time: ")
