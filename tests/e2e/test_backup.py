"""`steer etcd`: a cluster's state to a file beside the running server, and back after it has stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Steer

pytestmark = pytest.mark.slow


def test_save_while_running_and_restore_when_stopped(make_steer: Callable[[], Steer], tmp_path: Path) -> None:
    steer, snapshot = make_steer(), tmp_path / "snapshot.db"
    steer("up", "--nodes", "0")
    kubectl = steer.kubectl()
    kubectl("create", "configmap", "before")
    steer("etcd", "snapshot", "save", str(snapshot))
    kubectl("create", "configmap", "after")
    steer("etcd", "defrag")
    refused = steer.run("etcd", "snapshot", "restore", str(snapshot))
    assert refused.returncode == 1
    assert "is running" in refused.stderr
    found = json.loads(steer("etcd", "snapshot", "status", str(snapshot), "-o", "json"))
    assert set(found) == {"hash", "revision", "totalKey", "totalSize"}
    assert "TOTAL KEYS" in steer("etcd", "snapshot", "status", str(snapshot))
    steer("stop")
    steer("etcd", "snapshot", "restore", str(snapshot), "--bump-revision", "1000000")
    steer("up")
    names = kubectl("get", "configmaps", "-o", "name").split()
    assert "configmap/before" in names
    assert "configmap/after" not in names
    kubectl("create", "configmap", "later")
    version = kubectl("get", "configmap", "later", "-o", "jsonpath={.metadata.resourceVersion}")
    assert int(version) > found["revision"] + 1_000_000
    steer("delete")


def test_wrong_use_is_told(make_steer: Callable[[], Steer], tmp_path: Path) -> None:
    steer = make_steer()
    for words, code, said in (
        (["snapshot", "save"], 2, "usage: steer etcd"),
        (["defrag", "save", "x"], 2, "usage: steer etcd"),
        (["snapshot", "status", str(tmp_path / "none")], 1, "there is no file"),
        (["snapshot", "restore", "x", "--bump-revision", "-1"], 2, "--bump-revision"),
        (["defrag"], 85, "not found"),
    ):
        done = steer.run("etcd", *words)
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
