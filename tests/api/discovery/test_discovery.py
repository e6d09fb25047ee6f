"""Discovery documents, plain and aggregated."""

from __future__ import annotations

import json
from typing import Any

import pytest

from steersman.api.discovery import Discovery, negotiate
from steersman.api.kind import Kind, Subresource, Version
from steersman.api.registry import Registry

V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
V2BETA1 = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
REGISTRY = Registry("1.36", behaviors=())
DISCOVERY = Discovery(REGISTRY, "10.0.0.1:6443")


def get(path: str, accept: str = "") -> dict[str, Any]:
    answer = DISCOVERY.answer(path, accept)
    assert answer is not None
    return json.loads(answer.body)


def test_the_core_versions() -> None:
    assert get("/api/") == {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": "10.0.0.1:6443"}],
    }


def test_groups_have_a_preferred_version() -> None:
    groups = get("/apis")["groups"]
    by_name = {group["name"]: group for group in groups}
    assert by_name["autoscaling"]["preferredVersion"] == {"groupVersion": "autoscaling/v2", "version": "v2"}
    assert get("/apis/autoscaling") == {"kind": "APIGroup", "apiVersion": "v1", **by_name["autoscaling"]}
    assert [group["name"] for group in groups[:3]] == ["apiregistration.k8s.io", "apps", "events.k8s.io"]


def test_resources_of_a_group() -> None:
    rows = {row["name"]: row for row in get("/apis/apps/v1")["resources"]}
    assert list(rows)[:4] == ["controllerrevisions", "daemonsets", "daemonsets/status", "deployments"]
    assert rows["deployments/scale"] == {
        "name": "deployments/scale",
        "singularName": "",
        "namespaced": True,
        "group": "autoscaling",
        "version": "v1",
        "kind": "Scale",
        "verbs": ["get", "patch", "update"],
    }
    assert rows["deployments"]["shortNames"] == ["deploy"]
    assert rows["deployments"]["categories"] == ["all"]


def test_core_resources() -> None:
    document = get("/api/v1")
    rows = {row["name"]: row for row in document["resources"]}
    assert document["groupVersion"] == "v1"
    assert rows["pods/eviction"]["kind"] == "Eviction"
    assert rows["pods/exec"] == {
        "name": "pods/exec",
        "singularName": "",
        "namespaced": True,
        "kind": "PodExecOptions",
        "verbs": ["create", "get"],
    }
    assert "deletecollection" not in rows["namespaces"]["verbs"]
    assert rows["componentstatuses"]["verbs"] == ["get", "list"]
    assert rows["bindings"]["verbs"] == ["create"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/api/v2",
        "/apis/nope",
        "/apis/apps/v9",
        "/apis/apps/v1/deployments",
        "/apis//v1",
        "/version",
        "/apis/core/v1",
    ],
)
def test_what_is_not_there_is_none(path: str) -> None:
    assert DISCOVERY.answer(path) is None


@pytest.mark.parametrize(("release", "accept"), [("1.36", V2), ("1.30", V2), ("1.32", V2BETA1), ("1.27", V2BETA1)])
def test_aggregated_documents(release: str, accept: str) -> None:
    answer = Discovery(Registry(release, behaviors=())).answer("/apis", accept + ",application/json")
    assert answer is not None and answer.content_type == accept and answer.etag.startswith('"')
    document = json.loads(answer.body)
    assert document["apiVersion"] == "apidiscovery.k8s.io/" + accept.split(";")[2][2:]
    apps = next(item for item in document["items"] if item["metadata"] == {"name": "apps"})
    assert apps["versions"][0]["freshness"] == "Current"
    deployments = next(row for row in apps["versions"][0]["resources"] if row["resource"] == "deployments")
    assert deployments["responseKind"] == {"group": "", "version": "", "kind": "Deployment"}
    assert deployments["scope"] == "Namespaced"
    assert [sub["subresource"] for sub in deployments["subresources"]] == ["scale", "status"]
    assert deployments["subresources"][0]["responseKind"] == {"group": "autoscaling", "version": "v1", "kind": "Scale"}


