"""/statusz and /flagz in their three forms, as kube-apiserver 1.36 negotiates them."""

from __future__ import annotations

import json

import pytest

from steersman.api.errors import ApiError
from steersman.client.exposition import Exposition
from steersman.client.zpages import Component, Pages
from steersman.lib.clock import Clock, SystemClock
from steersman.lib.http.messages import Peer, Request
from steersman.lib.metrics import Registry

PATHS = ("/flagz", "/healthz", "/statusz")
BETA = "g=config.k8s.io;v=v1beta1;as="


class Later(SystemClock):
    """A clock whose time is set."""

    at = 1_000_000.0

    def now(self) -> float:
        return self.at


def pages(clock: Clock) -> Pages:
    return Pages(Component("kube-scheduler", "1.36", {"v": "2", "config": "/a b"}, PATHS), clock)


def asked(path: str, accept: str = "") -> Request:
    return Request("GET", path, "", [("accept", accept)] if accept else [], b"", Peer("127.0.0.1"))


@pytest.mark.parametrize("accept", ["", "*/*", "text/*", "text/plain", "application/json,text/plain"])
def test_people_get_text(accept: str) -> None:
    found = pages(Later())(asked("/flagz", accept))
    assert found is not None and found.headers == [("content-type", "text/plain; charset=utf-8")]
    lines = bytes(found.body).decode().splitlines()
    assert lines[1] == "kube-scheduler flagz" and lines[3:] == ["config=/a b", "v=2"]


def test_how_long_it_runs() -> None:
    clock = Later()
    made = pages(clock)
    clock.at += 3723.5
    text = made(asked("/statusz"))
    told = made(asked("/statusz", f"application/json;{BETA}Statusz"))
    assert text is not None and b"\nUp:  1 hr 02 min 03 sec\n" in text.body and b"\nPaths:  /flagz /heal" in text.body
    assert told is not None and told.headers == [("content-type", f"application/json;{BETA}Statusz")]
    document = json.loads(told.body)
    assert (document["uptimeSeconds"], document["binaryVersion"], document["paths"]) == (3723, "1.36", list(PATHS))


def test_yaml_and_the_older_version() -> None:
    found = pages(Later())(asked("/flagz", "application/yaml;g=config.k8s.io;v=v1alpha1;as=Flagz"))
    assert found is not None and b'flags:\n  config: /a b\n  v: "2"\nkind: Flagz\n' in found.body
    assert [name for name, _ in found.headers] == ["content-type", "warning"]


@pytest.mark.parametrize(
    "accept",
    ["application/json", "image/png", ";;", f"application/json;{BETA}Statusz", f"application/cbor;{BETA}Flagz"],
)
async def test_nothing_else(accept: str) -> None:
    with pytest.raises(ApiError) as refused:
        pages(Later())(asked("/flagz", accept))
    words = "only the following media types are accepted: application/json, application/yaml, text/plain"
    assert (refused.value.code, refused.value.message) == (406, words)
    shown = await Exposition(Registry(), None, pages(Later())).handle(asked("/flagz", accept))
    assert (shown.status, json.loads(shown.body)["message"]) == (406, words)


async def test_releases_before_have_none() -> None:
    assert (await Exposition(Registry()).handle(asked("/flagz"))).status == 404
    assert pages(Later())(asked("/flagz/")) is None
