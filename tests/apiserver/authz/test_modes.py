"""Authorizers besides RBAC, and their order, by kube-apiserver's flags."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from steersman.api.resource import Object
from steersman.apiserver.authz.abac import Abac, read
from steersman.apiserver.call import User
from steersman.apiserver.request import RequestInfo
from steersman.apiserver.webhookclient import from_kubeconfig
from steersman.cluster.process import StartFailure
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Request, Response
from tests.apiserver.authz.test_escalation import grant, rule
from tests.apiserver.guarded import Guarded, status
from tests.apiserver.remote import Remote

PODS = "/api/v1/namespaces/default/pods"


def policy(**spec: Any) -> str:
    return json.dumps({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": spec})


async def test_always_allow_and_deny(tmp_path: Path) -> None:
    async with Guarded(tmp_path / "a", {"authorization-mode": "AlwaysAllow"}) as guarded:
        assert (await status(guarded.client("jane"), "GET", PODS))[0] == 200
    async with Guarded(tmp_path / "b", {"authorization-mode": "AlwaysDeny"}) as guarded:
        code, text = await status(guarded.client("jane"), "GET", PODS)
        assert (code, text.endswith(": Everything is forbidden.")) == (403, True)
        assert (await status(guarded.client("admin"), "GET", PODS))[0] == 200


async def test_abac_beside_rbac(tmp_path: Path) -> None:
    file = tmp_path / "policies"
    lines = ["# people", policy(user="jane", namespace="default", resource="pods", readonly=True, apiGroup="")]
    file.write_text("\n".join(lines))
    flags = {"authorization-mode": "ABAC,RBAC", "authorization-policy-file": str(file)}
    async with Guarded(tmp_path / "pki", flags) as guarded:
        jane = guarded.client("jane")
        assert (await status(jane, "GET", PODS))[0] == 200
        code, text = await status(jane, "DELETE", PODS)
        assert (code, "No policy matched." in text) == (403, True)
        await grant(guarded, rule("deletecollection", "", "pods"), user="jane")
        assert (await status(jane, "DELETE", PODS))[0] == 200
        path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
        _, answer = await jane.raw("POST", path, b'{"spec":{"namespace":"default"}}')
        told = msgspec.json.decode(answer)["status"]
        assert {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]} in told["resourceRules"]
        assert told["incomplete"] is False


@pytest.mark.parametrize(
    ("spec", "user", "verb", "path", "allowed"),
    [
        ({"user": "*", "nonResourcePath": "/logs/*"}, "jane", "get", "/logs/a", True),
        ({"user": "*", "nonResourcePath": "/logs/*"}, "jane", "get", "/metrics", False),
        ({"group": "dev", "nonResourcePath": "*"}, "jane", "post", "/x", True),
        ({"group": "ops", "nonResourcePath": "*"}, "jane", "get", "/x", False),
        ({"nonResourcePath": "*"}, "jane", "get", "/x", False),
        ({"user": "jane", "nonResourcePath": "*", "readonly": True}, "jane", "post", "/x", False),
        ({"user": "joe", "group": "*", "nonResourcePath": "*"}, "jane", "get", "/x", False),
    ],
)
def test_abac_policies(spec: Object, user: str, verb: str, path: str, allowed: bool) -> None:
    decision = Abac([spec])(User(user, ("dev", "system:authenticated")), RequestInfo(path, verb))
    assert (decision is None) is allowed


@pytest.mark.parametrize(
    "line", ["{", "[]", '{"kind":"Policy"}', policy(user=1), policy(readonly="yes"), '{"apiVersion":"v1","spec":{}}']
)
def test_abac_files_that_cannot_be_read(tmp_path: Path, line: str) -> None:
    file = tmp_path / "policies"
    file.write_text(f"\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        read(file)


def _told(**status: Any) -> Callable[[Request], Any]:
    return lambda request: {"kind": "SubjectAccessReview", "status": status}


def _flags(remote: Remote, modes: str) -> dict[str, str]:
    config = remote.kubeconfig("/authorize")
    version = {"authorization-webhook-version": "v1"}
    return {"authorization-mode": modes, "authorization-webhook-config-file": config, **version}


async def test_a_webhook_is_asked_once_and_with_the_selectors(tmp_path: Path) -> None:
    async with Remote(tmp_path, _told(allowed=True)) as remote:
        async with Guarded(tmp_path / "pki", _flags(remote, "Webhook")) as guarded:
            for _ in range(2):
                target = f"{PODS}?fieldSelector=spec.nodeName%3Dn1&labelSelector=app%20in%20(a,b)"
                assert (await status(guarded.client("jane,dev"), "GET", target))[0] == 200
        assert len(remote.asked) == 1
        spec = remote.asked[0]["spec"]
        assert (spec["user"], spec["groups"]) == ("jane", ["dev", "system:authenticated"])
        assert spec["resourceAttributes"] == {
            "namespace": "default",
            "verb": "list",
            "version": "v1",
            "resource": "pods",
            "fieldSelector": {"requirements": [{"key": "spec.nodeName", "operator": "In", "values": ["n1"]}]},
            "labelSelector": {"requirements": [{"key": "app", "operator": "In", "values": ["a", "b"]}]},
        }


@pytest.mark.parametrize(
    ("answer", "modes", "code", "said"),
    [
        (_told(allowed=False, reason="not you"), "Webhook", 403, "not you"),
        (_told(allowed=False, reason="not you"), "Webhook,AlwaysAllow", 200, ""),
        (_told(allowed=False, denied=True, reason="never"), "Webhook,AlwaysAllow", 403, "never"),
        (_told(allowed=False), "AlwaysAllow,Webhook", 200, ""),
        (_told(allowed="yes"), "Webhook", 403, ""),
        (lambda request: {"status": 3}, "Webhook", 403, ""),
        (
            _told(allowed=True, denied=True),
            "Webhook,RBAC",
            500,
            f'"{PODS}": webhook subject access review returned both',
        ),
        (
            lambda request: Response(301, [("location", "/elsewhere")]),
            "Webhook",
            500,
            "the status code 301 but did not",
        ),
        (lambda request: Response(200, [], b"\xff\xfe"), "Webhook,RBAC", 500, f'Internal Server Error: "{PODS}": '),
        (
            lambda request: Response(401, [], b""),
            "Webhook,RBAC",
            500,
            "has asked for the client to provide credentials",
        ),
        (lambda request: {"kind": "Pod", "apiVersion": "v1"}, "Webhook", 500, "converting (v1.Pod) to (v1.Subject"),
        (lambda request: Response(401, [], b""), "Webhook,AlwaysAllow", 200, ""),
    ],
)
async def test_what_a_webhook_says(tmp_path: Path, answer: Any, modes: str, code: int, said: str) -> None:
    async with Remote(tmp_path, answer) as remote, Guarded(tmp_path / "pki", _flags(remote, modes)) as guarded:
        found, text = await status(guarded.client("jane"), "GET", PODS)
        assert (found, said in text) == (code, True)


async def test_a_review_shows_a_webhooks_refusal(tmp_path: Path) -> None:
    told = _told(allowed=False, denied=True, reason="never")
    async with Remote(tmp_path, told) as remote, Guarded(tmp_path / "pki", _flags(remote, "Webhook")) as guarded:
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        body = {"spec": {"user": "jane", "nonResourceAttributes": {"path": "/x", "verb": "get"}}}
        _, answer = await guarded.client("admin").raw("POST", path, msgspec.json.encode(body))
        assert msgspec.json.decode(answer)["status"] == {"allowed": False, "denied": True, "reason": "never"}


async def test_reviews_show_why_a_webhook_allows_and_that_it_could_not_be_asked(tmp_path: Path) -> None:
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    body = msgspec.json.encode({"spec": {"user": "jane", "nonResourceAttributes": {"path": "/x", "verb": "get"}}})
    answers = iter([{"status": {"allowed": True, "reason": "why not"}}, Response(403, [], b"go <away>")])
    async with Remote(tmp_path, lambda request: next(answers)) as remote:
        flags = _flags(remote, "Webhook") | {"authorization-webhook-cache-authorized-ttl": "0s"}
        async with Guarded(tmp_path / "pki", flags) as guarded:
            found = [msgspec.json.decode((await guarded.client("admin").raw("POST", path, body))[1]) for _ in range(2)]
    assert [each["status"] for each in found] == [
        {"allowed": True, "reason": "why not"},
        {"allowed": False, "evaluationError": "go <away>"},
    ]
    assert [each["manager"] for each in found[0]["metadata"]["managedFields"]] == ["tests"]


async def test_without_rbac_roles_do_not_count(tmp_path: Path) -> None:
    async with Guarded(tmp_path, {"authorization-mode": "Node"}) as guarded:
        await grant(guarded, rule("list", "", "pods"), user="jane")
        assert (await status(guarded.client("jane"), "GET", PODS))[0] == 403
    async with Guarded(tmp_path, {"authorization-mode": "RBAC"}) as guarded:
        node = guarded.client("system:node:n1,system:nodes")
        assert (await status(node, "GET", "/api/v1/nodes/n1"))[0] == 403


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"authorization-mode": "Magic"}, '"Magic" is not a valid mode'),
        ({"authorization-mode": ""}, "at least one authorization-mode must be passed"),
        ({"authorization-mode": "RBAC,RBAC"}, "more than once"),
        ({"authorization-mode": "ABAC"}, "mode ABAC needs --authorization-policy-file"),
        ({"authorization-policy-file": "/x"}, "cannot be specified without mode ABAC"),
        ({"authorization-mode": "Webhook", "authorization-webhook-config-file": "/x"}, "--authorization-webhook-con"),
    ],
)
def test_modes_that_cannot_be_followed(tmp_path: Path, flags: dict[str, str], why: str) -> None:
    with pytest.raises(StartFailure, match=why):
        Guarded(tmp_path, flags)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "no kubeconfig"),
        ("[]", "no kubeconfig"),
        ("current-context: x", 'context "x" does not exist'),
        ("{contexts: [{name: x, context: {cluster: c}}], current-context: x}", 'cluster "c" does not exist'),
        (
            "{contexts: [{name: x, context: {cluster: c}}], current-context: x, "
            "clusters: [{name: c, cluster: {server: 'ftp://h'}}]}",
            "is not an http or https URL",
        ),
        (
            "{contexts: [{name: x, context: {cluster: c}}], current-context: x, "
            "clusters: [{name: c, cluster: {server: 'https://h', certificate-authority-data: '!'}}]}",
            "cannot be used",
        ),
        (
            "{contexts: [{name: x, context: {cluster: c}}], current-context: x, "
            "clusters: [{name: c, cluster: {server: 'https://h:99999999'}}]}",
            "out of range",
        ),
    ],
)
def test_kubeconfigs_that_cannot_be_used(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(ValueError, match=why):
        from_kubeconfig(file, SystemClock())