@pytest.mark.parametrize(("release", "accept"), [("1.26", V2BETA1), ("1.29", V2), ("1.33", V2BETA1)])
def test_releases_without_a_version_of_aggregated_discovery(release: str, accept: str) -> None:
    discovery = Discovery(Registry(release, behaviors=()))
    answer = discovery.answer("/apis", accept + ",application/json")
    assert answer is not None and answer.content_type == "application/json" and not answer.etag


def test_the_core_group_is_aggregated_at_api() -> None:
    items = get("/api", V2)["items"]
    assert len(items) == 1
    assert items[0]["versions"][0]["version"] == "v1"
    assert all(item["metadata"] for item in get("/apis", V2)["items"])


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        ("", ""),
        ("*/*", ""),
        ("application/json", ""),
        (f"{V2},{V2BETA1},application/json", "v2"),
        (f"{V2BETA1},application/json", "v2beta1"),
        (f"application/json,{V2}", ""),
        ("application/json;g=apidiscovery.k8s.io;v=v3;as=APIGroupDiscoveryList,application/json", ""),
        ("application/json;as=Table;v=v1;g=meta.k8s.io", ""),
        (";;=,,", ""),
        ("application/json; g=apidiscovery.k8s.io; v=v2; as=APIGroupDiscoveryList; q=0.9", "v2"),
    ],
)
def test_negotiation(accept: str, version: str) -> None:
    assert negotiate(accept) == version


def row(release: str, path: str, name: str) -> dict[str, Any]:
    document = Discovery(Registry(release, behaviors=())).document(path)
    assert document is not None
    return next(each for each in document["resources"] if each["name"] == name)


@pytest.mark.parametrize(
    ("release", "path", "name", "hash"),
    [  # as kube-apiserver 1.36 tells them, and Kubernetes' own api/discovery
        ("1.36", "/apis/apiextensions.k8s.io/v1", "customresourcedefinitions", "jfWCUB31mvA="),
        ("1.36", "/apis/admissionregistration.k8s.io/v1", "mutatingadmissionpolicies", "LYmCf+UMVdg="),
        ("1.37", "/apis/admissionregistration.k8s.io/v1", "mutatingadmissionpolicies", "mHCkTKpUTrE="),
        ("1.29", "/apis/flowcontrol.apiserver.k8s.io/v1", "flowschemas", "9NnFrw7ZEmA="),
        ("1.34", "/apis/resource.k8s.io/v1", "deviceclasses", "OgEE055Fbnc="),
        ("1.37", "/apis/storagemigration.k8s.io/v1", "storageversionmigrations", "pCjmmKOkLy4="),
        ("1.37", "/apis/certificates.k8s.io/v1", "podcertificaterequests", "wYA9yXQH8fg="),
        ("1.36", "/apis/certificates.k8s.io/v1", "certificatesigningrequests", "95fRKMXA+00="),
    ],
)
def test_hashes_of_storage_versions(release: str, path: str, name: str, hash: str) -> None:
    assert row(release, path, name)["storageVersionHash"] == hash


def test_singular_names_came_with_1_27() -> None:
    assert row("1.26", "/api/v1", "pods")["singularName"] == ""
    assert row("1.27", "/api/v1", "pods")["singularName"] == "pod"


