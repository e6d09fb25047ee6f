from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS, Object
from steersman.controllers.statefulset import claim_owners, new_claim, new_pod, plan

from .conftest import World
from .objects import template

NOW = 1_767_226_000.0


def statefulset(replicas: int = 3, image: str = "db:1", **spec: Any) -> Object:
    return {
        "metadata": {"name": "db", "namespace": "default", "uid": "u"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(image),
            **spec,
        },
    }


def a_pod(number: int, *, revision: str = "new", ready: bool = True, phase: str = "Running", **meta: Any) -> Object:
    stamp = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": stamp}] if ready else []
    labels = {"controller-revision-hash": revision}
    return {
        "metadata": {"name": f"db-{number}", "uid": f"{number}", "labels": labels, **meta},
        "spec": {},
        "status": {"phase": phase, "conditions": conditions},
    }


PARALLEL = {"podManagementPolicy": "Parallel"}


def at_once(most: int | str, partition: int = 0) -> Object:
    how = {"maxUnavailable": most, "partition": partition}
    return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": how}}


OLD = [a_pod(each, revision="old") for each in range(4)]
CASES: list[tuple[Object, list[Object], list[int], list[str]]] = [
    (statefulset(), [], [0], []),
    (statefulset(**PARALLEL), [], [0, 1, 2], []),
    (statefulset(), [a_pod(0)], [1], []),
    (statefulset(), [a_pod(0, ready=False)], [], []),
    (statefulset(), [a_pod(0), a_pod(1, phase="Failed")], [], ["db-1"]),
    (statefulset(1), [a_pod(0), a_pod(1), a_pod(2)], [], ["db-2"]),
    (statefulset(1, **PARALLEL), [a_pod(0), a_pod(1), a_pod(2)], [], ["db-2", "db-1"]),
    (statefulset(1), [a_pod(0), a_pod(1, ready=False), a_pod(2)], [], ["db-2"]),
    (statefulset(1), [a_pod(0), a_pod(1), a_pod(2, deletionTimestamp="x")], [], []),
    (statefulset(1), [a_pod(0, ready=False), a_pod(1)], [], []),
    (statefulset(), [a_pod(each, revision="old") for each in range(3)], [], ["db-2"]),
    (statefulset(), [a_pod(0, revision="old"), a_pod(1, revision="old"), a_pod(2)], [], ["db-1"]),
    (statefulset(4, **at_once(2)), OLD, [], ["db-3", "db-2"]),
    (statefulset(4, **at_once(2, partition=3)), OLD, [], ["db-3"]),
    (statefulset(4, **at_once("60%")), OLD, [], ["db-3", "db-2"]),
    (statefulset(4, **at_once("10%")), OLD, [], ["db-3"]),
    (statefulset(4, **PARALLEL, **at_once(3)), [*OLD[:3], a_pod(3, ready=False)], [], ["db-2", "db-1"]),
    (statefulset(4, **at_once(2)), [*OLD[:2], a_pod(2, ready=False), a_pod(3)], [], []),
    (statefulset(4, **PARALLEL, **at_once(2)), [*OLD[:2], a_pod(2, ready=False), a_pod(3, ready=False)], [], []),
    (statefulset(updateStrategy={"type": "OnDelete"}), [a_pod(each, revision="old") for each in range(3)], [], []),
    (
        statefulset(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}),
        [a_pod(0, revision="old"), a_pod(1, revision="old"), a_pod(2)],
        [],
        [],
    ),
    (statefulset(2, ordinals={"start": 5}), [a_pod(5)], [6], []),
    (statefulset(1, ordinals={"start": 5}), [a_pod(5), a_pod(0)], [], ["db-0"]),
    (statefulset(), [a_pod(0), a_pod(1), a_pod(2), {**a_pod(9), "metadata": {"name": "stranger"}}], [], []),
]


