"""Figures that are worked out when somebody reads them, against requests whose answers are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from steersman.api.errors import ApiError, unauthorized
from steersman.api.resource import CONFIGMAPS, SERVICES
from steersman.apiserver.admission.podsecurity import plugin
from steersman.apiserver.paths import version_info
from steersman.apiserver.request import Query, RequestInfo
from steersman.apiserver.telemetry.requests import Requests
from steersman.apiserver.telemetry.server import Telemetry
from steersman.lib.http.messages import Request, Response
from steersman.lib.metrics import Distribution, Registry
from tests.apiserver.telemetry.test_telemetry import Gated, samples, shown, text, watched

__all__ = ["watched"]
_CONFIGMAP = {"metadata": {"name": "a", "namespace": "default"}}
_BUCKET = 'le="0.05"'


def refuse_strangers(request: Request) -> None:
    if request.header("x-test-user") is None:
        raise unauthorized()


async def test_what_the_server_itself_takes_is_less_than_what_requests_take() -> None:
    registry = Registry()
    requests = Requests(registry, lambda info: "never")
    info = RequestInfo("/", "create", True, "", "v1", "pods")
    route = requests.route(info, Query(""), "")
    for seconds, waited in ((0.01, 0.0), (3.0, 2.99), (3.0, 0.0), (0.001, 5.0)):
        route.note(201, seconds, 10, Request("POST", "/", body=b"x" * 60_000, waited=waited))
    lines = registry.text().splitlines()
    where = 'component="apiserver",group="",resource="pods",scope="resource",subresource="",verb="POST",version="v1"'
    for name in ("sli", "slo"):
        start = f"apiserver_request_{name}_duration_seconds"
        assert f"{start}_bucket{{{where},{_BUCKET}}} 3" in lines
        assert f'{start}_bucket{{{where},le="2"}} 3' in lines
        assert f'{start}_bucket{{{where},le="3"}} 4' in lines
        assert next(float(line.split()[-1]) for line in lines if line.startswith(f"{start}_sum")) == pytest.approx(3.02)
    assert 'field_validation_request_duration_seconds_bucket{field_validation="",le="2"} 2' in lines
    body = 'apiserver_request_body_size_bytes_bucket{group="",resource="pods",verb="create",le='
    assert [f'{body}"50000"}} 0', f'{body}"150000"}} 4'] == [line for line in lines if line.startswith(body)][:2]
    assert f'{body}"1.05e+06"}} 4' in lines


async def test_who_was_let_in_and_who_was_not(watched: Gated) -> None:
    admin, nobody = watched.client("admin"), watched.client("nobody")
    before = (await samples(watched, "authentication_attempts{"))[shown(result="success")]
    for _ in range(3):
        await admin.list(CONFIGMAPS)
    with pytest.raises(ApiError):
        await nobody.list(CONFIGMAPS)
    watched.server.authenticators.insert(0, refuse_strangers)
    for headers in ([("authorization", "Bearer x")], []):
        answer = watched.server.handle(Request("GET", "/api/v1/pods", headers=headers))
        assert isinstance(answer, Response) and answer.status == 401
    after = await samples(watched, "authentication_attempts{")
    assert after[shown(result="success")] - before == 5  # the three, the one, and the look before
    assert (after[shown(result="error")], after[shown(result="failure")]) == (1, 1)
    seconds = await samples(watched, "authentication_duration_seconds_count{")
    assert seconds[shown(result="success")] > after[shown(result="success")]
    assert (await samples(watched, "authorization_attempts_total{"))[shown(result="no-opinion")] == 1
    assert (await samples(watched, "authenticated_user_requests{"))[shown(username="other")] > 4


async def test_lists_and_events_of_a_cache(watched: Gated) -> None:
    admin = watched.client("admin")
    await admin.create(CONFIGMAPS, _CONFIGMAP)
    for path in ("", "?resourceVersion=0", "?labelSelector=none"):
        await admin.raw("GET", f"/api/v1/namespaces/default/configmaps{path}")
    where = shown(group="", resource="configmaps")
    assert (await samples(watched, "apiserver_cache_list_total{"))[
        shown(group="", index="", resource="configmaps")
    ] == 3
    assert (await samples(watched, "apiserver_cache_list_fetched"))[
        shown(group="", index="", resource="configmaps")
    ] == 3
    assert (await samples(watched, "apiserver_cache_list_returned"))[where] == 2
    assert (await samples(watched, "apiserver_watch_cache_events_received_total{"))[where] == 1
    consistent = shown(fallback="false", group="", resource="configmaps", success="true")
    assert (await samples(watched, "apiserver_watch_cache_consistent_read_total{"))[consistent] == 2
    assert (await samples(watched, "apiserver_watch_cache_resource_version{"))[where] == watched.server.storage.revision


async def test_seats_and_turns(watched: Gated) -> None:
    admin = watched.client("admin")
    await admin.create(CONFIGMAPS, _CONFIGMAP)
    where = {"flow_schema": "exempt", "priority_level": "exempt"}
    ran = await samples(watched, "apiserver_flowcontrol_request_execution_seconds_count{")
    begun = (await samples(watched, "apiserver_flowcontrol_dispatched_requests_total{"))[shown(**where)]
    assert 0 < ran[shown(**where, type="regular")] < begun
    weights = await samples(watched, "apiserver_flowcontrol_work_estimated_seats_count{")
    assert weights[shown(**where)] > begun


async def test_addresses_of_services(watched: Gated) -> None:
    spec = {"ports": [{"port": 1}], "type": "NodePort"}
    await watched.client("admin").create(SERVICES, {"metadata": {"name": "s", "namespace": "default"}, "spec": spec})
    whole = (await text(watched)).splitlines()
    name = "kube_apiserver_clusterip_allocator_"
    assert f'{name}allocated_ips{{cidr="10.96.0.0/24"}} 2' in whole
    assert f'{name}available_ips{{cidr="10.96.0.0/24"}} 252' in whole
    assert f'{name}allocation_total{{cidr="10.96.0.0/24",scope="dynamic"}} 1' in whole
    assert "kube_apiserver_nodeport_allocator_allocated_ports 1" in whole
    assert "kube_apiserver_nodeport_allocator_available_ports 9" in whole


async def test_what_is_deprecated_and_what_is_served(tmp_path: Path) -> None:
    assert Telemetry(Gated(tmp_path).server, version_info("1.32")).registry.text().count("version_info") == 0
    whole = Telemetry(Gated(tmp_path / "b").server, version_info("1.36")).registry.text()
    assert 'version_info{binary="1.36",component="kube",emulation="1.36",min_compat="1.35"} 1' in whole
    assert 'git_version="v1.36.0",go_version="",major="1",minor="36"' in whole


async def test_what_should_not_be_used(watched: Gated) -> None:
    await watched.client("admin").raw("GET", "/api/v1/endpoints")
    found = await samples(watched, "apiserver_requested_deprecated_apis{")
    assert found == {shown(group="", removed_release="", resource="endpoints", subresource="", version="v1"): 1}


async def test_pods_that_were_judged(watched: Gated) -> None:
    watched.server.services.extras[plugin.EVALUATIONS] = {
        ("deny", "warn", "baseline", "latest", "create", "pod", ""): 2
    }
    found = await samples(watched, "pod_security_evaluations_total{")
    labels = shown(decision="deny", mode="warn", policy_level="baseline", policy_version="latest",
                   request_operation="create", resource="pod", subresource="")  # fmt: skip
    assert found == {labels: 2}


def test_counts_of_somebody_else_must_fit() -> None:
    with pytest.raises(ValueError, match="3 counts"):
        Distribution((1, 2)).load([1], 0.0)
