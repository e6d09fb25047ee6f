"""Definitions whose schemas are not structural, and what kube-apiserver 1.36 says about them."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.kinds import definitionspec
from steersman.api.resource import Object

TOP = "spec.validation.openAPIV3Schema"
LIST, KEYS, MAP = "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type"
EITHER, KEEP, WHOLE = (
    "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
)
ITEM = {"type": "object", "properties": {"k": {"type": "string"}}}
KEEPING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
UNKEYED = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"


def definition(schema: Object, **version: Any) -> Object:
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}]
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    return {"spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": versions}}


def said(found: Object) -> list[str]:
    return [str(each) for each in definitionspec.check(found["spec"])]


@pytest.mark.parametrize(
    ("field", "complaints"),
    [
        ({"type": "string"}, []),
        ({"type": "array", "items": {"type": "string"}, LIST: "set"}, []),
        ({EITHER: True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, []),
        ({KEEP: True}, []),
        ({"type": "object", WHOLE: True, KEEP: True}, []),
        ({"type": "object", "additionalProperties": True, "properties": {"a": {"type": "string"}}}, []),
        ({"type": "array", "items": {**ITEM, "required": ["k"]}, LIST: "map", KEYS: ["k"]}, []),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "default": {"a": 1}}, []),
        ({"type": "array"}, [".items: Required value: must be specified"]),
        ({"type": "array", "items": {}}, [".items.type: Required value: must not be empty for specified array items"]),
        ({"properties": {}}, [".type: Required value: must not be empty for specified object fields"]),
        ({"type": "object", "additionalProperties": {"type": "string"}, "properties": {"a": {"type": "string"}}},
         [".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"]),
        ({"type": "foo"},
         ['.type: Unsupported value: "foo": supported values: "array", "boolean", "integer", "number", "object", '
          '"string"']),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True},
         [".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"]),
        ({"type": "object", "$ref": "a"}, [".$ref: Forbidden: $ref is not supported"]),
        ({"type": "object", KEEP: False}, [f".{KEEP}: Invalid value: false: must be true or undefined"]),
        ({EITHER: True, KEEP: True}, [f".{KEEP}: Invalid value: true: must be false if {EITHER} is true"]),
        ({"type": "string", WHOLE: True},
         [f".properties: Required value: must not be empty if {WHOLE} is true without {KEEP}",
          f'.type: Invalid value: "string": must be object if {WHOLE} is true']),
        ({"type": "string", LIST: "set"}, [f'.type: Invalid value: "string": must be array if {LIST} is specified']),
        ({"type": "object", MAP: "foo"}, [f'.{MAP}: Unsupported value: "foo": supported values: "atomic", "granular"']),
        ({"type": "array", "items": ITEM, LIST: "set"},
         [f".items.{MAP}: Invalid value: null: must be atomic as item of a list with {LIST}=set"]),
        ({"type": "array", "items": ITEM, LIST: "map", KEYS: ["k", "z", "k"]},
         [f'.{KEYS}: Invalid value: ["k","z","k"]: entries must all be names of item properties',
          f'.{KEYS}: Invalid value: ["k","z","k"]: must not contain duplicate entries',
          *[f".items.properties[k].default: Required value: {UNKEYED}"] * 2]),
        ({"type": "string", "anyOf": [{"minLength": 1, "description": "x"}]},
         [".anyOf[0].description: Forbidden: must be empty to be structural"]),
        ({"type": "string", "default": 5},
         ['.default: Invalid value: "integer":  in body must be of type string: "integer"']),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "default": {"b": 1}},
         ['.default: Invalid value: {"b":1}: must not have unknown fields']),
    ],
)  # fmt: skip
def test_a_field(field: Object, complaints: list[str]) -> None:
    found = said(definition({"type": "object", "properties": {"x": field}}))
    assert found == [f"{TOP}.properties[x]{each}" for each in complaints]


@pytest.mark.parametrize(
    ("schema", "complaint"),
    [
        ({"properties": {}}, f"{TOP}.type: Required value: must not be empty at the root"),
        ({"type": "string"}, f'{TOP}.type: Invalid value: "string": must be object at the root'),
        ({"type": "object", "additionalProperties": {"type": "string"}},
         f"{TOP}.additionalProperties: Forbidden: must not be used at the root"),
        ({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": KEEPING}}}},
         f"{TOP}.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but "
         "metadata is implicitly specified"),
        ({"type": "object", "anyOf": [{"properties": {"z": {"minLength": 1}}}]},
         f"{TOP}.properties[z]: Required value: because it is defined in {TOP}.anyOf[0].properties[z]"),
    ],
)  # fmt: skip
def test_the_root(schema: Object, complaint: str) -> None:
    assert said(definition(schema)) == [complaint]


def test_scales_and_selectable_fields() -> None:
    schema: Object = {
        "type": "object",
        "properties": {"spec": {"type": "object", "properties": {"s": {"type": "string"}}}},
    }
    scale = {"specReplicasPath": "spec.x", "labelSelectorPath": ".foo"}
    fields = [{"jsonPath": ".spec.s"}, {"jsonPath": ".spec.z"}, {"jsonPath": ".spec"}, {"jsonPath": ".spec.s"}]
    assert said(definition(schema, subresources={"scale": scale}, selectableFields=fields)) == [
        'spec.subresources.scale.specReplicasPath: Invalid value: "spec.x": must be a simple json path starting with .',
        "spec.subresources.scale.statusReplicasPath: Required value",
        'spec.subresources.scale.labelSelectorPath: Invalid value: ".foo": should be a json path under either .spec or '
        ".status",
        'spec.selectableFields[1].jsonPath: Invalid value: ".spec.z": is an invalid path: does not refer to a valid '
        "field",
        'spec.selectableFields[2].jsonPath: Invalid value: ".spec": must point to a field of type string, boolean or '
        "integer. Enum string fields and strings with formats are allowed.",
        'spec.selectableFields[3].jsonPath: Duplicate value: ".spec.s"',
    ]


def test_versions_that_differ_are_complained_about_one_by_one() -> None:
    found = definition({"type": "object"})
    found["spec"]["versions"].append({"name": "v2", "schema": {"openAPIV3Schema": {"type": "string"}}})
    text = 'spec.versions[1].schema.openAPIV3Schema.type: Invalid value: "string": must be object at the root'
    assert said(found) == [text]
