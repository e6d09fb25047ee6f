"""Expressions in admission: validating policies and match conditions, through the whole server."""

from __future__ import annotations

import json

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, CUSTOMRESOURCEDEFINITIONS, Object, Resource
from steersman.testing.cluster import ADMIN
from tests.apiserver.audit.test_audit import audited
from tests.apiserver.authz.test_escalation import grant, rule
from tests.apiserver.guarded import Guarded

GROUP = "admissionregistration.k8s.io"
POLICIES = Resource(GROUP, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
BINDINGS = Resource(
    GROUP, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False
)
WEBHOOKS = Resource(GROUP, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", namespaced=False)
RULE = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"]}


def policy(**spec: object) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"matchConstraints": {"resourceRules": [RULE]}, **spec}}


async def bind(guarded: Guarded, made: Object, **spec: object) -> None:
    admin = guarded.client("admin")
    await admin.create(POLICIES, made)
    body = {"policyName": "p", "validationActions": ["Deny"], **spec}
    await admin.create(BINDINGS, {"metadata": {"name": "b"}, "spec": body})


def configmap(name: str, **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


async def refusal(guarded: Guarded, obj: Object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await guarded.client("admin").create(CONFIGMAPS, obj)
    return caught.value


async def test_a_policy_denies_with_its_message(guarded: Guarded) -> None:
    made = policy(
        variables=[{"name": "size", "expression": "size(object.data)"}],
        validations=[
            {"expression": "variables.size < 2", "messageExpression": "'has ' + string(variables.size)"},
            {"expression": "namespaceObject.metadata.name == 'default' && request.operation == 'CREATE'"},
        ],
    )
    await bind(guarded, made)
    await guarded.client("admin").create(CONFIGMAPS, configmap("good", a="1"))
    error = await refusal(guarded, configmap("bad", a="1", b="2"))
    assert (error.code, error.reason) == (422, "Invalid")
    said = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: has 2"
    assert (error.message, error.details["name"]) == (f'configmaps "bad" is forbidden: {said}', "bad")


async def test_an_error_denies_unless_it_is_ignored(guarded: Guarded) -> None:
    await bind(guarded, policy(validations=[{"expression": "object.data.missing == 'x'", "reason": "Forbidden"}]))
    error = await refusal(guarded, configmap("bad", a="1"))
    assert "expression 'object.data.missing == 'x'' resulted in error: no such key: missing" in error.message


async def test_an_ignored_error_lets_pass(guarded: Guarded) -> None:
    await bind(guarded, policy(validations=[{"expression": "object.data.x == 'x'"}], failurePolicy="Ignore"))
    assert await guarded.client("admin").create(CONFIGMAPS, configmap("good", a="1"))


async def test_match_conditions_leave_requests_out(guarded: Guarded) -> None:
    skip = [{"name": "skip", "expression": "object.metadata.name != 'skip'"}]
    await bind(guarded, policy(matchConditions=skip, validations=[{"expression": "false", "reason": "Forbidden"}]))
    await guarded.client("admin").create(CONFIGMAPS, configmap("skip"))
    error = await refusal(guarded, configmap("other"))
    assert (error.code, error.reason) == (403, "Forbidden") and error.message.endswith("failed expression: false")


async def test_parameters_are_found_or_missed(guarded: Guarded) -> None:
    made = policy(
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        validations=[{"expression": "object.metadata.name.startsWith(params.data.prefix)"}],
    )
    ref = {"name": "params", "namespace": "default", "parameterNotFoundAction": "Deny"}
    await guarded.client("admin").create(CONFIGMAPS, configmap("params", prefix="a-"))
    await bind(guarded, made, paramRef=ref)
    await guarded.client("admin").create(CONFIGMAPS, configmap("a-good"))
    await refusal(guarded, configmap("b-bad"))
    await guarded.client("admin").delete(CONFIGMAPS, "params", "default")
    error = await refusal(guarded, configmap("a-other"))
    assert "failed to configure binding: no params found for policy binding with `Deny`" in error.message


@pytest.mark.parametrize("expression", ["... [] bad expression", "object.metadata.name", "unknown == 1"])
async def test_a_bad_expression_is_not_stored(guarded: Guarded, expression: str) -> None:
    with pytest.raises(ApiError, match=r"compilation failed|must evaluate to bool"):
        await guarded.client("admin").create(POLICIES, policy(validations=[{"expression": expression + " + 'a'"}]))
    hook = {
        "name": "a.b.c",
        "clientConfig": {"url": "https://127.0.0.1:1/x"},
        "rules": [RULE],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "matchConditions": [{"name": "c", "expression": expression}],
    }
    with pytest.raises(ApiError, match=r"compilation failed|must evaluate to bool but got dyn"):
        await guarded.client("admin").create(WEBHOOKS, {"metadata": {"name": "w"}, "webhooks": [hook]})


async def test_a_webhook_is_spared_what_its_conditions_leave_out(guarded: Guarded) -> None:
    hook = {
        "name": "a.b.c",
        "clientConfig": {"url": "https://127.0.0.1:1/x"},
        "rules": [RULE],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "matchConditions": [{"name": "c", "expression": "object.metadata.name != 'skip'"}],
    }
    await guarded.client("admin").create(WEBHOOKS, {"metadata": {"name": "w"}, "webhooks": [hook]})
    await guarded.client("admin").create(CONFIGMAPS, configmap("skip"))
    assert "failed calling webhook" in (await refusal(guarded, configmap("other"))).message


async def test_a_definition_with_a_bad_rule_is_refused(guarded: Guarded) -> None:
    spec = {"type": "object", "properties": {}, "x-kubernetes-validations": [{"rule": "self.z"}]}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
        "type": "object", "properties": {"spec": spec}}}}  # fmt: skip
    body = {"group": "e.com", "scope": "Namespaced", "versions": [version]}
    names = {"plural": "things", "kind": "Thing", "singular": "thing"}
    with pytest.raises(ApiError, match="undefined field 'z'"):
        await guarded.client("admin").create(
            CUSTOMRESOURCEDEFINITIONS, {"metadata": {"name": "things.e.com"}, "spec": {**body, "names": names}}
        )


