"""The registry: which kinds a release serves, and how kinds come and go."""

from __future__ import annotations

from time import perf_counter

import pytest

from steersman.api import schema
from steersman.api.errors import FieldError
from steersman.api.kind import Behavior, Kind, Subresource, Version, count_generation
from steersman.api.registry import Registry, version_priority
from steersman.api.schema.resources import GROUPS, RESOURCES


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry(behaviors=())


def widget(**more: object) -> Kind:
    version = Version("v1", {"type": "object"}, storage=True)
    return Kind("example.com", "Widget", "widgets", "widget", (version,), custom=True, **more)  # pyrefly: ignore


def test_a_kind_is_found_by_path_and_by_name(registry: Registry) -> None:
    deployment = registry.by_resource("apps", "v1", "deployments")
    assert deployment is not None
    assert deployment is registry.by_kind("apps", "v1", "Deployment") is registry.find("apps", "deployments")
    assert (deployment.list_kind, deployment.short_names, deployment.categories) == (
        "DeploymentList",
        ("deploy",),
        ("all",),
    )
    assert deployment.versions[0].schema == "io.k8s.api.apps.v1.Deployment"
    assert deployment.subresource("scale") == Subresource(
        "scale", ("get", "patch", "update"), "Scale", "autoscaling", "v1"
    )


@pytest.mark.parametrize("where", [("apps", "v1beta1", "deployments"), ("", "v1", "deployments"), ("apps", "v1", "")])
def test_what_is_not_served_is_not_found(registry: Registry, where: tuple[str, str, str]) -> None:
    assert registry.by_resource(*where) is None


@pytest.mark.parametrize("release", schema.releases())
def test_every_release_serves_the_everyday_kinds(release: str) -> None:
    registry = Registry(release, behaviors=())
    everyday = {
        "pods",
        "services",
        "deployments",
        "jobs",
        "leases",
        "roles",
        "customresourcedefinitions",
        "endpointslices",
    }
    assert everyday <= {kind.plural for kind in registry}
    for kind in registry:
        assert sum(version.storage for version in kind.versions) == 1
        assert not kind.subresources or kind.subresources[0].name != "resize"


def test_releases_differ() -> None:
    old, new = Registry("1.25", behaviors=()), Registry("1.37", behaviors=())
    assert old.versions("autoscaling") == ["v2", "v1", "v2beta2"]
    assert new.versions("autoscaling") == ["v2", "v1"]
    assert old.by_resource("resource.k8s.io", "v1", "deviceclasses") is None
    assert new.by_resource("resource.k8s.io", "v1", "deviceclasses")
    for release, resize in (("1.32", False), ("1.33", True)):
        pods = Registry(release, behaviors=()).find("", "pods")
        assert pods is not None and (pods.subresource("resize") is not None) == resize


def test_every_row_is_served_by_some_release() -> None:
    served = {(kind.group, kind.plural) for release in ("1.25", "1.37") for kind in Registry(release, behaviors=())}
    assert served == {(group, row.plural) for group in GROUPS for row in RESOURCES[group]}


def test_core_comes_first_and_custom_groups_last(registry: Registry) -> None:
    assert registry.groups()[:3] == ["", "apiregistration.k8s.io", "apps"]
    with_custom = Registry(behaviors=())
    with_custom.add(widget())
    assert with_custom.groups()[-1] == "example.com"


def test_a_custom_kind_comes_and_goes() -> None:
    registry = Registry(behaviors=())
    before = registry.revision
    registry.add(widget())
    registry.add(widget(short_names=("w",)))
    found = registry.by_kind("example.com", "v1", "Widget")
    assert found is not None and found.short_names == ("w",)
    registry.remove("example.com", "widgets")
    registry.remove("example.com", "widgets")
    assert registry.by_resource("example.com", "v1", "widgets") is None
    assert registry.revision > before + 2