@pytest.mark.parametrize(("owner", "found", "create", "delete"), CASES)
def test_steps(owner: Object, found: list[Object], create: list[int], delete: list[str]) -> None:
    steps = plan(owner, found, "new", NOW)
    assert [number for number, _ in steps.create] == create
    assert [pod["metadata"]["name"] for pod in steps.delete] == delete


def test_below_the_partition_the_current_revision_is_made() -> None:
    owner = statefulset(updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}, **PARALLEL)
    assert plan(owner, [], "new", NOW).create == [(0, False), (1, False), (2, True)]


def test_a_pod_has_its_name_claims_and_marks() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}
    owner = statefulset(volumeClaimTemplates=[claim])
    owner["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    pod = new_pod(owner, 4, "rev")
    assert pod["metadata"]["name"] == pod["spec"]["hostname"] == "db-4"
    assert pod["spec"]["subdomain"] == "db"
    assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "4"
    assert pod["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-db-4"}},
        {"name": "tmp", "emptyDir": {}},
    ]
    made = new_claim(owner, claim, 4)
    assert made["metadata"] == {"name": "data-db-4", "labels": {"app": "web"}}
    assert made["spec"] == claim["spec"]


async def test_in_order_up_down_and_updated(world: World) -> None:
    world.start("statefulset-controller")
    world.tasks.spawn(world.kubelet(), "kubelet")
    owner = statefulset()
    owner["metadata"] = {"name": "db"}
    await world.client.create(STATEFULSETS, owner, "default")
    order: list[str] = []
    for _ in range(40):
        await world.settle(0.5)
        order += [name for name in await world.names(PODS) if name not in order]
    assert order == ["db-0", "db-1", "db-2"]
    found = await world.get(STATEFULSETS, "db")
    [revision] = await world.names(CONTROLLERREVISIONS)
    assert found["status"] == {
        "replicas": 3,
        "readyReplicas": 3,
        "currentReplicas": 3,
        "updatedReplicas": 3,
        "availableReplicas": 3,
        "observedGeneration": 1,
        "collisionCount": 0,
        "currentRevision": revision,
        "updateRevision": revision,
    }
    change = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "db:2"}]}}}}
    await world.client.patch(STATEFULSETS, "db", "default", change, type="strategic")
    await world.settle(60)
    assert {pod["spec"]["containers"][0]["image"] for pod in await world.list(PODS)} == {"db:2"}
    status = (await world.get(STATEFULSETS, "db"))["status"]
    assert status["currentRevision"] == status["updateRevision"] != revision
    assert len(await world.names(CONTROLLERREVISIONS)) == 2
    await world.client.patch(STATEFULSETS, "db", "default", {"spec": {"replicas": 1}})
    await world.settle(30)
    assert await world.names(PODS) == ["db-0"]
    messages = [message for _, message in await world.events()]
    assert "Create Pod db-0 in StatefulSet db successful" in messages
    assert "Delete Pod db-2 in StatefulSet db successful" in messages


async def test_claims_are_made_kept_and_handed_to_pods_that_go(world: World) -> None:
    world.start("statefulset-controller", "garbage-collector-controller")
    world.tasks.spawn(world.kubelet(), "kubelet")
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    policy = {"whenDeleted": "Retain", "whenScaled": "Delete"}
    owner = statefulset(2, volumeClaimTemplates=[claim], persistentVolumeClaimRetentionPolicy=policy)
    owner["metadata"] = {"name": "db"}
    await world.client.create(STATEFULSETS, owner, "default")
    await world.settle(30)
    assert await world.names(PERSISTENTVOLUMECLAIMS) == ["data-db-0", "data-db-1"]
    assert await world.names(PODS) == ["db-0", "db-1"]
    await world.client.patch(STATEFULSETS, "db", "default", {"spec": {"replicas": 1}})
    await world.settle(30)
    assert await world.names(PODS) == ["db-0"]
    kept = await world.names(PERSISTENTVOLUMECLAIMS)
    assert (
        kept == ["data-db-0"] or (await world.get(PERSISTENTVOLUMECLAIMS, "data-db-1"))["metadata"]["deletionTimestamp"]
    )
    await world.client.delete(STATEFULSETS, "db", "default", propagation="Background")
    await world.settle(30)
    assert "data-db-0" in await world.names(PERSISTENTVOLUMECLAIMS), "retained"


