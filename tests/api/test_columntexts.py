"""Words for columns: the schema's, of the field that is shown."""

from __future__ import annotations

import pytest

from steersman.api.columntexts import _FIELDS, ColumnTexts
from steersman.api.registry import Registry
from steersman.api.table import columns, custom_columns, definition, generic

REGISTRY = Registry("1.36")


@pytest.mark.parametrize("plural", sorted(_FIELDS))
def test_every_field_and_every_column_is_there(plural: str) -> None:
    kind = next(each for each in REGISTRY if each.plural == plural)
    shown = {column.name for column in columns(kind, kind.storage_version.name)}
    for name, fields in _FIELDS[plural].items():
        properties = REGISTRY.schemas.definitions[f"io.k8s.api.{name}"]["properties"]
        assert fields.keys() <= shown and set(fields.values()) <= properties.keys()


def test_words_are_the_schemas() -> None:
    texts = REGISTRY.column_texts.of("pods")
    described = REGISTRY.schemas.descriptions("io.k8s.api.core.v1.PodSpec")
    assert texts["Node"] == described["nodeName"]
    assert texts["Name"].startswith("Name must be unique within a namespace.")
    assert REGISTRY.column_texts.of("widgets").keys() == {"Name", "Age", "Created At"}
    pods = REGISTRY.find("", "pods")
    assert pods is not None
    heads = {head["name"]: head["description"] for head in (definition(each, texts) for each in columns(pods, "v1"))}
    assert heads["Node"] == texts["Node"] and heads["Restarts"] == "Restarts of the object."


def test_a_release_without_a_definition_has_words_of_ours() -> None:
    assert "PriorityLevel" not in ColumnTexts(Registry("1.25", behaviors=()).schemas).of("flowschemas")


def test_what_is_stated_stays() -> None:
    handler = next(each for each in columns(next(k for k in REGISTRY if k.kind == "RuntimeClass"), "v1") if each.stated)
    assert definition(handler, {"Handler": "x"})["description"] == ""
    path = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    assert definition(custom_columns([path])[1], {"Age": "x"})["description"].endswith(": .metadata.creationTimestamp")
    assert [each.type for each in custom_columns(None)] == ["string", "date"]


def test_kinds_without_columns() -> None:
    found = {kind.plural for kind in REGISTRY if "list" in kind.verbs and generic(kind, kind.storage_version.name)}
    assert found == {"limitranges", "csistoragecapacities"}
