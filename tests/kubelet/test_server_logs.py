"""The log routes over TLS, and reading CRI log files line by line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.kubelet.streaming import logs
from steersman.kubelet.streaming.criline import LogLines, LogOptions, nanoseconds
from steersman.lib.virtualtime import VirtualLoop
from tests.kubelet.serving import World, serving

PATH = "/containerLogs/default/web/main"
LINES = [
    b"2025-11-21T10:00:00.000000001+00:00 stdout F one\n",
    b"2025-11-21T10:00:01.5Z stderr F two\n",
    b"2025-11-21T11:00:02.25+01:00 stdout P thr\n",
    b"2025-11-21T10:00:02.250000001Z stdout F ee\n",
    b"2025-11-21T10:00:03Z stdout F \n",
    b"2025-11-21T10:00:04Z stdout F four\r\n",
]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with serving(tmp_path) as made:
        (tmp_path / "1.log").write_bytes(b"".join(LINES))
        yield made


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", b"one\ntwo\nthree\n\nfour\r\n"),
        ("?tailLines=2", b"\nfour\r\n"),
        ("?tailLines=0", b""),
        ("?tailLines=100", b"one\ntwo\nthree\n\nfour\r\n"),
        ("?limitBytes=5", b"one\nt"),
        ("?limitBytes=4", b"one\n"),
        ("?stream=Stdout", b"one\nthree\n\nfour\r\n"),
        ("?stream=Stderr", b"two\n"),
        ("?sinceTime=2025-11-21T10:00:02.25Z", b"three\n\nfour\r\n"),
        ("?sinceTime=2025-11-21T10:00:04Z", b"four\r\n"),
        ("?sinceSeconds=1", b""),
        ("?sinceSeconds=%2B1", b""),
        (f"?sinceSeconds={2**63 - 1}&tailLines={2**63 - 1}", b"one\ntwo\nthree\n\nfour\r\n"),
        ("?timestamps=true&tailLines=4", b"2025-11-21T11:00:02.250000000+01:00 three\n"
         b"2025-11-21T10:00:03.000000000Z \n2025-11-21T10:00:04.000000000Z four\r\n"),
        ("?timestamps=true&limitBytes=40", b"2025-11-21T10:00:00.000000001Z one\n2025-"),
        ("?follow=false&timestamps=0&previous=false", b"one\ntwo\nthree\n\nfour\r\n"),
    ],
)  # fmt: skip
async def test_what_a_reader_gets(world: World, query: str, wanted: bytes) -> None:
    assert await world.get(PATH + query) == (200, wanted)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?tailLines=x", 400),
        ("?tailLines=", 400),
        ("?tailLines=1_0", 400),
        ("?tailLines=9223372036854775808", 400),
        ("?limitBytes=%D9%A1", 400),  # a digit, but not one of Go's
        ("?sinceSeconds=+1", 400),  # a space, once decoded
        (f"?sinceSeconds={'9' * 400}", 400),
        ("?sinceTime=yesterday", 400),
        ("?sinceTime=2026-13-01T00:00:00Z", 400),
        ("?tailLines=-1", 422),
        ("?limitBytes=0", 422),
        ("?sinceSeconds=0", 422),
        ("?sinceSeconds=1&sinceTime=2025-11-21T10:00:04Z", 422),
        ("?stream=Stdin", 422),
        ("?stream=Stdout&tailLines=1", 422),
    ],
)
async def test_options_that_make_no_sense(world: World, query: str, status: int) -> None:
    assert (await world.get(PATH + query))[0] == status


async def test_what_is_not_there(world: World) -> None:
    status, text = await world.get(PATH + "?previous=true")
    assert (status, text.startswith(b"failed to open log file")) == (400, True)
    assert (await world.get("/containerLogs/default/gone/main"))[0] == 404
    assert (await world.get("/containerLogs/default/web/other"))[0] == 404


async def follow(world: World, query: str = "?follow=true") -> AsyncIterator[bytes]:
    answer = await world.client().request("GET", PATH + query)
    async with asyncio.timeout(10):
        async for chunk in answer.chunks():
            yield chunk


async def test_following_through_rotation_to_the_end(world: World) -> None:
    log = world.pki / "1.log"
    reader = follow(world, "?follow=true&tailLines=1")
    assert await anext(reader) == b"four\r\n"
    with log.open("ab") as file:
        file.write(b"2025-11-21T10:00:05Z stdout F fi")
        file.flush()
        file.write(b"ve\n")
    assert await anext(reader) == b"five\n"
    with log.open("ab") as file:
        file.write(b"2025-11-21T10:00:06Z stdout F six\n")
    log.rename(log.with_name("1.log.old"))
    log.write_bytes(b"2025-11-21T10:00:07Z stdout F seven\n")
    rest = b""
    while not rest.endswith(b"seven\n"):
        rest += await anext(reader)
    assert rest == b"six\nseven\n"
    await world.runtime.stop_container(world.pods.container.id, 0)
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


def test_following_where_nothing_can_be_watched(tmp_path: Path) -> None:
    folder = tmp_path / "pod"
    folder.mkdir()
    (folder / "1.log").write_bytes(LINES[0])
    looks = iter([True, True, True, False])

    async def follow_moved() -> None:
        file = logs.open_log(str(folder / "1.log"))
        folder.rename(tmp_path / "elsewhere")
        reader = logs.read(file, str(folder / "1.log"), LogOptions(follow=True), lambda: next(looks))
        assert await anext(reader) == b"one\n"
        with (tmp_path / "elsewhere" / "1.log").open("ab") as more:
            more.write(LINES[1])
        assert [piece async for piece in reader] == [b"two\n"]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(follow_moved())
    assert next(looks, None) is None


async def test_following_an_ended_container_ends(world: World) -> None:
    await world.runtime.stop_container(world.pods.container.id, 0)
    assert b"".join([chunk async for chunk in follow(world)]) == b"one\ntwo\nthree\n\nfour\r\n"


async def test_a_follower_that_leaves_is_forgotten(world: World) -> None:
    reader = follow(world)
    await anext(reader)
    await reader.aclose()  # type: ignore[attr-defined]
    for client in world.clients:
        await client.close()
    async with asyncio.timeout(2):
        await world.server.close()


def everything(path: Path, options: LogOptions, running: Callable[[], bool]) -> bytes:
    async def collect() -> bytes:
        return b"".join([piece async for piece in logs.read(logs.open_log(str(path)), str(path), options, running)])

    return asyncio.run(collect())


def test_lines_over_many_blocks(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"2025-11-21T10:00:00Z stdout F line %d %s\n" % (n, b"x" * 100) for n in range(20_000)))
    whole = everything(path, LogOptions(), lambda: False)
    assert whole.count(b"\n") == 20_000
    for tail in (1, 999, 19_999, 20_000):
        assert everything(path, LogOptions(tail_lines=tail), lambda: False) == b"".join(
            whole.splitlines(keepends=True)[-tail:]
        )


def test_what_is_no_log_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(
        b"nonsense\n\n\xff\xfe\n2026 stdout F a\nx stdin F b\n2025-11-21T10:00:00Z stdout F good\nunfinished"
    )
    assert everything(path, LogOptions(), lambda: False) == b"a\ngood\n"
    assert everything(path, LogOptions(timestamps=True), lambda: False) == b"2025-11-21T10:00:00.000000000Z good\n"


def test_a_line_without_end_is_given_when_nobody_will_finish_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"2025-11-21T10:00:00Z stdout F half")
    assert everything(path, LogOptions(), lambda: False) == b"half"
    assert everything(path, LogOptions(follow=True), lambda: False) == b""


@given(st.lists(st.binary(max_size=60)), st.booleans(), st.one_of(st.none(), st.integers(1, 50)))
def test_no_line_breaks_the_reader(lines: list[bytes], timestamps: bool, limit: int | None) -> None:
    options = LogOptions(timestamps=timestamps, limit_bytes=limit, since=nanoseconds("2025-01-01T00:00:00Z"))
    out = LogLines(options).take([line + b"\n" for line in lines])
    assert limit is None or len(out) <= limit
