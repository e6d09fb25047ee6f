"""componentstatuses, as kubectl 1.36 and kube-apiserver know them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from steersman.api.resource import LEASES, Object
from steersman.lib.clock import rfc3339_micro
from tests.apiserver.guarded import Guarded

PATH = "/api/v1/componentstatuses"


async def asked(guarded: Guarded, path: str, accept: str = "application/json") -> tuple[int, Any, list[str]]:
    client = guarded.client("admin")
    response, body = await client.raw("GET", path, accept=accept)
    return response.status, msgspec.json.decode(body), [text for key, text in response.headers if key == "warning"]


def lease(name: str, renewed: float) -> Object:
    spec = {"holderIdentity": "me", "leaseDurationSeconds": 15, "renewTime": rfc3339_micro(renewed)}
    return {"metadata": {"name": name}, "spec": spec}


async def test_components_tell_by_their_leases(guarded: Guarded) -> None:
    admin, now = guarded.client("admin"), guarded.clock.now()
    await admin.create(LEASES, lease("kube-scheduler", now), "kube-system")
    await admin.create(LEASES, lease("kube-controller-manager", now - 60), "kube-system")
    code, found, warnings = await asked(guarded, PATH)
    assert code == 200 and warnings == ['299 - "v1 ComponentStatus is deprecated in v1.19+"']
    assert (found["kind"], found["metadata"]) == ("ComponentStatusList", {})
    refused = 'Get "https://127.0.0.1:10257/healthz": dial tcp 127.0.0.1:10257: connect: connection refused'
    assert found["items"] == [
        {"metadata": {"name": name}, "conditions": [{"type": "Healthy", "status": status, "message": message}]}
        for name, status, message in (
            ("scheduler", "True", "ok"), ("controller-manager", "False", refused), ("etcd-0", "True", "ok"),
        )
    ]  # fmt: skip
    code, one, _ = await asked(guarded, f"{PATH}/etcd-0")
    assert (one["kind"], one["apiVersion"], one["metadata"]) == ("ComponentStatus", "v1", {"name": "etcd-0"})


async def test_they_are_shown_as_a_table(guarded: Guarded) -> None:
    _, table, _ = await asked(guarded, PATH, "application/json;as=Table;v=v1;g=meta.k8s.io")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Status", "Message", "Error"]
    assert table["rows"][0]["cells"][:2] == ["scheduler", "Unhealthy"]
    assert table["rows"][2]["cells"] == ["etcd-0", "Healthy", "ok", ""]


@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        (f"{PATH}/none", 404, 'componentstatus "none" not found'),
        (f"{PATH}?watch=true", 405, 'watch is not supported on resources of kind "componentstatuses"'),
        (f"{PATH}?labelSelector=a%3D(", 400, "unable to parse requirement"),
    ],
)
async def test_what_is_refused(guarded: Guarded, path: str, code: int, said: str) -> None:
    found, status, warnings = await asked(guarded, path)
    assert (found, said in status["message"]) == (code, True) and warnings