@pytest.mark.parametrize(
    ("release", "group", "version", "plural", "text"),
    [
        ("1.25", "autoscaling", "v2beta2", "horizontalpodautoscalers",
         "autoscaling/v2beta2 HorizontalPodAutoscaler is deprecated in v1.23+, unavailable in v1.26+; use "
         "autoscaling/v2 HorizontalPodAutoscaler"),
        ("1.28", "flowcontrol.apiserver.k8s.io", "v1beta2", "flowschemas",
         "flowcontrol.apiserver.k8s.io/v1beta2 FlowSchema is deprecated in v1.26+, unavailable in v1.29+; use "
         "flowcontrol.apiserver.k8s.io/v1beta3 FlowSchema"),
        ("1.28", "flowcontrol.apiserver.k8s.io", "v1beta3", "flowschemas", ""),
        ("1.26", "storage.k8s.io", "v1beta1", "csistoragecapacities",
         "storage.k8s.io/v1beta1 CSIStorageCapacity is deprecated in v1.24+, unavailable in v1.27+; use "
         "storage.k8s.io/v1 CSIStorageCapacity"),
        ("1.36", "", "v1", "componentstatuses", "v1 ComponentStatus is deprecated in v1.19+"),
    ],
)  # fmt: skip
def test_what_is_on_its_way_out_says_so(release: str, group: str, version: str, plural: str, text: str) -> None:
    kind = Registry(release, behaviors=()).by_resource(group, version, plural)
    assert kind is not None and (found := kind.version(version)) is not None
    assert found.deprecation == text


def test_custom_kinds_are_told_as_the_definitions_server_tells_them() -> None:
    registry = Registry(behaviors=())
    kind = Kind("x.io", "Foo", "foos", "foo", (Version("v1", storage=True),), verbs=("get", "delete"), custom=True,
                subresources=(Subresource("scale", ("get",), "Scale", "autoscaling", "v1"),
                              Subresource("status", ("get",))))  # fmt: skip
    registry.add(kind)
    discovery = Discovery(registry)
    document = discovery.document("/apis/x.io/v1")
    assert document is not None
    assert [each["name"] for each in document["resources"]] == ["foos", "foos/status", "foos/scale"]
    assert document["resources"][0]["storageVersionHash"] == "7NYA/lA9Fzk="
    shown = discovery._own("x.io", "v1")["resources"][0]
    assert shown["responseKind"] == {"group": "x.io", "version": "v1", "kind": "Foo"}
    assert [each["responseKind"]["group"] for each in shown["subresources"]] == ["x.io", "autoscaling"]
    assert discovery.custom("/apis/x.io/v1") and not discovery.custom("/apis/apps/v1")


def test_custom_kinds_show_at_once() -> None:
    registry = Registry(behaviors=())
    discovery = Discovery(registry)
    assert discovery.answer("/apis/example.com/v1") is None
    before = discovery.answer("/apis", V2)
    registry.add(Kind("example.com", "Widget", "widgets", "widget", (Version("v1", storage=True),), verbs=("get",)))
    assert discovery.answer("/apis/example.com/v1") is not None
    after = discovery.answer("/apis", V2)
    assert before and after and before.etag != after.etag


def test_answers_are_kept() -> None:
    assert DISCOVERY.answer("/apis", V2) is DISCOVERY.answer("/apis", V2)
    for i in range(3000):
        assert DISCOVERY.answer(f"/apis/{i}") is None
    assert len(DISCOVERY._cache) <= 1001


@pytest.mark.parametrize(
    ("path", "plural", "found"),
    [
        ("/api/v1", "pods", "xPOwRZ+Yhw8="),
        ("/api/v1", "events", "r2yiGXH7wu8="),
        ("/apis/events.k8s.io/v1", "events", "r2yiGXH7wu8="),
        ("/apis/autoscaling/v1", "horizontalpodautoscalers", "qwQve8ut294="),
        ("/apis/apps/v1", "deployments", "8aSe+NMegvE="),
        ("/apis/resource.k8s.io/v1", "resourceclaims", "wgAZaHcZxUg="),
        ("/apis/authorization.k8s.io/v1", "subjectaccessreviews", None),
        ("/api/v1", "componentstatuses", None),
    ],
)
def test_what_is_stored_says_in_which_version(path: str, plural: str, found: str | None) -> None:
    rows = {row["name"]: row for row in get(path)["resources"]}
    assert rows[plural].get("storageVersionHash") == found
    assert ("apiVersion" in get(path)) == (path != "/api/v1")
