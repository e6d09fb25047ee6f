"""What admission tells of itself: plugins, webhooks, match conditions, policies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, Object
from steersman.apiserver.admission.chain import ALL
from steersman.apiserver.paths import version_info
from steersman.apiserver.telemetry.server import Telemetry
from steersman.lib.http.messages import Response
from tests.apiserver.admission.test_policies import bind, policy
from tests.apiserver.admission.test_webhooks import MUTATING, VALIDATING, Hooks, install
from tests.apiserver.guarded import Guarded


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Guarded]:
    made = Guarded(tmp_path / "pki")
    Telemetry(made.server, version_info("1.37")).attach()
    async with made:
        yield made


def shown(some: dict[str, str], **others: str) -> str:
    """Labels as they are written."""
    return ",".join(f'{name}="{value}"' for name, value in sorted({**some, **others}.items()))


async def figures(server: Guarded, name: str) -> dict[str, float]:
    """A metric's lines, by what is between the braces."""
    _, body = await server.client("admin").raw("GET", "/metrics")
    lines = [line for line in body.decode().splitlines() if line.partition("{")[0] == name]
    return {line.partition("{")[2].rpartition("}")[0]: float(line.rpartition(" ")[2]) for line in lines}


async def create(server: Guarded, name: str, namespace: str = "default") -> None:
    body: Object = {"metadata": {"name": name, "namespace": namespace}, "data": {}}
    await server.client("admin").create(CONFIGMAPS, body)


async def test_every_plugin_counts_what_it_saw(told: Guarded) -> None:
    name = "apiserver_admission_controller_admission_duration_seconds_count"
    before = await figures(told, name)
    await create(told, "a")
    with pytest.raises(ApiError):
        await create(told, "a", "nowhere")
    await create(told, "b")
    after = await figures(told, name)

    def seen(plugin: str, type: str, rejected: str = "false") -> float:
        labels = f'name="{plugin}",operation="CREATE",rejected="{rejected}",type="{type}"'
        return after.get(labels, 0) - before.get(labels, 0)

    for plugin in ALL:
        on = plugin.on and plugin.name != "RBACEscalation"
        assert seen(plugin.name, "admit") == (3 if plugin.mutate and on else 0), plugin.name
        first = plugin.name == "NamespaceLifecycle"
        assert seen(plugin.name, "validate") == (2 if plugin.validate and on else 0), plugin.name
        assert seen(plugin.name, "validate", "true") == (1 if first else 0), plugin.name
    again = await figures(told, name)
    assert again == after, "read twice, counted once"


async def test_webhooks_are_timed_and_their_refusals_counted(told: Guarded, tmp_path: Path) -> None:
    hooks = Hooks(tmp_path)
    async with hooks.remote:
        skip = [{"name": "skip", "expression": "object.metadata.name != 'skip'"}]
        await install(told, VALIDATING, hooks.hook("v", failurePolicy="Ignore", matchConditions=skip))
        await install(told, MUTATING, hooks.hook("m"), name="m")
        answers = {"ok": {}, "no": {"allowed": False, "status": {"code": 700}}, "bad": {"raw": Response(500, [], b"")}}
        hooks.respond = lambda path, request: answers.get(request["name"], {}) if path == "v" else {}
        for name in ("ok", "bad", "skip"):
            await create(told, name)
        with pytest.raises(ApiError):
            await create(told, "no")
        hooks.respond = lambda path, request: answers["bad"]
        with pytest.raises(ApiError):
            await create(told, "worse")
    judged = {"name": "v.hooks.io", "operation": "CREATE", "type": "validating"}
    changed = {"name": "m.hooks.io", "operation": "CREATE", "type": "admit"}
    took = await figures(told, "apiserver_admission_webhook_admission_duration_seconds_count")
    assert (took[shown(judged, rejected="false")], took[shown(judged, rejected="true")]) == (2, 1)
    assert took[shown(changed, rejected="false")] == 4
    asked = await figures(told, "apiserver_admission_webhook_request_total")
    assert asked[shown(judged, code="600", rejected="true")] == asked[shown(judged, code="503", rejected="false")] == 1
    assert await figures(told, "apiserver_admission_webhook_rejection_count") == {
        shown(judged, error_type="no_error", rejection_code="600"): 1,
        shown(changed, error_type="calling_webhook_error", rejection_code="503"): 1,
    }
    opened = await figures(told, "apiserver_admission_webhook_fail_open_count")
    assert opened == {'name="v.hooks.io",type="validating"': 1}
    left = await figures(told, "apiserver_admission_match_condition_exclusions_total")
    assert left == {'kind="webhook",name="v.hooks.io",operation="CREATE",type="validating"': 1}


async def test_policies_say_what_they_found(told: Guarded) -> None:
    rules = [
        {"expression": "object.metadata.name != 'bad'"},
        {"expression": "object.metadata.name == 'ok' || object.x"},
    ]
    await bind(told, policy(validations=rules), validationActions=["Deny", "Audit"])
    await create(told, "ok")
    for name in ("bad", "odd"):
        with pytest.raises(ApiError):
            await create(told, name)
    checks = await figures(told, "apiserver_validating_admission_policy_check_total")
    both = {"policy": "p", "policy_binding": "b"}
    assert checks == {
        shown(both, error_type=error, enforcement_action=action): count
        for error, count in (("no_error", 1), ("invalid_error", 2))
        for action in ("deny", "audit")
    }
    _, body = await told.client("admin").raw("GET", "/metrics")
    assert b"\napiserver_cel_evaluation_duration_seconds_count 3\n" in body
