"""The doctor finds this machine fit, leaves no trace, and says what to install."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from steersman.engine import doctor


@pytest.mark.node
def test_this_machine_is_fit_and_stays_as_it_is() -> None:
    before = Path("/proc/self/mountinfo").read_text(), os.listdir("/sys/class/net")
    checks = doctor.probe()
    assert [check for check in checks if check.needed and not check.ok] == []
    assert doctor.is_fit(checks)
    assert (Path("/proc/self/mountinfo").read_text(), os.listdir("/sys/class/net")) == before


def test_missing_programs_are_named_with_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    found = {check.name: check for check in doctor.probe()}
    assert not doctor.is_fit(list(found.values()))
    assert found["container runtime"].remedy == "install the package crun"
    assert found["nftables"].remedy == "install the package nftables"
    assert "conmon" in found["container monitor"].why or "crun" in found["container monitor"].why


def test_every_failure_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    root = next(check for check in doctor.probe() if check.name == "root")
    assert (root.ok, root.why, root.remedy) == (
        False,
        "running as user 1000",
        "run as root, for example with sudo",
    )
