"""Plugins with settings: pods' nodes and tolerations, events' rates, images, what needs a quota."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, EVENTS, NAMESPACES, PODS, SERVICEACCOUNTS, Object, Resource
from steersman.apiserver.admission import event_rate_limit, image_policy, pod_node_selector, pod_tolerations
from steersman.apiserver.webhookusers import Users
from steersman.cluster import admissionconfig
from steersman.lib.clock import SystemClock
from steersman.lib.http.messages import Request, Response
from tests.apiserver.admission.test_optional import pod
from tests.apiserver.guarded import Guarded, status
from tests.apiserver.remote import Remote

RESOURCEQUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
NODES = "scheduler.alpha.kubernetes.io/node-selector"
TOLERATED = "scheduler.alpha.kubernetes.io/defaultTolerations"
ALLOWED = "scheduler.alpha.kubernetes.io/tolerationsWhitelist"


def configured(folder: Path, name: str, configuration: Object | None = None) -> Guarded:
    """A server with one plugin more, and its settings."""
    file = folder / "admission.yaml"
    entry = {"name": name} | ({"configuration": configuration} if configuration is not None else {})
    given = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [entry]}
    file.write_text(yaml.safe_dump(given))
    return Guarded(folder, {"enable-admission-plugins": name, "admission-control-config-file": str(file)})


async def namespace(guarded: Guarded, name: str, annotation: str = "own", text: str = "") -> None:
    await guarded.client("admin").create(NAMESPACES, {"metadata": {"name": name, "annotations": {annotation: text}}})
    await guarded.client("admin").create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, name)


# PodNodeSelector -----------------------------------------------------------------------------------------------------


async def test_pods_run_where_their_namespace_wants(tmp_path: Path) -> None:
    settings = {"podNodeSelectorPluginConfig": {"clusterDefaultNodeSelector": "zone=a", "b": "zone=a,disk=ssd"}}
    async with configured(tmp_path, "PodNodeSelector", settings) as guarded:
        admin = guarded.client("admin")
        await namespace(guarded, "a", NODES, "env=test, disk=hdd")
        await namespace(guarded, "b")
        made = await admin.create(PODS, pod("p", nodeSelector={"own": "1"}), "a")
        assert made["spec"]["nodeSelector"] == {"env": "test", "disk": "hdd", "own": "1"}
        made = await admin.create(PODS, pod("p", nodeSelector={"disk": "ssd"}), "b")
        assert made["spec"]["nodeSelector"] == {"zone": "a", "disk": "ssd"}
        for where, own, why in (
            ("a", {"env": "live"}, "pod node label selector conflicts with its namespace node label selector"),
            ("b", {"own": "1"}, "pod node label selector labels conflict with its namespace whitelist"),
        ):
            with pytest.raises(ApiError, match=f'^pods "q" is forbidden: {why}$') as caught:
                await admin.create(PODS, pod("q", nodeSelector=own), where)
            assert caught.value.code == 403


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("env", "invalid selector: [env]"),
        ("a=b=c", "invalid selector: [a b c]"),
        ("-=b", '<nil>: Invalid value: "-": name part must consist of'),
        ("a=_", '[a]: Invalid value: "_": a valid label must be'),
    ],
)
def test_selectors_that_make_no_sense(text: str, why: str) -> None:
    with pytest.raises(ApiError) as caught:
        pod_node_selector.parse(text)
    assert caught.value.message.startswith(why) and caught.value.code == 500


# PodTolerationRestriction --------------------------------------------------------------------------------------------


async def test_pods_tolerate_what_their_namespace_says(tmp_path: Path) -> None:
    settings = {
        "apiVersion": "podtolerationrestriction.admission.k8s.io/v1alpha1",
        "kind": "Configuration",
        "default": [{"key": "cluster", "operator": "Exists"}],
        "whitelist": [{"key": key, "operator": "Exists"} for key in ("cluster", "own")]
        + [{"key": f"node.kubernetes.io/{key}", "operator": "Exists"} for key in ("not-ready", "unreachable")],
    }
    async with configured(tmp_path, "PodTolerationRestriction", settings) as guarded:
        admin = guarded.client("admin")
        await namespace(guarded, "plain")
        await namespace(guarded, "own", TOLERATED, '[{"key":"a","operator":"Equal","value":"1","effect":"NoSchedule"}]')
        await namespace(guarded, "none", TOLERATED, "")
        await namespace(guarded, "broken", TOLERATED, "{")
        made = await admin.create(PODS, pod("p", tolerations=[{"key": "own", "operator": "Exists"}]), "plain")
        assert [each["key"] for each in made["spec"]["tolerations"]][-2:] == [
            "node.kubernetes.io/unreachable",
            "cluster",
        ]
        made = await admin.create(PODS, pod("p"), "none")
        assert not [each for each in made["spec"]["tolerations"] if each["key"] == "cluster"]
        said = (
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its cluster whitelist"
        )
        for name in ("plain", "own"):
            body = pod("q", tolerations=[{"key": "other", "operator": "Exists"}]) if name == "plain" else pod("q")
            assert await status(admin, "POST", PODS.path(name), body) == (500, said)
        assert (await status(admin, "POST", PODS.path("broken"), pod("q")))[0] == 500


async def test_a_namespaces_list_comes_first(tmp_path: Path) -> None:
    async with configured(tmp_path, "PodTolerationRestriction") as guarded:
        admin = guarded.client("admin")
        await namespace(guarded, "a", ALLOWED, '[{"key":"a","operator":"Exists"}]')
        code, said = await status(admin, "POST", PODS.path("a"), pod("p"))  # what DefaultTolerationSeconds added
        assert code == 500 and said.endswith("conflict with its namespace whitelist")
        await namespace(guarded, "b")
        asked = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]
        made = await admin.create(PODS, pod("p", containers=asked), "b")
        assert "node.kubernetes.io/memory-pressure" in [each["key"] for each in made["spec"]["tolerations"]]


def test_a_wider_toleration_stands_for_others() -> None:
    def t(**fields: Any) -> Object:
        return fields

    everything, key = t(operator="Exists"), t(key="a", operator="Exists")
    one, timed = t(key="a", operator="Equal", value="1"), t(key="a", operator="Exists", effect="NoExecute")
    short = {**timed, "tolerationSeconds": 5}
    merged = pod_tolerations.merged
    assert merged([one, everything]) == [everything] and merged([everything, one]) == [everything]
    assert merged([one, key]) == [key] and merged([one, {**one, "value": ""}]) == [one, {**one, "value": ""}]
    assert merged([short, timed]) == [timed] and merged([timed, short]) == [timed]
    assert merged([short, {**short, "tolerationSeconds": 3}]) == [short]
    assert merged([one, one]) == [one] and merged([key, {**key, "key": "b"}]) == [key, {**key, "key": "b"}]


# EventRateLimit ------------------------------------------------------------------------------------------------------


def limits(*given: Object) -> Object:
    return {"apiVersion": "eventratelimit.admission.k8s.io/v1alpha1", "kind": "Configuration", "limits": list(given)}


def event(name: str, about: str = "x") -> Object:
    involved = {"kind": "Pod", "namespace": "default", "name": about, "apiVersion": "v1"}
    return {"metadata": {"name": name}, "involvedObject": involved, "source": {"component": "c", "host": "h"}}


async def test_events_of_every_sort_of_limit(tmp_path: Path) -> None:
    for type, key in (("Server", ""), ("Namespace", "default"), ("User", "kubernetes-admin"),
                      ("SourceAndObject", "chPoddefaultxv1")):  # fmt: skip
        async with configured(tmp_path, "EventRateLimit", limits({"type": type, "qps": 1, "burst": 2})) as guarded:
            admin = guarded.client("admin")
            for name in ("a", "b"):
                await admin.create(EVENTS, event(name), "default")
            dry = await status(admin, "POST", EVENTS.path("default") + "?dryRun=All", event("c"))
            assert dry[0] == 201
            code, said = await status(admin, "POST", EVENTS.path("default"), event("c"))
            assert (code, said) == (429, f"Too many requests: limit reached on type {type} for key {key}")


async def test_an_event_about_something_else_may_pass(tmp_path: Path) -> None:
    given = limits({"type": "SourceAndObject", "qps": 1, "burst": 1}, {"type": "Namespace", "qps": 1, "burst": 2})
    async with configured(tmp_path, "EventRateLimit", given) as guarded:
        admin = guarded.client("admin")
        await admin.create(EVENTS, event("a"), "default")
        await admin.create(EVENTS, event("b", "y"), "default")
        _, said = await status(admin, "POST", EVENTS.path("default"), event("c"))
        first = "limit reached on type SourceAndObject for key chPoddefaultxv1"
        assert said == f"Too many requests: [{first}, limit reached on type Namespace for key default]"


def test_a_bucket_fills_again_and_old_ones_are_forgotten() -> None:
    limit = event_rate_limit.Limit("Namespace", qps=2, burst=2, most=2)
    assert [limit.accepts("a", 0.0) for _ in range(3)] == [True, True, False]
    assert [limit.accepts("a", 0.5) for _ in range(2)] == [True, False]
    assert limit.accepts("b", 0.5) and limit.accepts("c", 0.5)
    assert [limit.accepts("a", 0.5) for _ in range(2)] == [True, True]  # a new bucket


# ImagePolicyWebhook --------------------------------------------------------------------------------------------------


def judged(answer: Object, code: int = 200) -> Callable[[Any], Any]:
    return lambda request: {"status": answer} if code == 200 else Response(code, [], b"")


async def test_images_are_judged_and_the_answer_kept(tmp_path: Path) -> None:
    async with Remote(tmp_path, judged({"allowed": True})) as remote:
        settings = {"imagePolicy": {"kubeConfigFile": remote.kubeconfig("/review"), "allowTTL": 60}}
        async with configured(tmp_path, "ImagePolicyWebhook", settings) as guarded:
            admin = guarded.client("admin")
            await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
            first = pod("p", initContainers=[{"name": "i", "image": "init"}])
            first["metadata"]["annotations"] = {"x.image-policy.k8s.io/ticket": "1", "other": "2"}
            await admin.create(PODS, first, "default")
            again = {**first, "metadata": {**first["metadata"], "name": "q"}}
            await admin.create(PODS, again, "default")
    (asked,) = remote.asked
    assert (asked["kind"], asked["apiVersion"]) == ("ImageReview", "imagepolicy.k8s.io/v1alpha1")
    assert asked["spec"] == {
        "containers": [{"image": "i:1"}, {"image": "init"}],
        "annotations": {"x.image-policy.k8s.io/ticket": "1"},
        "namespace": "default",
    }


@pytest.mark.parametrize(
    ("answer", "code", "lenient", "said"),
    [
        ({"allowed": False, "reason": "old"}, 200, True, "image policy webhook backend denied one or more images: old"),
        ({"allowed": False}, 200, True, "one or more images rejected by webhook backend"),
        ({}, 404, False, "the server could not find the requested resource"),
        ({}, 404, True, ""),
    ],
)
async def test_what_the_judge_says(tmp_path: Path, answer: Object, code: int, lenient: bool, said: str) -> None:
    async with Remote(tmp_path, judged(answer, code)) as remote:
        settings = {"imagePolicy": {"kubeConfigFile": remote.kubeconfig(), "retryBackoff": 1, "defaultAllow": lenient}}
        async with configured(tmp_path, "ImagePolicyWebhook", settings) as guarded:
            admin = guarded.client("admin")
            await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
            if not said:
                made = await admin.create(PODS, pod("p"), "default")
                assert made["metadata"]["annotations"] == {"alpha.image-policy.k8s.io/failed-open": "true"}
                return
            assert await status(admin, "POST", PODS.path("default"), pod("p")) == (
                403,
                f'pods "p" is forbidden: {said}',
            )


def test_times_of_the_judges_answers(tmp_path: Path) -> None:
    for stated, why in (
        ({"allowTTL": 7200}, "valid value is between 1s and 30m0s, got 2h0m0s"),
        ({"denyTTL": -2}, "valid value is between 1s and 30m0s, got -2s"),
        ({"retryBackoff": 600000}, "valid value is between 1ns and 5m0s, got 10m0s"),
        ({"allowTTL": "1m"}, "imagePolicy.allowTTL: '1m' is no whole number"),
    ):
        with pytest.raises(ValueError, match=why):
            image_policy.configuration({"imagePolicy": stated}, SystemClock())


# limitedResources ----------------------------------------------------------------------------------------------------


async def test_what_needs_a_quota(tmp_path: Path) -> None:
    rules = [{"resource": "pods", "matchContains": ["requests.cpu"]}]
    async with configured(tmp_path, "ResourceQuota", quota_settings(rules)) as guarded:
        admin = guarded.client("admin")
        await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
        await admin.create(PODS, pod("idle"), "default")
        greedy = [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]
        said = 'pods "p" is forbidden: insufficient quota to consume: requests.cpu'
        assert await status(admin, "POST", PODS.path("default"), pod("p", containers=greedy)) == (403, said)
        await admin.create(
            RESOURCEQUOTAS, {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "2"}}}, "default"
        )
        await admin.create(PODS, pod("p", containers=greedy), "default")


async def test_scopes_that_need_a_quota(tmp_path: Path) -> None:
    term = {"scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"]}
    async with configured(
        tmp_path, "ResourceQuota", quota_settings([{"resource": "pods", "matchScopes": [term]}])
    ) as guarded:
        admin = guarded.client("admin")
        await admin.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, "default")
        critical = pod("p", priorityClassName="system-node-critical")
        said = "insufficient quota to match these scopes: [{PriorityClass In [system-node-critical]}]"
        assert await status(admin, "POST", PODS.path("default"), critical) == (500, said)
        await admin.create(PODS, pod("plain"), "default")
        spec = {"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [term]}}
        await admin.create(RESOURCEQUOTAS, {"metadata": {"name": "q"}, "spec": spec}, "default")
        await admin.create(PODS, critical, "default")


def quota_settings(rules: list[Object]) -> Object:
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "ResourceQuotaConfiguration",
        "limitedResources": rules,
    }


# The file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "configuration", "why"),
    [
        ("EventRateLimit", None, 'couldn\'t init admission plugin "EventRateLimit": limits: Invalid value: null: must'),
        ("EventRateLimit", limits({"type": "X", "qps": 0, "burst": 1, "cacheSize": -1}),
         r'\[limits\[0\].type: Unsupported value: "X": supported values: "Namespace", "Server", "SourceAndObject", '
         r'"User", limits\[0\].qps: Invalid value: 0: must be positive, limits\[0\].cacheSize: Invalid value: -1: '),
        ("ImagePolicyWebhook", None, "no config specified"),
        ("ImagePolicyWebhook", {"imagePolicy": {"kubeConfigFile": "/nowhere"}}, "No such file"),
        ("PodNodeSelector", {"podNodeSelectorPluginConfig": {"a": 1}}, "not a map of strings"),
        ("PodTolerationRestriction", {"default": [{"operator": "Like", "key": "a"}]},
         r'invalid config: \[podtolerationrestriction.default\[0\].operator: Unsupported value: "Like"'),
        ("ResourceQuota", {"kind": "ResourceQuotaConfiguration", "limitedResources": [{}]},
         r"limitedResources\[0\].resource: Required value"),
        ("ResourceQuota", {"kind": "Pod"}, "not a ResourceQuotaConfiguration"),
        ("ValidatingAdmissionWebhook", {"kubeConfigFile": "x"}, 'kubeConfigFile: Invalid value: "x": must be'),
        ("MutatingAdmissionWebhook", {"kubeConfigFile": "/nowhere"}, "No such file"),
    ],
)  # fmt: skip
def test_settings_that_are_refused(tmp_path: Path, name: str, configuration: Object | None, why: str) -> None:
    file = tmp_path / "admission.yaml"
    entry = {"name": name} | ({"configuration": configuration} if configuration is not None else {})
    given = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [entry]}
    file.write_text(yaml.safe_dump(given))
    with pytest.raises(ValueError, match=why):
        admissionconfig.read(file, [name], SystemClock())


def test_a_file_from_before_there_was_a_kind(tmp_path: Path) -> None:
    file = tmp_path / "admission.yaml"
    file.write_text("podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: a=b}")
    found = admissionconfig.read(file, ["PodNodeSelector", "NamespaceLifecycle"], SystemClock())
    assert found == {"PodNodeSelector": {"clusterDefaultNodeSelector": "a=b"}}


USERS = {
    "users": [
        {"name": "127.0.0.1:1", "user": {"token": "exact"}},
        {"name": "*.svc", "user": {"token": "service"}},
        {"name": "a.b.svc", "user": {"token": "named"}},
        {"name": "c.b.svc:8443", "user": {"username": "u", "password": "p"}},
        {"name": "other", "user": {"token": "current"}},
    ],
    "contexts": [{"name": "x", "context": {"user": "other"}}],
    "current-context": "x",
}


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", 1, "Bearer exact"),
        ("127.0.0.1", 2, "Bearer current"),
        ("a.b.svc", 443, "Bearer named"),
        ("a.b.svc", 444, "Bearer current"),  # stars stand for whole steps, and a port is part of the last one
        ("x.b.svc", 443, "Bearer service"),
        ("c.b.svc", 8443, "Basic dTpw"),
    ],
)
def test_as_whom_a_webhook_is_asked(tmp_path: Path, host: str, port: int, said: str) -> None:
    file = tmp_path / "users"
    file.write_text(json.dumps(USERS))
    assert dict(Users(file).of(host, port).headers) == {"authorization": said}


async def test_webhooks_are_asked_as_a_kubeconfig_says(tmp_path: Path) -> None:
    seen: list[str | None] = []

    def allow(request: Request) -> Object:
        seen.append(request.header("authorization"))
        asked = json.loads(request.body)
        return asked | {"response": {"uid": asked["request"]["uid"], "allowed": True}}

    async with Remote(tmp_path, allow) as remote:
        file = tmp_path / "users"
        file.write_text(json.dumps({"users": [{"name": "*", "user": {"token": "secret"}}]}))
        async with configured(tmp_path, "ValidatingAdmissionWebhook", {"kubeConfigFile": str(file)}) as guarded:
            bundle = base64.b64encode(remote.authority.read_bytes()).decode()
            rule = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["*"]}
            hook = {"name": "a.b.c", "clientConfig": {"url": remote.url, "caBundle": bundle}, "rules": [rule]}
            hook |= {"sideEffects": "None", "admissionReviewVersions": ["v1"]}
            admin = guarded.client("admin")
            for kind in ("Validating", "Mutating"):
                plural = f"{kind.lower()}webhookconfigurations"
                resource = Resource(
                    "admissionregistration.k8s.io", "v1", plural, f"{kind}WebhookConfiguration", namespaced=False
                )
                await admin.create(resource, {"metadata": {"name": "w"}, "webhooks": [hook]})
            await admin.create(CONFIGMAPS, {"metadata": {"name": "c"}}, "default")
    assert seen == [None, "Bearer secret"]  # each plugin has settings of its own
