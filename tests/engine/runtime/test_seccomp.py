"""Seccomp profiles: what the default allows, reading profiles, and compiling them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steersman.engine.interface import RuntimeFailure
from steersman.engine.runtime import capabilities, libseccomp, seccomp
from steersman.engine.runtime.profiles import Profiles


def allowed(*held: str) -> set[str]:
    profile = seccomp.default_profile(held, "x86_64")
    return {
        name for rule in profile.rules if rule.action == "SCMP_ACT_ALLOW" and not rule.arguments for name in rule.names
    }


def test_the_default_refuses_what_reaches_the_host() -> None:
    names = allowed(*capabilities.DEFAULT)
    assert {"read", "execve", "futex", "epoll_wait", "chroot"} <= names
    assert names.isdisjoint(
        {"mount", "reboot", "init_module", "bpf", "keyctl", "add_key", "unshare", "clone3", "kexec_load"}
    )


def test_a_capability_brings_its_calls() -> None:
    assert {"mount", "unshare", "clone", "clone3"} <= allowed("SYS_ADMIN")
    assert "settimeofday" in allowed("SYS_TIME")
    assert seccomp.variant(["CHOWN"]) == "none"
    assert seccomp.variant(["SYS_TIME", "SYS_ADMIN"]) == "sys_admin-sys_time"


def test_no_call_is_listed_twice() -> None:
    for rule in seccomp.default_profile((), "x86_64").rules:
        assert len(set(rule.names)) == len(rule.names)


def test_compiles() -> None:
    program = libseccomp.compile_profile(seccomp.default_profile(capabilities.DEFAULT, "x86_64"))
    assert len(program) % 8 == 0
    assert len(program) > 1000


PROFILE: dict[str, Any] = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "architectures": ["SCMP_ARCH_X86_64"],
    "syscalls": [
        {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ],
}


def test_profiles_are_read_and_written_in_their_json_forms() -> None:
    profile = seccomp.parse(PROFILE, ["SYS_ADMIN"])
    assert [rule.names for rule in profile.rules] == [("read", "no_such_call"), ("socket",), ("mount",), ("write",)]
    document = seccomp.oci(profile)
    assert document["defaultErrnoRet"] == 38
    assert document["syscalls"][1]["args"] == [{"index": 0, "op": "SCMP_CMP_EQ", "value": 1, "valueTwo": 0}]
    assert len(libseccomp.compile_profile(profile)) % 8 == 0


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"defaultAction": "SCMP_ACT_DANCE"},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"]}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_DANCE"}]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "args": [{"index": 0, "value": 1, "op": "?"}]}],
        },
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_KILL", "args": [5]}]},
    ],
)
def test_broken_profiles_are_refused_with_a_reason(tmp_path: Path, document: object) -> None:
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(document))
    with pytest.raises(RuntimeFailure, match="seccomp"):
        Profiles(compile_here=True).filter(str(path), [])


def test_filters_for_the_runtime(tmp_path: Path) -> None:
    compiled = Profiles(compile_here=True)
    filter_, annotations = compiled.filter("RuntimeDefault", capabilities.DEFAULT)
    assert filter_ is not None
    assert list(annotations) == ["run.oci.seccomp_bpf_data"]
    assert compiled.filter("Unconfined", ()) == (None, {})
    plain, none = Profiles(compile_here=False).filter("RuntimeDefault", capabilities.DEFAULT)
    assert plain is not None
    assert len(plain["syscalls"]) > 5
    assert none == {}
    with pytest.raises(RuntimeFailure, match="no seccomp profile"):
        compiled.filter(str(tmp_path / "missing.json"), ())
    (tmp_path / "text.json").write_text("not json")
    with pytest.raises(RuntimeFailure, match="cannot use"):
        compiled.filter(str(tmp_path / "text.json"), ())