async def test_expressions_ask_the_authorizer(guarded: Guarded) -> None:
    await grant(guarded, rule("create", "", "configmaps"), rule("break", "", "configmaps"), user="jane")
    await grant(guarded, rule("create", "", "configmaps"), user="joe")
    checks = [
        "authorizer.requestResource.check('break').allowed()",
        "!authorizer.group('').resource('secrets').namespace('kube-system').check('break').allowed()",
        "!authorizer.serviceAccount('default', 'nobody').group('apps').resource('deployments').check('get').allowed()",
        "authorizer.path('/healthz').check('get').errored() == false",
    ]
    await bind(guarded, policy(validations=[{"expression": each} for each in checks]))
    assert await guarded.client("jane").create(CONFIGMAPS, configmap("good"))
    with pytest.raises(ApiError, match=r"failed expression: authorizer\.requestResource"):
        await guarded.client("joe").create(CONFIGMAPS, configmap("bad"))


async def test_an_authorizer_that_takes_time_is_waited_for(guarded: Guarded) -> None:
    asked: list[str] = []

    async def later(name: str, verb: str) -> str | None:
        asked.append(verb)
        return None if name == ADMIN.name else "not you"

    guarded.server.services.extras["decide"] = lambda user, info: later(user.name, info.verb)
    both = "authorizer.requestResource.check('a').allowed() && authorizer.requestResource.check('b').allowed()"
    who = "!authorizer.serviceAccount('x', 'y').path('/p').check('a').allowed()"
    await bind(guarded, policy(validations=[{"expression": both}, {"expression": who}]))
    assert await guarded.client("admin").create(CONFIGMAPS, configmap("good"))
    assert asked == ["a", "b", "a"]


