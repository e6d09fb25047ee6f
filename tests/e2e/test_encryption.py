"""A cluster whose secrets are sealed with a KMS plugin's key: on the disk, and when the plugin is gone."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from steersman.cluster.profile import load
from steersman.cluster.supervisor import processes
from tests.e2e.conftest import Steer
from tests.store.kmsserver import KmsServer

pytestmark = pytest.mark.slow


@pytest.fixture
def plugin() -> Iterator[KmsServer]:
    with tempfile.TemporaryDirectory(prefix="kms") as folder:  # a socket's path may not be long
        server = KmsServer(Path(folder) / "kms.sock").start()
        yield server
        server.stop()


def eventually(good: Callable[[], bool]) -> None:
    """Ask until it is so; pytest ends what never comes."""
    while not good():
        continue


def test_secrets_outlive_a_plugin_that_comes_late(
    make_steer: Callable[[], Steer], plugin: KmsServer, tmp_path: Path
) -> None:
    file = tmp_path / "encryption.json"
    kms = {"apiVersion": "v2", "name": "vault", "endpoint": plugin.endpoint, "timeout": "1s"}
    rules = [{"resources": ["secrets"], "providers": [{"kms": kms}, {"identity": {}}]}]
    head = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration"}
    file.write_text(json.dumps({**head, "resources": rules}))
    home = make_steer()
    home("up", "--nodes", "0", f"--extra-config=apiserver.encryption-provider-config={file}")
    kubectl = home.kubectl()
    kubectl("create", "secret", "generic", "word", "--from-literal=word=hunter2")
    kubectl("create", "configmap", "word", "--from-literal=word=in-clear")
    profile = load("steer", home.home)
    assert profile is not None
    stored = b"".join(path.read_bytes() for path in profile.directory.glob("store.db*"))
    assert b"in-clear" in stored and b"k8s:enc:kms:v2:vault:" in stored
    assert b"aHVudGVyMg" not in stored
    plugin.stop()
    os.kill(processes(profile.run)["apiserver"], signal.SIGKILL)
    eventually(lambda: kubectl.run("get", "configmap", "word").returncode == 0)
    refused = kubectl.run("get", "secret", "word")
    assert refused.returncode != 0 and "rpc error" in refused.stderr + refused.stdout
    assert kubectl.run("get", "--raw", "/livez").returncode == 0
    assert kubectl.run("get", "--raw", "/readyz").returncode != 0
    plugin.start()
    eventually(lambda: kubectl.run("get", "--raw", "/readyz").returncode == 0)
    eventually(lambda: kubectl.run("get", "secret", "word").returncode == 0)
    assert kubectl("get", "secret", "word", "-o", "jsonpath={.data.word}") == "aHVudGVyMg=="
    home("delete")
