"""The compiled schemas: every release loads, what the source package changed is undone."""

from __future__ import annotations

import pytest

from steersman.api import schema
from steersman.api.schema import Schema, Schemas, UnknownRelease
from steersman.api.schema.types import SPECIAL


@pytest.mark.parametrize("release", schema.releases())
def test_every_release_loads_and_its_references_resolve(release: str) -> None:
    schemas = schema.load(release)
    assert schemas.of("apps", "v1", "Deployment")["properties"]["spec"]

    def check(node: Schema) -> None:
        assert isinstance(node.get("type", ""), str)
        assert not node.get("$ref", "").startswith("#")
        schemas.resolve(node)
        for inner in [*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")]:
            if isinstance(inner, dict):
                check(inner)

    for node in schemas.definitions.values():
        check(node)


def test_api_version_and_kind_are_not_enums() -> None:
    deployment = schema.load().of("apps", "v1", "Deployment")
    assert deployment["properties"]["kind"] == {"type": "string"}


def test_scalars_are_restored() -> None:
    schemas = schema.load()
    by_type = {name.rpartition(".")[2]: schemas.definitions[name] for name in SPECIAL}
    assert by_type["Quantity"] == {"type": "string"}
    assert by_type["IntOrString"] == {"type": "string", "format": "int-or-string"}


def test_merge_keys_and_list_types_are_kept() -> None:
    ports = schema.load().definitions["io.k8s.api.core.v1.Container"]["properties"]["ports"]
    assert ports["x-kubernetes-patch-merge-key"] == "containerPort"
    assert ports["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]


def test_descriptions_are_apart() -> None:
    schemas = schema.load()
    assert "description" not in schemas.definitions["io.k8s.api.core.v1.Pod"]
    assert "Pod is a collection" in schemas.descriptions("io.k8s.api.core.v1.Pod")[""]
    assert schemas.descriptions("no.such.Thing") == {}


@pytest.mark.parametrize("release", ["9.99", "../1.37", "", "1.37/../1.36", "latest"])
def test_a_release_without_schemas_is_refused(release: str) -> None:
    with pytest.raises(UnknownRelease):
        schema.load(release)


def test_a_kind_without_schema_is_a_key_error() -> None:
    schemas = Schemas("1.0", {})
    assert schemas.name("apps", "v1", "Deployment") is None
    with pytest.raises(KeyError):
        schemas.of("apps", "v1", "Deployment")
