"""Configurations become OCI configurations."""

from __future__ import annotations

from typing import Any

import pytest

from steersman.engine.interface import ContainerConfig, ImageConfig, Mount, Resources, SandboxConfig, Security
from steersman.engine.runtime import capabilities, spec
from steersman.engine.runtime.spec import Facts, HostDevice
from steersman.engine.runtime.users import User

IMAGE = ImageConfig(entrypoint=("/entry",), cmd=("default",), env=(("PATH", "/image"), ("A", "1")), working_dir="/work")
FACTS = Facts(
    rootfs="rootfs",
    cgroup="steersman/pod1/c1",
    hostname="pod-1",
    user=User(7, 8, (8, 9), "/home/seven"),
    namespaces={"mount": "", "network": "/ns/net"},
)


def build(facts: Facts = FACTS, **options: Any) -> dict[str, Any]:
    return spec.build(ContainerConfig("c", "image", **options), IMAGE, facts)


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ((), (), ["/entry", "default"]),
        ((), ("mine",), ["/entry", "mine"]),
        (("/other",), (), ["/other"]),
        (("/other",), ("mine",), ["/other", "mine"]),
    ],
)
def test_command_and_args_replace_as_cri_says(
    command: tuple[str, ...], args: tuple[str, ...], expected: list[str]
) -> None:
    assert build(command=command, args=args)["process"]["args"] == expected


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(ValueError, match="no command specified"):
        spec.build(ContainerConfig("c", "image"), ImageConfig(), FACTS)


def test_environment_of_the_container_wins() -> None:
    process = build(env=(("A", "2"), ("B", "")), tty=True)["process"]
    expected = {"PATH=/image", "HOSTNAME=pod-1", "A=2", "B=", "TERM=xterm", "HOME=/home/seven"}
    assert set(process["env"]) == expected
    assert process["terminal"] is True


@pytest.mark.parametrize("env", [("A=B", "c"), ("", "x"), ("A", "nul\0")])
def test_bad_variables_are_refused(env: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="environment variable"):
        build(env=(env,))


def test_user_cwd_cgroup_and_namespaces() -> None:
    document = build()
    assert document["process"]["user"] == {"uid": 7, "gid": 8, "additionalGids": [8, 9]}
    assert document["process"]["cwd"] == "/work"
    assert document["linux"]["cgroupsPath"] == "/steersman/pod1/c1"
    assert document["linux"]["namespaces"] == [{"type": "mount"}, {"type": "network", "path": "/ns/net"}]


def test_default_confinement() -> None:
    linux = build()["linux"]
    assert "/proc/kcore" in linux["maskedPaths"]
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["resources"]["devices"] == [{"allow": False, "access": "rwm"}]


