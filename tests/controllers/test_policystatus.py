"""Policies are told which of their expressions do not fit: answers recorded with kube-controller-manager 1.36."""

from __future__ import annotations

from typing import Any

import pytest
import re2  # noqa: F401  # type: ignore[import-not-found]

from steersman.api.resource import CUSTOMRESOURCEDEFINITIONS, Object
from steersman.apiserver.crd import CustomResources
from steersman.apiserver.paths import OpenApiPaths
from steersman.controllers.validatingadmissionpolicystatus import POLICIES

from .conftest import World


def rule(group: str, *resources: str, version: str = "v1") -> Object:
    return {"apiGroups": [group], "apiVersions": [version], "operations": ["CREATE"], "resources": list(resources)}


def policy(name: str, rules: list[Object], *expressions: str, **spec: Any) -> Object:
    validations = [{"expression": each} for each in expressions]
    constraints = {"resourceRules": rules}
    return {"metadata": {"name": name}, "spec": {"matchConstraints": constraints, "validations": validations, **spec}}


def start(world: World) -> None:
    server = world.cluster.server
    server.paths.append(OpenApiPaths(server.registry))
    world.start("validatingadmissionpolicy-status-controller")


WORKLOADS = [rule("apps", "deployments", "deployments/scale"), rule("", "pods", "nothings"), rule("*", "services")]


def undefined(kind: str, at: int, field: str, source: str) -> str:
    return f"{kind}: ERROR: <input>:1:{at + 1}: undefined field '{field}'\n | {source}\n | {'.' * at}^\n"


def mismatch(kind: str, at: int, operator: str, operands: str, source: str) -> str:
    text = f"found no matching overload for '{operator}' applied to '({operands})'"
    return f"{kind}: ERROR: <input>:1:{at + 1}: {text}\n | {source}\n | {'.' * at}^\n"


POD, DEPLOYMENT = "/v1, Kind=Pod", "apps/v1, Kind=Deployment"
CASES: list[tuple[str, list[str]]] = [
    ("object.spec.replicas > 1", [undefined(POD, 11, "replicas", "object.spec.replicas > 1")]),
    ("object.foo == 1", [undefined(each, 6, "foo", "object.foo == 1") for each in (POD, DEPLOYMENT)]),
    ("oldObject.metadata.labels['a'] == 1",
     [mismatch(each, 31, "_==_", "string, int", "oldObject.metadata.labels['a'] == 1") for each in (POD, DEPLOYMENT)]),
    ("variables.bad == 1", []),
    ("variables.reps > 'a'", [mismatch(DEPLOYMENT, 15, "_>_", "int, string", "variables.reps > 'a'")]),
    ("params.data.x == 'a'", []),
    ("params.zzz == 1", [undefined(each, 6, "zzz", "params.zzz == 1") for each in (POD, DEPLOYMENT)]),
    ("object.spec.strategy.rollingUpdate.maxSurge == 1",
     [undefined(POD, 11, "strategy", "object.spec.strategy.rollingUpdate.maxSurge == 1")]),
    ("object.metadata.creationTimestamp < timestamp('2020-01-01T00:00:00Z')", []),
    ("object.metadata.managedFields[0].fieldsV1.x == 1",
     [undefined(each, 41, "x", "object.metadata.managedFields[0].fieldsV1.x == 1") for each in (POD, DEPLOYMENT)]),
    ("object.spec.containers[0].livenessProbe.httpGet.port == 80",
     [undefined(DEPLOYMENT, 11, "containers", "object.spec.containers[0].livenessProbe.httpGet.port == 80")]),
    ("object.spec.containers[0].resources.limits.cpu == 'x'",
     [undefined(POD, 35, "limits", "object.spec.containers[0].resources.limits.cpu == 'x'"),
      undefined(DEPLOYMENT, 11, "containers", "object.spec.containers[0].resources.limits.cpu == 'x'")]),
]  # fmt: skip


async def test_expressions_that_do_not_fit_their_kinds(world: World) -> None:
    start(world)
    variables = [
        {"name": "bad", "expression": "object.nowhere"},
        {"name": "reps", "expression": "object.spec.replicas"},
    ]
    params = {"apiVersion": "v1", "kind": "ConfigMap"}
    sources = [source for source, _ in CASES]
    made = policy("p", WORKLOADS, *sources, variables=variables, paramKind=params)
    made["spec"]["validations"][0]["messageExpression"] = "string(object.bar)"
    await world.client.create(POLICIES, made)
    await world.settle()
    found = await world.get(POLICIES, "p")
    assert found["status"]["observedGeneration"] == 1
    warned = found["status"]["typeChecking"]["expressionWarnings"]
    message = warned.pop(1)
    assert message["fieldRef"] == "spec.validations[0].messageExpression"
    assert message["warning"].startswith(undefined(POD, 13, "bar", "string(object.bar)"))
    assert warned == [
        {"fieldRef": f"spec.validations[{at}].expression", "warning": "\n".join(texts)}
        for at, (_, texts) in enumerate(CASES)
        if texts
    ]
    (manager,) = [each for each in found["metadata"]["managedFields"] if each["manager"].endswith("-status")]
    assert (manager["manager"], manager["operation"], manager["subresource"]) == (
        "validatingadmissionpolicy-status", "Apply", "status",
    )  # fmt: skip


async def test_a_policy_is_checked_again_when_it_changes(world: World) -> None:
    start(world)
    await world.client.create(POLICIES, policy("p", [rule("", "secrets")], "object.data.x == b'a'"))
    await world.settle()
    found = await world.get(POLICIES, "p")
    assert found["status"] == {"observedGeneration": 1, "typeChecking": {}}
    found["spec"]["validations"][0]["expression"] = "object.data.x == 'a'"
    await world.client.update(POLICIES, found)
    await world.settle()
    status = (await world.get(POLICIES, "p"))["status"]
    assert status["observedGeneration"] == 2
    text = mismatch("/v1, Kind=Secret", 14, "_==_", "bytes, string", "object.data.x == 'a'")
    assert status["typeChecking"]["expressionWarnings"] == [
        {"fieldRef": "spec.validations[0].expression", "warning": text}
    ]


@pytest.mark.parametrize("expression", ["object.spec.size > 1", "object.spec.size == 'a'"])
async def test_custom_kinds_have_types_too(world: World, expression: str) -> None:
    start(world)
    await CustomResources(world.cluster.server, world.tasks).start()
    spec = {"type": "object", "properties": {"size": {"type": "integer"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    definition = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    await world.client.create(
        CUSTOMRESOURCEDEFINITIONS, {"metadata": {"name": "widgets.example.com"}, "spec": definition}
    )
    await world.settle()
    await world.client.create(POLICIES, policy("p", [rule("example.com", "widgets")], expression))
    await world.settle()
    checking = (await world.get(POLICIES, "p"))["status"]["typeChecking"]
    assert bool(checking) is ("'a'" in expression)
