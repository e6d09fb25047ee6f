"""ObjectMeta: each rule with a value that passes and one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api import meta, names

GOOD: dict[str, Any] = {"name": "a", "namespace": "ns", "resourceVersion": "1"}
SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({}, []),
        ({"name": "a.b-c"}, []),
        ({"name": ""}, ["metadata.name: Required value: name or generateName is required"]),
        ({"name": "A"}, [f'metadata.name: Invalid value: "A": {SUBDOMAIN}']),
        ({"name": "a" * 254}, [f'metadata.name: Invalid value: "{"a" * 254}": must be no more than 253 characters']),
        ({"generateName": "a-"}, []),
        ({"generateName": "Aa-"}, [f'metadata.generateName: Invalid value: "Aa-": {SUBDOMAIN}']),
        ({"namespace": ""}, ["metadata.namespace: Required value"]),
        ({"generation": -1}, ["metadata.generation: Invalid value: -1: must be greater than or equal to 0"]),
        ({"labels": {"a/b": "c"}}, []),
        ({"labels": {"/b": "c"}}, ['metadata.labels: Invalid value: "/b": prefix part must be non-empty']),
        ({"annotations": {"A.B/c": "any thing"}}, []),
        (
            {"annotations": {"a": "x" * (256 * 1024)}},
            ["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        ({"ownerReferences": [OWNER]}, []),
        (
            {"ownerReferences": [{**OWNER, "uid": ""}]},
            ['metadata.ownerReferences.uid: Invalid value: "": must not be empty'],
        ),
        ({"finalizers": ["example.com/a"]}, []),
        (
            {"finalizers": ["orphan", "foregroundDeletion"]},
            [
                'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: '
                "finalizer orphan and foregroundDeletion cannot be both set"
            ],
        ),
        ({"managedFields": [{"operation": "Apply", "manager": "m"}]}, []),
        (
            {"managedFields": [{"operation": "Guess"}]},
            ['metadata.managedFields[0].operation: Invalid value: "Guess": must be `Apply` or `Update`'],
        ),
    ],
)
def test_create(change: dict[str, Any], errors: list[str]) -> None:
    found = meta.validate({"metadata": {**GOOD, **change}}, namespaced=True)
    assert [str(error) for error in found] == errors


def test_scope_and_rule() -> None:
    assert [str(e) for e in meta.validate({"metadata": {"name": "a", "namespace": "b"}}, namespaced=False)] == [
        "metadata.namespace: Forbidden: not allowed on this type"
    ]
    assert not meta.validate({"metadata": {"name": "system:a"}}, namespaced=False, rule=names.path_segment)
    assert [
        str(e) for e in meta.validate({"metadata": {"name": "a/b"}}, namespaced=False, rule=names.path_segment)
    ] == ["metadata.name: Invalid value: \"a/b\": may not contain '/'"]


def test_two_controllers() -> None:
    owner = {**OWNER, "controller": True}
    (error,) = meta.validate_owners([owner, {**owner, "name": "q"}], "o")
    assert error.detail.endswith(
        'Only one reference can have Controller set to true. Found "true" in references for Pod/p and Pod/q'
    )


@pytest.mark.parametrize(
    ("new", "old", "errors"),
    [
        ({}, {}, []),
        (
            {"resourceVersion": ""},
            {},
            ['metadata.resourceVersion: Invalid value: "": must be specified for an update'],
        ),
        ({"uid": "2"}, {"uid": "1"}, ['metadata.uid: Invalid value: "2": field is immutable']),
        ({"name": "b"}, {}, ['metadata.name: Invalid value: "b": field is immutable']),
        (
            {"generation": 1},
            {"generation": 2},
            ["metadata.generation: Invalid value: 1: must not be decremented"],
        ),
        ({"finalizers": ["a/b"]}, {"finalizers": ["a/b"], "deletionTimestamp": ""}, []),
        (
            {"finalizers": ["a/b", "a/c"], "deletionTimestamp": "t"},
            {"finalizers": ["a/b"], "deletionTimestamp": "t"},
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
                'found new finalizers []string{"a/c"}'
            ],
        ),
    ],
)
def test_update(new: dict[str, Any], old: dict[str, Any], errors: list[str]) -> None:
    found = meta.validate_update({"metadata": {**GOOD, **new}}, {"metadata": {**GOOD, **old}})
    assert [str(error) for error in found] == errors


def test_fill_and_carry_over() -> None:
    obj = {"metadata": {"name": "a", "uid": "mine", "deletionTimestamp": "x", "selfLink": "/"}}
    meta.fill(obj, uid="u", now="t")
    assert obj == {"metadata": {"name": "a", "uid": "u", "creationTimestamp": "t"}}
    new = {"metadata": {"name": "a", "creationTimestamp": "mine", "generation": 7}}
    meta.carry_over(new, obj)
    assert new == obj
    meta.carry_over(new, {"metadata": {**obj["metadata"], "deletionTimestamp": "d"}})
    assert new["metadata"]["deletionTimestamp"] == "d"


@pytest.mark.parametrize(
    ("options", "patch", "errors"),
    [
        ({}, "", []),
        ({"fieldManager": "m", "dryRun": ["All"], "fieldValidation": "Strict"}, "", []),
        ({}, "apply", ["fieldManager: Required value: is required for apply patch"]),
        ({"force": True}, "merge", ["force: Forbidden: may not be specified for non-apply patch"]),
        ({"fieldManager": "m" * 129}, "", ["fieldManager: Too long: may not be more than 128 bytes"]),
        ({"dryRun": ["Some"]}, "", ['dryRun: Unsupported value: ["Some"]: supported values: "All"']),
        (
            {"fieldValidation": "Maybe"},
            "",
            ['fieldValidation: Unsupported value: "Maybe": supported values: "", "Ignore", "Strict", "Warn"'],
        ),
    ],
)
def test_options(options: dict[str, Any], patch: str, errors: list[str]) -> None:
    assert [str(error) for error in meta.validate_options(options, patch=patch)] == errors


def test_delete_options() -> None:
    assert not meta.validate_delete_options({"propagationPolicy": "Foreground"})
    (error,) = meta.validate_delete_options({"propagationPolicy": "Maybe"})
    assert str(error) == (
        'propagationPolicy: Unsupported value: "Maybe": supported values: "Foreground", "Background", "Orphan", "nil"'
    )
