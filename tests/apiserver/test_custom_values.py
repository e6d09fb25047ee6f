"""Good and broken custom objects, each as kube-apiserver 1.36.3 answered it.

`recorded_customs.jsonl` holds the definition's schema in its first line; every other line is the spec of an object and
the causes of the answer, sorted, for a Go map's order is no order; none where the object was taken. `NOTE` stands for
the note that rules were not asked.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CUSTOMRESOURCEDEFINITIONS, Object
from steersman.cluster.plane import ControlPlane

HEAD, *LINES = (Path(__file__).parent / "recorded_customs.jsonl").read_text().splitlines()
GIVEN = json.loads(HEAD)
CASES = [json.loads(line) for line in LINES]
SCALE = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
DEFINITION: Object = {
    "metadata": {"name": "things.fuzz.example.com"},
    "spec": {
        "group": "fuzz.example.com",
        "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}, "scale": SCALE},
                "schema": {"openAPIV3Schema": GIVEN["schema"]},
            }
        ],
    },
}
PATH = "/apis/fuzz.example.com/v1/namespaces/default/things"


async def causes(plane: ControlPlane, method: str, path: str, body: Object) -> list[str]:
    """What is wrong, sorted; nothing when it is taken."""
    merge = "application/merge-patch+json" if method == "PATCH" else "application/json"
    try:
        await plane.client.call(method, f"{path}?dryRun=All", body, content_type=merge)
    except ApiError as error:
        assert error.code == 422, error
        return sorted(f"{each['field']}: {each['message']}" for each in error.details["causes"])
    return []


async def served(plane: ControlPlane) -> None:
    await plane.client.create(CUSTOMRESOURCEDEFINITIONS, DEFINITION)
    name = f"metadata.name={DEFINITION['metadata']['name']}"
    async for event in plane.client.watch(CUSTOMRESOURCEDEFINITIONS, "", resource_version="0", fields=name):
        if any(each["type"] == "Established" for each in (event.object.get("status") or {}).get("conditions") or ()):
            return


async def test_what_is_taken_and_refused(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path, listen=None, controllers=()) as plane:
        await served(plane)
        for spec, said in CASES:
            obj = {"apiVersion": "fuzz.example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}
            wanted = sorted(GIVEN["note"] if text == "NOTE" else text for text in said)
            assert await causes(plane, "POST", PATH, obj) == wanted, spec
        assert sum(not said for _, said in CASES) > 30


@pytest.mark.parametrize(
    ("below", "change", "said"),
    [
        ("", {"spec": {"replicas": 8}}, ["spec: Invalid value: too many replicas"]),
        ("", {"spec": {"a": "abc"}}, []),
        ("/status", {"status": {"replicas": 9}}, ["status.replicas: Invalid value: 9: replicas in body should be less "
                                                  "than or equal to 5"]),
        ("/status", {"status": {"x": "no"}}, ["status: Invalid value: failed rule: !has(self.x) || self.x != 'no'"]),
        ("/status", {"status": {"x": "yes"}}, []),
        ("/scale", {"spec": {"replicas": 10}}, ["spec: Invalid value: too many replicas"]),
        ("/scale", {"spec": {"replicas": -2}}, [
            ".spec.replicas: Invalid value: -2: should be a non-negative integer",
            "spec.replicas: Invalid value: -2: spec.replicas in body should be greater than or equal to 0",
        ]),
        ("/scale", {"spec": {"replicas": 6}}, []),
    ],
)  # fmt: skip
async def test_changes(tmp_path: Path, below: str, change: Object, said: list[str]) -> None:
    async with ControlPlane(tmp_path, listen=None, controllers=()) as plane:
        await served(plane)
        thing = {"metadata": {"name": "u"}, "spec": {"color": "red", "replicas": 4}}
        await plane.client.call("POST", PATH, {"apiVersion": "fuzz.example.com/v1", "kind": "Thing", **thing})
        assert await causes(plane, "PATCH", f"{PATH}/u{below}", change) == said


async def test_a_finalizer_that_others_may_have(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path, listen=None, controllers=()) as plane:
        await served(plane)
        obj = {"apiVersion": "fuzz.example.com/v1", "kind": "Thing", "spec": {"color": "red"}}
        made = await plane.client.call("POST", PATH, {**obj, "metadata": {"name": "f", "finalizers": ["a.b/c"]}})
        assert made["metadata"]["finalizers"] == ["a.b/c"]
        with pytest.raises(ApiError, match="cannot unmarshal number into Go struct field"):
            await plane.client.call("POST", PATH, {**obj, "metadata": {"name": "g", "labels": {"a": 1}}})


ANOTHER = '"kind":"Other","apiVersion":"fuzz.example.com/v1","metadata":{"name":"z"}'
SHAPELESS = '{"kind":"Thing","apiVersion":"fuzz.example.com/v1","metadata":[]}'
CLAIMS = [
    ("{}", 400, "the object provided is unrecognized (must be of type Thing): Object 'Kind' is missing in '{}' ({})"),
    ('{"kind":"Thing"}', 400,
     "the API version in the data () does not match the expected API version (fuzz.example.com/v1)"),
    (f"{{{ANOTHER}}}", 422, 'Other.fuzz.example.com "z" is invalid: kind: Invalid value: "Other": must be Thing'),
    (SHAPELESS, 400, 'Thing in version "v1" cannot be handled as a Thing: json: cannot unmarshal array into Go value of'
     " type v1.ObjectMeta"),
]  # fmt: skip


async def test_custom_objects_say_what_they_are(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path, listen=None, controllers=()) as plane:
        await served(plane)
        for body, status, words in CLAIMS:
            found, said = await plane.client.raw("POST", PATH, body.encode(), [("content-type", "application/json")])
            assert (found.status, json.loads(said)["message"]) == (status, words)
