"""Server-side apply and managedFields, on real kinds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steersman.api.errors import ApiError
from steersman.api.kind import Kind
from steersman.api.patch import fieldset
from steersman.api.patch.fieldmanager import FieldManager
from steersman.api.registry import Registry

REGISTRY = Registry()
MANAGER = FieldManager(REGISTRY.schemas)
NOW = 1_795_237_200.0
STAMP = "2026-11-21T05:00:00Z"


def kind(name: str, group: str = "") -> Kind:
    found = REGISTRY.by_kind(group, "v1", name)
    assert found is not None
    return found


CONFIGMAP = kind("ConfigMap")
DEPLOYMENT = kind("Deployment", "apps")


def config(data: dict[str, str] | None = None, **meta: Any) -> dict[str, Any]:
    out: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n", **meta}}
    if data is not None:
        out["data"] = data
    return out


def applied(live: Any, wanted: Any, manager: str = "one", *, of: Kind = CONFIGMAP, **more: Any) -> dict[str, Any]:
    return MANAGER.apply(of, "v1", live, wanted, manager=manager, now=NOW, **more)


def written(old: Any, new: dict[str, Any], manager: str = "writer", *, of: Kind = CONFIGMAP, **more: Any) -> Any:
    MANAGER.track(of, "v1", new, old, manager=manager, now=NOW, **more)
    return new


def owned(obj: dict[str, Any]) -> dict[str, Any]:
    return {entry["manager"]: entry["fieldsV1"] for entry in obj["metadata"].get("managedFields", ())}


def test_create_by_apply() -> None:
    obj = applied(None, config({"a": "1"}, labels={"x": "y"}))
    assert obj["data"] == {"a": "1"}
    assert obj["metadata"]["managedFields"] == [
        {
            "manager": "one",
            "operation": "Apply",
            "apiVersion": "v1",
            "time": STAMP,
            "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:a": {}}, "f:metadata": {"f:labels": {"f:x": {}}}},
        }
    ]


def test_what_is_no_longer_named_goes() -> None:
    live = applied(None, config({"a": "1", "b": "2"}, labels={"x": "y"}))
    after = applied(live, config({"a": "1"}))
    assert after["data"] == {"a": "1"}
    assert "labels" not in after["metadata"]
    assert owned(after) == {"one": {"f:data": {"f:a": {}}}}


def test_what_others_own_stays() -> None:
    live = applied(None, config({"a": "1", "b": "2"}))
    live = applied(live, config({"b": "2"}), "two")
    after = applied(live, config({"a": "1"}))
    assert after["data"] == {"a": "1", "b": "2"}
    assert owned(after) == {"one": {"f:data": {"f:a": {}}}, "two": {"f:data": {"f:b": {}}}}


def test_what_nobody_owns_stays() -> None:
    live = applied(None, config({"a": "1"}))
    live["data"]["stray"] = "x"
    assert applied(live, config({"a": "2"}))["data"] == {"a": "2", "stray": "x"}


def test_conflict_and_force() -> None:
    live = applied(None, config({"a": "1"}))
    with pytest.raises(ApiError) as caught:
        applied(live, config({"a": "2"}), "two")
    assert caught.value.status() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'Apply failed with 1 conflict: conflict with "one": .data.a',
        "reason": "Conflict",
        "details": {
            "causes": [{"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.a"}]
        },
        "code": 409,
    }
    after = applied(live, config({"a": "2"}), "two", force=True)
    assert after["data"] == {"a": "2"}
    assert owned(after) == {"two": {"f:data": {"f:a": {}}}}


def test_several_conflicts() -> None:
    live = written(None, config({"a": "1", "b": "2"}), "kubectl-create")
    with pytest.raises(ApiError) as caught:
        applied(live, config({"a": "x", "b": "y"}), "two")
    assert str(caught.value) == (
        'Apply failed with 2 conflicts: conflicts with "kubectl-create" using v1:\n- .data.a\n- .data.b'
    )


def test_the_same_value_is_shared_not_fought_over() -> None:
    live = applied(None, config({"a": "1"}))
    after = applied(live, config({"a": "1"}), "two")
    assert owned(after) == {"one": {"f:data": {"f:a": {}}}, "two": {"f:data": {"f:a": {}}}}


def test_an_update_takes_ownership() -> None:
    live = applied(None, config({"a": "1", "b": "2"}))
    new = copy.deepcopy(live)
    new["data"] = {"a": "changed", "c": "3"}
    after = written(live, new)
    assert owned(after) == {"writer": {"f:data": {"f:a": {}, "f:c": {}}}}


def test_a_write_that_changes_nothing_changes_no_entry() -> None:
    live = applied(None, config({"a": "1"}))
    after = written(live, copy.deepcopy(live))
    assert after == live


def test_first_apply_over_an_unmanaged_object() -> None:
    live = config({"a": "1", "b": "2"})
    with pytest.raises(ApiError, match="before-first-apply"):
        applied(live, config({"a": "2"}))
    after = applied(live, config({"a": "1"}))
    assert owned(after) == {
        "before-first-apply": {"f:data": {".": {}, "f:a": {}, "f:b": {}}},
        "one": {"f:data": {"f:a": {}}},
    }


def test_a_client_can_take_everything_away() -> None:
    live = applied(None, config({"a": "1"}))
    new = {**copy.deepcopy(live), "data": {"a": "2"}}
    new["metadata"]["managedFields"] = []
    assert "managedFields" not in written(live, new)["metadata"]


def test_managed_fields_may_not_be_applied() -> None:
    with pytest.raises(ApiError, match=r"metadata\.managedFields must be nil"):
        applied(None, config({}, managedFields=[]))


def deployment(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "n"},
        "spec": {"template": {"spec": {"containers": list(containers)}}, **spec},
    }


def names(obj: dict[str, Any]) -> list[str]:
    return [each["name"] for each in obj["spec"]["template"]["spec"]["containers"]]


def test_list_items_have_owners() -> None:
    live = applied(None, deployment({"name": "a", "image": "1"}, {"name": "b", "image": "1"}), of=DEPLOYMENT)
    live = applied(live, deployment({"name": "s", "image": "1"}), "sidecars", of=DEPLOYMENT)
    after = applied(live, deployment({"name": "b", "image": "2"}), of=DEPLOYMENT)
    assert names(after) == ["b", "s"]
    fields = owned(after)["one"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert fields == {'k:{"name":"b"}': {".": {}, "f:image": {}, "f:name": {}}}


def test_order_of_merged_lists() -> None:
    live = deployment(*({"name": name} for name in "abcd"))
    after = applied(live, deployment({"name": "d"}, {"name": "x"}, {"name": "b"}), of=DEPLOYMENT, force=True)
    assert set(names(after)) == set("abcdx")
    mine = [name for name in names(after) if name in "dxb"]
    assert mine == ["d", "x", "b"]


def test_ports_have_two_keys_one_with_a_default() -> None:
    live = applied(None, deployment({"name": "a", "ports": [{"containerPort": 80}]}), of=DEPLOYMENT)
    container = owned(live)["one"]["f:spec"]["f:template"]["f:spec"]["f:containers"]['k:{"name":"a"}']
    assert container["f:ports"] == {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}}


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            deployment({"name": "a"}, {"name": "a"}),
            '.spec.template.spec.containers: duplicate entries for key [name="a"]',
        ),
        (
            deployment({"image": "a"}, {"image": "b"}),
            '.spec.template.spec.containers: duplicate entries for key [name=""]',
        ),
        (deployment(replcas=1), ".spec.replcas: field not declared in schema"),
        (deployment(replicas="5"), ".spec.replicas: expected numeric (int or float), got string"),
    ],
)
def test_bad_configurations(wanted: dict[str, Any], text: str) -> None:
    with pytest.raises(ApiError) as caught:
        applied(None, wanted, of=DEPLOYMENT)
    assert caught.value.code == 500
    assert str(caught.value) == (f"failed to create typed patch object (n/d; apps/v1, Kind=Deployment): {text}")


def test_atomic_parts_change_hands_whole() -> None:
    labels = {"matchLabels": {"a": "b"}}
    live = applied(None, deployment({"name": "a"}, selector=labels), of=DEPLOYMENT)
    assert owned(live)["one"]["f:spec"]["f:selector"] == {}
    with pytest.raises(ApiError, match=r"conflict with .one.: \.spec\.selector"):
        applied(live, deployment({"name": "a"}, selector={"matchLabels": {"c": "d"}}), "two", of=DEPLOYMENT)


def test_status_belongs_to_its_endpoint() -> None:
    live = written(None, {**deployment({"name": "a"}), "status": {"replicas": 1}}, of=DEPLOYMENT)
    assert "f:status" not in owned(live)["writer"]
    new = copy.deepcopy(live)
    new["status"] = {"replicas": 2}
    new["spec"]["replicas"] = 9
    after = written(live, new, "controller", of=DEPLOYMENT, subresource="status")
    entry = next(each for each in after["metadata"]["managedFields"] if each["manager"] == "controller")
    assert entry["subresource"] == "status"
    assert entry["fieldsV1"] == {"f:status": {"f:replicas": {}}}
    with pytest.raises(ApiError) as caught:
        applied(
            after,
            {**deployment({"name": "a"}), "status": {"replicas": 3}},
            "two",
            of=DEPLOYMENT,
            subresource="status",
        )
    assert 'conflict with "controller" with subresource "status" using apps/v1: .status.replicas' in str(caught.value)


def test_ordinary_create_as_the_original_records_it() -> None:
    obj = deployment(
        {"name": "c", "image": "nginx", "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {}},
        replicas=1,
        selector={"matchLabels": {"a": "b"}},
        strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
    )
    obj["metadata"]["labels"] = {"app": "x"}
    obj["spec"]["template"]["metadata"] = {"labels": {"a": "b"}}
    assert owned(written(None, obj, "kubectl-create", of=DEPLOYMENT))["kubectl-create"] == {
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {
            "f:replicas": {},
            "f:selector": {},
            "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
            "f:template": {
                "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                "f:spec": {
                    "f:containers": {
                        'k:{"name":"c"}': {
                            ".": {},
                            "f:image": {},
                            "f:name": {},
                            "f:ports": {
                                ".": {},
                                'k:{"containerPort":80,"protocol":"TCP"}': {
                                    ".": {},
                                    "f:containerPort": {},
                                    "f:protocol": {},
                                },
                            },
                            "f:resources": {},
                        }
                    }
                },
            },
        },
    }


def test_kubectl_takes_over_from_client_side_apply() -> None:
    annotation = '{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1"},"metadata":{"name":"c","namespace":"n"}}'
    key = "kubectl.kubernetes.io/last-applied-configuration"
    live = written(None, config({"a": "1"}, annotations={key: annotation}), "kubectl-client-side-apply")
    after = applied(live, config({"a": "2"}), "kubectl")
    assert after["data"] == {"a": "2"}
    assert '"a":"2"' in after["metadata"]["annotations"][key]
    with pytest.raises(ApiError):
        applied(live, config({"a": "2"}), "somebody")


def test_at_most_ten_updaters() -> None:
    obj = written(None, config({"a": "0"}), "m0")
    for i in range(1, 15):
        new = copy.deepcopy(obj)
        new["data"][f"k{i}"] = "1"
        MANAGER.track(CONFIGMAP, "v1", new, obj, manager=f"m{i}", now=NOW + i)
        obj = new
    found = [entry["manager"] for entry in obj["metadata"]["managedFields"]]
    assert len(found) == 10
    assert found[0] == "ancient-changes"
    assert "m14" in found


def test_unreadable_managed_fields_are_as_if_not_there() -> None:
    live = written(None, config({"a": "1"}))
    new = copy.deepcopy(live)
    new["data"] = {"a": "2"}
    new["metadata"]["managedFields"] = [{"operation": "Guess"}]
    assert owned(written(live, new, "two")) == {"two": {"f:data": {"f:a": {}}}, "writer": {"f:data": {}}}


DATA = st.dictionaries(st.sampled_from("abcde"), st.sampled_from("12"), max_size=4)


@given(st.lists(st.tuples(st.sampled_from(["one", "two", "three"]), DATA), min_size=1, max_size=6))
def test_appliers_get_what_they_want_and_nothing_stays_behind(steps: list[tuple[str, dict[str, str]]]) -> None:
    """Against the naive rule: a key is there as long as somebody's last configuration has it."""
    live: dict[str, Any] | None = None
    wanted: dict[str, dict[str, str]] = {}
    for manager, data in steps:
        live = applied(live, config(dict(data)), manager, force=True)
        for others in wanted.values():
            for key in [key for key, value in others.items() if key in data and data[key] != value]:
                del others[key]
        wanted[manager] = dict(data)
    expected = {key: value for data in wanted.values() for key, value in data.items()}
    assert (live or {}).get("data", {}) == expected
    for manager, fields in owned(live or {}).items():
        assert {key[2:] for key in fields.get("f:data", {}) if key != "."} == set(wanted[manager])


PATHS = st.lists(st.lists(st.sampled_from(["f:a", "f:b", "f:c"]), min_size=1, max_size=3).map(tuple), max_size=6)


def as_set(paths: list[tuple[str, ...]]) -> fieldset.Set:
    out: fieldset.Set = {}
    for path in paths:
        fieldset.insert(out, path)
    return out


@given(PATHS, PATHS)
def test_field_sets_are_sets_of_paths(one: list[tuple[str, ...]], other: list[tuple[str, ...]]) -> None:
    a, b = as_set(one), as_set(other)
    for operation, plain in (
        (fieldset.union, set.union),
        (fieldset.difference, set.difference),
        (fieldset.intersection, set.intersection),
    ):
        assert set(fieldset.members(operation(a, b))) == plain(set(one), set(other))
    assert fieldset.decode(fieldset.encode(a)) == a
