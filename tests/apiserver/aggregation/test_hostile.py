"""Extension API servers that hang, lie, break off or flood: this server's own answers stay prompt and whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.api.resource import APISERVICES
from steersman.apiserver.aggregation.backend import Patience
from steersman.lib.http.server import server_tls
from tests.apiserver.aggregation.extension import FLUNDERS, GROUP, PREFIX, Aggregated, aggregated


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Aggregated]:
    """Looks often, waits as long as ever."""
    async with aggregated(tmp_path, Patience(resync=0.1, refresh=0.0)) as made:
        yield made


@pytest.fixture
async def hasty(tmp_path: Path) -> AsyncIterator[Aggregated]:
    """Looks often, and does not wait long."""
    async with aggregated(tmp_path, Patience(discovery=0.5, answer=0.5, resync=0.1, refresh=0.0)) as made:
        yield made


async def served(both: Aggregated) -> None:
    """Register, and wait until the extension server is believed."""
    await both.register()
    await both.condition("Passed")
    await both.freshness("Current")


async def rest_is_fine(both: Aggregated) -> None:
    """Discovery of everything else, and objects of everything else."""
    document = await both.discovery()
    apps = next(each for each in document["items"] if each["metadata"]["name"] == "apps")
    assert apps["versions"][0]["resources"]
    assert json.loads((await both.ask("GET", "/apis"))[1])["kind"] == "APIGroupList"
    assert (await both.ask("GET", "/api/v1/namespaces/default"))[0] == 200


@pytest.mark.parametrize(
    ("twist", "reason", "says"),
    [
        ("hangs", "FailedDiscoveryCheck", "timed out waiting for https://localhost"),
        ("fails", "FailedDiscoveryCheck", "bad status from https://localhost"),
        ("redirects", "FailedDiscoveryCheck", ": 302"),
    ],
)
async def test_a_server_that_stops_to_serve_is_unavailable(
    hasty: Aggregated, twist: str, reason: str, says: str
) -> None:
    await served(hasty)
    hasty.extension.twist = twist
    condition = await hasty.condition(reason)
    assert (condition["status"], says in condition["message"]) == ("False", True)
    assert "resources" not in await hasty.freshness("Stale")
    assert await hasty.ask("GET", FLUNDERS) == (503, b"service unavailable\n")
    await rest_is_fine(hasty)
    hasty.extension.twist = ""
    await hasty.condition("Passed")
    await hasty.freshness("Current")


@pytest.mark.parametrize("twist", ["garbage", "huge"])
async def test_an_unreadable_document_is_stale(both: Aggregated, twist: str) -> None:
    await served(both)
    both.extension.twist = twist
    assert "resources" not in await both.freshness("Stale")
    await rest_is_fine(both)


async def test_a_request_that_is_not_answered_ends(hasty: Aggregated) -> None:
    await served(hasty)
    hasty.extension.twist = "hangs"
    status, body = await hasty.ask("GET", PREFIX)
    assert (status, body) == (503, b"error trying to reach service: context deadline exceeded\n")
    await hasty.condition("FailedDiscoveryCheck")
    hasty.extension.twist = ""
    await hasty.condition("Passed")
    hasty.extension.twist = "stalls"
    with pytest.raises(ConnectionError):
        await hasty.ask("GET", f"{FLUNDERS}/one")


async def test_a_slow_answer_is_504(hasty: Aggregated) -> None:
    await served(hasty)
    hasty.extension.twist = "slow objects"
    status, body = await hasty.ask("GET", FLUNDERS)
    answer = json.loads(body)
    assert (status, answer["reason"]) == (504, "Timeout")
    assert answer["message"] == "Timeout: request did not complete within the allotted timeout"


async def test_an_answer_that_breaks_off_breaks_off(both: Aggregated) -> None:
    await served(both)
    both.extension.twist = "breaks off"
    with pytest.raises(ConnectionError):
        await both.ask("GET", f"{FLUNDERS}?watch=true")
    await rest_is_fine(both)


async def test_redirects_are_the_clients(both: Aggregated) -> None:
    await served(both)
    both.extension.twist = "redirects"
    response, _ = await both.client.raw("GET", FLUNDERS)
    assert (response.status, response.header("location")) == (302, "https://elsewhere.example.com/")


async def test_a_server_that_is_gone_is_missed_and_found(both: Aggregated) -> None:
    await served(both)
    await both.extension.stop()
    status, body = await both.ask("GET", FLUNDERS)
    assert status == 503
    assert body.startswith((b"error trying to reach service: ", b"service unavailable"))
    condition = await both.condition("FailedDiscoveryCheck")
    assert "dial tcp" in condition["message"]
    assert condition["message"].endswith(f":{both.extension.port}: connect: connection refused")
    await rest_is_fine(both)


async def test_a_server_that_speaks_no_http(both: Aggregated) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 wardle ESMTP\r\n")
        await writer.drain()
        writer.close()

    await served(both)
    await both.extension.stop()
    folder = both.extension.folder
    tls = server_tls(folder / "wardle.crt", folder / "wardle.key", [folder / "front-proxy-ca.crt"])
    other = await asyncio.start_server(speak, "127.0.0.1", both.extension.port, ssl=tls)
    async with both.patience():
        while "malformed HTTP response" not in (await both.condition("FailedDiscoveryCheck"))["message"]:
            await both.changed()
    assert await both.ask("GET", FLUNDERS) == (503, b"service unavailable\n")
    await rest_is_fine(both)
    other.close()
    await other.wait_closed()


@pytest.mark.parametrize("bundle", ["bm8=", "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg=="])
async def test_a_bad_bundle_is_told(both: Aggregated, bundle: str) -> None:
    await both.register(caBundle=bundle)
    condition = await both.condition("FailedDiscoveryCheck")
    assert "unable to parse bytes as PEM block" in condition["message"]


async def test_a_name_without_a_group_is_no_way_in(both: Aggregated) -> None:
    bad = both.extension.service(group="", version="v2")
    bad["metadata"]["name"] = "v2."
    status, body = await both.ask("POST", APISERVICES.path(), bad)
    assert status == 422
    assert "only v1 may have an empty group and it better be legacy kube" in body.decode()
    bad = both.extension.service(group=GROUP)
    bad["metadata"]["name"] = "v1.apps"
    assert (await both.ask("POST", APISERVICES.path(), bad))[0] == 422