def test_a_version_that_is_not_served_is_not_found() -> None:
    registry = Registry(behaviors=())
    versions = (Version("v2", storage=True), Version("v1", served=False))
    registry.add(Kind("example.com", "Widget", "widgets", "widget", versions))
    assert registry.by_resource("example.com", "v1", "widgets") is None
    assert registry.versions("example.com") == ["v2"]


def test_versions_have_subresources_of_their_own() -> None:
    status = (Subresource("status", ("get",)),)
    versions = (Version("v2", storage=True, subresources=()), Version("v1"))
    kind = Kind("example.com", "Widget", "widgets", "widget", versions, subresources=status)
    assert kind.subresource("status", "v1") and not kind.subresource("status", "v2")


def test_versions_are_ordered_as_kubernetes_does() -> None:
    names = ["v1alpha1", "foo", "v1", "v10beta3", "v2", "v1beta2", "v11alpha2", "bar", "v3beta1", "v10", "v1beta1"]
    assert sorted(names, key=version_priority) == [
        "v10", "v2", "v1", "v10beta3", "v3beta1", "v1beta2", "v1beta1", "v11alpha2", "v1alpha1", "bar", "foo",
    ]  # fmt: skip


def test_a_behaviour_is_merged_and_the_rest_is_generic() -> None:
    complaint = FieldError("FieldValueInvalid", "spec", "no")
    behavior = Behavior("apps", "Deployment", validate=lambda obj: [complaint])
    kind = Registry(behaviors=[behavior]).find("apps", "deployments")
    assert kind is not None and kind.validate({}) == [complaint]
    assert kind.validate_update({}, {}) == []
    new = {"metadata": {"generation": 7}, "spec": {"replicas": 1}, "status": {"replicas": 9}}
    kind.prepare_create(new)
    assert new == {"metadata": {"generation": 1}, "spec": {"replicas": 1}}


def test_an_update_keeps_status_and_counts_generations(registry: Registry) -> None:
    kind = registry.find("apps", "deployments")
    assert kind is not None
    old = {"metadata": {"generation": 3}, "spec": {"replicas": 1}, "status": {"replicas": 1}}
    new = {"metadata": {"labels": {}}, "spec": {"replicas": 2}, "status": {"replicas": 5}}
    kind.prepare_update(new, old)
    assert (new["metadata"]["generation"], new["status"]) == (4, {"replicas": 1})
    same = {"metadata": {"labels": {"a": "b"}}, "spec": {"replicas": 1}}
    kind.prepare_update(same, old)
    assert same["metadata"]["generation"] == 3


def test_the_status_endpoint_changes_status_only(registry: Registry) -> None:
    kind = registry.find("apps", "deployments")
    assert kind is not None
    old = {"metadata": {"generation": 3}, "spec": {"replicas": 1}}
    new = {"metadata": {"annotations": {"a": "b"}}, "spec": {"replicas": 2}, "status": {"replicas": 5}, "extra": 1}
    kind.updates["status"].prepare(new, old)
    assert new == {
        "metadata": {"annotations": {"a": "b"}, "generation": 3},
        "spec": {"replicas": 1},
        "status": {"replicas": 5},
    }


def test_kinds_without_generation_have_none(registry: Registry) -> None:
    kind = registry.find("", "configmaps")
    assert kind is not None
    new = {"metadata": {"generation": 5}, "data": {"a": "b"}}
    count_generation(kind, new, {"metadata": {}, "data": {}})
    assert "generation" not in new["metadata"]


def test_events_are_stored_once(registry: Registry) -> None:
    new, old = registry.find("events.k8s.io", "events"), registry.find("", "events")
    assert new and old and new.storage_location == old.storage_location == ("", "events")


def test_building_it_is_quick() -> None:
    schema.load()
    best = min(_seconds() for _ in range(5))
    assert best < 0.030


def _seconds() -> float:
    start = perf_counter()
    Registry(behaviors=())
    return perf_counter() - start
