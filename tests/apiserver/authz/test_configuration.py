"""AuthorizationConfiguration: the order of authorizers, webhooks with conditions, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from steersman.api.resource import Object
from steersman.cluster import authorizers
from steersman.cluster.process import StartFailure
from tests.apiserver.authz.test_modes import PODS, _told
from tests.apiserver.guarded import Guarded, status
from tests.apiserver.remote import Remote

V1 = "apiserver.config.k8s.io/v1"


def written(folder: Path, *given: Any, **more: Any) -> Path:
    file = folder / "authorization.yaml"
    config = {"apiVersion": V1, "kind": "AuthorizationConfiguration", "authorizers": list(given), **more}
    file.write_text(yaml.safe_dump(config))
    return file


def webhook(kubeconfig: str, *conditions: str, name: str = "hook", **more: Any) -> Object:
    return {
        "type": "Webhook",
        "name": name,
        "webhook": {
            "timeout": "3s",
            "subjectAccessReviewVersion": "v1",
            "matchConditionSubjectAccessReviewVersion": "v1",
            "failurePolicy": "NoOpinion",
            "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
            "matchConditions": [{"expression": each} for each in conditions],
            **more,
        },
    }


@pytest.mark.parametrize(
    ("conditions", "policy", "code", "asked"),
    [
        (["has(request.resourceAttributes)", "request.user == 'jane'"], "Deny", 200, 1),
        (["request.resourceAttributes.namespace == 'kube-system'"], "Deny", 403, 0),
        (["request.groups.exists(g, g == 'dev')"], "Deny", 200, 1),
        (["request.nonResourceAttributes.path == '/x'"], "NoOpinion", 500, 0),  # it has none: an error
        (["request.nonResourceAttributes.path == '/x'"], "Deny", 500, 0),
        (["request.nonResourceAttributes.path == '/x'", "request.user == 'joe'"], "Deny", 403, 0),
        (["request.resourceAttributes.?labelSelector.requirements[0].key.orValue('') == 'app'"], "Deny", 200, 1),
    ],
)
async def test_conditions_say_when_a_webhook_is_asked(
    tmp_path: Path, conditions: list[str], policy: str, code: int, asked: int
) -> None:
    async with Remote(tmp_path, _told(allowed=True)) as remote:
        file = written(tmp_path, webhook(remote.kubeconfig(), *conditions, failurePolicy=policy))
        async with Guarded(tmp_path / "pki", {"authorization-config": str(file)}) as guarded:
            found, said = await status(guarded.client("jane,dev"), "GET", f"{PODS}?labelSelector=app%3Da")
            assert (found, len(remote.asked)) == (code, asked)
            assert ("resulted in error: no such key: nonResourceAttributes" in said) == (code == 500)


async def test_several_webhooks_and_modes_in_order(tmp_path: Path) -> None:
    async with Remote(tmp_path, _told(allowed=False, denied=True, reason="never")) as remote:
        config = remote.kubeconfig()
        mine = webhook(config, "request.user == 'joe'", name="first", cacheUnauthorizedRequests=False)
        modes = [{"type": each, "name": each.lower()} for each in ("Node", "RBAC", "AlwaysAllow")]
        file = written(tmp_path, mine, webhook(config, "request.user == 'nobody'"), *modes)
        async with Guarded(tmp_path / "pki", {"authorization-config": str(file)}) as guarded:
            assert (await status(guarded.client("jane"), "GET", PODS))[0] == 200
            for count in (1, 2):
                code, said = await status(guarded.client("joe"), "GET", PODS)
                assert (code, said.endswith("never"), len(remote.asked)) == (403, True, count)  # nothing is kept


def _changed(**more: Any) -> Object:
    return webhook("/nowhere/config", **more)


HERE = r"authorizers\[0\]"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "authorizers: Required value: at least one authorization mode must be defined"),
        ([{"name": "a"}], f"{HERE}.type: Required value"),
        (
            [{"type": "Magic", "name": "a"}],
            f'{HERE}.type: Unsupported value: "Magic": supported values: "ABAC", "Always',
        ),
        ([{"type": "RBAC", "name": "a"}] * 2, r'authorizers\[1\].type: Duplicate value: "RBAC"'),
        ([{"type": "RBAC"}], f"{HERE}.name: Required value"),
        ([{"type": "RBAC", "name": "A"}], f'{HERE}.name: Invalid value: "A": authorizer name is invalid: a lowercase'),
        ([{"type": "RBAC", "name": "a"}, {"type": "Node", "name": "a"}], r'\[1\].name: Duplicate value: "a"'),
        ([{"type": "RBAC", "name": "a", "webhook": {}}], "may only be specified when type=Webhook"),
        ([{"type": "Webhook", "name": "a"}], f"{HERE}.webhook: Required value: required when type=Webhook"),
        ([{"type": "RBAC", "name": "a", "magic": 1}], r'unknown field "authorizers\[0\].magic"'),
        ([_changed(timeout="31s")], f'{HERE}.timeout: Invalid value: "31s": must be > 0s and <= 30s'),
        ([_changed(timeout="0s")], f"{HERE}.timeout: Required value"),
        ([_changed(timeout="x")], 'time: invalid duration "x"'),
        ([_changed(authorizedTTL="-5s")], f'{HERE}.authorizedTTL: Invalid value: "-5s": must be > 0s'),
        ([_changed(subjectAccessReviewVersion="v2")], 'Unsupported value: "v2": supported values: "v1", "v1beta1"'),
        ([_changed(failurePolicy="")], f"{HERE}.failurePolicy: Required value"),
        ([_changed(connectionInfo={})], f"{HERE}.connectionInfo.type: Required value"),
        ([_changed(connectionInfo={"type": "KubeConfigFile", "kubeConfigFile": "a"})], "must be an absolute path"),
        ([_changed()], "error loading file: stat /nowhere/config: no such file or directory"),
        ([webhook("/", "")], f"{HERE}.matchConditions" r"\[0\].expression: Required value"),
        ([webhook("/", "true", "true")], r"matchConditions\[1\].expression: Duplicate value"),
        ([webhook("/", "1")], 'expression: Invalid value: "1": must evaluate to bool but got int'),
        ([webhook("/", "request.nothing")], "compilation failed: ERROR: <input>:1:8: undefined field 'nothing'"),
        ([webhook("/", *map(str, range(65)))], f"{HERE}.matchConditions: Too many: 65: must have at most 64 items"),
        (
            [webhook("/", "true", matchConditionSubjectAccessReviewVersion="")],
            "required if match conditions are specif",
        ),
    ],
)
def test_files_that_are_refused(tmp_path: Path, given: list[Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        authorizers.of_file(written(tmp_path, *given))


@pytest.mark.parametrize("more", [{"kind": "Pod"}, {"apiVersion": "v1"}, {"other": 1}])
def test_what_is_no_configuration(tmp_path: Path, more: Any) -> None:
    with pytest.raises(ValueError, match=r"not an Auth|is registered for version|unknown field \"other\""):
        authorizers.of_file(written(tmp_path, {"type": "RBAC", "name": "a"}, **more))


def test_not_beside_the_flags(tmp_path: Path) -> None:
    file = written(tmp_path, {"type": "RBAC", "name": "a"})
    flags = {"authorization-config": str(file), "authorization-mode": "RBAC"}
    with pytest.raises(StartFailure, match="--authorization-config can not be specified when --authorization-mode or"):
        Guarded(tmp_path, flags)
