"""MutatingAdmissionPolicy through the whole server: both kinds of patch, parameters, order, second rounds, failures."""

from __future__ import annotations

from typing import Any

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, DEPLOYMENTS, Object, Resource
from tests.apiserver.guarded import Guarded

GROUP = "admissionregistration.k8s.io"
POLICIES = Resource(GROUP, "v1", "mutatingadmissionpolicies", "MutatingAdmissionPolicy", namespaced=False)
BINDINGS = Resource(GROUP, "v1", "mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding", namespaced=False)
SCALERS = Resource("autoscaling", "v1", "horizontalpodautoscalers", "HorizontalPodAutoscaler", namespaced=True)


def rule(group: str, version: str, resource: str) -> Object:
    return {"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": ["CREATE", "UPDATE"]}


def applying(expression: str) -> Object:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patching(expression: str) -> Object:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


async def install(guarded: Guarded, *mutations: Object, name: str = "p", on: Object | None = None, **spec: Any) -> None:
    admin = guarded.client("admin")
    ref = {"paramRef": spec.pop("paramRef")} if "paramRef" in spec else {}
    matching = {"resourceRules": [on or rule("", "v1", "configmaps")], **spec.pop("constraints", {})}
    body = {"matchConstraints": matching, "reinvocationPolicy": "Never", "mutations": list(mutations), **spec}
    await admin.create(POLICIES, {"metadata": {"name": name}, "spec": body})
    await admin.create(BINDINGS, {"metadata": {"name": f"{name}-b"}, "spec": {"policyName": name, **ref}})


