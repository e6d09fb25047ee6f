from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from steersman.api.errors import ApiError
from steersman.api.resource import CONFIGMAPS, NODES, PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES, PODS
from steersman.engine.interface import Device, ExecResult, PullFailed
from steersman.kubelet.steps import RUNTIMECLASSES
from steersman.lib.clock import parse_rfc3339
from steersman.testing.fakeruntime import Script

from .pods import container, pod
from .virtual import virtual
from .world import World


@virtual
async def test_a_pod_becomes_running_and_ready(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod())
        found = await world.until_phase("web", "Running")
        status = found["status"]
        assert {each["type"]: each["status"] for each in status["conditions"]} == {
            "PodReadyToStartContainers": "True",
            "Initialized": "True",
            "Ready": "True",
            "ContainersReady": "True",
            "PodScheduled": "True",
        }
        assert status["podIP"] == "10.244.0.1"
        assert status["hostIP"] == "192.0.2.10"
        (main,) = status["containerStatuses"]
        assert main["ready"] and main["started"] and main["restartCount"] == 0
        assert main["image"] == "docker.io/library/nginx:1.7.9"
        assert main["imageID"].startswith("docker.io/library/nginx@sha256:")
        assert main["containerID"].startswith("simulated://c")
        assert world.api.reasons() == ["Starting", "NodeReady", "Pulled", "Created", "Started"]
        assert world.api.events[2] == (
            "spec.containers{main}",
            "Normal",
            "Pulled",
            'Container image "nginx:1.7.9" already present on machine and can be accessed by the pod',
        )


@virtual
async def test_running_takes_one_status_write_and_no_polling(world: World) -> None:
    async with world.kubelet():
        before = len(world.api.requests)
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        await world.clock.sleep(5)
        assert [each for each in world.api.requests[before:] if each[1] == "pods"] == [("patch", "pods", "web")]


@virtual
async def test_a_container_that_ends_is_restarted_with_growing_back_off(world: World) -> None:
    world.scripts["main"] = Script(runs_for=1.0, exit_code=3)
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.api.until(lambda: "BackOff" in world.api.reasons())
        found = world.api.pod("web")
        assert found is not None
        await world.api.until(lambda: "waiting" in world.api.pod("web")["status"]["containerStatuses"][0]["state"])
        main = world.api.pod("web")["status"]["containerStatuses"][0]
        assert main["state"]["waiting"]["reason"] == "CrashLoopBackOff"
        assert main["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=main pod=web_")
        assert main["lastState"]["terminated"]["exitCode"] == 3
        assert main["restartCount"] == 1
        assert world.phase("web") == "Running"
        await world.clock.sleep(3600)
        starts = [each for each in world.runtime.calls if each == ("start_container", "main")]
        assert 12 <= len(starts) <= 17  # 0, 0, 10, 20, 40, 80, 160, 300, 300, ...


@virtual
async def test_a_pod_that_completes_succeeds_and_keeps_its_container(world: World) -> None:
    world.scripts["main"] = Script(runs_for=5.0, message="all done")
    async with world.kubelet():
        world.api.put(PODS, pod(restartPolicy="Never"))
        found = await world.until_phase("web", "Succeeded")
        ended = found["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"], ended["message"]) == (0, "Completed", "all done")
        ready = next(each for each in found["status"]["conditions"] if each["type"] == "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")
        assert found["status"]["podIP"] == "10.244.0.1"
        assert len(world.runtime.containers()) == 1


@pytest.mark.parametrize(("policy", "phase"), [("Never", "Failed"), ("OnFailure", "Running")])
@virtual
async def test_failure_by_restart_policy(world: World, policy: str, phase: str) -> None:
    world.scripts["main"] = Script(runs_for=2.0, exit_code=1)
    async with world.kubelet():
        world.api.put(PODS, pod(restartPolicy=policy))
        await world.until_phase("web", "Running")
        await world.clock.sleep(8)
        assert world.phase("web") == phase


