"""Plugins of other packages, by entry point."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from steersman.scheduler import podinfo
from steersman.scheduler.columns import Columns
from steersman.scheduler.configuration import ConfigurationError, load
from steersman.scheduler.profiles import make_all
from steersman.scheduler.scheduler import decide
from tests.scheduler.test_scheduler import a_node, a_pod

MODULE = """
import numpy as np
from steersman.scheduler.framework import Plugin, Rejection
from steersman.scheduler.plugins import Known

def make(args):
    banned = args["banned"]

    def filter(columns, pod):
        mask = np.zeros(len(columns.live), bool)
        for name in banned:
            if name in columns.rows:
                mask[columns.rows[name]] = True
        return [Rejection(mask, "node(s) were banned")]

    return Plugin("Banned", filter=filter)

PLUGIN = Known(frozenset({"filter"}), make, default=False)
NOT_ONE = 3
"""
HEAD = b"apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
ON = b"""
profiles:
- plugins: {multiPoint: {enabled: [{name: Banned}]}}
  pluginConfig: [{name: Banned, args: {banned: [a]}}]
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    """A package as an installer leaves it behind."""
    (folder / "banned_plugin.py").write_text(MODULE)
    info = folder / "banned-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: banned\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[steersman.scheduler.plugins]\n{line}\n")
    monkeypatch.syspath_prepend(str(folder))


def test_a_plugin_of_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "Banned = banned_plugin:PLUGIN")
    profile = make_all(load(HEAD + ON))["default-scheduler"]
    columns = Columns()
    columns.set_node(a_node("a"))
    made = a_pod("p")
    made["metadata"] |= {"uid": "p", "namespace": "d"}
    pod = podinfo.read(made)
    assert decide(columns, pod, profile, Random(1)).message == "0/1 nodes are available: 1 node(s) were banned."
    columns.set_node(a_node("b"))
    assert decide(columns, pod, profile, Random(1)).node == "b"
    assert "Banned" not in [each.name for each in make_all(load(HEAD))["default-scheduler"].filters]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Banned = banned_plugin:NOT_ONE", "is no Known"),
        ("NodeName = banned_plugin:PLUGIN", "a plugin named NodeName already exists"),
        ("Banned = nowhere:PLUGIN", "No module named 'nowhere'"),
        ("Banned = banned_plugin:MISSING", "has no attribute 'MISSING'"),
    ],
)
def test_what_is_no_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, why: str) -> None:
    install(tmp_path, monkeypatch, line)
    with pytest.raises(ConfigurationError, match=why):
        make_all(load(HEAD))


def test_a_plugin_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "Banned = banned_plugin:PLUGIN")
    with pytest.raises(ConfigurationError, match="initializing plugin \"Banned\": 'banned'"):
        make_all(load(HEAD + ON.replace(b"banned: [a]", b"other: 1")))
