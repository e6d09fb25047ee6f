"""Custom resources as clients meet them: scale at paths of their own, patches that are told of, a definition's end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CUSTOMRESOURCEDEFINITIONS, Object, Resource
from steersman.apiserver.crd import kind_of
from steersman.cluster.plane import ControlPlane

FLEETS = Resource("sea.example.com", "v1", "fleets", "Fleet")
_INTEGER = {"type": "integer"}
_SPEC = {"type": "object", "properties": {"ships": {"type": "object", "properties": {"wanted": _INTEGER}}}}
_STATUS = {"type": "object", "properties": {"afloat": _INTEGER, "named": {"type": "string"}}}
NAME = "fleets.sea.example.com"
DEFINITION: Object = {
    "metadata": {"name": NAME},
    "spec": {
        "group": "sea.example.com",
        "scope": "Namespaced",
        "names": {"plural": "fleets", "singular": "fleet", "kind": "Fleet"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC, "status": _STATUS}}},
                "subresources": {
                    "status": {},
                    "scale": {
                        "specReplicasPath": ".spec.ships.wanted",
                        "statusReplicasPath": ".status.afloat",
                        "labelSelectorPath": ".status.named",
                    },
                },
            }
        ],
    },
}


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path, listen=None, controllers=()) as made:
        await made.client.create(CUSTOMRESOURCEDEFINITIONS, DEFINITION)
        events = made.client.watch(CUSTOMRESOURCEDEFINITIONS, "", resource_version="0", fields=f"metadata.name={NAME}")
        async for event in events:
            if any(each["type"] == "Established" for each in (event.object.get("status") or {}).get("conditions", ())):
                break
        yield made


async def ask(plane: ControlPlane, path: str, accept: str = "application/json") -> Any:
    return await plane.client.call("GET", path, accept=accept)


async def test_a_scale_is_read_and_written_where_the_definition_says(plane: ControlPlane) -> None:
    client = plane.client
    await client.create(FLEETS, {"metadata": {"name": "a"}, "spec": {"ships": {"wanted": 3}}}, "default")
    await client.patch(FLEETS, "a", "default", {"status": {"afloat": 2, "named": "x=y"}}, subresource="status")
    scale = await client.get(FLEETS, "a", "default", subresource="scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 3}, {"replicas": 2, "selector": "x=y"})
    await client.patch(FLEETS, "a", "default", {"spec": {"replicas": 5}}, subresource="scale")
    assert (await client.get(FLEETS, "a", "default"))["spec"] == {"ships": {"wanted": 5}}
    await client.update(FLEETS, {**scale, "metadata": {"name": "a", "namespace": "default"}}, subresource="scale")
    assert (await client.get(FLEETS, "a", "default"))["spec"] == {"ships": {"wanted": 3}}


async def test_without_replicas_there_is_no_scale_to_read(plane: ControlPlane) -> None:
    await plane.client.create(FLEETS, {"metadata": {"name": "b"}, "spec": {}}, "default")
    with pytest.raises(ApiError, match="the spec replicas field"):
        await plane.client.get(FLEETS, "b", "default", subresource="scale")


async def test_a_scale_as_a_table(plane: ControlPlane) -> None:
    await plane.client.create(FLEETS, {"metadata": {"name": "c"}, "spec": {"ships": {"wanted": 4}}}, "default")
    path = "/apis/sea.example.com/v1/namespaces/default/fleets/c/scale"
    table = await ask(plane, path, "application/json;as=Table;v=v1;g=meta.k8s.io")
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Desired", "Available", "Age"]
    assert table["rows"][0]["cells"][:3] == ["c", 4, 0]


async def test_the_published_patches_of_a_custom_kind_are_not_strategic(plane: ControlPlane) -> None:
    custom = await ask(plane, "/openapi/v3/apis/sea.example.com/v1")
    patch = custom["paths"]["/apis/sea.example.com/v1/namespaces/{namespace}/fleets/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
    built_in = json.dumps((await ask(plane, "/openapi/v3/api/v1"))["paths"])
    assert "application/strategic-merge-patch+json" in built_in


async def test_owners_of_what_nobody_had_before(plane: ControlPlane) -> None:
    made = await plane.client.create(FLEETS, {"metadata": {"name": "d"}, "spec": {"ships": {"wanted": 1}}}, "default")
    [entry] = made["metadata"]["managedFields"]
    assert entry["fieldsV1"] == {"f:spec": {".": {}, "f:ships": {".": {}, "f:wanted": {}}}}


async def test_an_applier_of_what_is_so_already_has_no_time(plane: ControlPlane) -> None:
    body = {"apiVersion": "sea.example.com/v1", "kind": "Fleet", "metadata": {"name": "e"}}
    await plane.client.create(FLEETS, {**body, "spec": {"ships": {"wanted": 1}}}, "default")
    config = {**body, "spec": {"ships": {"wanted": 1}}}
    applied = await plane.client.patch(FLEETS, "e", "default", config, type="apply", field_manager="late")
    first = applied["metadata"]["managedFields"][0]
    assert (first["manager"], "time" in first) == ("late", False)


async def test_a_definition_is_held_only_once_it_ends(plane: ControlPlane) -> None:
    found = await plane.client.get(CUSTOMRESOURCEDEFINITIONS, NAME, "")
    assert "finalizers" not in found["metadata"]
    ending = await plane.client.delete(CUSTOMRESOURCEDEFINITIONS, NAME, "")
    assert ending["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    [condition] = [each for each in ending["status"]["conditions"] if each["type"] == "Terminating"]
    assert (condition["status"], condition["reason"]) == ("True", "InstanceDeletionPending")


async def until(plane: ControlPlane, name: str, type: str, status: str) -> Object:
    """The condition of a definition, once it has that status."""
    events = plane.client.watch(CUSTOMRESOURCEDEFINITIONS, "", resource_version="0", fields=f"metadata.name={name}")
    async for event in events:
        for each in (event.object.get("status") or {}).get("conditions", ()):
            if (each["type"], each["status"]) == (type, status):
                return dict(each)
    raise AssertionError("the watch ended")


async def test_a_definition_waits_for_names_that_others_have(plane: ControlPlane) -> None:
    names = {"plural": "navies", "singular": "navy", "kind": "Fleet", "listKind": "NavyList"}
    second = {"metadata": {"name": "navies.sea.example.com"}, "spec": {**DEFINITION["spec"], "names": names}}
    await plane.client.create(CUSTOMRESOURCEDEFINITIONS, second)
    found = await until(plane, "navies.sea.example.com", "NamesAccepted", "False")
    assert (found["reason"], found["message"]) == ("KindConflict", '"Fleet" is already in use')
    assert (await until(plane, "navies.sea.example.com", "Established", "False"))["reason"] == "NotAccepted"
    with pytest.raises(ApiError, match="404 page not found"):
        await ask(plane, "/apis/sea.example.com/v1/navies")
    await plane.client.delete(CUSTOMRESOURCEDEFINITIONS, NAME)
    await until(plane, "navies.sea.example.com", "Established", "True")
    assert (await ask(plane, "/apis/sea.example.com/v1/navies"))["items"] == []


async def test_each_version_has_rules_of_its_own(plane: ControlPlane) -> None:
    (version,) = DEFINITION["spec"]["versions"]
    rule = {"rule": "self.ships.wanted < 5", "message": "too many"}
    spec = {**_SPEC, "x-kubernetes-validations": [rule]}
    schema = {"type": "object", "properties": {"spec": spec, "status": _STATUS}}
    second = {**version, "name": "v2", "storage": False, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "navies", "singular": "navy", "kind": "Navy"}
    both = {**DEFINITION["spec"], "names": names, "versions": [version, second]}
    await plane.client.create(CUSTOMRESOURCEDEFINITIONS, {"metadata": {"name": "navies.sea.example.com"}, "spec": both})
    await until(plane, "navies.sea.example.com", "Established", "True")
    older, newer = (Resource("sea.example.com", version, "navies", "Navy") for version in ("v1", "v2"))
    obj: Object = {"metadata": {"name": "a"}, "spec": {"ships": {"wanted": 9}}}
    await plane.client.create(older, obj, "default")
    with pytest.raises(ApiError, match="too many"):
        await plane.client.create(newer, {**obj, "metadata": {"name": "b"}}, "default")


async def test_a_status_that_the_schema_refuses(plane: ControlPlane) -> None:
    fleet = {"metadata": {"name": "f"}, "spec": {"ships": {"wanted": 1}}}
    await plane.client.create(FLEETS, fleet, "default")
    path = "/apis/sea.example.com/v1/namespaces/default/fleets/f/status"
    merge = "application/merge-patch+json"
    with pytest.raises(ApiError) as refused:
        await plane.client.call("PATCH", path, {"status": {"afloat": "x"}}, content_type=merge)
    assert refused.value.message == (
        'Fleet.sea.example.com "f" is invalid: [status.afloat: Invalid value: "string": afloat in body must be of type '
        'integer: "string", .status.afloat: Invalid value: 0: .status.afloat accessor error: x is of the type string, '
        "expected int64]"
    )
    changed = await plane.client.call("PATCH", path, {"status": {"afloat": 2}}, content_type=merge)
    assert changed["status"] == {"afloat": 2}


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ("v1beta1- v1", "sea.example.com/v1beta1 Fleet is deprecated; use sea.example.com/v1 Fleet"),
        (
            "v1beta1- v1alpha1 v1beta2 v2alpha1",
            "sea.example.com/v1beta1 Fleet is deprecated; use sea.example.com/v1beta2 Fleet",
        ),
        ("v1- v1beta1", "sea.example.com/v1 Fleet is deprecated"),
        ("v1- v2-", "sea.example.com/v1 Fleet is deprecated; never mind"),
    ],
)
def test_what_is_said_of_a_deprecated_version(versions: str, told: str) -> None:
    listed: list[Object] = [
        {"name": name.rstrip("-"), "served": True, "storage": not at, "deprecated": name.endswith("-")}
        for at, name in enumerate(versions.split())
    ]
    if "never mind" in told:
        listed[0]["deprecationWarning"] = told
    names = {"kind": "Fleet", "plural": "fleets"}
    kind = kind_of({"spec": {"group": "sea.example.com", "scope": "Namespaced", "names": names, "versions": listed}})
    first = kind.version(listed[0]["name"])
    assert first is not None and first.deprecation == told


GROUP = "admissionregistration.k8s.io"
POLICIES = Resource(GROUP, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False)
BINDINGS = Resource(
    GROUP, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", namespaced=False
)


async def forbid_updates(plane: ControlPlane, resource: str) -> None:
    rule = {
        "apiGroups": ["apiextensions.k8s.io"], "apiVersions": ["v1"], "resources": [resource],
        "operations": ["UPDATE"],
    }  # fmt: skip
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false"}]}
    await plane.client.create(POLICIES, {"metadata": {"name": "no"}, "spec": spec})
    bound = {"policyName": "no", "validationActions": ["Deny"]}
    await plane.client.create(BINDINGS, {"metadata": {"name": "no"}, "spec": bound})


@pytest.mark.parametrize("resource", ["customresourcedefinitions", "customresourcedefinitions/status"])
async def test_who_forbids_changes_of_definitions_lets_them_end(plane: ControlPlane, resource: str) -> None:
    """The endpoint of status is what ends them; where that is forbidden too, they end when it is allowed again."""
    await forbid_updates(plane, resource)
    since = (await plane.client.delete(CUSTOMRESOURCEDEFINITIONS, NAME, ""))["metadata"]["resourceVersion"]
    if resource.endswith("/status"):
        assert (await plane.client.get(CUSTOMRESOURCEDEFINITIONS, NAME))["metadata"]["deletionTimestamp"]
        await plane.client.delete(BINDINGS, "no", "")
    fields = f"metadata.name={NAME}"
    async with asyncio.timeout(20):
        events = plane.client.watch(CUSTOMRESOURCEDEFINITIONS, "", resource_version=since, fields=fields)
        async for event in events:
            if event.type == "DELETED":
                break