@virtual
async def test_init_containers_run_in_order_before_the_others(world: World) -> None:
    world.scripts.update({"first": Script(runs_for=2.0), "second": Script(runs_for=2.0)})
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(), initContainers=[container("first"), container("second")]))
        found = await world.until_phase("web", "Running")
        starts = [name for verb, name in world.runtime.calls if verb == "start_container"]
        assert starts == ["first", "second", "main"]
        assert [each["ready"] for each in found["status"]["initContainerStatuses"]] == [True, True]


@virtual
async def test_a_failing_init_container_fails_a_pod_that_never_restarts(world: World) -> None:
    world.scripts["first"] = Script(runs_for=1.0, exit_code=1)
    async with world.kubelet():
        spec = {"initContainers": [container("first")], "restartPolicy": "Never"}
        world.api.put(PODS, pod("web", container(), **spec))
        found = await world.until_phase("web", "Failed")
        assert found["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "PodInitializing"


@virtual
async def test_a_sidecar_ends_after_the_pod_is_done(world: World) -> None:
    world.scripts["main"] = Script(runs_for=5.0)
    async with world.kubelet():
        sidecar = container("side", restartPolicy="Always")
        world.api.put(PODS, pod("web", container(), initContainers=[sidecar], restartPolicy="Never"))
        found = await world.until_phase("web", "Succeeded")
        assert "terminated" in found["status"]["initContainerStatuses"][0]["state"]
        assert [name for verb, name in world.runtime.calls if verb == "start_container"] == ["side", "main"]


@virtual
async def test_deletion_is_graceful_and_final(world: World) -> None:
    world.scripts["main"] = Script(stops_in=5.0)
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        began = world.clock.now()
        world.api.delete_gracefully("web", 30)
        await world.api.until(lambda: world.api.pod("web") is None)
        assert 5 <= world.clock.now() - began < 6
        assert "Killing" in world.api.reasons()
        last = world.api.statuses[-1]
        assert last["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0
        assert not world.runtime.sandboxes() and not world.runtime.containers()
        assert not list((world.settings.root / "pods").iterdir())


@virtual
async def test_less_grace_cuts_a_deletion_short(world: World) -> None:
    world.scripts["main"] = Script(stops_in=1000.0)
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        began = world.clock.now()
        world.api.delete_gracefully("web", 300)
        await world.clock.sleep(10)
        world.api.delete_gracefully("web", 2)
        await world.api.until(lambda: world.api.pod("web") is None)
        assert world.clock.now() - began < 15
        assert world.api.statuses[-1]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


@virtual
async def test_a_bad_image_waits_with_growing_back_off_and_the_registrys_reason(world: World) -> None:
    world.images.failures["nginx:nope"] = PullFailed("manifest unknown")
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(image="nginx:nope")))

        def reason() -> str:
            statuses = world.api.pod("web")["status"].get("containerStatuses") or [{"state": {}}]
            return statuses[0]["state"].get("waiting", {}).get("reason", "")

        await world.api.until(lambda: reason() == "ErrImagePull")
        await world.api.until(lambda: reason() == "ImagePullBackOff")
        message = world.api.pod("web")["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        assert message == 'Back-off pulling image "nginx:nope": ErrImagePull: manifest unknown'
        assert ("spec.containers{main}", "Warning", "Failed", "Error: ErrImagePull") in world.api.events
        assert (
            "spec.containers{main}",
            "Warning",
            "Failed",
            'Failed to pull image "nginx:nope": manifest unknown',
        ) in world.api.events
        del world.images.failures["nginx:nope"]
        await world.until_phase("web", "Running")


@pytest.mark.parametrize(
    ("image", "policy", "reason"),
    [("Not Valid", "IfNotPresent", "InvalidImageName"), ("absent:1", "Never", "ErrImageNeverPull")],
)
@virtual
async def test_images_that_can_not_be_had(world: World, image: str, policy: str, reason: str) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(image=image, imagePullPolicy=policy)))
        await world.api.until(
            lambda: reason in str((world.api.pod("web")["status"].get("containerStatuses") or [""])[0])
        )