async def test_a_message_may_not_ask_the_authorizer(guarded: Guarded) -> None:
    made = policy(
        validations=[{"expression": "true", "messageExpression": "authorizer.path('/').check('get').reason()"}]
    )
    with pytest.raises(ApiError, match="undeclared reference to 'authorizer'"):
        await guarded.client("admin").create(POLICIES, made)


async def test_the_audit_log_has_failures_and_annotations(guarded: Guarded) -> None:
    notes = [
        {"key": "size", "valueExpression": "' ' + string(size(object.data)) + ' '"},
        {"key": "nothing", "valueExpression": "null"},
    ]
    made = policy(
        validations=[{"expression": "true"}, {"expression": "false", "message": "no"}], auditAnnotations=notes
    )
    await bind(guarded, made, validationActions=["Warn", "Audit"])
    events = audited(guarded)
    await guarded.client("admin").create(CONFIGMAPS, configmap("c", a="1"))
    annotations = events[-1]["annotations"]
    (failure,) = json.loads(annotations["validation.policy.admission.k8s.io/validation_failure"])
    assert failure == {
        "message": "no",
        "policy": "p",
        "binding": "b",
        "expressionIndex": 1,
        "validationActions": ["Warn", "Audit"],
    }
    assert annotations["p/size"] == "1" and "p/nothing" not in annotations


async def test_a_policy_that_wants_one_version_exactly_leaves_the_others(guarded: Guarded) -> None:
    scalers = Resource("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", namespaced=True)
    on = {**RULE, "apiGroups": ["autoscaling"], "apiVersions": ["v2"], "resources": ["horizontalpodautoscalers"]}
    made = policy(validations=[{"expression": "object.apiVersion != 'autoscaling/v2'"}])
    made["spec"]["matchConstraints"] = {"resourceRules": [on]}
    await bind(guarded, made)
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    scaler = {"metadata": {"name": "a", "namespace": "default"}, "spec": {"maxReplicas": 2, "scaleTargetRef": target}}
    admin = guarded.client("admin")
    with pytest.raises(ApiError, match="failed expression"):
        await admin.create(scalers, scaler)
    await admin.patch(POLICIES, "p", "", {"spec": {"matchConstraints": {"matchPolicy": "Exact"}}})
    assert await admin.create(scalers, scaler)


SEEN = (
    "'op=' + request.operation + ' kind=' + request.kind.kind + ' sub=' + request.subResource + ' obj=' + object.kind"
    " + ' options=' + string(has(request.options.kind)) + ' ns=' + string(has(request.namespace))"
)


@pytest.mark.parametrize(
    ("path", "kind", "inside"),
    [
        ("namespaces/default/pods/p/exec?command=x", "PodExecOptions", True),
        ("namespaces/default/pods/p/proxy/a/b", "PodProxyOptions", True),
        ("namespaces/default/services/s/proxy/", "ServiceProxyOptions", True),
        ("nodes/n/proxy/metrics", "NodeProxyOptions", False),
    ],
)
async def test_who_connects_is_judged_before_anybody_is_looked_for(
    guarded: Guarded, path: str, kind: str, inside: bool
) -> None:
    on = {**RULE, "resources": ["pods/*", "services/*", "nodes/*"], "operations": ["CONNECT"]}
    made = policy(validations=[{"expression": "object.kind == ''", "messageExpression": SEEN}])
    made["spec"]["matchConstraints"] = {"resourceRules": [on]}
    await bind(guarded, made)
    response, body = await guarded.client("admin").raw("GET", f"/api/v1/{path}")
    sub = path.partition("/p/")[2].partition("?")[0] if kind == "PodExecOptions" else "proxy"
    words = f"op=CONNECT kind={kind} sub={sub} obj={kind} options=false ns={'true' if inside else 'false'}"
    assert (response.status, words in json.loads(body)["message"]) == (422, True), body
