from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steersman.engine.interface import Container, ContainerConfig, ContainerState, Sandbox, SandboxConfig, SandboxState
from steersman.kubelet import labels
from steersman.kubelet.crashloop import CrashLoop, duration
from steersman.kubelet.observed import Observed, observe
from steersman.kubelet.plan import (
    Cause,
    Facts,
    Hold,
    Kill,
    Plan,
    Prepare,
    Remove,
    RemoveSandbox,
    Start,
    StopSandbox,
    plan,
)

from .pods import container, pod

NOW = 1000.0
UID = "u"


def sandbox(number: int = 0, state: SandboxState = SandboxState.READY) -> Sandbox:
    config = SandboxConfig("web", "default", UID, attempt=number, labels={labels.POD_UID: UID})
    return Sandbox(f"s{number}", config, state, NOW - 100 + number, ("10.244.0.1",))


def run(
    name: str, state: str = "running", exit_code: int = 0, count: int = 0, sandbox_id: str = "s0", **more: Any
) -> Container:
    wanted = container(name, **more)
    owner = pod("web", wanted, uid=UID)
    config = ContainerConfig(
        name,
        "image",
        attempt=count,
        labels=labels.container_labels(owner, wanted),
        annotations=labels.container_annotations(owner, wanted, count, ""),
    )
    ended = NOW - 1 if state == "exited" else 0
    return Container(
        f"{name}-{count}",
        sandbox_id,
        config,
        ContainerState(state),
        "image",
        NOW - 50 + count,
        NOW - 50,
        ended,
        exit_code,
    )


def seen(*containers: Container, sandboxes: tuple[Sandbox, ...] | None = None) -> Observed:
    return observe(UID, (sandbox(),) if sandboxes is None else sandboxes, containers, {})


def planned(wanted: dict[str, Any], there: Observed, facts: Facts | None = None) -> Plan:
    return plan(wanted, there, facts or Facts(), NOW)


INIT = {"initContainers": [container("one"), container("two")]}
SIDECAR = {"initContainers": [container("side", restartPolicy="Always"), container("two")]}
PROBED_SIDECAR = {
    "initContainers": [container("side", restartPolicy="Always", startupProbe={"exec": {}}), container("two")]
}


@pytest.mark.parametrize(
    ("spec", "there", "steps"),
    [
        pytest.param({}, seen(sandboxes=()), [Prepare(0)], id="nothing yet"),
        pytest.param({}, seen(), [Start("main", "containers", 0)], id="sandbox ready"),
        pytest.param({}, seen(run("main")), [], id="all runs"),
        pytest.param({}, seen(run("main", "created")), [Start("main", "containers", 1)], id="created, never started"),
        pytest.param({}, seen(run("main", "exited")), [Start("main", "containers", 1)], id="Always restarts 0"),
        pytest.param({"restartPolicy": "OnFailure"}, seen(run("main", "exited")), [StopSandbox()], id="OnFailure, 0"),
        pytest.param(
            {"restartPolicy": "OnFailure"},
            seen(run("main", "exited", 1)),
            [Start("main", "containers", 1)],
            id="OnFailure, 1",
        ),
        pytest.param({"restartPolicy": "Never"}, seen(run("main", "exited", 1)), [StopSandbox()], id="Never"),
        pytest.param(
            {},
            seen(run("main", "exited", sandbox_id="s0"), sandboxes=(sandbox(0, SandboxState.NOTREADY),)),
            [Prepare(1)],
            id="sandbox died",
        ),
        pytest.param(
            {"restartPolicy": "Never"},
            seen(run("main", "exited", 1), sandboxes=(sandbox(0, SandboxState.NOTREADY),)),
            [],
            id="sandbox of a finished pod",
        ),
        pytest.param(INIT, seen(), [Start("one", "initContainers", 0)], id="first init"),
        pytest.param(INIT, seen(run("one")), [], id="init runs"),
        pytest.param(INIT, seen(run("one", "exited")), [Start("two", "initContainers", 0)], id="second init"),
        pytest.param(INIT, seen(run("one", "exited", 1)), [Start("one", "initContainers", 1)], id="init retried"),
        pytest.param(
            INIT | {"restartPolicy": "Never"}, seen(run("one", "exited", 1)), [StopSandbox()], id="init failed for good"
        ),
        pytest.param(
            INIT, seen(run("one", "exited"), run("two", "exited")), [Start("main", "containers", 0)], id="init done"
        ),
        pytest.param(INIT, seen(run("main")), [], id="init forgotten while main runs"),
        pytest.param(
            INIT,
            seen(run("one", "exited"), run("two", "exited"), run("main", "exited"), sandboxes=(sandbox(1), sandbox(0))),
            [Start("one", "initContainers", 1)],
            id="init again in a new sandbox",
        ),
        pytest.param(SIDECAR, seen(), [Start("side", "initContainers", 0)], id="sidecar first"),
        pytest.param(SIDECAR, seen(run("side")), [Start("two", "initContainers", 0)], id="after the sidecar"),
        pytest.param(PROBED_SIDECAR, seen(run("side")), [], id="sidecar not started yet"),
        pytest.param(
            SIDECAR,
            seen(run("side", "exited", 1), run("two", "exited"), run("main")),
            [Start("side", "initContainers", 1)],
            id="sidecar restarted beside main",
        ),
        pytest.param(
            SIDECAR | {"restartPolicy": "Never"},
            seen(run("side"), run("two", "exited"), run("main", "exited")),
            [StopSandbox()],
            id="sidecar does not keep a pod alive",
        ),
        pytest.param(
            {},
            seen(run("main", count=3), *(run("main", "exited", count=each) for each in range(3))),
            [Remove("main-1"), Remove("main-0")],
            id="old runs are pruned",
        ),
    ],
)
def test_steps(spec: dict[str, Any], there: Observed, steps: list[Any]) -> None:
    assert list(planned(pod("web", uid=UID, **spec), there).steps) == steps