@virtual
async def test_deleting_while_pulling_does_not_wait_for_the_pull(world: World) -> None:
    world.images._pull_seconds = 10_000
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(image="slow:1")))
        await world.api.until(lambda: "Pulling" in world.api.reasons())
        began = world.clock.now()
        world.api.delete_gracefully("web")
        await world.api.until(lambda: world.api.pod("web") is None)
        assert world.clock.now() - began < 5


@virtual
async def test_liveness_failure_restarts_the_container(world: World) -> None:
    healthy = True

    def answers(command: object) -> object:
        return ExecResult(0 if healthy else 1, b"", b"sick")

    world.scripts["main"] = Script(answers=answers)  # type: ignore[arg-type]
    probe = {"exec": {"command": ["check"]}, "periodSeconds": 5, "failureThreshold": 2}
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(livenessProbe=probe)))
        await world.until_phase("web", "Running")
        await world.clock.sleep(60)
        assert world.api.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 0
        healthy = False
        await world.api.until(lambda: "Killing" in world.api.reasons())
        healthy = True
        await world.api.until(lambda: world.api.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 1)
        messages = [each[3] for each in world.api.events]
        assert "Liveness probe failed: sick" in messages
        assert "Container main failed liveness probe, will be restarted" in messages


@virtual
async def test_readiness_and_startup_gate_the_ready_condition(world: World) -> None:
    answers = {"ready": 1, "start": 1}
    world.scripts["main"] = Script(answers=lambda command: ExecResult(answers[command[0]], b"", b""))
    probes = {
        "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1},
        "startupProbe": {"exec": {"command": ["start"]}, "periodSeconds": 1, "failureThreshold": 100},
    }
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(**probes)))
        found = await world.until_phase("web", "Running")
        assert found["status"]["containerStatuses"][0]["started"] is False
        answers["start"] = 0
        await world.api.until(lambda: world.api.pod("web")["status"]["containerStatuses"][0]["started"])
        assert world.api.pod("web")["status"]["containerStatuses"][0]["ready"] is False
        answers["ready"] = 0
        await world.api.until(lambda: world.api.pod("web")["status"]["containerStatuses"][0]["ready"])
        answers["ready"] = 1
        await world.api.until(lambda: not world.api.pod("web")["status"]["containerStatuses"][0]["ready"])


