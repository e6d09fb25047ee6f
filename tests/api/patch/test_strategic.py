"""Strategic merge patch on the real schemas, and against a naive merge by key."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api import schema
from steersman.api.errors import ApiError
from steersman.api.patch import strategic

SCHEMAS = schema.load()


def patched(kind: str, document: Any, patch: Any, group: str = "") -> Any:
    return strategic.apply(copy.deepcopy(document), copy.deepcopy(patch), SCHEMAS.of(group, "v1", kind), SCHEMAS)


def containers(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": name, "image": image} for name, image in pairs]}}


AB = containers(("a", "1"), ("b", "2"))


@pytest.mark.parametrize(
    ("document", "patch", "wanted"),
    [
        (AB, containers(("b", "3")), containers(("a", "1"), ("b", "3"))),
        (AB, containers(("c", "3")), containers(("c", "3"), ("a", "1"), ("b", "2"))),  # what is new comes first
        (AB, {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}, containers(("b", "2"))),
        (
            AB,
            {"spec": {"containers": [{"$patch": "replace"}, {"name": "x", "image": "9"}]}},
            containers(("x", "9")),
        ),
        (AB, {"spec": {"$patch": "replace", "nodeName": "n"}}, {"spec": {"nodeName": "n"}}),
        (AB, {"spec": {"containers": None}}, {"spec": {}}),
        (
            AB,
            {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}},
            containers(("b", "2"), ("a", "1")),
        ),
        (
            AB,
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
                    "containers": [{"name": "c", "image": "3"}, {"name": "b", "$patch": "delete"}],
                }
            },
            containers(("c", "3"), ("a", "1")),
        ),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}},
            {"metadata": {"finalizers": ["b", "c"]}},
        ),
        ({"metadata": {"finalizers": ["a"]}}, {"metadata": {"finalizers": ["a"]}}, {"metadata": {"finalizers": ["a"]}}),
        (
            {"metadata": {"labels": {"a": "1", "b": "2"}}},
            {"metadata": {"labels": {"a": None, "c": "3"}}},
            {"metadata": {"labels": {"b": "2", "c": "3"}}},
        ),
        (
            {"spec": {"tolerations": [{"key": "a"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
            {"spec": {"tolerations": [{"key": "b"}]}},
        ),
        (
            {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}},
            {"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}},
            {"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}},
        ),
    ],
)
def test_pods(document: Any, patch: Any, wanted: Any) -> None:
    assert patched("Pod", document, patch) == wanted


def test_new_parts_lose_nulls_and_directives() -> None:
    patch = {"spec": {"nodeName": None, "containers": [{"name": "a", "image": None, "$patch": "merge"}]}}
    assert patched("Pod", {}, {"spec": patch["spec"]}) == {"spec": {"containers": [{"name": "a"}]}}


def test_service_ports_merge_by_port() -> None:
    before = {"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}}
    after = patched("Service", before, {"spec": {"ports": [{"port": 80, "nodePort": 30000}]}})
    assert after["spec"]["ports"] == [{"name": "a", "port": 80, "nodePort": 30000}, {"name": "b", "port": 81}]


def test_deployment_strategy_keeps_only_what_it_is_told() -> None:
    before = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert patched("Deployment", before, patch, "apps") == {"spec": {"strategy": {"type": "Recreate"}}}


@pytest.mark.parametrize(
    ("patch", "code", "text"),
    [
        ([], 400, "invalid JSON document"),
        ({"spec": {"containers": [{"image": "x"}]}}, 500, "does not contain declared merge key: name"),
        ({"spec": {"$patch": "shake"}}, 500, "unknown patch type: shake"),
        ({"spec": {"containers": [{"name": "a", "$patch": "merge"}]}}, 500, "merging lists cannot yet be specified"),
        ({"spec": {"$setElementOrder/containers": "a"}}, 400, "invalid patch format of setElementOrder list"),
        ({"spec": {"$retainKeys": "a"}}, 400, "invalid patch format of retainKeys"),
        ({"spec": {"$retainKeys": ["a"], "nodeName": "n"}}, 400, "invalid patch format of retainKeys"),
    ],
)
def test_refused(patch: Any, code: int, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        patched("Pod", AB, patch)
    assert caught.value.code == code
    assert text in str(caught.value)


NAMED = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"), max_size=4)


@given(NAMED, NAMED)
def test_lists_merge_as_maps_do(before: dict[str, str], patch: dict[str, str]) -> None:
    document = containers(*before.items())
    merged = patched("Pod", document, containers(*patch.items()))
    found = {each["name"]: each["image"] for each in merged["spec"]["containers"]}
    assert found == {**before, **patch}


@given(NAMED, st.permutations("abcd"))
def test_order_is_the_authors(before: dict[str, str], order: list[str]) -> None:
    patch = {"spec": {"$setElementOrder/containers": [{"name": name} for name in order]}}
    merged = patched("Pod", containers(*before.items()), patch)
    names = [each["name"] for each in merged["spec"]["containers"]]
    assert names == [name for name in order if name in before]