def test_masked_paths_can_be_cleared() -> None:
    linux = build(security=Security(masked_paths=(), readonly_paths=()))["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])


def test_privileged_is_not_confined() -> None:
    document = build(security=Security(privileged=True, no_new_privs=True))
    assert "maskedPaths" not in document["linux"]
    assert "seccomp" not in document["linux"]
    assert document["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert len(document["process"]["capabilities"]["bounding"]) == len(capabilities.ALL)
    assert "rw" in next(mount for mount in document["mounts"] if mount["destination"] == "/sys")["options"]


def test_mounts_are_ordered_and_replace_the_engines() -> None:
    facts = Facts(
        **{**{name: getattr(FACTS, name) for name in Facts.__slots__}, "mounts": [Mount("/etc/hosts", "/engine")]}
    )
    mounts = build(
        facts,
        mounts=(Mount("/a/b/c", "/3"), Mount("/a", "/1"), Mount("/etc/hosts", "/pod"), Mount("/dev/shm", "/shm")),
    )["mounts"]
    sources = [mount["source"] for mount in mounts if mount["type"] == "bind"]
    assert sources == ["/1", "/pod", "/shm", "/3"]


def test_mount_options() -> None:
    mounts = (Mount("/x", "/x", readonly=True, recursive_readonly=True, propagation="rslave"),)
    document = build(mounts=mounts)
    assert document["mounts"][-1]["options"] == ["rbind", "rslave", "ro", "rro"]
    assert document["linux"]["rootfsPropagation"] == "rslave"


def test_resources() -> None:
    resources = Resources(
        cpu_shares=512,
        cpu_quota=20000,
        cpu_period=100000,
        memory_limit=64,
        memory_swap_limit=64,
        pids_limit=10,
        oom_score_adj=-998,
        hugepage_limits={"2MB": 4},
    )
    facts = Facts(**{**{name: getattr(FACTS, name) for name in Facts.__slots__}, "least_oom_score": 0})
    document = build(facts, resources=resources)
    limits = document["linux"]["resources"]
    assert limits["cpu"] == {"shares": 512, "quota": 20000, "period": 100000}
    assert limits["memory"] == {"limit": 64, "swap": 64}
    assert limits["pids"] == {"limit": 10}
    assert limits["hugepageLimits"] == [{"pageSize": "2MB", "limit": 4}]
    assert document["process"]["oomScoreAdj"] == 0


def test_devices_are_made_and_allowed() -> None:
    device = HostDevice("/dev/x", "c", 1, 3, 0o666, 0, 0, "rw")
    facts = Facts(**{**{name: getattr(FACTS, name) for name in Facts.__slots__}, "devices": [device]})
    linux = build(facts)["linux"]
    assert linux["devices"][0]["path"] == "/dev/x"
    assert linux["resources"]["devices"][1] == {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"}


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a\0b", "."])
def test_log_paths_stay_in_their_directory(path: str) -> None:
    with pytest.raises(ValueError, match="log path"):
        spec.log_path(SandboxConfig("p", "n", "u", log_directory="/logs"), ContainerConfig("c", "i", log_path=path))


def test_log_path() -> None:
    config = ContainerConfig("c", "i", log_path="c/0.log")
    assert spec.log_path(SandboxConfig("p", "n", "u", log_directory="/logs"), config) == "/logs/c/0.log"
    assert spec.log_path(SandboxConfig("p", "n", "u"), config) == ""


@pytest.mark.parametrize(
    ("parent", "expected"),
    [("", "root/sandbox/id"), ("burstable/pod1", "root/burstable/pod1"), ("/absolute", "root/absolute")],
)
def test_cgroup_parents(parent: str, expected: str) -> None:
    assert spec.cgroup_parent("root", "id", SandboxConfig("p", "n", "u", cgroup_parent=parent)) == expected


@pytest.mark.parametrize("parent", ["../x", "a/../../b", "a\0"])
def test_cgroup_parents_stay_below(parent: str) -> None:
    with pytest.raises(ValueError, match="cgroup parent"):
        spec.cgroup_parent("root", "id", SandboxConfig("p", "n", "u", cgroup_parent=parent))


def test_exec_keeps_the_first_process_but_its_command() -> None:
    first = build()["process"]
    process = spec.exec_process(first, ["ls"], tty=True)
    assert (process["args"], process["terminal"], process["user"]) == (["ls"], True, first["user"])
    assert "TERM=xterm" in process["env"]
    assert first["args"] == ["/entry", "default"]


def test_capabilities() -> None:
    limit = frozenset(capabilities.ALL)

    def granted(add: tuple[str, ...] = (), drop: tuple[str, ...] = ()) -> set[str]:
        return set(capabilities.granted(add, drop, privileged=False, limit=limit))

    assert granted() == set(capabilities.DEFAULT)
    assert granted(("cap_sys_time",), ("KILL",)) == set(capabilities.DEFAULT) - {"KILL"} | {"SYS_TIME"}
    assert granted(("NET_ADMIN",), ("ALL",)) == {"NET_ADMIN"}
    assert granted(("ALL",), ("SYS_ADMIN",)) == set(capabilities.ALL) - {"SYS_ADMIN"}
    assert capabilities.granted((), (), privileged=True, limit=frozenset({"CHOWN"})) == ["CHOWN"]
    with pytest.raises(ValueError, match="unknown capability"):
        granted(("CAP_FLY",))