@virtual
async def test_a_missing_configmap_holds_the_pod_until_it_is_there(world: World) -> None:
    mount = [{"name": "conf", "mountPath": "/conf"}]
    volumes = [{"name": "conf", "configMap": {"name": "settings"}}]
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(volumeMounts=mount), volumes=volumes))
        await world.api.until(lambda: "FailedMount" in world.api.reasons())
        text = 'MountVolume.SetUp failed for volume "conf" : configmap "settings" not found'
        assert ("", "Warning", "FailedMount", text) in world.api.events
        world.api.put(CONFIGMAPS, {"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1"}})
        await world.until_phase("web", "Running")
        (running,) = world.runtime.containers()
        mounted = next(each for each in running.config.mounts if each.container_path == "/conf")
        path = Path(mounted.host_path) / "a"
        assert path.read_text() == "1"
        world.api.put(CONFIGMAPS, {"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "2"}})
        await world.api.until(lambda: path.read_text() == "2")


@virtual
async def test_a_missing_key_is_a_configuration_error(world: World) -> None:
    ref = {"configMapKeyRef": {"name": "settings", "key": "b"}}
    async with world.kubelet():
        world.api.put(CONFIGMAPS, {"metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "1"}})
        world.api.put(PODS, pod("web", container(env=[{"name": "B", "valueFrom": ref}])))
        await world.api.until(
            lambda: "CreateContainerConfigError" in str(world.api.pod("web")["status"].get("containerStatuses"))
        )
        messages = [each[3] for each in world.api.events]
        assert "Error: couldn't find key b in ConfigMap default/settings" in messages
        world.api.put(CONFIGMAPS, {"metadata": {"name": "settings", "namespace": "default"}, "data": {"b": "1"}})
        await world.until_phase("web", "Running")


@virtual
async def test_hooks_run_and_are_waited_for(world: World) -> None:
    asked: list[str] = []

    def answers(command: list[str]) -> ExecResult:
        asked.append(command[0])
        return ExecResult(0, b"", b"")

    world.scripts["main"] = Script(answers=answers, answer_in=2.0)  # type: ignore[arg-type]
    lifecycle = {"postStart": {"exec": {"command": ["hello"]}}, "preStop": {"exec": {"command": ["goodbye"]}}}
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(lifecycle=lifecycle)))
        await world.until_phase("web", "Running")
        await world.clock.sleep(3)
        world.api.delete_gracefully("web")
        await world.api.until(lambda: world.api.pod("web") is None)
        assert asked == ["hello", "goodbye"]


@virtual
async def test_a_deadline_fails_the_pod(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod(activeDeadlineSeconds=60))
        await world.until_phase("web", "Running")
        found = await world.until_phase("web", "Failed")
        assert found["status"]["reason"] == "DeadlineExceeded"
        assert "terminated" in found["status"]["containerStatuses"][0]["state"]


@virtual
async def test_a_pod_that_does_not_fit_is_rejected(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(resources={"requests": {"cpu": "5"}})))
        found = await world.until_phase("web", "Failed")
        assert found["status"]["reason"] == "OutOfcpu"
        assert found["status"]["message"].startswith("Pod was rejected: Node didn't have enough resource: cpu")
        assert not world.runtime.sandboxes()


@virtual
async def test_a_pod_deleted_by_force_takes_no_room_while_it_ends(world: World) -> None:
    async with world.kubelet():
        wide = container(resources={"requests": {"cpu": "3"}})
        world.api.put(PODS, pod("old", wide))
        await world.until_phase("old", "Running")
        world.api.remove(PODS, "default", "old")
        world.api.put(PODS, pod("new", wide))
        await world.until_phase("new", "Running")


@virtual
async def test_a_lost_sandbox_is_made_anew(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        (sandbox,) = world.runtime.sandboxes()
        world.runtime.lose_sandbox(sandbox.id)
        await world.api.until(lambda: world.api.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 1)
        await world.api.until(lambda: world.api.pod("web")["status"]["podIPs"] == [{"ip": "10.244.0.2"}])
        assert "SandboxChanged" in world.api.reasons()


@virtual
async def test_failing_sandboxes_are_told_and_tried_again(world: World) -> None:
    world.runtime.sandbox_failures = ["no address left", "no address left"]
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        text = "Failed to create pod sandbox: no address left"
        assert [each[3] for each in world.api.events].count(text) == 2


@virtual
async def test_a_restarted_kubelet_restarts_nothing(world: World) -> None:
    world.scripts["main"] = Script(answers=lambda command: ExecResult(0, b"", b""))
    probe = {"exec": {"command": ["ok"]}, "initialDelaySeconds": 3, "periodSeconds": 3}
    async with world.kubelet() as kubelet:
        world.api.put(PODS, pod("web", container(readinessProbe=probe)))
        world.api.put(PODS, pod("job", container("once"), restartPolicy="Never"))
        await world.until_phase("web", "Running")
        await world.until_phase("job", "Running")
        await world.api.until(lambda: world.api.pod("web")["status"]["containerStatuses"][0]["ready"])
        counted = next(line for line in kubelet.probe_metrics().splitlines() if line.startswith("prober_probe_total{"))
        assert 'container="main"' in counted and 'probe_type="Readiness",result="successful"} ' in counted
    before = {each.id for each in world.runtime.containers()}
    once = next(each for each in world.runtime.containers() if each.config.name == "once")
    world.runtime.end(once.id, 7)
    world.api.statuses.clear()
    calls = len(world.runtime.calls)
    async with world.kubelet():
        found = await world.until_phase("job", "Failed")
        assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
        await world.clock.sleep(20)
    assert {each.id for each in world.runtime.containers()} == before
    verbs = [verb for verb, _ in world.runtime.calls[calls:]]
    assert "start_container" not in verbs and "run_sandbox" not in verbs
    assert all(each["containerStatuses"][0]["ready"] or each["phase"] != "Running" for each in world.api.statuses)


@virtual
async def test_a_restarted_kubelet_ends_what_the_api_forgot(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
    world.api.remove(PODS, "default", "web")
    async with world.kubelet():
        await world.api.until(lambda: not world.runtime.sandboxes())
        await world.api.until(lambda: not list((world.settings.root / "pods").iterdir()))


@virtual
async def test_a_pod_that_vanishes_from_the_api_is_ended(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        world.api.remove(PODS, "default", "web")
        await world.api.until(lambda: not world.runtime.sandboxes())


@virtual
async def test_the_api_may_be_away_for_a_while(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        world.api.down = True
        (running,) = world.runtime.containers()
        world.runtime.end(running.id, 1)
        await world.clock.sleep(100)
        assert len([each for each in world.runtime.containers() if each.pid]) == 1
        world.api.down = False
        await world.api.until(lambda: world.api.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 1)


@virtual
async def test_thirty_pods_at_once(world: World) -> None:
    async with world.kubelet():
        for number in range(30):
            world.api.put(PODS, pod(f"web-{number}"))
        await world.api.until(lambda: all(world.phase(f"web-{number}") == "Running" for number in range(30)))
        assert len({world.api.pod(f"web-{number}")["status"]["podIP"] for number in range(30)}) == 30


@virtual
async def test_ephemeral_containers_start_in_a_running_pod(world: World) -> None:
    async with world.kubelet():
        made = world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        changed = {**world.api.pod("web"), "metadata": {**made["metadata"], "generation": 2}}
        debugger = container("debugger", image="busybox", targetContainerName="main")
        changed["spec"] = {**made["spec"], "ephemeralContainers": [debugger]}
        world.api.put(PODS, changed)
        await world.api.until(
            lambda: "running" in str(world.api.pod("web")["status"].get("ephemeralContainerStatuses"))
        )
        assert world.api.pod("web")["status"]["observedGeneration"] == 2


@virtual
async def test_a_mistake_in_a_worker_does_not_leave_the_pod_alone(world: World) -> None:
    def broken(config: object) -> Script:
        world.scripts["main"] = Script()
        raise ZeroDivisionError

    world.scripts["main"] = broken
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")


@virtual
async def test_a_finalizer_keeps_a_deleted_pod_without_ending_it_twice(world: World) -> None:
    async with world.kubelet():
        world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        kept = world.api.pod("web")
        original = world.api.delete

        async def refuse(*arguments: object, **more: object) -> dict[str, object]:
            world.api.requests.append(("delete", "pods", "web"))
            return world.api.pod("web") or {}

        world.api.delete = refuse  # type: ignore[method-assign, assignment]
        world.api.delete_gracefully("web")
        await world.api.until(lambda: not world.runtime.sandboxes())
        assert kept is not None
        world.api.put(
            PODS, {**world.api.pod("web"), "metadata": {**world.api.pod("web")["metadata"], "labels": {"a": "b"}}}
        )
        await world.clock.sleep(60)
        assert world.api.requests.count(("delete", "pods", "web")) <= 3
        assert "terminated" in world.api.pod("web")["status"]["containerStatuses"][0]["state"]
        world.api.delete = original  # type: ignore[method-assign]


@virtual
async def test_the_node_registers_and_keeps_its_lease(world: World) -> None:
    async with world.kubelet():
        node = world.api.objects["nodes", "", "node-1"]
        assert {each["type"]: each["status"] for each in node["status"]["conditions"]} == {
            "MemoryPressure": "False",
            "DiskPressure": "False",
            "PIDPressure": "False",
            "Ready": "True",
        }
        assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "node-1"
        assert node["status"]["addresses"] == [
            {"type": "InternalIP", "address": "192.0.2.10"},
            {"type": "Hostname", "address": "node-1"},
        ]
        assert node["status"]["nodeInfo"]["containerRuntimeVersion"] == "simulated://1"
        await world.clock.sleep(1)
        lease = world.api.objects["leases", "kube-node-lease", "node-1"]
        before = lease["spec"]["renewTime"]
        await world.clock.sleep(60)
        assert world.api.objects["leases", "kube-node-lease", "node-1"]["spec"]["renewTime"] > before
        world.api.requests.clear()
        await world.clock.sleep(600)
        assert world.api.requests.count(("update", "leases", "node-1")) == 60
        assert world.api.requests.count(("patch", "nodes", "node-1")) == 2
    world.api.down = False
    async with world.kubelet():
        assert world.api.objects["nodes", "", "node-1"]["status"]["conditions"]


@virtual
async def test_the_server_is_told_where_things_are(world: World) -> None:
    world.scripts["main"] = Script(output=["hello"])
    async with world.kubelet() as kubelet:
        made = world.api.put(PODS, pod())
        await world.until_phase("web", "Running")
        running = kubelet.container_id("default", "web", "main", uid=made["metadata"]["uid"])
        assert world.runtime.container(running).config.name == "main"
        assert Path(kubelet.log_path("default", "web", "main")).read_text().endswith(" stdout F hello\n")
        assert kubelet.sandbox_id("default", "web") == world.runtime.sandboxes()[0].id
        assert [each["status"]["phase"] for each in kubelet.pods()] == ["Running"]
        summary = await kubelet.stats_summary()
        assert summary["node"]["nodeName"] == "node-1"
        shown = summary["pods"][0]["containers"][0]
        assert shown["memory"]["workingSetBytes"] == 8 << 20
        assert parse_rfc3339(shown["startTime"]) == int(world.runtime.container(running).started_at)
        assert 'container_processes{container="main",' in await kubelet.cadvisor_metrics()
        assert kubelet.configuration()["clusterDNS"] == ["10.96.0.10"]
        for ask in (kubelet.container_id, kubelet.log_path):
            with pytest.raises(ApiError):
                ask("default", "nobody", "main")
        with pytest.raises(ApiError):
            kubelet.container_id("default", "web", "main", uid="other")
        with pytest.raises(ApiError):
            kubelet.log_path("default", "web", "main", previous=True)


@virtual
async def test_tokens_are_renewed_in_the_volume(world: World) -> None:
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}
    mount = [{"name": "t", "mountPath": "/t"}]
    async with world.kubelet():
        volumes = [{"name": "t", "projected": {"sources": [token]}}]
        world.api.put(PODS, pod("web", container(volumeMounts=mount), volumes=volumes))
        await world.until_phase("web", "Running")
        place = next(
            each.host_path for each in world.runtime.containers()[0].config.mounts if each.container_path == "/t"
        )
        assert (Path(place) / "token").read_text() == "token-1"
        await world.clock.sleep(3300)
        assert (Path(place) / "token").read_text() == "token-2"


@virtual
async def test_labels_reach_a_downward_volume_live(world: World) -> None:
    source = {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}
    mount = [{"name": "d", "mountPath": "/d"}]
    async with world.kubelet():
        world.api.put(PODS, pod("web", container(volumeMounts=mount), volumes=[{"name": "d", "downwardAPI": source}]))
        await world.until_phase("web", "Running")
        place = next(
            each.host_path for each in world.runtime.containers()[0].config.mounts if each.container_path == "/d"
        )
        found = world.api.pod("web")
        world.api.put(PODS, {**found, "metadata": {**found["metadata"], "labels": {"a": "b"}}})
        await world.api.until(lambda: (Path(place) / "labels").read_text() == 'a="b"')


@virtual
async def test_a_claim_that_is_bound_later_becomes_a_mount_or_a_device(world: World) -> None:
    root = world.settings.root.parent
    disk, folder = root / "disk", root / "folder"
    os.mknod(disk, stat.S_IFBLK | 0o600, os.makedev(7, 0))
    folder.mkdir()
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name, "readOnly": True}} for name in ("raw", "fs")]
    wanted = container(
        volumeDevices=[{"name": "raw", "devicePath": "/dev/raw"}], volumeMounts=[{"name": "fs", "mountPath": "/fs"}]
    )
    async with world.kubelet():
        world.api.put(PODS, pod("web", wanted, volumes=volumes))
        await world.api.until(lambda: "FailedMount" in world.api.reasons())
        for name, path, mode in (("raw", disk, "Block"), ("fs", folder, "Filesystem")):
            claim = {"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": {"volumeName": name}}
            world.api.put(PERSISTENTVOLUMECLAIMS, {**claim, "status": {"phase": "Bound"}})
            spec = {"claimRef": {"uid": name}, "local": {"path": str(path)}, "volumeMode": mode}
            world.api.put(PERSISTENTVOLUMES, {"metadata": {"name": name}, "spec": spec})
        await world.until_phase("web", "Running")
    (running,) = world.runtime.containers()
    assert running.config.devices == [Device("/dev/raw", str(disk))]
    (mount,) = [each for each in running.config.mounts if each.container_path == "/fs"]
    assert (mount.host_path, mount.readonly) == (str(folder), True)


@virtual
async def test_pods_end_with_their_node_in_order_and_start_again_with_it(world: World) -> None:
    sidecar = container("proxy", restartPolicy="Always")
    async with world.kubelet() as kubelet:
        world.api.put(PODS, pod("web", initContainers=[sidecar], terminationGracePeriodSeconds=600))
        await world.until_phase("web", "Running")
    world.api.statuses.clear()
    world.runtime.calls.clear()
    began = world.clock.now()
    await kubelet.end_pods(20)
    assert world.clock.now() - began <= 20
    assert [each for each in world.runtime.calls if each[0] == "stop_container"] == [
        ("stop_container", "main"),
        ("stop_container", "proxy"),
    ]
    assert world.api.statuses == []
    async with world.kubelet():
        await world.api.until(lambda: world.api.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 1)
        await world.until_phase("web", "Running")


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        ("runc", ""),
        ("kata", 'Failed to create pod sandbox: failed to get sandbox runtime: no runtime for "kata" is configured'),
        ("", 'Failed to create pod sandbox: failed to get sandbox runtime: RuntimeClass "special" not found'),
    ],
)
@virtual
async def test_a_runtime_class_names_a_handler_that_must_be_there(world: World, handler: str, complaint: str) -> None:
    async with world.kubelet():
        if handler:
            world.api.put(RUNTIMECLASSES, {"metadata": {"name": "special"}, "handler": handler})
        world.api.put(PODS, pod("web", runtimeClassName="special"))
        if complaint:
            await world.api.until(lambda: "FailedCreatePodSandBox" in world.api.reasons())
            assert world.api.events[-1][3] == complaint
            assert world.runtime.sandboxes() == []
        else:
            await world.until_phase("web", "Running")