def configmap(name: str = "c", **data: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def deployment() -> Object:
    labels = {"app": "a"}
    containers = [{"name": "main", "image": "i", "env": [{"name": "A", "value": "1"}]}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"metadata": {"name": "d", "namespace": "default"}, "spec": spec}


async def created(guarded: Guarded, obj: Object) -> Object:
    return await guarded.client("admin").create(CONFIGMAPS, obj)


async def refusal(guarded: Guarded, obj: Object) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await created(guarded, obj)
    return caught.value


async def test_an_apply_configuration_is_merged_by_the_lists_keys(guarded: Guarded) -> None:
    await install(
        guarded,
        applying("Object{spec: Object.spec{replicas: object.spec.replicas + 4}}"),
        applying(
            "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: ["
            "Object.spec.template.spec.containers{name: 'main', env: ["
            "Object.spec.template.spec.containers.env{name: 'B', value: string(object.spec.replicas)}]}]}}}}"
        ),
        on=rule("apps", "v1", "deployments"),
    )
    made = await guarded.client("admin").create(DEPLOYMENTS, deployment())
    assert made["spec"]["replicas"] == 5  # one by default
    main = made["spec"]["template"]["spec"]["containers"][0]
    assert main["image"] == "i" and main["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "5"}]


async def test_a_json_patch_with_variables_and_escaped_keys(guarded: Guarded) -> None:
    await install(
        guarded,
        patching(
            "[JSONPatch{op: 'test', path: '/data/a', value: '1'},"
            " JSONPatch{op: 'add', path: '/metadata/labels', value: {'x': variables.size}},"
            " JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('e.com/b'), value: 'y'},"
            " JSONPatch{op: 'move', from: '/data/a', path: '/data/z'}]"
        ),
        variables=[{"name": "size", "expression": "string(size(object.data))"}],
    )
    made = await created(guarded, configmap(a="1"))
    assert made["metadata"]["labels"] == {"x": "1", "e.com/b": "y"} and made["data"] == {"z": "1"}
    untouched = await created(guarded, configmap("other", a="2"))
    assert "labels" not in untouched["metadata"] and untouched["data"] == {"a": "2"}


async def test_each_parameter_is_a_run_of_its_own(guarded: Guarded) -> None:
    for name in ("one", "two"):
        await created(guarded, {**configmap(name), "metadata": {**configmap(name)["metadata"], "labels": {"p": "1"}}})
    await install(
        guarded,
        applying("Object{data: Object.data{}}"),
        patching("[JSONPatch{op: 'add', path: '/data/' + params.metadata.name, value: 'seen'}]"),
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        paramRef={"selector": {"matchLabels": {"p": "1"}}, "parameterNotFoundAction": "Deny"},
        matchConditions=[{"name": "not-two", "expression": "params.metadata.name != 'two' || 'all' in object.data"}],
    )
    assert (await created(guarded, configmap("few", k="v")))["data"] == {"k": "v", "one": "seen"}
    found = await created(guarded, configmap("many", all="v"))
    assert found["data"] == {"all": "v", "one": "seen", "two": "seen"}


async def test_whoever_is_willing_sees_what_came_after_it(guarded: Guarded) -> None:
    count = "[JSONPatch{op: 'add', path: '/data/%s', value: string(size(object.data))}]"
    await install(guarded, patching(count % "a"), name="a", reinvocationPolicy="IfNeeded")
    await install(guarded, patching(count % "b"), name="b")
    assert (await created(guarded, configmap(x="")))["data"] == {"x": "", "a": "3", "b": "2"}


@pytest.mark.parametrize(
    ("mutation", "why"),
    [
        (applying("Object{spec: Object.spec{}}"), ".spec: field not declared in schema"),
        (applying("Object{data: Object.wrong{}}"), 'unexpected type name "Object.wrong", expected "Object.data"'),
        (applying("Object{data: {'a': object.data.nothing}}"), "resulted in error: no such key: nothing"),
        (patching("[JSONPatch{op: 'remove', path: '/data/q'}]"), "Unable to remove nonexistent key: q: missing value"),
        (patching("[JSONPatch{op: 'remove', path: '/q/r'}]"), 'doc is missing path: "/q/r": missing value'),
    ],
)
async def test_what_cannot_be_done_refuses_or_is_ignored(guarded: Guarded, mutation: Object, why: str) -> None:
    await install(guarded, mutation, failurePolicy="Ignore")
    assert (await created(guarded, configmap("ignored", a="1")))["data"] == {"a": "1"}
    await install(guarded, mutation, name="strict")
    error = await refusal(guarded, configmap(a="1"))
    assert error.details["name"] == configmap()["metadata"]["name"]
    assert (error.code, error.reason) == (403, "Invalid")
    assert error.message.startswith("policy 'strict' with binding 'strict-b' denied request: ") and why in error.message


async def test_atomic_lists_may_not_be_applied(guarded: Guarded) -> None:
    args = "Object.spec.template.spec.containers{name: 'main', args: ['x']}"
    expression = (
        "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{"
        f"containers: [{args}]}}}}}}}}"
    )
    await install(guarded, applying(expression), on=rule("apps", "v1", "deployments"))
    with pytest.raises(ApiError, match=r"may not mutate atomic arrays, maps or structs: \.spec\.template\.spec"):
        await guarded.client("admin").create(DEPLOYMENTS, deployment())


async def test_what_a_patch_makes_is_decoded_strictly(guarded: Guarded) -> None:
    await install(guarded, patching("[JSONPatch{op: 'add', path: '/strange', value: 1}]"), failurePolicy="Ignore")
    error = await refusal(guarded, configmap())
    assert error.code == 500 and 'strict decoding error: unknown field "strange"' in error.message


async def test_the_version_is_the_policys_unless_it_wants_it_exactly(guarded: Guarded) -> None:
    cpu = "Object{spec: Object.spec{maxReplicas: object.spec.metrics.size() + 6}}"
    on = rule("autoscaling", "v2", "horizontalpodautoscalers")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    spec = {"maxReplicas": 2, "scaleTargetRef": target, "targetCPUUtilizationPercentage": 50}
    await install(guarded, applying(cpu), on=on)
    admin = guarded.client("admin")
    made = await admin.create(SCALERS, {"metadata": {"name": "a", "namespace": "default"}, "spec": spec})
    assert made["apiVersion"] == "autoscaling/v1" and made["spec"]["maxReplicas"] == 7
    await admin.delete(POLICIES, "p")
    await install(guarded, applying(cpu), name="exact", on=on, constraints={"matchPolicy": "Exact"})
    made = await admin.create(SCALERS, {"metadata": {"name": "b", "namespace": "default"}, "spec": spec})
    assert made["spec"]["maxReplicas"] == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mutations": []}, "mutations must contain at least one item"),
        ({"mutations": [applying("1 + 1")]}, "must evaluate to Object but got int"),
        ({"mutations": [patching("['a']")]}, r"must evaluate to list\(JSONPatch\) but got list\(string\)"),
        ({"mutations": [patching("[JSONPatch{op: 1}]")]}, "expected type of field 'op' is 'string'"),
        ({"mutations": [{"patchType": "Merge"}]}, 'Unsupported value: "Merge"'),
        ({"mutations": [{"patchType": "JSONPatch"}]}, "must be specified when patchType is JSONPatch"),
        ({"mutations": [{**applying("Object{}"), **patching("[]")}]}, "must not be specified when patchType is JSON"),
        ({"reinvocationPolicy": ""}, "spec.reinvocationPolicy: Required value"),
        ({"matchConstraints": {"resourceRules": [{**rule("", "v1", "pods"), "operations": ["DELETE"]}]}}, "DELETE"),
    ],
)
async def test_a_bad_policy_is_not_stored(guarded: Guarded, change: Object, why: str) -> None:
    spec = {"matchConstraints": {"resourceRules": [rule("", "v1", "pods")]}, "reinvocationPolicy": "Never"}
    body = {"mutations": [applying("Object{}")], **spec, **change}
    with pytest.raises(ApiError, match=why):
        await guarded.client("admin").create(POLICIES, {"metadata": {"name": "bad"}, "spec": body})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"policyName": ""}, "spec.policyName: Required value"),
        ({"paramRef": {"parameterNotFoundAction": "Deny"}}, "one of name or selector must be specified"),
        ({"paramRef": {"name": "x"}}, "spec.paramRef.parameterNotFoundAction: Required value"),
    ],
)
async def test_a_bad_binding_is_not_stored(guarded: Guarded, change: Object, why: str) -> None:
    with pytest.raises(ApiError, match=why):
        spec = {"policyName": "p", **change}
        await guarded.client("admin").create(BINDINGS, {"metadata": {"name": "bad"}, "spec": spec})


async def test_subresources_own_objects_are_changed_by_patches_only(guarded: Guarded) -> None:
    admin = guarded.client("admin")
    await admin.create(DEPLOYMENTS, deployment())
    on = {**rule("apps", "v1", "deployments/scale"), "operations": ["UPDATE"]}
    replace = 'JSONPatch{op: "replace", path: "/spec/replicas", value: 5}'
    await install(guarded, patching(f"[{replace}]"), on=on)
    path = "/apis/apps/v1/namespaces/default/deployments/d/scale"
    body, media = {"spec": {"replicas": 2}}, "application/merge-patch+json"
    assert (await admin.call("PATCH", path, body, content_type=media))["spec"] == {"replicas": 5}
    await install(guarded, applying("Object{spec: Object.spec{replicas: 3}}"), name="q", on=on)
    with pytest.raises(ApiError, match="no corresponding type for autoscaling/v1, Kind=Scale"):
        await admin.call("PATCH", path, body, content_type=media)