def owned(kind: str, name: str, uid: str, *, controller: bool = True) -> Object:
    group = {"StatefulSet": "apps/v1", "ConfigMap": "v1", "Pod": "v1"}[kind]
    made: Object = {"apiVersion": group, "kind": kind, "name": name, "uid": uid, "blockOwnerDeletion": True}
    return {**made, "controller": True} if controller else made


SET, POD_REF, OTHER = owned("StatefulSet", "db", "s"), owned("Pod", "db-0", "p"), owned("ConfigMap", "o", "x")


@pytest.mark.parametrize(
    ("deleted", "scaled", "condemned", "have", "wanted"),
    [
        ("Delete", "Retain", False, [], [SET]),
        ("Delete", "Retain", False, [SET], None),
        ("Delete", "Retain", False, [owned("StatefulSet", "db", "s", controller=False)], [SET]),
        ("Delete", "Retain", False, [owned("StatefulSet", "db", "old")], None),
        ("Delete", "Delete", True, [SET], [POD_REF]),
        ("Delete", "Delete", False, [POD_REF], [SET]),
        ("Retain", "Delete", True, [owned("Pod", "db-0", "old")], None),
        ("Retain", "Delete", False, [POD_REF], []),
        ("Retain", "Retain", False, [SET, OTHER], [OTHER]),
        ("Retain", "Retain", False, [OTHER], None),
        ("Delete", "Retain", False, [OTHER], None),
        ("Delete", "Retain", False, [SET, OTHER], [OTHER]),
        ("Delete", "Retain", False, [owned("ConfigMap", "o", "x", controller=False)],
         [owned("ConfigMap", "o", "x", controller=False), SET]),
    ],
)  # fmt: skip
def test_who_owns_a_claim(
    deleted: str, scaled: str, condemned: bool, have: list[Object], wanted: list[Object] | None
) -> None:
    policy = {"whenDeleted": deleted, "whenScaled": scaled}
    owner: Object = {"metadata": {"name": "db", "uid": "s"}, "spec": {"persistentVolumeClaimRetentionPolicy": policy}}
    pod: Object = {"metadata": {"name": "db-0", "uid": "p"}}
    claim: Object = {"metadata": {"name": "data-db-0", "ownerReferences": have}}
    assert claim_owners(owner, pod, claim, condemned=condemned) == wanted
    if wanted is not None:
        claim["metadata"]["ownerReferences"] = wanted
        assert claim_owners(owner, pod, claim, condemned=condemned) is None


async def test_a_claim_that_somebody_else_controls_is_left_to_them(world: World) -> None:
    world.start("statefulset-controller")
    world.tasks.spawn(world.kubelet(), "kubelet")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "1-2-3", "controller": True}
    theirs = {"metadata": {"name": "data-db-0", "ownerReferences": [other]}, "spec": claim}
    await world.client.create(PERSISTENTVOLUMECLAIMS, theirs, "default")
    policy = {"whenDeleted": "Delete", "whenScaled": "Retain"}
    templates = [{"metadata": {"name": "data"}, "spec": claim}]
    owner = statefulset(1, volumeClaimTemplates=templates, persistentVolumeClaimRetentionPolicy=policy)
    await world.client.create(STATEFULSETS, owner, "default")
    await world.settle(20)
    found = await world.get(PERSISTENTVOLUMECLAIMS, "data-db-0")
    assert [each["uid"] for each in found["metadata"]["ownerReferences"]] == ["1-2-3"]
    text = "PersistentVolumeClaim data-db-0 has a conflicting OwnerReference that acts as a manging controller, "
    assert ("ConflictingController", text + "the retention policy is ignored for this claim") in await world.events()