@virtual
async def test_a_pod_is_taken_for_a_label_that_somebody_gave_the_node(world: World) -> None:
    async with world.kubelet():
        world.api.put(NODES, {"metadata": {"name": "node-1", "labels": {"color": "blue"}}, "spec": {}})
        world.api.put(PODS, pod("blue", nodeSelector={"color": "blue"}))
        world.api.put(PODS, pod("green", nodeSelector={"color": "green"}))
        await world.until_phase("blue", "Running")
        refused = await world.until_phase("green", "Failed")
    assert refused["status"]["reason"] == "NodeAffinity"


@virtual
async def test_pods_may_use_what_others_say_the_node_has(world: World) -> None:
    async with world.kubelet():
        await world.api.until(lambda: ("nodes", "", "node-1") in world.api.objects)

        async def say(capacity: Any) -> None:
            await world.api.patch(NODES, "node-1", "", {"status": {"capacity": capacity}})

        def allocatable() -> Any:
            return world.api.objects["nodes", "", "node-1"]["status"]["allocatable"]

        before = dict(allocatable())
        await say({"example.com/dongle": "4"})
        await world.api.until(lambda: allocatable().get("example.com/dongle") == "4", 60)
        await say({"example.com/dongle": "2", "example.com/lamp": "1"})
        await world.api.until(
            lambda: allocatable() == {**before, "example.com/dongle": "2", "example.com/lamp": "1"}, 60
        )
        await say({"example.com/dongle": None, "example.com/lamp": None})
        await world.api.until(lambda: allocatable() == before, 60)
        patches = [each for each in world.api.requests if each[:2] == ("patch", "nodes")]
        assert len(patches) == 6, "one report of ours for each change of theirs"
