"""Expressions in admission: validating policies and match conditions, through the whole server."""

from __future__ import annotations

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, CUSTOMRESOURCEDEFINITIONS, Object, Resource
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
    assert error.message.endswith("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: has 2")


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
