"""Admission webhooks over real TLS, by URL: what they are asked, what their answers do, what garbage does."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, DEPLOYMENTS, PODS, SERVICEACCOUNTS, Object, Resource
from steersman.apiserver import webhookpost
from steersman.apiserver.webhookpost import CallFailed
from steersman.lib.http.messages import Request, Response
from tests.apiserver.audit.test_audit import audited
from tests.apiserver.guarded import Guarded, status
from tests.apiserver.remote import Remote

GROUP = "admissionregistration.k8s.io"
MUTATING = Resource(GROUP, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", namespaced=False)
VALIDATING = Resource(
    GROUP, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", namespaced=False
)
SCALERS = Resource("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", namespaced=True)
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}
Responder = Callable[[str, Object], Any]


class Hooks:
    """A webhook server; `respond` maps the last part of the path and the request to a `response`, or to anything."""

    def __init__(self, folder: Path) -> None:
        self.respond: Responder = lambda path, request: {}
        self.remote = Remote(folder, self._answer)
        self.paths: list[str] = []

    async def _answer(self, request: Request) -> Any:
        self.paths.append(request.path)
        review = json.loads(request.body)
        made = self.respond(request.path.rpartition("/")[2], review["request"])
        if isinstance(made, Awaitable):
            made = await made
        if not isinstance(made, dict) or "raw" in made:
            return made["raw"] if isinstance(made, dict) else made
        response = {"uid": review["request"]["uid"], "allowed": True, **made}
        return {"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response}

    @property
    def asked(self) -> list[Object]:
        """The requests so far."""
        return [each["request"] for each in self.remote.asked]

    def hook(self, path: str = "a", **more: Any) -> Object:
        """One webhook of a configuration."""
        bundle = base64.b64encode(self.remote.authority.read_bytes()).decode()
        return {
            "name": f"{path}.hooks.io",
            "clientConfig": {"url": f"{self.remote.url}/{path}", "caBundle": bundle},
            "rules": [RULE],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            **more,
        }


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    made = Hooks(tmp_path)
    async with made.remote:
        yield made


async def install(guarded: Guarded, resource: Resource, *hooks: Object, name: str = "w") -> None:
    await guarded.client("admin").create(resource, {"metadata": {"name": name}, "webhooks": list(hooks)})


def configmap(name: str = "c", **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def patch(*operations: Object) -> Object:
    return {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(operations).encode()).decode()}


def adding(key: str, value: str) -> Object:
    return patch({"op": "add", "path": f"/data/{key}", "value": value})


async def create(guarded: Guarded, obj: Object) -> Object:
    return await guarded.client("admin").create(CONFIGMAPS, obj)


async def refusal(guarded: Guarded, obj: Object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await create(guarded, obj)
    return caught.value


async def test_a_refusal_has_the_webhooks_words(guarded: Guarded, hooks: Hooks) -> None:
    await install(guarded, VALIDATING, hooks.hook())
    answers = iter([{"code": 402, "message": "pay", "reason": "Money"}, {"reason": "Why"}, None])
    hooks.respond = lambda path, request: {"allowed": False, "status": next(answers)}
    denied = 'admission webhook "a.hooks.io" denied the request'
    errors = [await refusal(guarded, configmap()) for _ in range(3)]
    assert [(each.code, each.reason, each.message) for each in errors] == [
        (402, "Money", f"{denied}: pay"),
        (400, "Why", f"{denied}: Why"),
        (400, "", f"{denied} without explanation"),
    ]


async def test_what_a_webhook_is_asked(guarded: Guarded, hooks: Hooks) -> None:
    await install(guarded, VALIDATING, hooks.hook(), hooks.hook("b", admissionReviewVersions=["v0", "v1beta1"]))
    admin = guarded.client("admin")
    await create(guarded, configmap(k="v"))
    first = next(each for each in hooks.remote.asked if each["apiVersion"] == "admission.k8s.io/v1")["request"]
    assert first["operation"] == "CREATE" and first["object"]["data"] == {"k": "v"} and first["oldObject"] is None
    assert first["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"} and first["name"] == "c"
    assert {each["apiVersion"] for each in hooks.remote.asked} == {
        "admission.k8s.io/v1",
        "admission.k8s.io/v1beta1",
    }
    await admin.delete(CONFIGMAPS, "c", "default")
    last = hooks.asked[-1]
    assert last["operation"] == "DELETE" and last["object"] is None and last["oldObject"]["data"] == {"k": "v"}


async def test_mutating_webhooks_run_in_order_and_again_if_needed(guarded: Guarded, hooks: Hooks) -> None:
    seen: list[tuple[str, list[str]]] = []

    def respond(path: str, request: Object) -> Object:
        keys = sorted(request["object"]["data"])
        seen.append((path, keys))
        return adding(path, str(len(keys)))

    hooks.respond = respond
    await install(guarded, MUTATING, hooks.hook("z", reinvocationPolicy="IfNeeded"), hooks.hook("y"), name="1")
    await install(guarded, MUTATING, hooks.hook("x"), name="0")
    made = await create(guarded, configmap(k=""))
    assert seen == [("x", ["k"]), ("z", ["k", "x"]), ("y", ["k", "x", "z"]), ("z", ["k", "x", "y", "z"])]
    assert made["data"] == {"k": "", "x": "1", "z": "4", "y": "3"}


async def test_a_version_of_its_own_or_exactly_that_of_the_request(guarded: Guarded, hooks: Hooks) -> None:
    rule = {**RULE, "apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"]}
    await install(guarded, MUTATING, hooks.hook(rules=[rule]), hooks.hook("b", rules=[rule], matchPolicy="Exact"))
    hooks.respond = lambda path, request: patch({"op": "replace", "path": "/spec/metrics", "value": []})
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    spec = {"maxReplicas": 2, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}
    body = {"metadata": {"name": "a", "namespace": "default"}, "spec": spec}
    made = await guarded.client("admin").create(SCALERS, body)
    (asked,) = hooks.asked
    assert asked["kind"]["version"] == asked["resource"]["version"] == "v2"
    assert asked["requestKind"]["version"] == asked["requestResource"]["version"] == "v1"
    assert asked["object"]["apiVersion"] == "autoscaling/v2" and made["apiVersion"] == "autoscaling/v1"


async def test_warnings_and_audit_annotations(guarded: Guarded, hooks: Hooks) -> None:
    def respond(path: str, request: Object) -> Object:
        told = {"warnings": [f"beware of {path}"], "auditAnnotations": {"k": path}}
        return {**told, **(adding("m", "1") if path == "m" else {})}

    hooks.respond = respond
    await install(guarded, MUTATING, hooks.hook("m"))
    gone = hooks.hook("gone", clientConfig={"url": "https://127.0.0.1:1/"}, failurePolicy="Ignore")
    await install(guarded, VALIDATING, hooks.hook("v"), gone)
    events = audited(guarded)
    body = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", **configmap(x="y")}).encode()
    response, _ = await guarded.client("admin").raw(
        "POST", CONFIGMAPS.path("default"), body, [("content-type", "application/json")]
    )
    texts = [value for name, value in response.headers if name == "warning"]
    assert texts == ['299 - "beware of m"', '299 - "beware of v"']
    found = events[-1]["annotations"]
    assert (found["m.hooks.io/k"], found["v.hooks.io/k"]) == ("m", "v")
    mutation = json.loads(found["mutation.webhook.admission.k8s.io/round_0_index_0"])
    assert mutation == {"configuration": "w", "webhook": "m.hooks.io", "mutated": True}
    assert '"path":"/data/m"' in found["patch.webhook.admission.k8s.io/round_0_index_0"]
    assert found["failed-open.validating.webhook.admission.k8s.io/round_0_index_1"] == "gone.hooks.io"


async def test_a_dry_run_reaches_only_those_without_side_effects(guarded: Guarded, hooks: Hooks) -> None:
    await install(guarded, VALIDATING, hooks.hook(sideEffects="NoneOnDryRun"))
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", **configmap()}
    code, _ = await status(guarded.client("admin"), "POST", f"{CONFIGMAPS.path('default')}?dryRun=All", body)
    assert code == 201 and hooks.asked[0]["dryRun"] is True


async def test_selectors_choose_and_configurations_are_never_shown(guarded: Guarded, hooks: Hooks) -> None:
    everything = {**RULE, "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
    chosen = {"matchLabels": {"a": "b"}}
    hooks.respond = lambda path, request: {"allowed": False}
    await install(guarded, VALIDATING, hooks.hook(rules=[everything], objectSelector=chosen))
    await create(guarded, configmap())
    labelled = configmap("d")
    labelled["metadata"]["labels"] = {"a": "b"}
    assert (await refusal(guarded, labelled)).code == 400
    await guarded.client("admin").create(
        MUTATING, {"metadata": {"name": "m", "labels": {"a": "b"}}, "webhooks": [hooks.hook()]}
    )
    assert len(hooks.asked) == 1


BROKEN = base64.b64encode(b"{").decode()
REVIEW = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            {"raw": Response(200, [], b"<html>")},
            "failed to call webhook: couldn't get version/kind; json parse error: ",
        ),
        ({"raw": Response(404, [], b"")}, "failed to call webhook: the server could not find the requested resource"),
        ({"raw": Response(500, [], b"boom")}, 'an error on the server ("boom") has prevented the request'),
        ({"raw": Response(302, [("location", "/b")], b"")}, "the server responded with the status code 302 but did"),
        ({"raw": REVIEW}, "received invalid webhook response: webhook response was absent"),
        ({"uid": "other"}, 'received invalid webhook response: expected response.uid="'),
        (
            {"allowed": "yes"},
            "cannot unmarshal string into Go struct field AdmissionResponse.response.allowed of type bool",
        ),
        ({"patch": BROKEN}, "webhook returned response.patch but not response.patchType"),
        ({"patchType": "JSONPatch"}, "webhook returned response.patchType but not response.patch"),
        ({"patchType": "", "patch": BROKEN}, 'webhook returned invalid response.patchType of ""'),
        ({"patchType": "JSONPatch", "patch": BROKEN}, "received undecodable patch in webhook response: "),
        ({**adding("k", "v"), "patchType": "Merge"}, 'unsupported patch type "Merge"'),
        ({"patchType": "JSONPatch", "patch": "%"}, "illegal base64 data"),
    ],
)
async def test_garbage_fails_the_request_or_is_ignored(
    guarded: Guarded, hooks: Hooks, answer: Object, why: str
) -> None:
    hooks.respond = lambda path, request: answer
    await install(guarded, MUTATING, hooks.hook("a", failurePolicy="Ignore"))
    assert (await create(guarded, configmap("ignored", k="1")))["data"] == {"k": "1"}
    await install(guarded, MUTATING, hooks.hook("b"), name="x")
    error = await refusal(guarded, configmap())
    assert error.code == 500 and error.message.startswith(
        'Internal error occurred: failed calling webhook "b.hooks.io": '
    )
    assert why in error.message


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ({"op": "remove", "path": "/data/no"}, "Unable to remove nonexistent key: no: missing value"),
        ({"op": "add", "path": "/data", "value": 1}, "cannot unmarshal number into Go struct field"),
    ],
)
async def test_a_patch_that_does_not_apply_is_never_ignored(
    guarded: Guarded, hooks: Hooks, operation: Object, why: str
) -> None:
    hooks.respond = lambda path, request: patch(operation)
    await install(guarded, MUTATING, hooks.hook(failurePolicy="Ignore"))
    error = await refusal(guarded, configmap(k="v"))
    assert error.code == 500 and why in error.message


async def test_nobody_may_change_what_is_deleted(guarded: Guarded, hooks: Hooks) -> None:
    await create(guarded, configmap())
    await install(guarded, MUTATING, hooks.hook())
    hooks.respond = lambda path, request: adding("k", "v")
    with pytest.raises(ApiError, match="attempted to modify the object, which is not supported for this operation"):
        await guarded.client("admin").delete(CONFIGMAPS, "c", "default")


async def test_a_validating_webhook_may_not_patch(guarded: Guarded, hooks: Hooks) -> None:
    await install(guarded, VALIDATING, hooks.hook())
    hooks.respond = lambda path, request: adding("k", "v")
    assert "validating webhook may not return response.patch" in (await refusal(guarded, configmap())).message


async def test_a_server_that_somebody_else_vouches_for_is_not_believed(guarded: Guarded, hooks: Hooks) -> None:
    strange = hooks.hook()
    del strange["clientConfig"]["caBundle"]
    await install(guarded, VALIDATING, strange)
    said = (await refusal(guarded, configmap())).message
    assert said.endswith("tls: failed to verify certificate: x509: certificate signed by unknown authority")
    assert hooks.asked == []


async def test_a_server_is_believed_by_its_own_certificate_and_called_at_a_clean_path(
    guarded: Guarded, hooks: Hooks
) -> None:
    own = hooks.hook()
    certificate = (hooks.remote.folder / "apiserver.crt").read_bytes()
    own["clientConfig"] = {"url": f"{hooks.remote.url}//a/./b", "caBundle": base64.b64encode(certificate).decode()}
    await install(guarded, VALIDATING, own)
    await create(guarded, configmap())
    assert hooks.paths == ["/a/b"]


async def test_an_answer_must_come_in_time_and_be_of_some_size(
    guarded: Guarded, hooks: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    config = {"url": f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}/x"}
    with pytest.raises(CallFailed, match="context deadline exceeded"):
        await webhookpost.post(guarded.server.services, config, 0.01, {})
    silent.close()
    monkeypatch.setattr(webhookpost, "_MOST", 1000)
    hooks.respond = lambda path, request: {"warnings": ["x" * 1000]}
    await install(guarded, VALIDATING, hooks.hook())
    assert "the answer is over 1000 bytes" in (await refusal(guarded, configmap())).message


async def test_a_webhook_may_call_back(guarded: Guarded, hooks: Hooks) -> None:
    """It reads, writes what is its own business too, and takes itself away, all while it is asked."""
    admin = guarded.client("admin")

    async def call_back(path: str, request: Object) -> Object:
        if request["name"] == "c":
            await admin.list(CONFIGMAPS, "default")
            await create(guarded, configmap("echo"))
            await admin.delete(VALIDATING, "w")
        return {}

    hooks.respond = call_back
    await install(guarded, VALIDATING, hooks.hook())
    await create(guarded, configmap())
    assert [each["name"] for each in hooks.asked] == ["c", "echo"]
    assert {each["metadata"]["name"] for each in (await admin.list(CONFIGMAPS, "default")).items} >= {"c", "echo"}
    await create(guarded, configmap("after"))
    assert len(hooks.asked) == 2


@pytest.mark.slow
async def test_a_webhook_that_calls_back_without_end_is_cut_off(guarded: Guarded, hooks: Hooks) -> None:
    inside: set[str] = set()
    nobody = asyncio.Event()

    async def call_back(path: str, request: Object) -> Object:
        inside.add(request["name"])
        try:
            await create(guarded, configmap(f"c-{len(hooks.paths)}"))
        finally:
            inside.discard(request["name"])
            if not inside:
                nobody.set()
        return {}

    hooks.respond = call_back
    await install(guarded, VALIDATING, hooks.hook(timeoutSeconds=1))
    error = await refusal(guarded, configmap())
    assert error.code == 500 and "failed calling webhook" in error.message
    await guarded.client("admin").delete(VALIDATING, "w")
    await nobody.wait()  # the last of them is not asked about any more, so that it is made, and the others end
    found = (await guarded.client("admin").list(CONFIGMAPS, "default")).items
    assert "c" not in [each["metadata"]["name"] for each in found]


async def test_connections_are_kept_until_the_caBundle_changes(guarded: Guarded, hooks: Hooks) -> None:
    await install(guarded, VALIDATING, hooks.hook(), hooks.hook("b"))
    for number in range(4):
        await create(guarded, configmap(f"c{number}"))
    assert hooks.remote.connections == 2  # the two are asked at the same time
    admin = guarded.client("admin")
    found = await admin.get(VALIDATING, "w")
    for hook in found["webhooks"]:
        pem = base64.b64decode(hook["clientConfig"]["caBundle"])
        hook["clientConfig"]["caBundle"] = base64.b64encode(pem + b"\n").decode()
    await admin.update(VALIDATING, found)
    await create(guarded, configmap("later"))
    assert hooks.remote.connections == 4


async def test_a_webhook_cannot_make_another_kind_of_an_object(guarded: Guarded, hooks: Hooks) -> None:
    """What was stored then could not be read any more."""
    hooks.respond = lambda path, request: patch({"op": "replace", "path": "/kind", "value": "Pod"})
    await install(guarded, MUTATING, hooks.hook())
    error = await refusal(guarded, configmap())
    assert (error.code, error.message) == (500, "converting (v1.Pod) to (core.ConfigMap): unknown conversion")


async def test_mutating_webhooks_come_before_what_the_system_sets(guarded: Guarded, hooks: Hooks) -> None:
    await install(guarded, MUTATING, hooks.hook("m"))
    await install(guarded, VALIDATING, hooks.hook("v"), name="v")
    made = await create(guarded, {"metadata": {"generateName": "g-", "namespace": "default"}})
    before, after = (each["object"]["metadata"] for each in hooks.asked)
    assert (hooks.asked[0].get("name", ""), before.keys() & {"name", "uid", "creationTimestamp"}) == ("", set())
    assert (hooks.asked[1]["name"], after["uid"]) == (made["metadata"]["name"], made["metadata"]["uid"])
    assert list(made["metadata"])[-1] == "managedFields"


async def test_what_else_a_request_says_is_shown(guarded: Guarded, hooks: Hooks) -> None:
    await install(guarded, VALIDATING, hooks.hook())
    admin, path = guarded.client("admin"), "/api/v1/namespaces/default/configmaps"
    await status(admin, "POST", f"{path}?fieldManager=f&fieldValidation=Strict&dryRun=All", configmap())
    await create(guarded, configmap())
    await admin.patch(CONFIGMAPS, "c", "default", {"data": {"a": "b"}})
    await status(admin, "DELETE", f"{path}/c?gracePeriodSeconds=0", {"preconditions": {"uid": "x"}})
    await status(admin, "DELETE", f"{path}/c?propagationPolicy=Orphan")
    shown = [each["options"] for each in hooks.asked]
    assert [each.pop("apiVersion") for each in shown] == ["meta.k8s.io/v1"] * 4
    assert shown == [
        {"kind": "CreateOptions", "dryRun": ["All"], "fieldManager": "f", "fieldValidation": "Strict"},
        {"kind": "CreateOptions"},
        {"kind": "UpdateOptions"},
        {"kind": "DeleteOptions", "propagationPolicy": "Orphan"},
    ]


async def test_subresources_with_objects_of_their_own_show_these(guarded: Guarded, hooks: Hooks) -> None:
    admin, default = guarded.client("admin"), "/api/v1/namespaces/default"
    await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
    containers = {"containers": [{"name": "c", "image": "i"}]}
    await admin.create(PODS, {"metadata": {"name": "p"}, "spec": containers}, "default")
    template = {"metadata": {"labels": {"a": "b"}}, "spec": containers}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    await admin.create(DEPLOYMENTS, {"metadata": {"name": "d"}, "spec": spec}, "default")
    every = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], "operations": ["*"]}
    await install(guarded, VALIDATING, hooks.hook(rules=[every]))
    scale = "/apis/apps/v1/namespaces/default/deployments/d/scale"
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}}
    for method, path, body in (
        ("POST", f"{default}/pods/p/binding", binding),
        ("PUT", scale, {"metadata": {"name": "d"}, "spec": {"replicas": 3}}),
        ("PATCH", scale, {"spec": {"replicas": 4}}),
        ("POST", f"{default}/serviceaccounts/default/token", {"spec": {"audiences": ["a"]}}),
        ("POST", f"{default}/pods/p/eviction", {"metadata": {"name": "p"}}),
    ):
        headers = [("content-type", "application/merge-patch+json" if method == "PATCH" else "application/json")]
        answer = await admin.transport.request(method, path, headers, json.dumps(body).encode())
        assert answer.status in (200, 201), await answer.read()
    assert [(each["operation"], each["kind"]["kind"], each["subResource"]) for each in hooks.asked] == [
        ("CREATE", "Binding", "binding"),
        ("UPDATE", "Scale", "scale"),
        ("UPDATE", "Scale", "scale"),
        ("CREATE", "TokenRequest", "token"),
        ("CREATE", "Eviction", "eviction"),
    ]
    assert [(each["oldObject"]["spec"], each["object"]["spec"]) for each in hooks.asked[1:3]] == [
        ({"replicas": 1}, {"replicas": 3}),
        ({"replicas": 3}, {"replicas": 4}),
    ]
    hooks.respond = lambda path, request: {"allowed": False, "status": {"message": "never"}}
    code, said = await status(admin, "POST", f"{default}/serviceaccounts/default/token", {"spec": {"audiences": ["a"]}})
    assert (code, said) == (400, 'admission webhook "a.hooks.io" denied the request: never')
