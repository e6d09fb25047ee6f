"""In-place resize (KEP-1287) on a simulated node: allocation, cgroups, restarts, conditions, a kubelet that dies."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.api.resource import PODS, Object
from steersman.engine.interface import Resources, RuntimeFailure
from steersman.kubelet import resize

from .pods import container, pod
from .virtual import virtual
from .world import World


def sized(cpu: str, memory: str, name: str = "main", **more: Any) -> Object:
    amounts = {"cpu": cpu, "memory": memory}
    return container(name, resources={"requests": amounts, "limits": amounts}, **more)


def resized(world: World, *containers: Object, name: str = "web") -> None:
    """The resize subresource was used."""
    found = world.api.pod(name)
    assert found is not None
    generation = found["metadata"]["generation"] + 1
    spec = {**found["spec"], "containers": list(containers)}
    world.api.put(PODS, {**found, "metadata": {**found["metadata"], "generation": generation}, "spec": spec})


def conditions(world: World, name: str = "web") -> dict[str, Object]:
    found = world.api.pod(name)
    assert found is not None
    return {each["type"]: each for each in found["status"]["conditions"] if "Resize" in each["type"]}


def main(world: World, name: str = "web") -> Object:
    found = world.api.pod(name)
    assert found is not None
    return dict(found["status"]["containerStatuses"][0])


def init(world: World, at: int, name: str = "web") -> Object:
    found = world.api.pod(name)
    statuses = ((found or {}).get("status") or {}).get("initContainerStatuses") or [{}, {}]
    return dict(statuses[at])


def observed(world: World, generation: int, name: str = "web") -> bool:
    found = world.api.pod(name)
    return found is not None and found["status"].get("observedGeneration") == generation


@virtual
async def test_limits_change_while_the_container_runs(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod("web", sized("100m", "64Mi")))
        await world.until_phase("web", "Running")
        before = main(world)
        assert before["resources"]["limits"] == {"cpu": "100m", "memory": "64Mi"}
        resized(world, sized("200m", "128Mi"))
        await world.api.until(lambda: main(world)["resources"]["limits"] == {"cpu": "200m", "memory": "128Mi"})
        after = main(world)
        assert after["allocatedResources"] == {"cpu": "200m", "memory": "128Mi"}
        assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)
        (running,) = world.runtime.containers()
        assert running.config.resources.cpu_quota == 20_000
        assert running.config.resources.memory_limit == 128 << 20
        assert ("update_sandbox", f"20000 {128 << 20}") in world.runtime.calls
        assert conditions(world) == {}
        assert observed(world, 2)
        assert world.api.reasons()[-2:] == ["ResizeStarted", "ResizeCompleted"]


@virtual
async def test_an_init_container_is_resized_while_it_runs_or_before(world: World) -> None:
    async with world.kubelet():
        inits = [sized("100m", "64Mi", "first"), sized("100m", "64Mi", "second")]
        world.api.put(PODS, pod("web", container(), initContainers=inits))
        await world.api.until(lambda: "running" in init(world, 0).get("state", {}))
        found = world.api.pod("web")
        assert found is not None
        inits = [sized("200m", "128Mi", "first"), sized("300m", "128Mi", "second")]
        meta = {**found["metadata"], "generation": found["metadata"]["generation"] + 1}
        world.api.put(PODS, {**found, "metadata": meta, "spec": {**found["spec"], "initContainers": inits}})
        await world.api.until(lambda: init(world, 0)["resources"]["limits"] == {"cpu": "200m", "memory": "128Mi"})
        (running,) = world.runtime.containers()
        assert (running.config.name, running.config.resources.cpu_quota) == ("first", 20_000)
        assert init(world, 0)["restartCount"] == 0
        world.runtime.end(running.id, 0)
        await world.api.until(lambda: "running" in init(world, 1).get("state", {}))
        second = next(each for each in world.runtime.containers() if each.config.name == "second")
        assert second.config.resources.cpu_quota == 30_000
        assert init(world, 1)["allocatedResources"] == {"cpu": "300m", "memory": "128Mi"}
        assert conditions(world) == {}


@virtual
async def test_a_container_that_asks_for_it_is_restarted(world: World) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    async with world.kubelet():
        world.api.put(PODS, pod("web", sized("100m", "64Mi", resizePolicy=policy)))
        await world.until_phase("web", "Running")
        resized(world, sized("200m", "64Mi", resizePolicy=policy))
        await world.api.until(lambda: main(world)["resources"]["limits"]["cpu"] == "200m")
        assert main(world)["restartCount"] == 0
        resized(world, sized("200m", "128Mi", resizePolicy=policy))
        await world.api.until(lambda: main(world)["restartCount"] == 1 and not conditions(world))
        assert main(world)["resources"]["limits"] == {"cpu": "200m", "memory": "128Mi"}
        texts = [each[3] for each in world.api.events if each[2] == "Killing"]
        assert texts == ["Container main resize requires restart, will be restarted"]
        assert ("update_sandbox", f"20000 {128 << 20}") in world.runtime.calls


@virtual
async def test_more_than_the_node_has_is_infeasible(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod("web", sized("100m", "64Mi")))
        await world.until_phase("web", "Running")
        resized(world, sized("100", "64Mi"))
        await world.api.until(lambda: bool(conditions(world)))
        pending = conditions(world)["PodResizePending"]
        assert pending["reason"] == "Infeasible"
        assert pending["message"] == "Node didn't have enough capacity: cpu, requested: 100000, capacity: 4000"
        assert pending["observedGeneration"] == 2
        assert main(world)["allocatedResources"]["cpu"] == main(world)["resources"]["limits"]["cpu"] == "100m"
        resized(world, sized("100m", "64Mi"))
        await world.api.until(lambda: not conditions(world))


@virtual
async def test_what_does_not_fit_now_waits_for_room(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod("big", sized("3", "64Mi")))
        world.api.put(PODS, pod("web", sized("500m", "64Mi")))
        await world.until_phase("web", "Running")
        resized(world, sized("2", "64Mi"))
        await world.api.until(lambda: bool(conditions(world)))
        assert conditions(world)["PodResizePending"]["reason"] == "Deferred"
        resized(world, sized("1", "64Mi"), name="big")
        await world.api.until(lambda: main(world)["resources"]["limits"]["cpu"] == "2")
        assert conditions(world) == {}


@virtual
async def test_a_kernel_that_refuses_is_shown_and_asked_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real, refusals = world.runtime.update_resources, [RuntimeFailure("cannot write to memory: Device busy")]

    async def refusing(container_id: str, limits: Resources) -> None:
        if refusals:
            raise refusals.pop()
        await real(container_id, limits)

    monkeypatch.setattr(world.runtime, "update_resources", refusing)
    async with world.kubelet():
        world.api.put(PODS, pod("web", sized("100m", "64Mi")))
        await world.until_phase("web", "Running")
        resized(world, sized("100m", "32Mi"))
        await world.api.until(lambda: bool(conditions(world)))
        shown = conditions(world)["PodResizeInProgress"]
        assert (shown["reason"], shown["message"]) == ("Error", "cannot write to memory: Device busy")
        assert main(world)["allocatedResources"]["memory"] == "32Mi"
        assert main(world)["resources"]["limits"]["memory"] == "64Mi"
        await world.api.until(lambda: not conditions(world))
        assert main(world)["resources"]["limits"]["memory"] == "32Mi"


@virtual
async def test_a_new_kubelet_knows_what_was_allocated(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod("web", sized("100m", "64Mi")))
        await world.until_phase("web", "Running")
        resized(world, sized("100", "64Mi"))
        await world.api.until(lambda: bool(conditions(world)))
        resized(world, sized("200m", "64Mi"))
        await world.api.until(lambda: main(world)["resources"]["limits"]["cpu"] == "200m")
        resized(world, sized("100", "64Mi"))
        await world.api.until(lambda: bool(conditions(world)))
    async with world.kubelet():
        resized(world, sized("99", "64Mi"))
        await world.api.until(lambda: observed(world, 5))
        assert main(world)["resources"]["limits"]["cpu"] == main(world)["allocatedResources"]["cpu"] == "200m"
        assert main(world)["restartCount"] == 0
        assert conditions(world)["PodResizePending"]["reason"] == "Infeasible"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"allocated": 1}', '{"allocated": {}, "actuated": {}, "limits": 3}']
)
def test_a_broken_file_means_nothing_was_resized(tmp_path: Any, content: str) -> None:
    file = tmp_path / "resources.json"
    file.write_text(content)
    found = pod("web", sized("100m", "64Mi"))
    assert resize.Resize(found, file).applied(found) is found


@pytest.mark.parametrize(
    ("before", "after", "wide"),
    [
        (Resources(cpu_quota=100, cpu_period=9), Resources(cpu_quota=200, cpu_period=9), 200),
        (Resources(cpu_quota=300, cpu_period=9), Resources(cpu_quota=200, cpu_period=9), 300),
        (Resources(), Resources(cpu_quota=200, cpu_period=9), 0),
        (Resources(cpu_quota=200, cpu_period=9), Resources(), 0),
    ],
)
def test_the_pod_is_wide_enough_meanwhile(before: Resources, after: Resources, wide: int) -> None:
    assert resize.widest(before, after).cpu_quota == wide
