"""Metrics and health as the original's readers expect them: names, labels, texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS
from steersman.apiserver.paths import version_info
from steersman.apiserver.telemetry.server import Telemetry
from steersman.lib.http.messages import Request, Response, Stream
from steersman.lib.tasks import Tasks
from steersman.store.interface import StoreUnavailable
from steersman.testing.cluster import ADMIN
from tests.apiserver.flow.test_gate import Gated

_PATH = "/api/v1/namespaces/default/configmaps"
_KIND = {"group": "", "version": "v1", "resource": "configmaps", "subresource": "", "component": "apiserver"}


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Gated]:
    made = Gated(tmp_path)
    Telemetry(made.server, version_info("1.37")).attach()
    async with made, Tasks() as tasks:
        await made.open(tasks)
        made.server.started = True
        yield made


async def text(server: Gated, path: str = "/metrics") -> str:
    response, body = await server.client("admin").raw("GET", path)
    assert response.status == 200
    return body.decode()


def shown(**labels: str) -> str:
    """Labels as they are written; with those of config maps where a verb is given."""
    every = {**(_KIND if "verb" in labels else {}), **labels}
    return ",".join(f'{name}="{every[name]}"' for name in sorted(every))


async def samples(server: Gated, start: str) -> dict[str, float]:
    """The lines that begin so, by what is between the braces."""
    lines = [line for line in (await text(server)).splitlines() if line.startswith(start)]
    return {line.partition("{")[2].rpartition("}")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def test_requests_are_counted_by_what_they_ask(watched: Gated) -> None:
    admin = watched.client("admin")
    await admin.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "default"}})
    await admin.get(CONFIGMAPS, "a", "default")
    await admin.list(CONFIGMAPS, "default")
    await admin.list(CONFIGMAPS)
    with pytest.raises(ApiError):
        await admin.get(CONFIGMAPS, "none", "default")
    await admin.raw("DELETE", f"{_PATH}/a?dryRun=All")
    await watched.client("nobody").raw("GET", _PATH)
    found = await samples(watched, "apiserver_request_total{")
    for verb, dry, scope, code in [
        ("POST", "", "resource", 201),
        ("GET", "", "resource", 200),
        ("GET", "", "resource", 404),
        ("LIST", "", "namespace", 200),
        ("LIST", "", "cluster", 200),
        ("LIST", "", "namespace", 403),
        ("DELETE", "All", "resource", 200),
    ]:
        labels = shown(dry_run=dry, verb=verb, code=str(code), scope=scope)
        assert found[labels] == 1, labels
    times = await samples(watched, "apiserver_request_duration_seconds_count{")
    assert times[shown(dry_run="", verb="GET", scope="resource")] == 2
    sizes = await samples(watched, "apiserver_response_sizes_sum{")
    assert sizes[shown(verb="GET", scope="resource")] > 100


async def test_nonsense_has_no_labels_of_its_own(watched: Gated) -> None:
    for number in range(50):
        await watched.client("admin").raw("GET", f"/apis/a{number}/v1/b{number}")
        await watched.client("admin").raw(f"X{number}", f"{_PATH}/a/b{number}")
        await watched.client("admin").raw("GET", f"/c{number}")
    whole = await text(watched)
    assert "b49" not in whole
    assert "X49" not in whole
    assert "c49" not in whole


async def test_watches_are_counted_while_they_last(watched: Gated) -> None:
    admin = watched.client("admin")
    await admin.create(CONFIGMAPS, {"metadata": {"name": "a", "namespace": "default"}})
    request = Request("GET", _PATH, "watch=1&timeoutSeconds=1", [("x-test-user", "admin")])
    answer = watched.server.handle(request)
    assert isinstance(answer, Stream)
    running = shown(verb="WATCH", scope="namespace")
    line = f"apiserver_longrunning_requests{{{running}}} 1"
    seen: list[bool] = []

    class Writer:
        def write(self, data: bytes) -> None:
            seen.append(line in telemetry_of(watched))

        async def drain(self) -> None: ...

        def on_close(self, callback: object) -> None: ...

    await answer.run(Writer())  # type: ignore[arg-type]
    assert set(seen) == {True}
    assert (await samples(watched, "apiserver_longrunning_requests{"))[running] == 0
    events = await samples(watched, "apiserver_watch_events_total{")
    where = shown(group="", resource="configmaps", version="v1")
    assert events[where] == len(seen)
    assert (await samples(watched, "apiserver_watch_events_sizes_count{"))[where] == len(seen)
    ended = await samples(watched, "apiserver_request_total{")
    assert ended[shown(dry_run="", verb="WATCH", code="200", scope="namespace")] == 1
    times = await samples(watched, "apiserver_request_duration_seconds_sum{")
    assert times[shown(dry_run="", verb="WATCH", scope="namespace")] > 0.5  # as long as the watch


def telemetry_of(server: Gated) -> str:
    """The metrics, without asking for them over HTTP."""
    found = next(path for path in server.server.paths if getattr(path, "__name__", "") == "_metrics")
    answer = found(Request("GET", "/metrics"), ADMIN)
    assert isinstance(answer, Response) and isinstance(answer.body, bytes)
    return answer.body.decode()


async def test_what_there_is(watched: Gated) -> None:
    assert (await samples(watched, "apiserver_storage_objects{"))['resource="namespaces"'] == 4
    found = await samples(watched, "apiserver_resource_objects{")
    assert found['group="flowcontrol.apiserver.k8s.io",resource="flowschemas"'] == 11
    seats = await samples(watched, "apiserver_flowcontrol_nominal_limit_seats{")
    assert seats['priority_level="workload-low"'] == 82
    begun = await samples(watched, "apiserver_flowcontrol_dispatched_requests_total{")
    assert begun['flow_schema="exempt",priority_level="exempt"'] >= 3
    steps = await samples(watched, "apiserver_admission_step_admission_duration_seconds_count{")
    assert steps['operation="CREATE",rejected="false",type="admit"'] > 30
    whole = await text(watched)
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
        assert f"\n{name} " in whole


async def test_who_may_not_read_them(watched: Gated) -> None:
    response, _ = await watched.client("nobody").raw("GET", "/metrics")
    assert response.status == 403


async def test_health_in_a_word_and_in_many(watched: Gated) -> None:
    for path in ("/healthz", "/livez", "/readyz", "/readyz/informer-sync", "/livez/ping", "/readyz/shutdown"):
        assert await text(watched, path) == "ok"
    lines = (await text(watched, "/readyz?verbose")).splitlines()
    assert lines[:3] == ["[+]ping ok", "[+]log ok", "[+]etcd ok"]
    assert "[+]poststarthook/rbac/bootstrap-roles ok" in lines
    assert lines[-1] == "readyz check passed"
    lines = (await text(watched, "/livez?verbose&exclude=etcd&exclude=x")).splitlines()
    assert lines[2] == "[+]etcd excluded: ok"
    assert lines[-2] == 'warn: some health checks cannot be excluded: no matches for "x"'
    response, _ = await watched.client("admin").raw("GET", "/livez/none")
    assert response.status == 404
    slis = await text(watched, "/metrics/slis")
    assert 'kubernetes_healthcheck{name="etcd",type="readyz"} 1' in slis
    assert 'kubernetes_healthchecks_total{name="ping",status="success",type="livez"} 2' in slis


async def test_a_store_that_is_gone(watched: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(key: str) -> None:
        raise StoreUnavailable("the disk is gone")

    monkeypatch.setattr(watched.server.storage.store, "get", gone)
    admin = watched.client("admin")
    response, body = await admin.raw("GET", "/livez")
    assert response.status == 500
    assert b"[-]etcd failed: reason withheld\n" in body
    assert body.endswith(b"livez check failed\n")
    response, body = await admin.raw("GET", "/livez/etcd")
    assert (response.status, body) == (500, b"internal server error: the disk is gone\n")
    assert (await admin.raw("GET", "/livez?exclude=etcd"))[1] == b"ok"


async def test_a_server_that_ends_is_alive_and_not_ready(watched: Gated) -> None:
    watched.server.ready = False
    assert await text(watched, "/livez") == "ok"
    response, body = await watched.client("admin").raw("GET", "/readyz")
    assert (response.status, b"[-]shutdown failed: reason withheld\n" in body) == (500, True)


async def test_further_checks_are_of_health_and_readiness_and_not_of_life(tmp_path: Path) -> None:
    wrong = ""

    async def check() -> str:
        return wrong

    made = Gated(tmp_path)
    Telemetry(made.server, version_info("1.37"), {"kms-providers": check}).attach()
    async with made, Tasks() as tasks:
        await made.open(tasks)
        made.server.started = True
        for path in ("/healthz", "/readyz"):
            assert "[+]kms-providers ok" in await text(made, f"{path}?verbose")
        assert "kms" not in await text(made, "/livez?verbose")
        wrong = "kms-provider-0: it is ill"
        for path in ("/healthz", "/readyz"):
            response, body = await made.client("admin").raw("GET", path)
            assert response.status == 500
            assert b"[-]kms-providers failed: reason withheld" in body
        response, body = await made.client("admin").raw("GET", "/readyz/kms-providers")
        assert body == b"internal server error: kms-provider-0: it is ill\n"


async def test_the_size_of_a_resource_follows_its_objects(watched: Gated) -> None:
    admin = watched.client("admin")

    async def size() -> float:
        found = await samples(watched, "apiserver_resource_size_estimate_bytes{")
        return found['group="",resource="configmaps"']

    before = await size()
    made = await admin.create(
        CONFIGMAPS, {"metadata": {"name": "a", "namespace": "default"}, "data": {"a": "x" * 5000}}
    )
    assert before + 5000 < await size() < before + 6000
    await admin.update(CONFIGMAPS, {**made, "data": {"a": "x" * 100}})
    assert before + 100 < await size() < before + 1000
    await admin.delete(CONFIGMAPS, "a", "default")
    assert await size() == before
