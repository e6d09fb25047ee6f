"""Addresses, records and cgroup files."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from steersman.engine.interface import Resources, RuntimeFailure, SandboxConfig
from steersman.engine.runtime.cgroups import Cgroups
from steersman.engine.runtime.ipam import AddressPool
from steersman.engine.runtime.records import Corrupt, Layout, SandboxRecord, is_id, load, new_id, save
from steersman.engine.runtime.sandbox import resolv_conf


def test_addresses_are_unique_and_run_out(tmp_path: Path) -> None:
    pool = AddressPool(tmp_path, "10.1.2.0/29")
    taken = [pool.allocate("a") for _ in range(5)]
    assert taken == [f"10.1.2.{number}" for number in range(2, 7)]
    with pytest.raises(RuntimeFailure, match="no free address"):
        pool.allocate("a")
    pool.release("10.1.2.4")
    pool.release("10.1.2.4")
    assert pool.allocate("b") == "10.1.2.4"


def test_a_released_address_is_the_last_to_return(tmp_path: Path) -> None:
    pool = AddressPool(tmp_path, "10.1.2.0/24")
    first = pool.allocate("a")
    pool.release(first)
    assert pool.allocate("a") != first


def test_addresses_from_many_threads_and_two_pools(tmp_path: Path) -> None:
    pools = [AddressPool(tmp_path, "10.1.2.0/24") for _ in range(2)]
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda pool=pool: found.extend(pool.allocate("x") for _ in range(20)))
        for pool in pools * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 160


def test_addresses_of_the_unknown_are_swept(tmp_path: Path) -> None:
    pool = AddressPool(tmp_path, "10.1.2.0/24")
    kept, lost = pool.allocate("kept"), pool.allocate("lost")
    (tmp_path / "10.1.2.99").write_bytes(b"\xff")
    assert sorted(AddressPool(tmp_path, "10.1.2.0/24").sweep({"kept"})) == sorted([lost, "10.1.2.99"])
    assert [path.name for path in tmp_path.iterdir()] == [kept]


@pytest.mark.parametrize("cidr", ["", "10.0.0.1/24", "nonsense"])
def test_bad_cidrs(tmp_path: Path, cidr: str) -> None:
    with pytest.raises(ValueError, match=r"network|address|host bits"):
        AddressPool(tmp_path, cidr)


def test_a_network_of_one_address_gives_none(tmp_path: Path) -> None:
    for cidr in ("10.0.0.1/32", "10.0.0.0/31", "10.0.0.0/30"):
        pool = AddressPool(tmp_path, cidr)
        taken = [pool.allocate("a")] if cidr.endswith("/30") else []
        assert taken in ([], ["10.0.0.2"])
        with pytest.raises(RuntimeFailure):
            pool.allocate("a")


def test_ids_never_become_paths_of_something_else(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.container(good := new_id()) == tmp_path / "run/containers" / good
    for bad in ("", "..", "../x", "a" * 63, "A" * 64, "a" * 64 + "\n", "/" * 64, "a" * 63 + "/"):
        assert not is_id(bad)
        for path in (layout.container, layout.sandbox, layout.pin, layout.exit, layout.written):
            with pytest.raises(ValueError, match="not an id"):
                path(bad)


def test_records_round_trip_and_corruption_is_told(tmp_path: Path) -> None:
    config = SandboxConfig("p", "n", "u", sysctls={"a": "b"}, resources=Resources(cpu_shares=5))
    record = SandboxRecord(new_id(), config, "boot", 12.5, "ready", ["10.0.0.2"])
    save(tmp_path / "record", record)
    assert load(tmp_path / "record", SandboxRecord) == SandboxRecord(
        record.id, load(tmp_path / "record", SandboxRecord).config, "boot", 12.5, "ready", ["10.0.0.2"]
    )
    assert load(tmp_path / "record", SandboxRecord).config.resources == Resources(cpu_shares=5)
    assert [path.name for path in tmp_path.iterdir()] == ["record"]
    for content in (b"", b"{", b'{"id": 1}', b"\xff"):
        (tmp_path / "record").write_bytes(content)
        with pytest.raises(Corrupt, match="record"):
            load(tmp_path / "record", SandboxRecord)
    with pytest.raises(Corrupt):
        load(tmp_path / "missing", SandboxRecord)


def test_resolv_conf() -> None:
    config = SandboxConfig("p", "n", "u", dns_servers=("1.1.1.1", "2.2.2.2"), dns_options=("ndots:5", "edns0"))
    assert resolv_conf(config) == "nameserver 1.1.1.1\nnameserver 2.2.2.2\noptions ndots:5 edns0\n"


LIMITS = Resources(
    cpu_shares=1024,
    cpu_quota=20000,
    cpu_period=100000,
    memory_limit=1000,
    memory_swap_limit=1500,
    pids_limit=-1,
    cpuset_cpus="0-1",
)


def test_limits_of_version_2(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    group = tmp_path / "engine/pod"
    group.mkdir(parents=True)
    files = ("cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "pids.max", "cpuset.cpus")
    for name in files:
        (group / name).touch()
    cgroups = Cgroups(tmp_path)
    cgroups.update("engine/pod", LIMITS)
    assert [(group / name).read_text() for name in files] == ["39", "20000 100000", "1000", "500", "max", "0-1"]
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert cgroups.oom_kills("engine/pod") == 2
    (group / "memory.stat").write_text("anon 300\ninactive_file 100\npgfault 7\npgmajfault 1\n")
    (group / "memory.current").write_text("900\n")
    (group / "cpu.stat").write_text("usage_usec 5\n")
    (group / "cgroup.procs").write_text("11\n12\n")
    usage = cgroups.usage("engine/pod")
    assert (usage.cpu_ns, usage.memory_usage, usage.memory_working_set, usage.pids) == (5000, 900, 800, 2)


def test_limits_of_version_1(tmp_path: Path) -> None:
    for name in ("cpu", "memory", "cpuset", "pids"):
        (tmp_path / name / "pod").mkdir(parents=True)
        (tmp_path / name / "cgroup.procs").touch()
    files = ("cpu/pod/cpu.shares", "cpu/pod/cpu.cfs_quota_us", "memory/pod/memory.limit_in_bytes", "pids/pod/pids.max")
    for name in files:
        (tmp_path / name).touch()
    cgroups = Cgroups(tmp_path)
    assert not cgroups.swap_limit_works()
    cgroups.update("pod", LIMITS)
    assert [(tmp_path / name).read_text() for name in files] == ["1024", "20000", "1000", "max"]
    with pytest.raises(FileNotFoundError):
        cgroups.usage("gone")
    assert cgroups.oom_kills("gone") == 0


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Cgroups(tmp_path)
