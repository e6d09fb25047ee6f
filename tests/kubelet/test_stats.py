"""Rates and cAdvisor's metrics, from plain values."""

from __future__ import annotations

from steersman.engine.interface import Container, ContainerConfig, ContainerState, Resources, Stats
from steersman.kubelet import cadvisor, labels, machine
from steersman.kubelet.stats import Rates


def test_a_rate_needs_two_looks_a_second_apart() -> None:
    rates = Rates(0.0)
    assert rates.of("a", 1_000, 10.0) is None
    assert rates.of("a", 2_000, 10.5) is None
    assert rates.of("a", 3_000, 12.0) == 1_000
    assert rates.of("a", 9_000, 12.1) == 1_000
    assert rates.of("a", 10, 14.0) == 1_000, "a counter that began anew has no rate yet"
    rates.keep_only(set())
    assert rates.of("a", 10, 15.0) is None


def test_what_the_machine_used_grows() -> None:
    before, memory = machine.used()
    assert before > 0
    assert 0 < memory < machine.memory_bytes()
    assert machine.used()[0] >= before


def test_containers_have_cadvisors_names() -> None:
    marks = {labels.POD_NAME: "web", labels.POD_NAMESPACE: "default", labels.POD_UID: "u1"}
    limits = Resources(cpu_shares=102, cpu_quota=10_000, cpu_period=100_000, memory_limit=1 << 20)
    config = ContainerConfig("main", "sha256:1", labels=marks, annotations={labels.IMAGE: "nginx"}, resources=limits)
    container = Container("c1", "s1", config, ContainerState.RUNNING, "sha256:1", 1.0, started_at=2.0, pid=7)
    usage = Stats(3.0, 2_500_000_000, 4096, 2048, 1024, 1, 0, 5, 512, 1, 10, 20)
    lines = cadvisor.metrics([(container, usage)], 4, 1 << 30).splitlines()
    who = 'container="main",id="/kubepods/podu1/c1",image="nginx",name="c1",namespace="default",pod="web"'
    on_all = who.replace(",id", ',cpu="total",id')
    network = 'id="/kubepods/podu1",interface="eth0",namespace="default",pod="web"'
    for line in (
        "machine_cpu_cores 4",
        f"container_cpu_usage_seconds_total{{{on_all}}} 2.5",
        f"container_memory_working_set_bytes{{{who}}} 2048",
        f"container_start_time_seconds{{{who}}} 2",
        f"container_spec_cpu_quota{{{who}}} 10000",
        f"container_network_receive_bytes_total{{{network}}} 10",
        f"container_network_transmit_bytes_total{{{network}}} 20",
    ):
        assert line in lines
