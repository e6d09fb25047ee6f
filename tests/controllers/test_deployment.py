from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import DEPLOYMENTS, PODS, REPLICASETS, Object
from steersman.controllers.deployment.plan import plan
from steersman.controllers.deployment.sets import HASH_LABEL, REVISION, Strategy, fresh

from .conftest import World
from .objects import deployment, template

NOW = 1_767_225_700.0


def made(replicas: int = 10, **spec: Any) -> Object:
    body = deployment(replicas=replicas, **spec)
    body["metadata"] |= {"namespace": "default", "uid": "d", "generation": 1}
    body["spec"].setdefault("strategy", {"type": "RollingUpdate"})
    return body


def a_set(
    owner: Object,
    image: str,
    replicas: int,
    available: int | None = None,
    desired: int | None = None,
    most: int | None = None,
) -> Object:
    """A ReplicaSet of `owner` for another image, with a past."""
    older = {**owner, "spec": {**owner["spec"], "template": template(image)}}
    body = fresh(older, 1).wanted()
    size = owner["spec"]["replicas"]
    body["metadata"] |= {"uid": image, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
    body["metadata"]["annotations"] = {
        REVISION: "1",
        "deployment.kubernetes.io/desired-replicas": str(desired or size),
        "deployment.kubernetes.io/max-replicas": str(most or size + 3),
    }
    body["spec"]["replicas"] = replicas
    ready = replicas if available is None else available
    body["status"] = {
        "replicas": replicas,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "observedGeneration": 1,
    }
    return body


@pytest.mark.parametrize(
    ("replicas", "rolling", "surge", "unavailable"),
    [
        (10, {}, 3, 2),
        (2, {}, 1, 0),
        (1, {"maxSurge": 0, "maxUnavailable": "50%"}, 0, 1),
        (10, {"maxSurge": "100%", "maxUnavailable": 0}, 10, 0),
        (3, {"maxSurge": 0, "maxUnavailable": 5}, 0, 3),
        (0, {}, 0, 0),
    ],
)
def test_percentages(replicas: int, rolling: Object, surge: int, unavailable: int) -> None:
    found = Strategy.of(made(replicas, strategy={"type": "RollingUpdate", "rollingUpdate": rolling}))
    assert (found.surge, found.unavailable) == (surge, unavailable)


@pytest.mark.parametrize(
    ("old", "available", "new", "new_available", "expected"),
    [
        (10, 10, None, 0, (10, 3)),  # a new set, as large as surge allows
        (10, 10, 3, 0, (8, 3)),  # availability allows two fewer old ones
        (8, 8, 3, 3, (8, 5)),  # grow first
        (8, 8, 5, 5, (3, 5)),  # then shrink by what is available above the least
        (10, 6, 3, 0, (8, 3)),  # only sick ones go, and only as many as may
        (0, 0, 10, 10, (0, 10)),
        (8, 8, 5, 0, (8, 5)),  # a new set that never gets ready stops everything
    ],
)
def test_rolling_steps(
    old: int, available: int, new: int | None, new_available: int, expected: tuple[int, int]
) -> None:
    owner = made(10, image="new")
    found = [a_set(owner, "old", old, available)]
    if new is not None:
        found.append(a_set(owner, "new", new, new_available))
    steps = plan(owner, found, old_pods=True, now=NOW)
    assert steps.new is not None
    assert (steps.old[0].replicas, steps.new.replicas) == expected


def test_recreate_waits_until_the_old_is_gone() -> None:
    owner = made(3, image="new", strategy={"type": "Recreate"})
    steps = plan(owner, [a_set(owner, "old", 3)], old_pods=True, now=NOW)
    assert (steps.old[0].replicas, steps.new) == (0, None)
    gone = a_set(owner, "old", 0)
    assert plan(owner, [gone], old_pods=True, now=NOW).new is None
    steps = plan(owner, [gone], old_pods=False, now=NOW)
    assert steps.new is not None
    assert steps.new.replicas == 3


def test_scaling_amid_a_rollout_is_shared_in_proportion() -> None:
    owner = made(20, image="new")
    old = a_set(owner, "old", 8, desired=10, most=13)
    new = a_set(owner, "new", 5, desired=10, most=13)
    steps = plan(owner, [old, new], old_pods=True, now=NOW)
    assert steps.new is not None
    assert (steps.old[0].replicas, steps.new.replicas) == (15, 10)
    assert steps.new.annotations["deployment.kubernetes.io/desired-replicas"] == "20"
    down = plan(made(5, image="new"), [old, new], old_pods=True, now=NOW)
    assert down.new is not None
    assert down.old[0].replicas + down.new.replicas == 7


def test_a_paused_deployment_scales_but_does_not_roll() -> None:
    owner = made(4, image="new", paused=True, progressDeadlineSeconds=600)
    steps = plan(owner, [a_set(owner, "old", 2, desired=2)], old_pods=True, now=NOW)
    assert (steps.new, steps.old[0].replicas) == (None, 4)
    assert steps.status["conditions"][0]["reason"] == "DeploymentPaused"


def test_history_beyond_the_limit_is_deleted_oldest_revision_first() -> None:
    owner = made(1, image="new", revisionHistoryLimit=1)
    owner["status"] = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": 1, "observedGeneration": 1}
    past = [a_set(owner, f"old{number}", 0) for number in range(3)]
    for number, each in enumerate(past):
        each["metadata"]["annotations"][REVISION] = str(3 - number)
    steps = plan(owner, [*past, a_set(owner, "new", 1)], old_pods=False, now=NOW)
    assert [each["metadata"]["uid"] for each in steps.delete] == ["old2", "old1"]


def test_the_hash_is_stable_and_the_order_of_fields_does_not_matter() -> None:
    one, other = made(image="x"), made(image="x")
    other["spec"]["template"] = dict(reversed(other["spec"]["template"].items()))
    assert fresh(one, 1).name == fresh(other, 1).name == "web-fz2h69bfzt"
    collided = {**one, "status": {"collisionCount": 1}}
    assert fresh(collided, 1).name != fresh(one, 1).name


async def condition(world: World, type: str = "Progressing") -> tuple[str, str, str]:
    found = (await world.get(DEPLOYMENTS, "web"))["status"]["conditions"]
    [one] = [each for each in found if each["type"] == type]
    return one["status"], one["reason"], one["message"]


async def test_a_rollout_from_first_to_last(world: World) -> None:
    world.start("deployment-controller", "replicaset-controller")
    kubelet = world.tasks.spawn(world.kubelet(), "kubelet")
    await world.client.create(DEPLOYMENTS, deployment(replicas=3), "default")
    await world.settle(20)
    found = await world.get(DEPLOYMENTS, "web")
    [first] = await world.list(REPLICASETS)
    assert first["metadata"]["name"] == f"web-{first['metadata']['labels'][HASH_LABEL]}"
    assert first["spec"]["selector"]["matchLabels"][HASH_LABEL] == first["metadata"]["labels"][HASH_LABEL]
    assert found["metadata"]["annotations"][REVISION] == "1"
    status = {key: value for key, value in found["status"].items() if key != "conditions"}
    assert status == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
        "terminatingReplicas": 0,
    }
    name = first["metadata"]["name"]
    assert await condition(world) == (
        "True",
        "NewReplicaSetAvailable",
        f'ReplicaSet "{name}" has successfully progressed.',
    )
    assert await condition(world, "Available") == (
        "True",
        "MinimumReplicasAvailable",
        "Deployment has minimum availability.",
    )
    change = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}}
    await world.client.patch(DEPLOYMENTS, "web", "default", change, type="strategic")
    await world.settle(60)
    sets = {each["metadata"]["annotations"][REVISION]: each for each in await world.list(REPLICASETS)}
    assert {key: each["spec"]["replicas"] for key, each in sets.items()} == {"1": 0, "2": 3}
    assert {pod["spec"]["containers"][0]["image"] for pod in await world.list(PODS)} == {"nginx:2"}
    messages = [message for reason, message in await world.events() if reason == "ScalingReplicaSet"]
    assert f"Scaled up replica set {name} from 0 to 3" in messages
    assert f"Scaled down replica set {name} from 1 to 0" in messages
    back = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}}}
    await world.client.patch(DEPLOYMENTS, "web", "default", back, type="strategic")
    await world.settle(60)
    returned = await world.get(REPLICASETS, name)
    assert returned["metadata"]["annotations"][REVISION] == "3"
    assert returned["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
    assert (await world.get(DEPLOYMENTS, "web"))["metadata"]["annotations"][REVISION] == "3"
    assert returned["spec"]["replicas"] == 3
    kubelet.cancel()
    revision = world.cluster.store.revision
    await world.settle(24 * 3600)
    assert world.cluster.store.revision == revision, "an idle deployment writes nothing"


async def test_a_rollout_that_is_stuck_says_so_after_its_deadline(world: World) -> None:
    world.start("deployment-controller", "replicaset-controller")
    await world.client.create(DEPLOYMENTS, deployment(progressDeadlineSeconds=60), "default")
    await world.settle(5)
    [only] = await world.list(REPLICASETS)
    name = only["metadata"]["name"]
    assert await condition(world) == ("True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.')
    assert (await condition(world, "Available"))[0] == "False"
    await world.settle(70)
    assert await condition(world) == (
        "False",
        "ProgressDeadlineExceeded",
        f'ReplicaSet "{name}" has timed out progressing.',
    )


async def test_adopting_a_matching_set_and_a_hash_collision(world: World) -> None:
    body = deployment(replicas=1)
    probe = await world.client.create(DEPLOYMENTS, body, "default")
    squatter = fresh(probe, 1).wanted()
    squatter["metadata"].pop("ownerReferences")
    squatter["metadata"]["labels"] = {"app": "elsewhere"}
    squatter["spec"]["template"] = template("squat", app="elsewhere")
    squatter["spec"]["selector"] = {"matchLabels": {"app": "elsewhere"}}
    await world.client.create(REPLICASETS, squatter, "default")
    world.start("deployment-controller")
    await world.settle()
    assert (await world.get(DEPLOYMENTS, "web"))["status"]["collisionCount"] == 1
    assert len(await world.list(REPLICASETS)) == 2


async def test_recreate_with_real_pods(world: World) -> None:
    world.start("deployment-controller", "replicaset-controller")
    world.tasks.spawn(world.kubelet(), "kubelet")
    await world.client.create(DEPLOYMENTS, deployment(strategy={"type": "Recreate"}), "default")
    await world.settle(20)
    change = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}}}
    await world.client.patch(DEPLOYMENTS, "web", "default", change, type="strategic")
    for _ in range(40):
        images = {pod["spec"]["containers"][0]["image"] for pod in await world.list(PODS)}
        assert len(images) <= 1, "old and new never run together"
        await world.settle(0.5)
    assert images == {"nginx:2"}