def test_replaced_sandboxes_go_once_they_are_empty() -> None:
    boxes = (sandbox(1), sandbox(0, SandboxState.NOTREADY))
    there = seen(run("main", sandbox_id="s1"), sandboxes=boxes)
    assert list(planned(pod("web", uid=UID), there).steps) == [RemoveSandbox("s0")]
    there = seen(run("main", count=1, sandbox_id="s1"), run("main", "exited"), sandboxes=boxes)
    assert list(planned(pod("web", uid=UID), there).steps) == []


def test_a_changed_image_replaces_the_container() -> None:
    wanted = pod("web", container(image="nginx:2"), uid=UID, restartPolicy="Never")
    message = "Container main definition changed, will be restarted"
    assert list(planned(wanted, seen(run("main"))).steps) == [
        Kill("main", "main-0", message, Cause.CHANGED),
        Start("main", "containers", 1),
    ]


@pytest.mark.parametrize("kind", ["liveness", "startup"])
def test_failed_probes_kill(kind: str) -> None:
    facts = replace(Facts(), **{kind: {"main-0": False}})
    kill, start = planned(pod("web", uid=UID), seen(run("main")), facts).steps
    assert isinstance(kill, Kill) and isinstance(start, Start)
    assert kill.message == f"Container main failed {kind} probe, will be restarted"
    steps = planned(pod("web", uid=UID, restartPolicy="Never"), seen(run("main")), facts).steps
    assert [type(each) for each in steps] == [Kill, StopSandbox]


def test_holds_delay_and_say_until_when() -> None:
    facts = Facts(holds={"main": Hold(NOW + 7)})
    assert planned(pod("web", uid=UID), seen(run("main", "exited", 1)), facts) == Plan((), NOW + 7)
    assert planned(pod("web", uid=UID), seen(sandboxes=()), Facts(holds={"": Hold(NOW + 3)})) == Plan((), NOW + 3)
    assert planned(pod("web", uid=UID), seen(), Facts(holds={"": Hold(NOW + 3)})) == Plan((), NOW + 3)


def test_one_container_on_hold_does_not_hold_the_others() -> None:
    wanted = pod("web", container("a"), container("b"), uid=UID)
    found = planned(wanted, seen(), Facts(holds={"a": Hold(NOW + 7)}))
    assert (list(found.steps), found.wake_at) == ([Start("b", "containers", 0)], NOW + 7)


@pytest.mark.parametrize(
    ("policy", "rules", "code", "again"),
    [
        ("Never", [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}], 42, True),
        ("Never", [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}], 1, False),
        ("Never", [{"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [42]}}], 1, True),
        ("Always", [], 0, True),
    ],
)
def test_container_restart_rules(policy: str, rules: list[Any], code: int, again: bool) -> None:
    wanted = pod("web", container(restartPolicy=policy, restartPolicyRules=rules), uid=UID, restartPolicy="Never")
    steps = planned(wanted, seen(run("main", "exited", code))).steps
    assert [type(each) for each in steps] == ([Start] if again else [StopSandbox])


def test_plans_come_to_rest() -> None:
    """Whatever the exit codes, following the plans of a pod that never restarts ends with nothing to do."""
    wanted = pod("web", container("a"), container("b"), uid=UID, restartPolicy="Never", **INIT)
    there: list[Container] = []
    boxes: tuple[Sandbox, ...] = ()
    for _ in range(20):
        steps = planned(wanted, seen(*there, sandboxes=boxes)).steps
        if not steps:
            break
        for step in steps:
            if isinstance(step, Prepare):
                boxes = (sandbox(step.attempt),)
            elif isinstance(step, StopSandbox):
                boxes = tuple(replace(each, state=SandboxState.NOTREADY) for each in boxes)
            elif isinstance(step, Start):
                there.append(run(step.name, "exited", 0, step.restart_count))
    assert [each.config.name for each in there] == ["one", "two", "a", "b"]
    assert [each.state for each in boxes] == [SandboxState.NOTREADY]


def test_crash_loop_doubles_and_forgets() -> None:
    loop = CrashLoop("web_default(u)")
    assert loop.hold("a", 100, 100) is None
    loop.restarted("a", 100, 100)
    held = loop.hold("a", 105, 106)
    assert held is not None and held.until == 115
    assert held.message == "back-off 10s restarting failed container=a pod=web_default(u)"
    assert loop.hold("a", 105, 116) is None
    finished = 105.0
    for delay in (20, 40, 80, 160, 300, 300):
        loop.restarted("a", finished, finished)
        finished += 1
        held = loop.hold("a", finished, finished)
        assert held is not None and held.until - finished == delay
    assert loop.hold("a", finished + 601, finished + 601) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (0.25, "250ms"), (3600, "1h0m0s"), (0, "0s"), (1.5, "1.5s")],
)
def test_durations_as_go_prints_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
